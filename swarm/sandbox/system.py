"""What of this machine every command may see: the system, and the tools that its PATH names.

Owns the list of places that are shown read-only, and of what lies below them and is not shown. All
else (homes, repositories, other disks) is not there for a command with a file system of its own.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_ROOTS = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/sys"),
    *("/nix/store", "/gnu/store"),
)
_PARTS = ("lib", "lib64", "libexec", "include")
"""What programs in a `bin` read beside it. Not `share`: in a home it holds more than programs'."""
_MANAGERS = frozenset(
    (
        *(".pyenv", ".asdf", ".rbenv", ".nodenv", ".nvm", ".volta", ".rustup", ".sdkman"),
        *(".linuxbrew", "miniconda3", "miniforge3", "anaconda3", "mambaforge"),
    )
)
"""Folders that hold tools and nothing else, whose programs find each other by its path."""


@dataclass(frozen=True)
class System:
    """Places of this machine, each absolute and free of links in its parents."""

    shown: tuple[str, ...]
    """Directories and files that are seen at their own place."""
    links: tuple[tuple[str, str], ...]
    """Links at the top (`/bin` -> `usr/bin`): place and target."""
    masked: tuple[str, ...]
    """What lies below something shown and is not seen itself."""


@lru_cache(maxsize=16)
def system(path: str, shielded: tuple[str, ...] = ()) -> System:
    """Find what a command with this PATH may see.

    Args:
        path: the value of its PATH.
        shielded: directories of which nothing is shown but tools on that PATH.
    """
    roots = [root for root in _ROOTS if os.path.isdir(root)]
    links = [(root, os.readlink(root)) for root in roots if os.path.islink(root)]
    plain = [root for root in roots if not os.path.islink(root)]
    tools = list(dict.fromkeys(_tools(path, [os.path.realpath(s) for s in shielded])))
    private = [*shielded, os.path.expanduser("~")]
    folders = dict.fromkeys(p for p in private if os.path.isdir(p))
    masked = [p for p in folders if _below_any(p, [*plain, *tools])]
    # What lies below something shown is seen already, unless a mask lies between.
    seen = [*roots, *(os.path.realpath(root) for root in roots)]
    fresh = [
        t
        for t in tools
        if not (_below_any(t, seen) or _strictly_below(t, tools)) or _strictly_below(t, masked)
    ]
    return System((*plain, *fresh), tuple(links), (*masked, *_secret("/etc")))


def _strictly_below(path: str, places: list[str]) -> bool:
    """Tell whether a path lies below one of the places other than itself."""
    return any(path.startswith(f"{place}/") for place in places)


def _tools(path: str, shielded: list[str]) -> Iterator[str]:
    """Give the places of the programs on a PATH, and of this interpreter."""
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix)):
        yield from _admitted([prefix], [])
    for entry in dict.fromkeys(path.split(os.pathsep)):
        folder = os.path.realpath(entry)
        if not os.path.isabs(entry) or not os.path.isdir(folder):
            continue
        yield from _admitted(_around(Path(folder)), shielded)
        if folder != entry:  # programs look for each other by the path that they were called by
            yield from _admitted(_around(Path(os.path.normpath(entry))), shielded)
        if not _below_any(folder, list(_ROOTS)):
            with suppress(OSError):
                yield from _admitted(_behind_links(folder), shielded)


def _around(folder: Path) -> Iterator[str]:
    """Give what the programs of a directory need to be seen of what is around it."""
    whole = _whole(folder)
    if whole is not None:
        yield str(whole)
        return
    yield str(folder)
    if folder.name in ("bin", "sbin") and str(folder.parent) != os.path.expanduser("~"):
        yield from (str(p) for part in _PARTS if (p := folder.parent / part).is_dir())


def _whole(place: Path) -> Path | None:
    """Give the directory of tools as a whole that a path lies in, if it lies in one."""
    for parent in (place, *place.parents):
        if parent.name in _MANAGERS or parent.name == "node_modules":
            return parent
    prefix = place if place.name != "bin" else place.parent
    marks = ("pyvenv.cfg", "conda-meta")
    return prefix if any((prefix / mark).exists() for mark in marks) else None


def _behind_links(folder: str) -> Iterator[str]:
    """Give where the programs of a directory really are that are links in it."""
    with os.scandir(folder) as entries:
        links = [entry.path for entry in entries if entry.is_symlink()]
    for link in links:
        real = Path(os.path.realpath(link))
        if real.exists() and not _below_any(str(real), [folder]):
            yield str(_home_of(real))


def _home_of(program: Path) -> Path:
    whole = _whole(program.parent)
    if whole is not None:
        return whole
    prefix = program.parent.parent
    interpreter = program.parent.name == "bin" and any(prefix.glob("lib/python3*/os.py"))
    return prefix if interpreter else program


def _admitted(places: Iterable[str], shielded: list[str]) -> Iterator[str]:
    """Leave out what would show a home, or a repository, for the sake of a tool in it."""
    home = os.path.realpath(os.path.expanduser("~"))
    for place in places:
        real = os.path.realpath(place)
        if real == "/" or home == real or home.startswith(f"{real}/"):
            continue
        if _below_any(real, shielded) and _whole(Path(real)) is None:
            continue
        yield place


def program_at(path: str, shielded: tuple[str, ...] = ()) -> list[str]:
    """Give what a program that a command names in full needs to be seen."""
    if not os.path.isabs(path) or not os.access(path, os.X_OK) or not os.path.isfile(path):
        return []
    real = Path(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    places: list[str] = []
    for program in dict.fromkeys((real, Path(os.path.normpath(path)))):
        around = program.parent.name in ("bin", "sbin") or _whole(program.parent) is not None
        places += _around(program.parent) if around else [str(program)]
    if real.is_symlink():
        places.append(str(_home_of(Path(os.path.realpath(real)))))
    found = _admitted(places, [os.path.realpath(s) for s in shielded])
    return [place for place in found if not _below_any(place, list(_ROOTS))]


def tools_of(folder: Path) -> list[str]:
    """Give the interpreter behind a virtual environment that is not part of the system."""
    if not (folder / "pyvenv.cfg").is_file():
        return []
    with suppress(OSError):
        found = _admitted(_behind_links(str(folder / "bin")), [])
        return [f for f in dict.fromkeys(found) if not _below_any(f, [*_ROOTS, str(folder)])]
    return []


def _below_any(path: str, places: list[str]) -> bool:
    """Tell whether a path is one of the places, or lies below one."""
    return any(path == place or path.startswith(f"{place.rstrip('/')}/") for place in places)


@lru_cache(maxsize=4)
def _secret(root: str) -> tuple[str, ...]:
    """List what root may read there and other users may not; nothing for other users."""
    if os.geteuid() != 0:
        return ()
    found: list[str] = []
    pending = [root]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                folder = stat.S_ISDIR(mode)
                wanted = stat.S_IROTH | (stat.S_IXOTH if folder else 0)
                if not stat.S_ISLNK(mode) and mode & wanted != wanted:
                    found.append(entry.path)
                elif folder:
                    pending.append(entry.path)
    return tuple(sorted(found))
