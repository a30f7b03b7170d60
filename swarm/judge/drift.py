"""Whether a machine drifts: a commit that is measured later no longer measures the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

from swarm.judge.evidence import Sample, Spread

LATE = 3
"""Last values that are compared with those before them."""
SURE = 4.0
"""Standard errors from which it is said: it is looked at after every control, so chance has many
tries."""


def drifted(sample: Sample, spread: Spread, first: int, *, after: int = 0) -> float | None:
    """Give by how many standard errors a commit's last values lie off its first, if that is much.

    Args:
        sample: the metric of one commit.
        spread: the pooled spread of its machine.
        first: how many values are taken for its first.
        after: how many before them are left out: those that the commit was chosen for.
    """
    early = sample.values[after : after + first]
    late = sample.values[max(after + first, sample.n - LATE) :]
    if len(late) < LATE or len(early) < 2 or sample.foreign:
        return None
    sigma = _local_sigma(sample, spread, early)
    if sigma == 0.0:
        return None
    apart = sum(late) / len(late) - sum(early) / len(early)
    z = apart / (sigma * math.sqrt(1 / len(late) + 1 / len(early)))
    return z if abs(z) > SURE else None


def parted(first: Sequence[float], last: Sequence[float], spread: Spread) -> float | None:
    """Give by how many standard errors the end of a run lies off its beginning, if that is much.

    Args:
        first: the values of a commit when the run began.
        last: its fresh values at the end.
        spread: the pooled spread of its machine.
    """
    if min(len(first), len(last)) < 2 or spread.steps == 0.0:
        return None
    se = math.sqrt(spread.steps / spread.freedom * (1 / len(first) + 1 / len(last)))
    z = (sum(last) / len(last) - sum(first) / len(first)) / se
    return z if abs(z) > SURE else None


def _local_sigma(sample: Sample, spread: Spread, early: list[float]) -> float:
    """Give the spread without what this commit's own long time has added to it."""
    first = Sample()
    for value in early:
        first.add(value)
    squares = spread.squares - sample.m2 + first.m2
    freedom = spread.freedom - (sample.n - 1) + (first.n - 1)
    return math.sqrt(max(0.0, squares) / freedom) if freedom > 0 else 0.0
