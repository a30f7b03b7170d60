"""Keep or discard by one number: the 1-2 rule.

Measure the candidate against the incumbent's mean. Below +1 standard error of the difference:
discard. From +2, after two measurements at least: keep. In between measure both once more, at most
five times. The spread is pooled over every commit measured at least twice, and a record's value is
its mean, never its best. Why these numbers: `docs/statistics.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from swarm.judge.evidence import Sample, Spread
from swarm.quantities import margin
from swarm.rules import JudgeConfig

AGAIN = "a keep is confirmed by a second run"
EQUAL = 1.0
"""Standard errors below which two means count as equal."""

Step = Literal["keep", "discard", "measure", "invalid"]


class Ruling(NamedTuple):
    """What follows from two records."""

    step: Step
    """`invalid` when a value that nobody can believe did not come again."""
    z: float | None
    """None when the spread is zero."""
    gain: float
    """Signed so that positive is better."""
    reason: str
    cases: tuple[str, ...] | None = None
    """When it is to be measured again: the cases of a suite that can still change the answer;
    None for all there is."""


def z_score(gain: float, se: float) -> float:
    """Give the gain in standard errors of the difference; infinite when there is no spread."""
    if se == 0.0:
        return math.copysign(math.inf, gain) if gain else 0.0
    return gain / se


def duel(
    candidate: Sample,
    incumbent: Sample,
    spread: Spread,
    *,
    sign: int,
    rule: JudgeConfig,
    simpler: bool = False,
) -> Ruling:
    """Compare a candidate with its incumbent; both must have been measured at least once.

    Args:
        candidate: the metric of the candidate.
        incumbent: the same of the commit it is compared with.
        spread: the pooled spread; must not be empty.
        sign: +1 where more is better, -1 where less is.
        rule: thresholds; `runs` caps the measurements of the candidate.
        simpler: the candidate has fewer lines, which tips the scales for `keep_if_equal`.
    """
    if spread.sigma is None or candidate.n == 0 or incumbent.n == 0:
        raise ValueError("a duel needs a spread and a measurement of each side")
    now = incumbent.recent(rule.window)
    gain = sign * (candidate.mean - now.mean)
    least = margin(rule.min_delta, now.mean)
    # Where only the last runs count, so does only what differs from one run to the next.
    local = rule.window != "all"
    se = math.sqrt(sum(spread.squared_error(side, local=local) for side in (candidate, now)))
    z, plain = z_score(gain - least, se), z_score(gain, se)
    shown = None if se == 0.0 else z
    n, words = candidate.n, _words(z, gain, least, se, candidate.n, now.n)

    def ruling(step: Step, more: str = "") -> Ruling:
        return Ruling(step, shown, gain, f"{words}; {more}" if more else words)

    doubt = _doubt(candidate, now, sign, rule)
    if doubt is not None:
        return ruling(*doubt)
    equal = rule.keep_if_equal == "simpler" and simpler and plain > -EQUAL
    if z <= 0.0 if se == 0.0 else z < rule.drop_below:
        return _equal(ruling, n, rule, exact=se == 0.0) if equal else ruling("discard")
    if n < 2 and (se == 0.0 or z >= rule.keep_above):
        return ruling("measure", AGAIN)
    if z >= rule.keep_above:
        return ruling("keep")
    if n >= rule.runs:
        if equal:
            return ruling("keep", f"not worse after {n} runs, and simpler")
        return ruling("discard", f"undecided after {n} runs")
    return ruling("measure", "too close to call")


def _equal(
    ruling: Callable[[Step, str], Ruling], n: int, rule: JudgeConfig, *, exact: bool
) -> Ruling:
    """Keep what is simpler once it has been measured often enough to call it equal."""
    if n < (2 if exact else max(2, rule.runs)):
        return ruling("measure", "it is simpler, so it need only be equal")
    return ruling("keep", f"equal after {n} runs, and simpler")


def _doubt(
    candidate: Sample, incumbent: Sample, sign: int, rule: JudgeConfig
) -> tuple[Step, str] | None:
    """Look twice at a jump beyond `max_gain`, and do not believe one that does not come again."""
    if rule.max_gain is None:
        return None
    most = margin(rule.max_gain, incumbent.mean)
    beyond = [sign * (v - incumbent.mean) > most for v in candidate.values]
    if not any(beyond):
        return None
    if candidate.n == 1:
        return "measure", f"a gain beyond max_gain ({most:.6g}) is looked at twice"
    if not all(beyond) and (candidate.foreign or math.sqrt(candidate.variance) > most):
        times = f"{sum(beyond)} of {candidate.n} runs"
        return "invalid", f"a gain beyond max_gain ({most:.6g}) in {times} only is not believed"
    return None


def _words(z: float, gain: float, least: float, se: float, n: int, n_inc: int) -> str:
    better = "better" if gain > 0 else "worse"
    size = "no better" if gain == 0 else f"{abs(gain):.6g} {better}"
    over = f" (at least {least:g} asked)" if least else ""
    if se == 0.0:
        return f"{size} than the incumbent{over}; no spread between runs"
    return f"{size} than the incumbent{over}: z = {z + 0.0:+.2f} from {n} against {n_inc} runs"


def beyond_doubt(ruling: Ruling, rule: JudgeConfig) -> bool:
    """Tell whether a candidate is so much better that another run of the incumbent says nothing."""
    return ruling.z is not None and ruling.z >= rule.once


def detectable(sigma: float, rule: JudgeConfig, mean: float) -> float:
    """Give the smallest gain that is kept when both sides are measured `runs` times.

    A candidate of so many measurements is kept from `keep_above` standard errors on, over
    `min_delta`; `mean` is what a percentage there is one of.
    """
    return margin(rule.min_delta, mean) + rule.keep_above * sigma * math.sqrt(2 / rule.runs)


def shrunken(gain: float, spread: Spread) -> float:
    """Give what a kept gain is expected to be worth: winners are lucky, so it is shrunk.

    Of gains that passed the rule, about this share is real in simulated campaigns; without
    spread there is no luck and nothing to shrink.
    """
    return max(0.0, gain) * (1.0 if spread.deterministic else 0.6)
