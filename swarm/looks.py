"""What is known of a comparison: a ruling, or what has to be measured before there can be one.

Pure. Asks `judge` once a candidate and its incumbent have been measured enough, guards and
constraints first. Chooses no slot and writes no verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from swarm import merger
from swarm.actions import View
from swarm.entities import Experiment, Target
from swarm.judge import Record, Ruling, duel, violated

MAX_ABORTS = 2
"""Times that the machinery may die under one experiment before it is `aborted`."""


class Look(NamedTuple):
    """What is known of a comparison: a ruling, or what has to be measured for one."""

    ruling: Ruling | None = None
    violation: str | None = None
    hopeless: str | None = None
    """Why there will never be a ruling."""
    candidates: int = 0
    """Measurements that the candidate should have before the next look."""
    controls: int = 0
    """Fresh measurements of the incumbent that should be made before the next look."""


def _look(
    view: View,
    target: Target,
    commit: str,
    incumbent: str,
    machine: str,
    controls: int,
    judge: _Judge,
) -> Look:
    candidate, reference = target.record(commit, machine), target.record(incumbent, machine)
    spread = target.spread(machine)
    if candidate.primary.n == 0:
        return Look(candidates=1)
    if not baseline_done(view, target, machine):
        return Look(candidates=candidate.primary.n)
    if reference.primary.n == 0:
        if controls > MAX_ABORTS:
            return Look(hopeless=f"what it is compared with cannot be measured on {machine}")
        return Look(candidates=candidate.primary.n, controls=controls + 1)
    violation = _violation(view, target, candidate, machine)
    if violation:
        return Look(violation=violation)
    paired = 0 if spread.deterministic else candidate.primary.n - 1
    if controls < paired:
        return Look(candidates=candidate.primary.n, controls=paired)
    ruling = judge(target, machine)
    if ruling.step != "measure":
        return Look(ruling)
    more = candidate.primary.n + 1
    return Look(candidates=more, controls=0 if spread.deterministic else more - 1)


_Judge = Callable[[Target, str], Ruling]


def _judge_of(view: View, experiment: Experiment) -> _Judge:
    commit = experiment.proposal.commit
    assert commit is not None

    def judge(target: Target, machine: str) -> Ruling:
        return duel(
            target.record(commit, machine).primary,
            target.record(experiment.base, machine).primary,
            target.spread(machine),
            sign=target.info.metric.sign,
            rule=view.config.judge,
        )

    return judge


def look_at(view: View, target: Target, experiment: Experiment) -> Look:
    """Look at an experiment that is not decided yet."""
    commit, machine = experiment.proposal.commit, experiment.machine
    if commit is None or machine is None:
        return Look(candidates=1)
    judge = _judge_of(view, experiment)
    return _look(view, target, commit, experiment.base, machine, experiment.controls, judge)


def look_at_stack(view: View, target: Target) -> tuple[Look, str | None]:
    """Look at the stack that is being measured, on the kind of machine that has measured it."""
    stack = target.stack
    assert stack is not None
    rule = view.config.judge
    for machine in view.crew.machines():
        if target.record(stack.commit, machine).attempts:
            judge: _Judge = lambda t, m: merger.judge_stack(t, m, rule)  # noqa: E731
            controls = target.stack_controls[machine]
            look = _look(view, target, stack.commit, stack.onto, machine, controls, judge)
            return look, machine
    return Look(candidates=1), None


def _violation(view: View, target: Target, candidate: Record, machine: str) -> str | None:
    base = target.record(target.info.base, machine)
    for constraint in view.target_config(target).constraints:
        mean = _mean(candidate, constraint.metric, target.info.metric.name)
        found = violated(
            constraint.metric,
            mean,
            _mean(base, constraint.metric, target.info.metric.name),
            maximum=constraint.max,
            minimum=constraint.min,
            max_regression=constraint.max_regression,
            worse=-target.info.metric.sign if constraint.metric == target.info.metric.name else 1,
        )
        if found:
            return found
    return None


def _mean(record: Record, metric: str, primary: str) -> float | None:
    sample = record.primary if metric == primary else record.others.get(metric)
    return sample.mean if sample is not None and sample.n else None


def baseline_done(view: View, target: Target, machine: str) -> bool:
    """Tell whether enough is known of the base to compare anything on this kind of machine."""
    n = target.record(target.info.base, machine).primary.n
    return n >= (2 if target.spread(machine).deterministic else view.config.judge.baseline)
