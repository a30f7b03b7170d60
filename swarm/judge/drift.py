"""Whether a machine drifts: a commit that is measured later no longer measures the same."""

from __future__ import annotations

import math

from swarm.judge.evidence import Sample, Spread

LATE = 3
"""Last values that are compared with those before them."""
SURE = 4.0
"""Standard errors from which it is said: it is looked at after every control, so chance has many
tries."""


def drifted(sample: Sample, spread: Spread, first: int) -> float | None:
    """Give by how many standard errors a commit's last values lie off its first, if that is much.

    Args:
        sample: of a commit that was not selected for its values, as the base.
        spread: the pooled spread of its machine.
        first: how many of its values were measured in a row, at the start.
    """
    early, late = sample.values[:first], sample.values[first:][-LATE:]
    if len(late) < LATE or len(early) < 2:
        return None
    sigma = _local_sigma(sample, spread, first)
    if sigma == 0.0:
        return None
    apart = sum(late) / len(late) - sum(early) / len(early)
    z = apart / (sigma * math.sqrt(1 / len(late) + 1 / len(early)))
    return z if abs(z) > SURE else None


def _local_sigma(sample: Sample, spread: Spread, first: int) -> float:
    """Give the spread without what this commit's own long time has added to it."""
    early = Sample()
    for value in sample.values[:first]:
        early.add(value)
    squares = spread.squares - sample.m2 + early.m2
    freedom = spread.freedom - (sample.n - 1) + (early.n - 1)
    return math.sqrt(max(0.0, squares) / freedom) if freedom > 0 else 0.0
