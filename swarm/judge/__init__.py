"""Keep or discard: two records in, a ruling out. Pure; knows no run, no clock and no git.

`compare` is the front: it takes the rule that the metric and the config ask for, one number
(`scalar`), the cases of a suite (`suite`) or points (`points`). What must hold besides is in
`limits`, whether clocks agree in `clock`, whether the machine drifts in `drift`; what it all rests
on, in `evidence`.
"""

from __future__ import annotations

from swarm.judge import suite
from swarm.judge.clock import contradiction
from swarm.judge.drift import drifted, parted
from swarm.judge.evidence import Count, Noise, Record, Sample, Spread, complete, flaky
from swarm.judge.fresh import difference
from swarm.judge.limits import Breach, breach, failing
from swarm.judge.points import cost_duel, duel_of
from swarm.judge.scalar import Ruling, Step, beyond_doubt, detectable, duel, shrunken
from swarm.records import CASES, MetricSpec
from swarm.rules import JudgeConfig

__all__ = [
    "Breach",
    "Count",
    "Noise",
    "Record",
    "Ruling",
    "Sample",
    "Spread",
    "Step",
    "active_cases",
    "beyond_doubt",
    "breach",
    "case_changes",
    "compare",
    "complete",
    "cost_duel",
    "detectable",
    "difference",
    "drifted",
    "duel",
    "failing",
    "flaky",
    "for_stack",
    "parted",
    "shrunken",
]

MERGE_DROP, MERGE_KEEP = 0.0, 1.0
"""The milder rule for stacks: their parts have already passed once."""


def for_stack(rule: JudgeConfig) -> JudgeConfig:
    """Give the rule by which a stack of proven winners is compared with `best`."""
    milder = {
        "drop_below": min(MERGE_DROP, rule.drop_below),
        "keep_above": min(MERGE_KEEP, rule.keep_above),
    }
    return rule.model_copy(update=milder)


def compare(
    candidate: Record,
    incumbent: Record,
    noise: Noise,
    metric: MetricSpec,
    rule: JudgeConfig,
    *,
    simpler: bool = False,
) -> Ruling:
    """Compare a candidate with its incumbent; both must have a value of the metric.

    Args:
        candidate: its record.
        incumbent: the record of the commit it is compared with.
        noise: the spreads on the machine that measured both; that of the metric not empty.
        metric: the primary metric; `cases` makes it a suite.
        rule: the config's judge.
        simpler: the candidate has fewer lines than its incumbent.
    """
    spread = noise[metric.name]
    plain = duel(
        candidate.primary,
        incumbent.primary,
        spread,
        sign=metric.sign,
        rule=rule,
        simpler=simpler,
    )
    if plain.step in ("keep", "measure"):
        doubt = contradiction(candidate, incumbent, metric)
        if doubt is not None:
            step: Step = "measure" if candidate.primary.n < 2 else "invalid"
            return plain._replace(step=step, reason=f"{plain.reason}; {doubt}")
    if metric.name != CASES or plain.step == "invalid":
        return plain
    # Without spread there is nothing to weigh up case by case: a share that is higher is higher.
    ruling = plain
    if not spread.deterministic:
        ruling = suite.duel(candidate, incumbent, rule, simpler=simpler)
    if candidate.unreported:
        words = f"{ruling.reason}; {candidate.unreported} cases were not reported, so they failed"
        ruling = ruling._replace(reason=words)
    if rule.points is not None:
        return duel_of(candidate, incumbent, noise, rule.points, rule, ruling)
    return ruling


def active_cases(candidate: Record, incumbent: Record) -> tuple[str, ...]:
    """Give the cases that can still change the answer: those that later rounds run."""
    return suite.active(suite.pair(candidate, incumbent))


def case_changes(candidate: Record, incumbent: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the cases that a candidate fixed, and those that it broke, against its incumbent."""
    return suite.changed(suite.pair(candidate, incumbent))
