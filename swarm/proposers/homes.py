"""What of the user's home a coding agent is lent: its login and settings, on every rung.

Owns the private home of one call. Behind walls a login is the user's own file and settings are
copies: what a program writes into settings (hooks, servers, notifiers) would later be run outside.
Without walls a link leads to the program's own directory.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from swarm.proposers.clis import Cli, HomePath
from swarm.sandbox import Mount, Rung

XDG = {
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
    "XDG_CACHE_HOME": ".cache",
}
_LOGIN = 2**20
"""Most bytes of a renewed login."""


class Login(NamedTuple):
    """A login that a private home leads to."""

    place: Path
    """The link, in the private home."""
    own: Path
    """The user's file."""
    before: bytes

    @property
    def mount(self) -> Mount:
        """What a sandbox has to show for the link to lead somewhere."""
        return Mount(self.own, writable=True)


def furnish(home: Path, cli: Cli, rung: Rung) -> tuple[Login, ...]:
    """Fill a private home with what a program may have of the user's; give what it leads to."""
    home, logins = home.resolve(), list[Login]()
    for item in cli.home:
        source, place = located(item.path, item.moved_by), home / item.path
        if not source.exists():
            continue
        if item.copied or (rung.walls and source.is_file()):
            _copy(source, place, item.fields)
        elif rung.walls:
            logins += _behind_walls(source, place, item)
        else:
            _parent(place).symlink_to(source, target_is_directory=source.is_dir())
    return tuple(logins)


def _behind_walls(source: Path, place: Path, item: HomePath) -> list[Login]:
    for name in item.settings:
        if (source / name).is_file():
            _copy(source / name, place / name)
    logins: list[Login] = []
    for name in item.logins:
        own = (source / name).resolve()
        if own.is_file():
            _parent(place / name).symlink_to(own)
            logins.append(Login(place / name, own, own.read_bytes()))
    return logins


def _parent(place: Path) -> Path:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def _copy(source: Path, place: Path, fields: tuple[str, ...] = ()) -> None:
    shutil.copyfile(source, _parent(place))
    place.chmod(0o600)
    if fields:
        place.write_text(json.dumps(_some(place, fields)), encoding="utf-8")


def _some(place: Path, fields: tuple[str, ...]) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        told = json.loads(place.read_bytes())
        return {name: told[name] for name in fields if name in told}
    return {}


def bring_home(logins: tuple[Login, ...]) -> None:
    """Hand logins over that were renewed by putting a new file in place of the link.

    One that was written into is the user's already.
    """
    for login in logins:
        with suppress(OSError):
            renewed = _left_at(login.place)
            if renewed and renewed != login.before:
                _replace(login.own, renewed)


def _left_at(place: Path) -> bytes:
    """Read a small regular file that no link leads to, on all its way."""
    if os.path.realpath(place) != str(place):
        return b""
    state = place.lstat()
    small = stat.S_ISREG(state.st_mode) and state.st_size <= _LOGIN
    return place.read_bytes() if small else b""


def _replace(own: Path, data: bytes) -> None:
    handle, draft = tempfile.mkstemp(dir=own.parent, prefix=f".{own.name}-")
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.replace(draft, own)
    except OSError:
        os.unlink(draft)
        raise


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
