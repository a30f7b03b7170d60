"""One isolated process: walls, a clean environment, a clock, limits, and nobody left afterwards.

Owns the supervisor beside each slot (`supervisor.py`, which runs the commands) and what it answers.
Which walls there are is in `ladder`, how they are built in `walls`. Knows no git, no harness and no
metric: it is told what to run, where, for how long, and what may be seen.

No PR_SET_PDEATHSIG between us and the supervisor: it fires when the *thread* that forked ends, and
commands are run from pool threads. The supervisor watches its end of a socket instead. It has one
thread, so the walls that it starts may die with it.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Literal, Self

import psutil

from swarm.errors import SwarmError
from swarm.records import ProcessStamp
from swarm.removal import remove_tree
from swarm.sandbox import cgroup
from swarm.sandbox.ladder import Rung
from swarm.sandbox.leftovers import MARKER, end_leftover, stamp, sweep
from swarm.sandbox.walls import Mount, View, Walled, bubblewrap, landlock

GRACE_S = 0.5
"""Between SIGTERM and SIGKILL when the owner is gone. Timeouts and cancellations kill at once."""
_PROGRAM = Path(__file__).with_name("supervisor.py")
_START_S = 60.0
_OVERDUE_S = 10.0
"""A supervisor this late was stopped by its command, or hangs: it is replaced."""
_CANCEL_POLL_S = 0.025
_TASKS, _SLACK = 8, 256
"""Threads that a process may have on average, where the kernel counts threads; and those that this
user may start elsewhere in the meantime."""


@dataclass(frozen=True)
class Limits:
    """What one command, with all its processes, may take. None is without limit."""

    memory: int | None = None
    """Bytes of all its processes together."""
    processes: int | None = None
    file_size: int | None = None
    """Bytes of each file that it writes."""
    tmp: int | None = None
    """Bytes in /tmp, and as many in /dev/shm, where the rung has its own."""


@dataclass(frozen=True)
class Command:
    """What to run. `env` is all the environment there is, but see `Sandbox.run`."""

    argv: tuple[str, ...]
    cwd: Path
    """Its working directory: below one of the view's mounts."""
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
    view: View | None = None
    """What it sees of the machine; None is its working directory, writable, at its own path."""


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
    over: Literal["memory", "processes"] | None = None
    """The limit that it was ended for."""
    error: str | None = None
    """Why there is no fair outcome: it could not be started, or the sandbox broke."""
    unstarted: bool = False
    """True when `error` is the command's own: no such program, or no such directory."""


class Sandbox:
    """The place where one slot runs its commands, one after the other. Not thread-safe."""

    supervisor: ProcessStamp | None = None
    """The process to end if this one dies without a trace; another after a breakdown."""

    def __init__(self, rung: Rung, *, scratch: Path, limits: Limits | None = None) -> None:
        self.rung, self.limits = rung, limits or Limits()
        self.scratch = scratch.absolute()
        self._home = self.scratch / "home"
        self._tmp = self.scratch / "tmp"
        self._link: socket.socket | None = None
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cgroup = self._limited()
        # The kernel counts a user's threads all together, and not at all those of root.
        own = self._cgroup is None and os.geteuid() != 0 and self.limits.processes is not None
        self._tasks = _own_tasks() + _TASKS * (self.limits.processes or 0) + _SLACK if own else None
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
        walled = self._wall_in(command, dict(command.env) | {MARKER: token})
        message = {"op": "run", "order": self._order(command, walled)}
        if self._cgroup is not None:
            processes = self.limits.processes
            self._cgroup.begin(self.limits.memory, processes and processes * _TASKS)
        try:
            answer = self._exchange(message, command.timeout_s, cancel)
        except BlockingIOError as error:  # the machine has no process to spare
            self._give_up(token)
            return Outcome(None, error=f"cannot start a supervisor: {error.strerror}")
        except BaseException:
            self._give_up(token)
            raise
        if isinstance(answer, str):
            self._give_up(token)
            return Outcome(None, error=answer)
        spent: bool = answer.pop("spent")
        outcome = self._outcome(answer, command)
        if spent:
            # What lives on would be in the way of the next command, and count against its limits.
            self._give_up(token)
        return outcome

    def inside(self, path: Path, view: View) -> str:
        """Give the path by which a command with this view knows a file."""
        return view.inside(path) if self.rung.own_files else str(path)

    def _wall_in(self, command: Command, env: dict[str, str]) -> Walled:
        cwd = command.cwd.absolute()
        view = command.view or View((Mount(cwd, writable=True),))
        rung, tmp = self.rung, self.limits.tmp
        match rung.name:
            case "bubblewrap":
                return bubblewrap(rung.program, rung.dropped, view, command.argv, env, cwd, tmp)
            case "landlock":
                return landlock(view, command.argv, env, cwd, tmp)
            case _:
                private = {"HOME": str(self._home), "TMPDIR": str(self._tmp)}
                return Walled(command.argv, private | env, str(cwd))

    def _order(self, command: Command, walled: Walled) -> dict[str, Any]:
        events = self._cgroup and self._cgroup.memory_events
        return {
            "argv": walled.argv,
            "cwd": walled.cwd,
            "env": walled.env,
            "walls": self.rung.walls,
            "timeout_s": command.timeout_s,
            "log": str(command.log.absolute()),
            "errors": None if command.errors is None else str(command.errors.absolute()),
            "output_limit": command.output_limit,
            "append": command.append,
            "stdin": None if command.stdin is None else str(command.stdin.absolute()),
            "memory": None if events else self.limits.memory,
            "processes": self.limits.processes,
            "file_size": self.limits.file_size,
            "tasks": self._tasks,
            "joins": [] if self._cgroup is None else self._cgroup.joins,
            "memory_events": events,
        }

    def _outcome(self, answer: dict[str, Any], command: Command) -> Outcome:
        said: str = answer.pop("walls")
        outcome = Outcome(**answer)
        if self._cgroup is not None and outcome.over is None:
            # Whoever lives on when one of its processes is ended for memory has taken too much.
            if self._cgroup.over_memory():
                outcome = replace(outcome, over="memory")
            elif outcome.status != 0 and self._cgroup.over_tasks():
                outcome = replace(outcome, over="processes")
        if not self.rung.walls or outcome.error or outcome.timed_out or outcome.cancelled:
            return outcome
        reason, unstarted = _of_walls(said, outcome.status, command.errors or command.log)
        if reason is None or outcome.over is not None:
            return outcome
        return replace(outcome, status=None, error=reason, unstarted=unstarted)

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
        if self._cgroup is not None:
            self._cgroup.close()
        for directory in (self._home, self._tmp):
            with suppress(OSError):
                remove_tree(directory)
        with suppress(OSError):
            (self.scratch / "supervisor.log").unlink()
        with suppress(OSError):
            self.scratch.rmdir()

    def _limited(self) -> cgroup.Cgroup | None:
        bounded = self.limits.memory is not None or self.limits.processes is not None
        return cgroup.make(self.scratch.parent.name) if bounded else None

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
    ) -> dict[str, Any] | str:
        """Send an order and wait for its answer, or for the reason why there is none."""
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
            return "supervisor died"
        return f"supervisor hangs: no answer {_OVERDUE_S:g} s after it was due"

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
        """Part with a supervisor that is dead, stuck or of no use, and end what it leaves."""
        if self._cgroup is not None:
            # The dead count in it until somebody collects them, who may take his time: another one.
            self._cgroup.close()
            self._cgroup = self._limited()
        if self.supervisor is not None:
            end_leftover(self.supervisor)
        self._disconnect()
        sweep(token)

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None
        self.supervisor = None


def _of_walls(said: str, status: int | None, log: Path) -> tuple[str | None, bool]:
    """Tell why a command was never begun, and whether that is its own fault."""
    for line in said.splitlines():
        with suppress(ValueError):
            found = json.loads(line)
            if "unstarted" in found:
                return found["unstarted"], True
            if "error" in found:
                return f"the sandbox cannot be set up: {found['error']}", False
    last = _last_line(log) if status == 1 else ""
    if last.startswith("bwrap: execvp "):
        name, _, why = last.removeprefix("bwrap: execvp ").partition(": ")
        return f"cannot run {name!r}: {why}", True
    # Bubblewrap names its child before it has built anything, so what counts is how it ended.
    if '"exit-code"' in said or '"stand"' in said or (status or 0) < 0:
        return None, False
    return f"the sandbox cannot be set up: {last.removeprefix('bwrap: ') or 'no reason'}", False


def _own_tasks() -> int:
    """Count the threads of this user."""
    found = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.uids().real == os.getuid():
                found += process.num_threads()
    return found


def _last_line(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
            return file.read().decode("utf-8", "replace").rstrip().rsplit("\n", 1)[-1]
    except OSError:
        return ""


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
