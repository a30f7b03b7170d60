"""From what a command may see to the program that walls it in: bubblewrap, or our own `confine.py`.

Owns the flags. A rung that has a file system of its own shows everything at fixed places, so that
nothing in a command depends on where a run lies; on the others paths are what they are.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import NamedTuple

from swarm.sandbox.system import System, system

WORK = "/swarm/work"
"""Where the directory of a command lies, inside."""
OUT = "/swarm/out"
"""Where it may leave files for swarm, inside."""
HOME, TMP, SHM = "/tmp/home", "/tmp", "/dev/shm"
STATUS_FD = 3
"""On which the walls say that they stand; closed before the command begins."""
_DOOR, _DOOR_INSIDE = Path(__file__).with_name("door.py"), "/swarm/door.py"
_CONFINE = Path(__file__).with_name("confine.py")
_GPUS = ("/dev/nvidia*", "/dev/nvidia-caps", "/dev/dri", "/dev/kfd", "/dev/dxg")
_RESOLVERS = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")


class Door(NamedTuple):
    """Where a command without a network hands out a listening socket of its own loopback."""

    path: Path
    """A unix socket."""
    port: int


class Mount(NamedTuple):
    """Something of the machine that a command sees beside the system."""

    source: Path
    place: str | None = None
    """Where, on a rung with a file system of its own; None is its own place."""
    writable: bool = False

    @property
    def inside(self) -> str:
        """The path by which it is seen there."""
        return self.place or str(self.source)


@dataclass(frozen=True)
class View:
    """What one command sees beside the system and its own /tmp, /dev/shm and HOME."""

    mounts: tuple[Mount, ...] = ()
    network: bool = False
    gpus: bool = False
    shielded: tuple[str, ...] = ()
    """Directories that are shown by no rule of the system's: repositories, runs, scratch."""
    door: Door | None = None
    home: str = HOME
    """Its HOME; below /tmp it is made empty."""

    def inside(self, path: Path) -> str:
        """Give the path by which a file below one of the mounts is seen there."""
        for mount in reversed(self.mounts):
            if path == mount.source or mount.source in path.parents:
                below = path.relative_to(mount.source).as_posix()
                return mount.inside if below == "." else f"{mount.inside}/{below}"
        return str(path)


class Walled(NamedTuple):
    """A command with its walls around it."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str


def bubblewrap(
    program: str,
    dropped: Sequence[str],
    view: View,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    tmp: int | None,
) -> Walled:
    """Wall a command in with bubblewrap.

    Args:
        program: path of bwrap.
        dropped: flags that this bwrap does not know.
        view: what it sees.
        argv: its words.
        env: its environment.
        cwd: its working directory, as swarm sees it.
        tmp: most bytes in /tmp, and in /dev/shm.
    """
    seen = system(env.get("PATH", ""), view.shielded)
    flags = [
        *("--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup-try", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--hostname", "swarm", "--json-status-fd", str(STATUS_FD)),
        *(() if view.network else ("--unshare-net",)),
        *_places(seen, view, None if "--size" in dropped else tmp),
        # A root's candidate is a root to /proc/sys, whatever it may do elsewhere.
        *("--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/"),
        *("--chdir", view.inside(cwd)),
    ]
    kept = [flag for flag in flags if flag not in dropped]
    words = _through_door(view, argv, program=_DOOR_INSIDE, door=f"{OUT}.door")
    return Walled((program, *kept, "--", *words), _at_home(view, env), "/")


def _places(seen: System, view: View, tmp: int | None) -> list[str]:
    """Give the flags that build the file system, parents before what lies in them."""
    rows: list[tuple[str, list[str]]] = [(p, ["--symlink", to, p]) for p, to in seen.links]
    rows += [(p, ["--ro-bind", p, p]) for p in seen.shown]
    rows += [(p, _mask(p)) for p in seen.masked]
    size = [] if tmp is None else ["--size", str(tmp)]
    rows.append(("/dev", ["--dev", "/dev"]))
    rows.append(("/proc", ["--proc", "/proc"]))
    rows += [(p, ["--perms", "1777", *size, "--tmpfs", p]) for p in (TMP, SHM)]
    if view.home.startswith(f"{TMP}/"):
        rows.append((view.home, ["--perms", "0700", "--dir", view.home]))
    if view.gpus:
        rows += [(p, ["--dev-bind-try", p, p]) for p in _devices()]
    if view.network:
        rows += [(p, ["--ro-bind-try", p, p]) for p in _RESOLVERS]
    for mount in view.mounts:
        how = "--bind" if mount.writable else "--ro-bind"
        rows.append((mount.inside, [how, str(mount.source), mount.inside]))
    if view.door is not None:
        for source, place in ((view.door.path, f"{OUT}.door"), (_DOOR, _DOOR_INSIDE)):
            rows.append((place, ["--ro-bind", str(source), place]))
    rows.sort(key=lambda row: len(Path(row[0]).parts))
    return [word for _, words in rows for word in words]


def _mask(path: str) -> list[str]:
    return ["--tmpfs", path] if os.path.isdir(path) else ["--ro-bind", "/dev/null", path]


def _devices() -> list[str]:
    return sorted(path for pattern in _GPUS for path in glob(pattern))


def _at_home(view: View, env: Mapping[str, str]) -> dict[str, str]:
    return {"HOME": view.home, "TMPDIR": TMP, **env}


def _through_door(view: View, argv: Sequence[str], *, program: str, door: str) -> tuple[str, ...]:
    """Have the command hand out a listening socket before it begins, if it has a door."""
    if view.door is None:
        return tuple(argv)
    python = (sys.executable, "-S", "-E", "-I", program)
    return (*python, door, str(view.door.port), "--", *argv)


def landlock(
    view: View, argv: Sequence[str], env: Mapping[str, str], cwd: Path, tmp: int | None
) -> Walled:
    """Wall a command in with namespaces and Landlock; it sees paths as they are."""
    seen = system(env.get("PATH", ""), view.shielded)
    read = [str(m.source) for m in view.mounts]
    read += [p for place in seen.shown for p in _without(place, seen.masked)]
    read += [p for p in _RESOLVERS if view.network]
    devices = _devices() if view.gpus else []
    door = "" if view.door is None else str(view.door.path)
    spec = {
        "argv": _through_door(view, argv, program=str(_DOOR), door=door),
        "cwd": str(cwd.absolute()),
        "read": [*read, *([door, str(_DOOR)] if door else [])],
        "write": [str(m.source) for m in view.mounts if m.writable],
        "devices": devices,
        "tmp": tmp,
        "network": view.network,
        "home": view.home,
        "locale": "LC_CTYPE" in env,
        "status": STATUS_FD,
    }
    program = (sys.executable, "-S", "-E", "-I", str(_CONFINE), json.dumps(spec))
    return Walled(program, _at_home(view, env), "/")


def _without(place: str, masked: Sequence[str]) -> list[str]:
    """Give what is left of a place: itself if nothing below it is masked."""
    if place in masked:
        return []
    if not any(m.startswith(f"{place}/") for m in masked):
        return [place]
    try:
        names = os.listdir(place)
    except OSError:
        return []
    return [p for name in names for p in _without(f"{place}/{name}", masked)]
