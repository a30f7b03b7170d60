"""One command at a time: its input, its time, its output, and its end.

Owns process groups: whatever a command started in its group ends with it. Knows no checklist.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import IO, NamedTuple

OUTPUT_LIMIT = 2**20
"""Bytes; nobody reads a longer text, and a command in a loop would fill the disk."""
LOOK_S = 0.1
"""How often a running command is looked at."""

Command = str | tuple[str, ...]
"""A text is for the shell, words are an argv."""


class Cancelled(Exception):
    """Somebody else failed, and nobody waits for this command any more."""


class Ended(NamedTuple):
    """How a command ended."""

    output: str
    status: int | None
    """Its exit status; None if it was not started or had to be ended."""
    problem: str | None
    """Why it does not count, in words; None with status 0."""
    seconds: float


def run(
    command: Command,
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: bytes,
    timeout_s: float,
    cancel: Event,
    limit: int = OUTPUT_LIMIT,
) -> Ended:
    """Run a command to its end and give what it printed on stdout.

    Raises:
        Cancelled: `cancel` was set meanwhile.
    """
    argv: Sequence[str] = ("/bin/sh", "-c", command) if isinstance(command, str) else command
    started = time.monotonic()
    # Files and no pipes: a pipe that a grandchild holds open would never end.
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen(
                argv, cwd=cwd, env=env, stdin=given, stdout=out, stderr=err, start_new_session=True
            )
        except (OSError, ValueError) as error:
            return Ended("", None, f"cannot be started: {error}", 0.0)
        try:
            ended_by = _wait(process, (out, err), started + timeout_s, cancel, limit)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        seconds = time.monotonic() - started
        if ended_by == "cancel":
            raise Cancelled
        problem = {
            None: _problem(status, err),
            "time": f"took longer than {timeout_s:g} s",
            "size": f"printed more than {limit // 2**20} MiB",
        }[ended_by]
        text = "" if ended_by == "size" else _text(out, limit)
        return Ended(text, status if ended_by is None else None, problem, seconds)


def _wait(
    process: "subprocess.Popen[bytes]",
    files: Sequence[IO[bytes]],
    deadline: float,
    cancel: Event,
    limit: int,
) -> str | None:
    """Wait for the end; give what came before it, or None."""
    while True:
        left = deadline - time.monotonic()
        _pause(process, max(0.0, min(LOOK_S, left)))
        if any(os.fstat(file.fileno()).st_size > limit for file in files):
            return "size"
        if process.returncode is not None:
            return None
        if cancel.is_set():
            return "cancel"
        if left <= 0:
            return "time"


def _pause(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait for its end, this long at most.

    On Linux the end itself wakes us. `Popen.wait` with a time looks again after pauses that double
    up to 50 ms, which whoever clocks a short command would clock with it.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # an old kernel, or one that forbids it
            handle = os.pidfd_open(process.pid)
            try:
                waiting = select.poll()
                waiting.register(handle, select.POLLIN)
                if waiting.poll(seconds * 1000):
                    process.wait()
            finally:
                os.close(handle)
            return
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _problem(status: int, err: IO[bytes]) -> str | None:
    if status == 0:
        return None
    said = [line.strip() for line in _text(err).splitlines() if line.strip()]
    how = f"exit {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"
    return f"{how}: {said[-1]}" if said else how


def _text(file: IO[bytes], limit: int = OUTPUT_LIMIT) -> str:
    file.seek(0)
    return file.read(limit).decode("utf-8", "replace")
