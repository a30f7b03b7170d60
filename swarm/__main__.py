"""Makes `python -m swarm` the same as `swarm`."""

from swarm.cli import main

if __name__ == "__main__":
    main()
