"""A cgroup for one slot's commands, where this machine lets us make one: limits by force.

Owns finding a place for it, its limits, and what the kernel says of them. Where there is none (no
root, a read-only tree) the supervisor's own watch has to do, which looks only now and then: a fork
bomb can be thousands of processes ahead of it.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_ROOT = Path("/")
_WANTED = ("memory", "pids")
_PREFIX = "swarm-"
_KILL_S = 2.0
_numbers = itertools.count()


@dataclass(frozen=True)
class _Folder:
    """One directory of it: all controllers together in version 2, one each in version 1."""

    path: Path
    unified: bool
    controllers: tuple[str, ...]

    def read(self, name: str) -> str:
        with suppress(OSError):
            return (self.path / name).read_text()
        return ""

    def write(self, name: str, text: str) -> bool:
        try:
            (self.path / name).write_text(text)
        except OSError:
            return False
        return True


class Cgroup:
    """Where the commands of one slot run, one after the other."""

    def __init__(self, folders: list[_Folder]) -> None:
        self._folders = folders
        self._kills = self._refusals = 0

    @property
    def joins(self) -> list[str]:
        """Files to which a process writes `0` to be in it, with all that come of it."""
        return [str(f.path / "cgroup.procs") for f in self._folders]

    @property
    def memory_events(self) -> str | None:
        """The file that counts whom the kernel has killed for memory, if it keeps to it here."""
        for folder in self._folders:
            if "memory" in folder.controllers:
                name = "memory.events" if folder.unified else "memory.oom_control"
                return str(folder.path / name)
        return None

    def begin(self, memory: int | None, tasks: int | None) -> None:
        """Set the limits of the next command; None is without."""
        for folder in self._folders:
            if "memory" in folder.controllers:
                self._limit_memory(folder, memory)
            if "pids" in folder.controllers:
                folder.write("pids.max", "max" if tasks is None else str(tasks))
        self._kills, self._refusals = self._count("oom_kill"), self._count("max")

    @staticmethod
    def _limit_memory(folder: _Folder, memory: int | None) -> None:
        if folder.unified:
            folder.write("memory.max", "max" if memory is None else str(memory))
            folder.write("memory.swap.max", "max" if memory is None else "0")
            return
        # The larger of the two has to move first, whichever way they go.
        names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        for name in (*names, names[0]):
            folder.write(name, "-1" if memory is None else str(memory))

    def over_memory(self) -> bool:
        """Tell whether the kernel has killed something in it for memory since it began."""
        return self._count("oom_kill") > self._kills

    def over_tasks(self) -> bool:
        """Tell whether the kernel has refused it a process since it began."""
        return self._count("max") > self._refusals

    def _count(self, key: str) -> int:
        files = {"oom_kill": ("memory.events", "memory.oom_control"), "max": ("pids.events",)}[key]
        for folder in self._folders:
            for name in files:
                for line in folder.read(name).splitlines():
                    word, _, number = line.partition(" ")
                    if word == key:
                        return int(number)
        return 0

    def kill(self) -> None:
        """End all that is in it."""
        for folder in self._folders:
            if "pids" in folder.controllers:
                folder.write("pids.max", "0")  # it can fork no more; `begin` opens it again
        until = time.monotonic() + _KILL_S
        while time.monotonic() < until:
            found = {int(p) for f in self._folders for p in f.read("cgroup.procs").split()}
            if not found:
                return
            if not any(f.unified and f.write("cgroup.kill", "1") for f in self._folders):
                # 0 is a process that our namespace has no number for; to kill it would be suicide.
                for pid in found - {0}:
                    with suppress(OSError):
                        os.kill(pid, 9)
            time.sleep(0.005)

    def close(self) -> None:
        """End all that is in it, and remove it."""
        self.kill()
        for folder in self._folders:
            with suppress(OSError):
                folder.path.rmdir()


def make(name: str, root: Path = _ROOT) -> Cgroup | None:
    """Make one that works, or give None; nothing is left of one that does not.

    Args:
        name: of the slot, for whoever lists cgroups.
        root: of the file system, for tests.
    """
    own = f"{_PREFIX}{name}.{next(_numbers)}-{os.getpid()}-{int(psutil.Process().create_time())}"
    made: list[_Folder] = []
    missing = set(_WANTED)
    for place in _places(root):
        wanted = tuple(c for c in place.controllers if c in missing)
        if not wanted:
            continue
        _sweep(place.path)
        folder = _Folder(place.path / own, place.unified, wanted)
        with suppress(OSError):
            folder.path.mkdir()
            made.append(folder)
            if _works(folder):
                missing -= set(wanted)
            else:
                made.pop().path.rmdir()
    return Cgroup(made) if made else None


def _places(root: Path) -> Iterator[_Folder]:
    """Give the directories in which one may be made: our own cgroup first, then what is above."""
    mounts = _mounts(root)
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, own = line.split(":", 2)
        controllers = tuple(c for c in names.split(",") if c in _WANTED)
        kind = controllers[0] if controllers else ("" if not names else None)
        if kind is None or kind not in mounts:
            continue
        top = mounts[kind]
        here = top / own.lstrip("/")
        for place in (here, *here.parents):
            if not place.is_relative_to(top):
                break
            if controllers:
                # A mount may show only part of the tree, and then our own place is its top. What
                # is above our own place would let a command out of the limits that we have.
                if place.is_dir():
                    yield _Folder(place, unified=False, controllers=controllers)
                    break
                continue
            with suppress(OSError):
                given = (place / "cgroup.subtree_control").read_text().split()
                if passed := tuple(c for c in _WANTED if c in given):
                    yield _Folder(place, unified=True, controllers=passed)


def _mounts(root: Path) -> dict[str, Path]:
    """Map controllers to where they are mounted; "" is version 2."""
    found: dict[str, Path] = {}
    with suppress(OSError):
        for line in (root / "proc/self/mountinfo").read_text().splitlines():
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.split(" ", 2)
            place = root / fields.split(" ")[4].lstrip("/")
            if kind == "cgroup2":
                found.setdefault("", place)
            elif kind == "cgroup":
                for name in options.split(","):
                    if name in _WANTED:
                        found.setdefault(name, place)
    return found


def _works(folder: _Folder) -> bool:
    """Put a process into it, for there is no other way to know."""
    pid = os.fork()
    if pid == 0:
        try:
            fd = os.open(folder.path / "cgroup.procs", os.O_WRONLY)
            os.write(fd, b"0")
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    limits = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max",)}
    here = all(any((folder.path / f).exists() for f in limits[c]) for c in folder.controllers)
    return status == 0 and here


def _sweep(place: Path) -> None:
    """Remove what makers that are dead have left there."""
    with suppress(OSError):
        for path in place.glob(f"{_PREFIX}*-*-*"):
            pid, _, started = path.name.rpartition("-")
            number = pid.rpartition("-")[2]
            if number.isdigit() and started.isdigit() and not _lives(int(number), int(started)):
                with suppress(OSError):
                    path.rmdir()


def _lives(pid: int, started: int) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 5
    except psutil.Error:
        return False
