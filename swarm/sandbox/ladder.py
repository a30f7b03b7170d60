"""The ladder of isolation: which rungs there are, what each leaves open, and which one holds here.

A rung is tried out with the very flags that commands will get, never believed in because a program
is installed. Between two rungs nobody changes over in the middle of a run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from shutil import which
from typing import Literal

from swarm.errors import PreconditionError
from swarm.sandbox.walls import OUT, STATUS_FD, WORK, Mount, View, Walled, bubblewrap, landlock

Mode = Literal["auto", "require", "off"]
RungName = Literal["bubblewrap", "landlock", "process", "off"]
ORDER: tuple[RungName, ...] = ("bubblewrap", "landlock", "process", "off")
"""The strongest first."""

FILE_NAMES, SOCKETS = "names of files", "sockets that have a file"
FILES, NETWORK, PROC, SIGNALS = "files", "network", "/proc of others", "signals to others"
LEFTOVERS, DAEMONS = "leftovers outside the export", "daemons that kill their supervisor"
SIZES = "the size of /tmp"
OPEN: dict[RungName, tuple[str, ...]] = {
    "bubblewrap": (),
    "landlock": (FILE_NAMES, SOCKETS),
    "process": (FILES, NETWORK, PROC, SIGNALS, LEFTOVERS, SIZES, DAEMONS),
    "off": (FILES, NETWORK, PROC, SIGNALS, LEFTOVERS, SIZES, DAEMONS),
}
"""What a command can reach on each rung that it should not; tests/attacks proves each of them."""
_NEWER_FLAGS = {"--disable-userns": "new user namespaces", "--size": SIZES}
"""Flags of bubblewrap 0.8 and 0.7, and what is open without them."""
_PROBE_S = 20.0
INSTALL = (
    "install bubblewrap (`apt install bubblewrap`, `dnf install bubblewrap`); where it is there, "
    "user namespaces are closed: on Ubuntu load the AppArmor profile `bwrap-userns-restrict`, in a "
    "container allow them (`--security-opt seccomp=unconfined`, or a profile with `clone` and "
    "`unshare`)"
)


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: how commands are isolated, and what that leaves open."""

    name: RungName
    open: tuple[str, ...]
    program: str = ""
    """Path of bubblewrap."""
    dropped: tuple[str, ...] = ()
    """Flags that this bubblewrap does not know."""
    why: str = ""
    """Why no higher rung holds."""

    @property
    def own_files(self) -> bool:
        """Tell whether a command has a file system of its own, with fixed places."""
        return self.name == "bubblewrap"

    @property
    def walls(self) -> bool:
        """Tell whether a command is kept from the machine at all."""
        return self.name in ("bubblewrap", "landlock")

    @property
    def warning(self) -> str | None:
        """One sentence for every start and every report, or None when nothing is open."""
        if not self.open:
            return None
        why = f" ({self.why})" if self.why else ""
        words = f"sandbox `{self.name}`: open to candidates are {', '.join(self.open)}{why}"
        return f"{words}; {INSTALL if self.name == 'process' else 'see docs/sandbox.md'}"


PROCESS = Rung("process", OPEN["process"])
"""The lowest, which every machine has."""


def probe(mode: Mode, *, gpus: bool = False) -> Rung:
    """Find the best rung that works here.

    Args:
        mode: as in the config; `require` is content with `bubblewrap` only.
        gpus: whether commands use GPUs, which must then work inside.

    Raises:
        PreconditionError: on Windows, which has none; or `require` cannot be met.
    """
    if os.name != "posix":
        raise PreconditionError(
            f"cannot run candidates on {sys.platform}: it has no process groups or signals",
            hint="run swarm on Linux, or inside WSL 2",
        )
    if mode == "off":
        return Rung("off", OPEN["off"])
    rung = _best(gpus)
    if mode == "require" and (rung.name != "bubblewrap" or rung.open):
        raise PreconditionError(
            f"`sandbox: require` cannot be met: {rung.why or ', '.join(rung.open) + ' is open'}",
            hint=f"{INSTALL}; `sandbox: auto` goes on with `{rung.name}` and says what is open",
        )
    return rung


def holds(rung: Rung, *, gpus: bool = False) -> str | None:
    """Say why a rung that another machine has found does not hold on this one, or None."""
    match rung.name:
        case "bubblewrap":
            return _try_bubblewrap(rung.program, rung.dropped, gpus)
        case "landlock":
            return _try_landlock(gpus)
        case _:
            return None


@lru_cache(maxsize=4)
def _best(gpus: bool) -> Rung:
    if sys.platform != "linux":
        return Rung("process", OPEN["process"], why=f"{sys.platform} has no namespaces")
    program = which("bwrap")
    reasons = ["bwrap is not installed"]
    if program is not None:
        dropped = _unknown_flags(program)
        reason = _try_bubblewrap(program, dropped, gpus)
        if reason is None:
            left = tuple(_NEWER_FLAGS[flag] for flag in dropped)
            return Rung("bubblewrap", (*OPEN["bubblewrap"], *left), program, dropped)
        reasons = [reason]
    reason = _try_landlock(gpus)
    if reason is None:
        return Rung("landlock", OPEN["landlock"], why=reasons[0])
    return Rung("process", OPEN["process"], why="; ".join([*reasons, reason]))


def _unknown_flags(program: str) -> tuple[str, ...]:
    done = _started((program, "--help"), {})
    return tuple(flag for flag in _NEWER_FLAGS if f"{flag} " not in done.stdout + "\n")


def _try_bubblewrap(program: str, dropped: tuple[str, ...], gpus: bool) -> str | None:
    def wall(view: View, argv: tuple[str, ...], env: dict[str, str], cwd: Path) -> Walled:
        return bubblewrap(program, dropped, view, argv, env, cwd, 2**20)

    return _trial("bwrap", wall, gpus)


def _try_landlock(gpus: bool) -> str | None:
    def wall(view: View, argv: tuple[str, ...], env: dict[str, str], cwd: Path) -> Walled:
        return landlock(view, argv, env, cwd, 2**20)

    return _trial("Landlock", wall, gpus)


_CUDA = "import ctypes,sys; sys.exit(ctypes.CDLL('libcuda.so.1').cuInit(0) not in (0, 100))"
"""nvidia-smi may work where CUDA does not; 100 is that there is no device."""


Wall = Callable[[View, tuple[str, ...], dict[str, str], Path], Walled]


def _trial(name: str, wall: Wall, gpus: bool) -> str | None:
    """Try walls out with all that a measurement has; give why they do not stand."""
    with tempfile.TemporaryDirectory(prefix="swarm-probe-") as folder:
        work, out = Path(folder, "work"), Path(folder, "out")
        work.mkdir()
        out.mkdir()
        mounts = (Mount(work, WORK, writable=True), Mount(out, OUT, writable=True))
        env = {"PATH": os.environ.get("PATH", os.defpath)}
        trials: list[tuple[bool, tuple[str, ...]]] = [(False, ("/bin/sh", "-c", "echo up > there"))]
        if gpus:
            trials.append((True, (sys.executable, "-S", "-E", "-c", _CUDA)))
        for devices, argv in trials:
            walled = wall(View(mounts, gpus=devices), argv, env, work)
            done = _started(walled.argv, walled.env)
            if done.returncode != 0:
                what = "CUDA does not start inside" if devices else "does not hold"
                return f"{name} {what}: {_reason(done)}"
        return None if (work / "there").exists() else f"{name} cannot write its own directory"


def _started(argv: tuple[str, ...], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; what it says on the status descriptor goes to stderr."""
    through = ("/bin/sh", "-c", f'exec {STATUS_FD}>&2 "$@"', "sh")
    try:
        return subprocess.run(
            [*through, *argv],
            env=env,
            cwd="/",
            text=True,
            errors="replace",
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_PROBE_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return subprocess.CompletedProcess(argv, 1, "", str(error))


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    said = [line for line in done.stderr.splitlines() if line.strip()]
    lines = [line for line in said if not line.startswith("{") or '"error"' in line]
    return lines[-1].removeprefix("bwrap: ")[:300] if lines else f"exit status {done.returncode}"
