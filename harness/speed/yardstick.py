"""Fixed work, timed beside what is measured: how fast this machine is at this moment.

Seconds on a machine that others use too may double from one minute to the next, and those of fixed
work with them; what is left in their quotient is a few percent. Runs in the process that has the
clock, which no candidate reaches.
"""

import gc
import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import figures

ROUNDS = 10
"""About 5 ms of work on a machine of 2024: as long as one repeat should be."""


class Took(NamedTuple):
    """What something took, by clocks that are not its own."""

    seconds: float
    cpu_seconds: float | None
    """None where nobody else can ask for it."""


class Beside(NamedTuple):
    """What was measured, and the fixed work just before and just after."""

    before: Took
    it: Took
    after: Took


def fixed_work(rounds: int = ROUNDS) -> Took:
    """Do the work that is always the same, and time it."""
    collecting = gc.isenabled()
    gc.disable()
    started, busy = time.perf_counter(), time.process_time()
    for _ in range(rounds):
        _round()
    took = Took(time.perf_counter() - started, time.process_time() - busy)
    if collecting:
        gc.enable()
    return took


def _round() -> int:
    """Do what Python programs do: count, format, look up, append, join, split."""
    words: dict[str, list[int]] = {}
    for number in range(1500):
        word = f"{number * 7919 % 211:x}"
        words.setdefault(word, []).append(number)
    text = "".join(f"{word}={sum(numbers)};" for word, numbers in words.items())
    return sum(len(part) for part in text.split(";") if not part.startswith("f"))


def of(measured: Sequence[Beside], calls: int = 1) -> dict[str, float]:
    """Give the figures of one call, in seconds and in fixed works."""
    found = {
        **figures.of([each.it.seconds / calls for each in measured]),
        "relative": median(
            2 * each.it.seconds / (each.before.seconds + each.after.seconds) / calls
            for each in measured
        ),
    }
    busy = [
        (each.it.cpu_seconds, each.before.cpu_seconds + each.after.cpu_seconds)
        for each in measured
        if each.it.cpu_seconds is not None
        and each.before.cpu_seconds is not None
        and each.after.cpu_seconds is not None
    ]
    if len(busy) == len(measured):
        found |= figures.of([cpu / calls for cpu, _ in busy], "cpu_seconds")
        found["cpu_relative"] = median(2 * cpu / fixed / calls for cpu, fixed in busy)
    return found
