"""Keep or discard: two records in, a ruling out. Pure; knows no run, no clock and no git.

The rule for a scalar metric ("1-2 rule"): measure the candidate against the incumbent's mean.
Below +1 standard error of the difference: discard. From +2: keep. In between measure both once
more, at most five times. The spread is pooled over every commit measured at least twice, and a
record's value is its mean, never its best. Why these numbers: `docs/judging.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from swarm.rules import JudgeConfig


@dataclass
class Sample:
    """Mean and squared deviations of one metric, updated one value at a time (Welford)."""

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, value: float) -> float:
        """Take a value in and return by how much the sum of squared deviations grew."""
        self.n += 1
        delta = value - self.mean
        self.mean += delta / self.n
        grown = delta * (value - self.mean)
        self.m2 += grown
        return grown


@dataclass
class Spread:
    """Run-to-run spread, pooled over all commits that were measured at least twice."""

    squares: float = 0.0
    freedom: int = 0

    @property
    def sigma(self) -> float | None:
        """The standard deviation of one measurement, None before any commit was repeated."""
        if self.freedom == 0:
            return None
        return math.sqrt(max(0.0, self.squares) / self.freedom)

    @property
    def deterministic(self) -> bool:
        """True while all repeats agreed exactly; one difference ends it."""
        return self.freedom > 0 and self.squares == 0.0

    def se(self, n: int) -> float | None:
        """Standard error of a mean of `n` measurements."""
        return None if self.sigma is None or n == 0 else self.sigma / math.sqrt(n)


class Ruling(NamedTuple):
    """What follows from two records."""

    step: Literal["keep", "discard", "measure"]
    z: float | None
    """None when the spread is zero."""
    gain: float
    """Signed so that positive is better."""
    reason: str


MERGE_DROP, MERGE_KEEP = 0.0, 1.0
"""The milder rule for stacks: their parts have already passed once."""


def for_stack(rule: JudgeConfig) -> JudgeConfig:
    """Give the rule by which a stack of proven winners is compared with `best`."""
    milder = {
        "drop_below": min(MERGE_DROP, rule.drop_below),
        "keep_above": min(MERGE_KEEP, rule.keep_above),
    }
    return rule.model_copy(update=milder)


def z_score(gain: float, sigma: float, n_candidate: int, n_incumbent: int) -> float:
    """Give the gain in standard errors of the difference; infinite when there is no spread."""
    if sigma == 0.0:
        return math.copysign(math.inf, gain) if gain else 0.0
    return gain / (sigma * math.sqrt(1 / n_candidate + 1 / n_incumbent))


def duel(
    candidate: Sample, incumbent: Sample, spread: Spread, *, sign: int, rule: JudgeConfig
) -> Ruling:
    """Compare a candidate with its incumbent; both must have been measured at least once.

    Args:
        candidate: the primary metric of the candidate.
        incumbent: the same of the commit it is compared with.
        spread: the pooled spread; must not be empty.
        sign: +1 where more is better, -1 where less is.
        rule: thresholds; `runs` caps the measurements of the candidate.
    """
    sigma = spread.sigma
    if sigma is None or candidate.n == 0 or incumbent.n == 0:
        raise ValueError("a duel needs a spread and a measurement of each side")
    gain = sign * (candidate.mean - incumbent.mean)
    z = z_score(gain - rule.min_delta, sigma, candidate.n, incumbent.n)
    shown = None if math.isinf(z) or sigma == 0.0 else z
    words = _words(z, gain, sigma, candidate.n, incumbent.n, rule)
    if z <= 0.0 if sigma == 0.0 else z < rule.drop_below:
        return Ruling("discard", shown, gain, words)
    if sigma == 0.0 and candidate.n < 2:
        return Ruling("measure", shown, gain, f"{words}; a keep is confirmed by a second run")
    if z >= (rule.once if candidate.n == 1 else rule.keep_above):
        return Ruling("keep", shown, gain, words)
    if candidate.n >= rule.runs:
        return Ruling("discard", shown, gain, f"{words}; undecided after {candidate.n} runs")
    return Ruling("measure", shown, gain, f"{words}; too close to call")


def _words(z: float, gain: float, sigma: float, n: int, n_inc: int, rule: JudgeConfig) -> str:
    better = "better" if gain > 0 else "worse"
    size = "no better" if gain == 0 else f"{abs(gain):.6g} {better}"
    over = f" (at least {rule.min_delta:g} asked)" if rule.min_delta else ""
    if sigma == 0.0:
        return f"{size} than the incumbent{over}; no spread between runs"
    return f"{size} than the incumbent{over}: z = {z + 0.0:+.2f} from {n} against {n_inc} runs"


def detectable(sigma: float, rule: JudgeConfig) -> float:
    """Give the smallest gain that is kept when both sides are measured `runs` times.

    A candidate of so many measurements is kept from `keep_above` standard errors on.
    """
    return max(rule.min_delta, rule.keep_above * sigma * math.sqrt(2 / rule.runs))


def shrunken(gain: float, spread: Spread) -> float:
    """Give what a kept gain is expected to be worth: winners are lucky, so it is shrunk.

    Of gains that passed the rule, about this share is real in simulated campaigns; without
    spread there is no luck and nothing to shrink.
    """
    return max(0.0, gain) * (1.0 if spread.deterministic else 0.6)


@dataclass
class Record:
    """All measurements of one tree on one kind of machine."""

    primary: Sample = field(default_factory=Sample)
    others: dict[str, Sample] = field(default_factory=dict[str, Sample])
    attempts: int = 0
    """Measurements that ran, failed ones included; the next one's index."""


def violated(
    metric: str,
    value: float | None,
    baseline: float | None,
    *,
    maximum: float | None = None,
    minimum: float | None = None,
    max_regression: float | None = None,
    worse: int = 1,
) -> str | None:
    """Say how a mean breaks a constraint, or None.

    `max_regression` is a share (0.05) of the baseline's magnitude. `worse` is +1 where more is
    worse, as for all costs, and -1 where less is.
    """
    if value is None:
        return f"{metric} was not reported"
    if maximum is not None and value > maximum:
        return f"{metric} = {value:.6g} is over {maximum:.6g}"
    if minimum is not None and value < minimum:
        return f"{metric} = {value:.6g} is under {minimum:.6g}"
    if (
        max_regression is not None
        and baseline is not None
        and worse * (value - baseline) > max_regression * abs(baseline)
    ):
        side = "over" if worse > 0 else "under"
        return f"{metric} = {value:.6g} is more than {max_regression:.1%} {side} {baseline:.6g}"
    return None
