"""What a candidate must not do, however good it is: constraints, and cases that must pass.

A limit is broken beyond doubt, or kept, or the noise leaves it open: then the candidate is
measured again before it is kept, and in the end its mean decides.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from swarm.judge.evidence import Noise, Record
from swarm.records import MetricSpec
from swarm.rules import JudgeConfig, Limit

BROKEN = 2.0
"""Standard errors beyond a limit from which it is broken beyond doubt."""
MAY_FAIL = 1
"""Times that a case of `must_pass` may fail by accident."""


class Breach(NamedTuple):
    """A limit that does not hold."""

    sure: bool
    """False while more measurements may show that it holds."""
    words: str


def breach(
    limit: Limit,
    candidate: Record,
    baseline: Record,
    noise: Noise,
    metric: MetricSpec,
    rule: JudgeConfig,
) -> Breach | None:
    """Say how a candidate breaks a limit, None if its mean does not."""
    name = limit.metric
    sample = candidate.sample(name, metric.name)
    if sample is None:
        return Breach(True, f"{name} was not reported")
    base = baseline.sample(name, metric.name)
    worse = limit.worse(metric)
    beyond: list[tuple[float, str, bool]] = []
    if limit.maximum is not None:
        beyond.append((sample.mean - limit.maximum, f"over {limit.maximum:.6g}", False))
    if limit.minimum is not None:
        beyond.append((limit.minimum - sample.mean, f"under {limit.minimum:.6g}", False))
    if limit.max_regression is not None and base is not None:
        side = "over" if worse > 0 else "under"
        allowed = limit.max_regression * abs(base.mean)
        words = f"more than {limit.max_regression:.1%} {side} {base.mean:.6g}"
        beyond.append((worse * (sample.mean - base.mean) - allowed, words, True))
    spread = noise.get(name)
    found: Breach | None = None
    for by, words, relative in beyond:
        if by <= 0.0:
            continue
        variance = 0.0
        if spread is not None and spread.freedom:
            variance = spread.squared_error(sample)
            variance += spread.squared_error(base) if relative and base is not None else 0.0
        # By the candidate's runs: a metric that it reports only once would be waited for for ever.
        sure = by >= BROKEN * math.sqrt(variance) or candidate.runs >= rule.runs
        more = f" by {by / math.sqrt(variance):.1f} standard errors" if variance else ""
        runs = f" (mean of {sample.n})" if sample.n > 1 else ""
        if found is None or (sure and not found.sure):
            found = Breach(sure, f"{name} = {sample.mean:.6g}{runs} is {words}{more}")
    return found


def failing(names: tuple[str, ...], candidate: Record, baseline: Record) -> Breach | None:
    """Say which case of `must_pass` a candidate breaks; one that the base always passed may not
    fail twice.
    """
    worst: Breach | None = None
    for name in names:
        ours, base = candidate.cases.get(name), baseline.cases.get(name)
        if ours is None or base is None or base.passes < base.runs:
            continue
        failed = ours.runs - ours.passes
        if not failed:
            continue
        words = f"case {name} must pass and failed {failed} of {ours.runs} times"
        words += f"; the base passed it {base.passes} of {base.runs}"
        sure = failed > MAY_FAIL
        if sure:
            return Breach(sure, words)
        if ours.runs == 1:  # one failure in several runs is the accident that is allowed
            worst = worst or Breach(sure, words)
    return worst
