"""Where the files lie that swarm brings along: `harness/`, `configs/`, and `plugin/` for agents.

In a checkout they stand beside the package, in an installed wheel inside it.
"""

from __future__ import annotations

from pathlib import Path

import swarm

HARNESS = "SWARM_HARNESS"
"""The variable that leads a target's commands to the harnesses that came with swarm."""


def bundled(name: str) -> Path:
    """Give the place of a bundled folder, whether or not it is there."""
    package = Path(swarm.__file__).resolve().parent
    inside = package / "_bundled" / name
    return inside if inside.exists() else package.parent / name
