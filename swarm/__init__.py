"""swarm: parallel agents that search over git branches. See README.md and docs/."""

__version__ = "0.1.0"
