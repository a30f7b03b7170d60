"""One isolated process: a clean environment, a clock, capped output, and nobody left afterwards.

Owns the ladder of isolation (one rung so far: `process`), the supervisor beside each slot
(`supervisor.py`, which runs the commands) and the search for what a dead supervisor left behind.
Knows no git, no harness and no metric: it is told what to run, where, for how long.

No PR_SET_PDEATHSIG anywhere: it fires when the *thread* that forked ends, and commands are run
from pool threads. The supervisor watches its end of a socket instead.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Literal, Self

import psutil

from swarm.errors import PreconditionError, SwarmError
from swarm.records import ProcessStamp
from swarm.removal import remove_tree

MARKER = "SWARM_MEASUREMENT"
"""Variable in every command's environment: an unguessable token by which its processes are found
when the supervisor that knew them is dead."""
GRACE_S = 0.5
"""Between SIGTERM and SIGKILL when the owner is gone. Timeouts and cancellations kill at once."""
_PROGRAM = Path(__file__).with_name("supervisor.py")
_START_S = 60.0
_OVERDUE_S = 10.0
"""A supervisor this late was stopped by its command, or hangs: it is replaced."""
_CANCEL_POLL_S = 0.025
_SAME_START_S = 2.0
"""Start times come from the boot time, which moves a little when the clock is set."""


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: how commands are isolated, and what that leaves open."""

    name: str
    open: tuple[str, ...]

    @property
    def warning(self) -> str | None:
        """One sentence for every start and every report, or None when nothing is open."""
        if not self.open:
            return None
        return (
            f"sandbox `{self.name}`: open to candidates are {', '.join(self.open)}; "
            "run code that you do not trust in a container"
        )


_PROCESS_OPEN = ("files", "network", "/proc of others", "daemons that kill their supervisor")


def probe(mode: Literal["auto", "off"]) -> Rung:
    """Find the best rung that works here.

    Raises:
        PreconditionError: on Windows, which has none.
    """
    if os.name != "posix":
        raise PreconditionError(
            f"cannot run candidates on {sys.platform}: it has no process groups or signals",
            hint="run swarm on Linux, or inside WSL 2",
        )
    return Rung("off" if mode == "off" else "process", _PROCESS_OPEN)


@dataclass(frozen=True)
class Command:
    """What to run. `env` is all the environment there is, but see `Sandbox.run`."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    timeout_s: float
    log: Path
    """stdout, and stderr unless `errors` names another file; its directory must exist."""
    output_limit: int = 16 * 2**20
    """Bytes kept in the log: the first half and the last half of it."""
    append: bool = False
    stdin: Path | None = None
    errors: Path | None = None
    """stderr apart from stdout; capped like the log."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended. Everything but `status` is taken from outside the command."""

    status: int | None
    """Exit status, or minus the signal that ended it; None if it never ran to an end we saw."""
    timed_out: bool = False
    cancelled: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    """Largest resident memory of all its processes together, MiB; shared pages count each time."""
    truncated: bool = False
    error: str | None = None
    """Why there is no fair outcome: it could not be started, or the sandbox broke."""
    unstarted: bool = False
    """True when `error` is the command's own: no such program, or no such directory."""


class Sandbox:
    """The place where one slot runs its commands, one after the other. Not thread-safe."""

    supervisor: ProcessStamp | None = None
    """The process to end if this one dies without a trace; another after a breakdown."""

    def __init__(self, rung: Rung, *, scratch: Path) -> None:
        self.rung = rung
        self.scratch = scratch.absolute()
        self._home = self.scratch / "home"
        self._tmp = self.scratch / "tmp"
        self._link: socket.socket | None = None
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, command: Command, cancel: Event | None = None) -> Outcome:
        """Run a command to its end; none of its processes is left when this returns.

        Beyond `command.env` it gets HOME and TMPDIR, unless that names them: private directories,
        empty at every start; and `SWARM_MEASUREMENT`, a token.
        """
        if cancel is not None and cancel.is_set():
            return Outcome(None, cancelled=True)
        try:
            for directory in (self._home, self._tmp):
                _empty(directory)
        except OSError as error:
            return Outcome(None, error=f"cannot empty the scratch directory: {error}")
        token = secrets.token_hex(16)
        defaults = {"HOME": str(self._home), "TMPDIR": str(self._tmp)}
        env = defaults | dict(command.env) | {MARKER: token}
        argv, env = _enclose(self.rung, command.argv, env)
        message = {"op": "run", "order": _order(command, argv, env)}
        try:
            answer = self._exchange(message, command.timeout_s, cancel)
        except BaseException:
            self._give_up(token)
            raise
        if answer is None:
            self._give_up(token)
            return Outcome(None, error="supervisor died")
        return Outcome(**answer)

    def close(self) -> None:
        """End the supervisor, with everything below it, and remove the private directories."""
        if self._link is not None:
            with suppress(OSError):
                self._link.shutdown(socket.SHUT_WR)
                self._link.settimeout(_OVERDUE_S)
                while self._link.recv(4096):
                    pass
            self._link.close()
            self._link = None
        self.supervisor = None
        for directory in (self._home, self._tmp):
            with suppress(OSError):
                remove_tree(directory)
        with suppress(OSError):
            (self.scratch / "supervisor.log").unlink()
        with suppress(OSError):
            self.scratch.rmdir()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # A candidate can read the supervisor's environment: it holds nothing.
        argv = [sys.executable, "-S", "-E", "-I", str(_PROGRAM), str(theirs.fileno()), str(GRACE_S)]
        with theirs, (self.scratch / "supervisor.log").open("ab") as log:
            launcher = subprocess.Popen(
                argv,
                env={"PATH": os.defpath},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[theirs.fileno()],
            )
        ours.settimeout(_START_S)
        self._link = ours
        try:
            hello = self._receive()
        except OSError as error:
            self._disconnect()
            raise SwarmError(
                f"cannot start the supervisor of `{self.scratch}`: {error}",
                hint=f"read {self.scratch / 'supervisor.log'}",
            ) from None
        finally:
            launcher.wait()
        ours.settimeout(_OVERDUE_S)
        self.supervisor = stamp("supervisor", hello["pid"])

    def _exchange(
        self, message: dict[str, Any], timeout_s: float, cancel: Event | None
    ) -> dict[str, Any] | None:
        """Send an order and wait for its answer; None when the supervisor is dead or stuck."""
        try:
            self._send(message)
        except OSError:
            # It died between two commands: nothing was started yet.
            self._disconnect()
            self._start()
            self._send(message)
        link = self._link
        assert link is not None
        poll = select.poll()
        poll.register(link, select.POLLIN)
        deadline = time.monotonic() + timeout_s + _OVERDUE_S
        try:
            while (left := deadline - time.monotonic()) > 0:
                watching = cancel is not None
                if poll.poll(min(_CANCEL_POLL_S if watching else 60.0, left) * 1000):
                    return self._receive()
                if cancel is not None and cancel.is_set():
                    self._send({"op": "cancel"})
                    deadline = time.monotonic() + _OVERDUE_S
                    cancel = None
        except OSError:
            pass
        return None

    def _send(self, message: dict[str, Any]) -> None:
        if self._link is None:
            raise ConnectionError("not connected")
        body = json.dumps(message).encode()
        self._link.sendall(len(body).to_bytes(4, "big") + body)

    def _receive(self) -> dict[str, Any]:
        return json.loads(self._exactly(int.from_bytes(self._exactly(4), "big")))

    def _exactly(self, count: int) -> bytes:
        assert self._link is not None
        data = bytearray()
        while len(data) < count:
            piece = self._link.recv(count - len(data))
            if not piece:
                raise ConnectionError("it ended")
            data += piece
        return bytes(data)

    def _give_up(self, token: str) -> None:
        """Part with a supervisor that is dead or stuck, and end what it leaves."""
        if self.supervisor is not None:
            end_leftover(self.supervisor)
        self._disconnect()
        _sweep(token)

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None
        self.supervisor = None


def _enclose(
    rung: Rung, argv: tuple[str, ...], env: dict[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Wrap a command for a rung. Higher rungs put their own program in front here."""
    assert rung.name in ("process", "off")
    return argv, env


def _order(command: Command, argv: tuple[str, ...], env: dict[str, str]) -> dict[str, Any]:
    return {
        "argv": argv,
        "cwd": str(command.cwd.absolute()),
        "env": env,
        "timeout_s": command.timeout_s,
        "log": str(command.log.absolute()),
        "errors": None if command.errors is None else str(command.errors.absolute()),
        "output_limit": command.output_limit,
        "append": command.append,
        "stdin": None if command.stdin is None else str(command.stdin.absolute()),
    }


# --- private directories -----------------------------------------------------------------------


def _empty(directory: Path) -> None:
    """Make `directory` an empty directory, whatever a command has made of it."""
    try:
        if stat.S_ISDIR(directory.lstat().st_mode) and not os.listdir(directory):
            return
    except (FileNotFoundError, PermissionError):
        pass
    remove_tree(directory)
    directory.mkdir(mode=0o700)


# --- processes by their stamp ------------------------------------------------------------------


def stamp(role: str, pid: int | None = None) -> ProcessStamp:
    """Describe a living process (default: this one) so that it can be found again."""
    process = psutil.Process(pid)
    return ProcessStamp(
        role=role, host=socket.gethostname(), pid=process.pid, started=process.create_time()
    )


def end_leftover(stamp: ProcessStamp) -> bool:
    """Kill the stamped process and its descendants, if it is this host's and the very same."""
    if stamp.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(stamp.pid)
        if abs(process.create_time() - stamp.started) > _SAME_START_S:
            return False
        if not _lives(process):
            return False
    except psutil.NoSuchProcess:
        return False
    _end_trees([process])
    return True


def _end_trees(roots: list[psutil.Process]) -> None:
    # What is below is stopped before it is killed, parents first: a tree that is killed leaf by
    # leaf forks on. The roots are never stopped: should we be killed in the middle, a supervisor
    # still ends what is left, and a stopped one would lie there for ever.
    below: dict[int, psutil.Process] = {}
    fresh = [child for root in roots for child in _below(root)]
    while fresh:
        for process in fresh:
            below[process.pid] = process
            with suppress(psutil.Error):
                process.send_signal(signal.SIGSTOP)
        found = [child for root in roots for child in _below(root)]
        fresh = [process for process in found if process.pid not in below]
    doomed = [*roots, *below.values()]
    for process in doomed:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5
    while any(_lives(p) for p in doomed) and time.monotonic() < until:
        time.sleep(0.005)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    # Who collects an orphan, and when, is not ours to wait for.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _sweep(token: str) -> None:
    """Kill every process that carries the token of a command, until none is found."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        found = [p for p in psutil.process_iter() if _carries(p, token)]
        if not found:
            return
        _end_trees(found)


def _carries(process: psutil.Process, token: str) -> bool:
    try:
        return process.environ().get(MARKER) == token
    except (psutil.Error, OSError):
        return False
