"""Signals that end a command of swarm in good order: raised where it stands, but for moments."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal came. No `Exception`: nothing may take it for a failure of what it does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def signals_raise(*numbers: signal.Signals, for_good: bool = False) -> Generator[None]:
    """Turn the first of these signals into `Stopped`; a second must not cut short what it began.

    Args:
        numbers: the signals.
        for_good: whether they are ignored afterwards, too, once one has come.
    """
    came: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise Stopped(number)

    before = {which: signal.signal(which, end) for which in numbers}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, signal.SIG_IGN if came and for_good else handler)


@contextmanager
def signals_wait() -> Generator[None]:
    """Hold signals back; one that came is raised at the end, whatever else went wrong.

    For what must be done whatever happens, and between a start and who could end it.
    """
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
