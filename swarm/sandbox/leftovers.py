"""Processes by their stamp: found again, ended with all below them, swept by a token.

Owns what is left when the supervisor that knew a command's processes is dead.
"""

from __future__ import annotations

import signal
import socket
import time
from contextlib import suppress

import psutil

from swarm.records import ProcessStamp

MARKER = "SWARM_MEASUREMENT"
"""Variable in every command's environment: an unguessable token by which its processes are found
when the supervisor that knew them is dead."""
_SAME_START_S = 2.0
"""Start times come from the boot time, which moves a little when the clock is set."""


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


def sweep(token: str) -> None:
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
