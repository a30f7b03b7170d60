"""Keep or discard by points: one for each passed case, one for less of each declared cost.

Compared with the incumbent at each comparison. `lexicographic`: a part is looked at only when all
before it are equal, so that no lost case is ever bought by speed. `literal`: points add up, and
what is bought by what is the user's choice. A point for a cost counts only when the cost is told
apart from the incumbent's: otherwise each second candidate would earn it by luck.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from swarm.judge import suite
from swarm.judge.evidence import Noise, Record, Sample, Spread
from swarm.judge.scalar import EQUAL, Ruling, z_score
from swarm.judge.scalar import duel as compare
from swarm.judge.suite import AGAIN
from swarm.rules import ImprovesConfig, JudgeConfig, PointsConfig

Found = Literal["better", "equal", "worse", "unsure"]


class _Part(NamedTuple):
    found: Found
    words: str
    ruling: Ruling | None = None


class _Duel(NamedTuple):
    """What a part is found by; `cases` is the ruling on the suite alone."""

    candidate: Record
    incumbent: Record
    noise: Noise
    rule: JudgeConfig
    cases: Ruling


def duel_of(
    candidate: Record,
    incumbent: Record,
    noise: Noise,
    points: PointsConfig,
    rule: JudgeConfig,
    cases: Ruling,
) -> Ruling:
    """Compare two records by points; `cases` is the ruling on the suite alone."""
    weigh = _literal if points.trade == "literal" else _lexicographic
    ruling = weigh(_Duel(candidate, incumbent, noise, rule, cases), points)
    if ruling.step == "keep" and candidate.primary.n < 2:
        words = f"{ruling.reason}; {AGAIN}"
        return ruling._replace(step="measure", reason=words, cases=None)
    return ruling


def _lexicographic(duel: _Duel, points: PointsConfig) -> Ruling:
    told: list[str] = []
    for part in points.of:
        found = _part(part, duel)
        told.append(found.words)
        words = "; ".join(told)
        if found.found == "better":
            return duel.cases._replace(step="keep", reason=words)
        if found.found == "worse":
            return duel.cases._replace(step="discard", reason=words)
        if found.found == "unsure":
            again = found.ruling.cases if found.ruling else None
            return duel.cases._replace(step="measure", reason=words, cases=again)
    words = "; ".join([*told, "equal in all parts"])
    return duel.cases._replace(step="discard", reason=words)


def _part(part: Literal["cases"] | ImprovesConfig, duel: _Duel) -> _Part:
    return _cases(duel) if part == "cases" else _cost(part.name, duel)


def _cases(duel: _Duel) -> _Part:
    ruling = duel.cases
    words = f"cases: {ruling.reason}"
    if ruling.step == "keep":
        return _Part("better", words)
    if ruling.step in ("measure", "invalid"):
        return _Part("unsure", words, ruling)
    gone = suite.lost(suite.pair(duel.candidate, duel.incumbent))
    if gone:
        return _Part("worse", f"{words}; no lost case ({', '.join(gone[:3])}) is bought by a cost")
    return _Part("worse" if _z(ruling) <= -EQUAL else "equal", words)


def _z(ruling: Ruling) -> float:
    """Give the z of a ruling; without spread any difference is beyond doubt."""
    if ruling.z is None and ruling.gain:
        return math.copysign(math.inf, ruling.gain)
    return ruling.z or 0.0


def cost_duel(candidate: Sample, incumbent: Sample, spread: Spread, rule: JudgeConfig) -> Ruling:
    """Compare a cost on both sides; what is asked of the metric's gain is not asked of it."""
    plain = rule.model_copy(update={"min_delta": 0.0, "max_gain": None, "keep_if_equal": "never"})
    return compare(candidate, incumbent, spread, sign=-1, rule=plain)


def _cost(name: str, duel: _Duel) -> _Part:
    """Compare a cost; less is better. What the incumbent does not report cannot be improved."""
    ours, theirs = (side.others.get(name) for side in (duel.candidate, duel.incumbent))
    spread, rule = duel.noise.get(name), duel.rule
    if theirs is None or not theirs.n or spread is None or spread.sigma is None:
        return _Part("equal", f"{name}: not measured on the incumbent")
    if ours is None or not ours.n:
        return _Part("worse", f"{name}: not reported")
    ruling = cost_duel(ours, theirs, spread, rule)
    words = f"{name}: {ruling.reason}"
    if ruling.step == "keep":
        return _Part("better", words)
    if ruling.step == "measure":
        # By the candidate's runs: a cost that it reports only once would be waited for for ever.
        if duel.candidate.runs < max(2, rule.runs):
            return _Part("unsure", words)
        return _Part("equal", f"{words}, after {duel.candidate.runs} runs")
    return _Part("worse" if _z(ruling) <= -EQUAL else "equal", words)


def _literal(duel: _Duel, points: PointsConfig) -> Ruling:
    """Add the points up: cases gained on average, and one for each cost that is proven less."""
    pairs = suite.pair(duel.candidate, duel.incumbent)
    costs = [p for p in points.of if p != "cases"]
    parts = [_cost(p.name, duel) for p in costs]
    won = sum(p.found == "better" for p in parts)
    open_ = sum(p.found == "unsure" for p in parts)
    more = suite.gained(pairs) if "cases" in points.of else 0.0
    se = math.sqrt(suite.squared_error(pairs)) if "cases" in points.of else 0.0
    rule, n = duel.rule, duel.candidate.runs
    z, best = z_score(more + won, se), z_score(more + won + open_, se)
    words = "; ".join(
        [f"{more + won:+.3g} points: {more:+.3g} for cases", *(p.words for p in parts)]
    )
    if (best <= 0.0) if se == 0.0 else (best < rule.drop_below):
        return duel.cases._replace(step="discard", reason=words)
    if z > 0.0 if se == 0.0 else z >= rule.keep_above:
        return duel.cases._replace(step="keep", reason=words)
    if n >= rule.runs:
        return duel.cases._replace(step="discard", reason=f"{words}; undecided after {n} runs")
    return duel.cases._replace(step="measure", reason=f"{words}; too close to call", cases=None)
