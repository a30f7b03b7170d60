"""SIGTERM and SIGHUP end the labelling as Ctrl-C does, and the search that runs at that time.

Owns these signals while it works. A search has a session of its own, so that nothing else would
tell it that the terminal is gone.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Stopped(BaseException):
    """A signal came. No `Exception`: nothing may take it for a failure of what it does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def signals_raise() -> Generator[None]:
    """Turn the first of the two into `Stopped`; what is ignored, as under nohup, stays so."""
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP)}
    taken = {s: handler for s, handler in before.items() if handler != signal.SIG_IGN}

    def end(number: int, frame: FrameType | None) -> None:
        for which in taken:  # a second one must not cut short what the first has begun
            signal.signal(which, signal.SIG_IGN)
        raise Stopped(number)

    for which in taken:
        signal.signal(which, end)
    try:
        yield
    finally:
        for which, handler in taken.items():
            signal.signal(which, handler)


@contextmanager
def signals_wait() -> Generator[None]:
    """Let signals wait until the end of this: none comes between a start and who could end it."""
    came: list[int] = []
    before = {s: h for s in _ENDING if callable(h := signal.getsignal(s))}
    for which in before:
        signal.signal(which, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
        if came:
            signal.raise_signal(came[0])
