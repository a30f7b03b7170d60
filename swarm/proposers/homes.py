"""What of the user's home a coding agent is lent: its login and settings, on every rung.

Owns the private home of one call. Where the sandbox has a file system of its own, the user's
directory is mounted into it with all but a few names covered; elsewhere a link leads to it. Never a
copy of a login: one that is renewed here must be the user's own from then on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from swarm.proposers.clis import Cli, HomePath
from swarm.sandbox import Mount, Rung

XDG = {
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
    "XDG_CACHE_HOME": ".cache",
}


class Lent(NamedTuple):
    """What a sandbox has to add for a home to be complete."""

    mounts: tuple[Mount, ...] = ()
    covered: tuple[str, ...] = ()
    """Places below the mounts where nothing is to be seen."""


def furnish(home: Path, cli: Cli, rung: Rung) -> Lent:
    """Fill a private home with what a program may have of the user's."""
    mounts: list[Mount] = []
    covered: list[str] = []
    for item in cli.home:
        source = located(item.path, item.moved_by)
        if not source.exists():
            continue
        place = home / item.path
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if item.copied:
            shutil.copyfile(source, place)
            place.chmod(0o600)
        elif rung.own_files:
            place.mkdir() if source.is_dir() else place.touch()
            mounts.append(Mount(source.resolve(), str(place), writable=True))
            covered += [str(place / name) for name in _private(source, item)]
        else:
            place.symlink_to(source, target_is_directory=source.is_dir())
            mounts.append(Mount(source.resolve(), writable=True))
    return Lent(tuple(mounts), tuple(covered))


def _private(source: Path, item: HomePath) -> list[str]:
    """Name what of a directory is the user's own business: the record of other work, above all."""
    if item.shown is None or not source.is_dir():
        return []
    return sorted(name for name in os.listdir(source) if name not in item.shown)


def located(path: str, moved_by: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Say where something below the user's home is, which a variable may have moved."""
    home = Path(environ.get("HOME") or Path.home())
    place = environ.get(moved_by) if moved_by else None
    if not place:
        return home / path
    # An XDG variable names the directory of all programs, another the program's own.
    return Path(place) / Path(path).name if moved_by in XDG else Path(place)


def login_of(cli: Cli, environ: Mapping[str, str]) -> Path | None:
    """Find a file that says that somebody has logged in to a program."""
    for login in cli.logins:
        for item in cli.home:
            if login == item.path or login.startswith(f"{item.path}/"):
                below = login[len(item.path) :].lstrip("/")
                place = located(item.path, item.moved_by, environ)
                place = place / below if below else place
                if place.is_file():
                    return place
    return None
