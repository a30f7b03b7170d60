"""Whether a candidate's own clock agrees with swarm's. Pure.

A candidate can patch the clock that its time is taken with; it cannot patch the one outside. What
it claims to have saved must be missing from the wall time of the whole command.
"""

from __future__ import annotations

from swarm.judge.evidence import Record
from swarm.records import MetricSpec

_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "milliseconds": 1e-3}
MOST_OF_IT = 0.5
"""Share of the wall time that the incumbent's own clock must cover, for the two to be compared."""
COLLAPSE = 0.1
"""Below this share of the incumbent's share, a clock has gone wrong."""
SEEN = 0.25
"""Share of a saving that must be seen from outside."""
LEAST_S = 0.05


def contradiction(candidate: Record, incumbent: Record, metric: MetricSpec) -> str | None:
    """Say how the clocks disagree, or None.

    Only of a metric that is a time to be made less, of which both were measured.
    """
    unit = _unit(metric)
    if unit is None or not candidate.clock.n or not incumbent.clock.n:
        return None
    told, before = candidate.primary.mean * unit, incumbent.primary.mean * unit
    # The least of each: what else the machine does only adds.
    wall, wall_before = min(candidate.clock.values), min(incumbent.clock.values)
    saved, seen = before - told, wall_before - wall
    if before < MOST_OF_IT * wall_before or saved < LEAST_S or seen >= SEEN * saved:
        return None
    if told > COLLAPSE * (before / wall_before) * wall:
        return None
    return (
        f"it claims {told:.3g} s where its incumbent took {before:.3g} s, but the whole command "
        f"took {wall:.3g} s by swarm's clock, and that of its incumbent {wall_before:.3g} s"
    )


def _unit(metric: MetricSpec) -> float | None:
    """Give the seconds that 1 of a metric is, None if it is no time to be made less."""
    if metric.goal != "minimize":
        return None
    if metric.unit is not None:
        return _SECONDS.get(metric.unit.strip().lower())
    return _SECONDS.get(metric.name.lower().rpartition("_")[2])
