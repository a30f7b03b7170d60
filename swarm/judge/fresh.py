"""The difference of two commits by fresh measurements alone: what a run reports as its result."""

from __future__ import annotations

import math
from collections.abc import Sequence

from swarm.judge.evidence import Sample
from swarm.records import FreshResult


def difference(
    before: Sequence[float], after: Sequence[float], sign: int, sigma: float
) -> FreshResult | None:
    """Compare base and best by the values that nothing was decided by; None without any.

    Args:
        before: values of the base.
        after: values of best.
        sign: +1 where more is better, -1 where less is.
        sigma: the spread of one value, for sides that were measured only once.
    """
    if not before or not after:
        return None
    sides = [Sample(), Sample()]
    for sample, values in zip(sides, (before, after), strict=True):
        for value in values:
            sample.add(value)
    base, best = sides
    lone = min(base.n, best.n) < 2
    square = sum((sigma * sigma if lone else side.variance) / side.n for side in sides)
    return FreshResult(
        gain=sign * (best.mean - base.mean),
        se=math.sqrt(square),
        n=min(base.n, best.n),
        base_mean=base.mean,
        best_mean=best.mean,
    )
