"""Where the files lie that swarm brings along: `harness/`, `configs/`, and `plugin/` for agents.

In a checkout they stand beside the package, in an installed wheel inside it. Owns what of the
harnesses the commands of a target are shown: their programs, and never the examples beside them,
which hold the answers to themselves.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import swarm

HARNESS = "SWARM_HARNESS"
"""The variable that leads a target's commands to the harnesses that came with swarm."""


def bundled(name: str) -> Path:
    """Give the place of a bundled folder, whether or not it is there."""
    package = Path(swarm.__file__).resolve().parent
    inside = package / "_bundled" / name
    return inside if inside.exists() else package.parent / name


@cache
def _programs() -> tuple[tuple[str, bytes], ...]:
    """Give the files that lie directly in a harness, each with its path below all of them."""
    top = bundled("harness")
    found = sorted(p for p in top.glob("*/*") if p.is_file())
    return tuple((p.relative_to(top).as_posix(), p.read_bytes()) for p in found)


@cache
def _version() -> str:
    """Name the programs after what is in them."""
    digest = hashlib.sha256()
    for name, content in _programs():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def programs(below: Path) -> Path:
    """Give the directory below `below` that has the harnesses' programs, and make it if need be.

    It is named after what is in it: another version of swarm makes another, and whoever works
    with this one is not disturbed.
    """
    done = below / _version()
    if done.is_dir():
        return done
    below.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=below))
    for name, content in _programs():
        (making / name).parent.mkdir(exist_ok=True)
        (making / name).write_bytes(content)
    making.chmod(0o755)
    with suppress(OSError):  # another process was as quick
        os.rename(making, done)
    shutil.rmtree(making, ignore_errors=True)
    return done
