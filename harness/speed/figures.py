"""Seconds in, figures out: least, median, spread, and one figure for several benchmarks.

Also the two ways to fail, which all parts share. Starts nothing and reads no file.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median


class UsageError(Exception):
    """The command line, or a file that belongs to the harness, cannot be used: exit 2."""


class NoAnswerError(Exception):
    """The candidate failed, or its answer is wrong: exit 1."""


def of(seconds: Sequence[float], name: str = "seconds") -> dict[str, float]:
    """Give the least, the median, and the median distance from it (robust, as outliers are)."""
    middle = median(seconds)
    return {
        f"{name}_min": min(seconds),
        f"{name}_median": middle,
        f"{name}_mad": median(abs(each - middle) for each in seconds),
    }


def together(each: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Make one figure of each name that all have: their geometric mean.

    It moves by the same factor whichever benchmark gets faster by it, long or short.
    """
    all_of = list(each)
    names = [n for n in all_of[0] if all(n in one and one[n] > 0 for one in all_of)]
    if len(all_of) == 1:
        return dict(all_of[0])
    return {n: math.exp(sum(math.log(one[n]) for one in all_of) / len(all_of)) for n in names}


def shown(seconds: float) -> str:
    """Give a duration as a person would write it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
