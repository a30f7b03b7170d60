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
from swarm.judge import (
    Breach,
    Record,
    Ruling,
    active_cases,
    beyond_doubt,
    breach,
    compare,
    failing,
)
from swarm.judge.evidence import Spread

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
    cases: tuple[str, ...] | None = None
    """The cases of a suite to be measured for it, on both sides; None for all."""


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
    if candidate.primary.n == 0:
        return Look(candidates=candidate.runs + 1)
    if not baseline_done(view, target, machine):
        return Look(candidates=candidate.runs)
    if reference.primary.n == 0:
        if controls > MAX_ABORTS:
            return Look(hopeless=f"what it is compared with cannot be measured on {machine}")
        return Look(candidates=candidate.runs, controls=controls + 1)
    broken = _breach(view, target, candidate, machine)
    if broken is not None and broken.sure:
        return Look(violation=broken.words)
    ruling = judge(target, machine)
    # Each repeat of the candidate is matched by one of the incumbent, where that can tell anything.
    clear = beyond_doubt(ruling, view.rule(target)) or exact(view, target, machine)
    paired = 0 if clear else candidate.runs - 1
    if controls < paired:
        part = None if candidate.whole_last else active_cases(candidate, reference)
        return Look(candidates=candidate.runs, controls=paired, cases=part)
    settled = ruling.step == "keep" and broken is None
    if settled or ruling.step in ("discard", "invalid"):
        return Look(ruling)
    part = ruling.cases if broken is None else None
    more = 0 if clear else candidate.runs
    return Look(candidates=candidate.runs + 1, controls=more, cases=part)


_Judge = Callable[[Target, str], Ruling]


def _judge_of(view: View, experiment: Experiment) -> _Judge:
    commit = experiment.proposal.commit
    assert commit is not None

    def judge(target: Target, machine: str) -> Ruling:
        return compare(
            target.record(commit, machine),
            target.record(experiment.base, machine),
            target.noise(machine),
            target.info.metric,
            view.rule(target),
            simpler=is_simpler(experiment),
        )

    return judge


def is_simpler(experiment: Experiment) -> bool:
    """Tell whether a change removes more lines than it adds."""
    return experiment.proposal.lines_removed > experiment.proposal.lines_added


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
    rule = view.rule(target)
    simpler = is_simpler(view.state.experiments[stack.number])
    for machine in view.crew.machines():
        if target.record(stack.commit, machine).attempts:
            judge: _Judge = lambda t, m: merger.judge_stack(t, m, rule, simpler=simpler)  # noqa: E731
            controls = target.stack_controls[machine]
            look = _look(view, target, stack.commit, stack.onto, machine, controls, judge)
            return look, machine
    return Look(candidates=1), None


def _breach(view: View, target: Target, candidate: Record, machine: str) -> Breach | None:
    """Find what a candidate must not do and does; what is beyond doubt comes first."""
    base, rule = target.record(target.info.base, machine), view.rule(target)
    noise, metric = target.noise(machine), target.info.metric
    limits = [c.limit for c in view.target_config(target).constraints]
    found = [failing(rule.must_pass, candidate, base)]
    found += [breach(limit, candidate, base, noise, metric, rule) for limit in limits]
    real = [b for b in found if b is not None]
    return next((b for b in real if b.sure), real[0] if real else None)


def exact(view: View, target: Target, machine: str) -> bool:
    """Tell whether all that is compared has been the same in all repeats so far."""
    noise, points = target.noise(machine), view.rule(target).points
    costs = [] if points is None else [p.name for p in points.of if p != "cases"]
    return all(
        noise.get(name, Spread()).deterministic for name in (target.info.metric.name, *costs)
    )


def baseline_wanted(view: View, target: Target, machine: str) -> int:
    """Give how many measurements of the base are needed to compare anything with."""
    spread = target.spread(machine)
    begun = spread.freedom > 0 or not spread.agreed
    return view.rule(target).baseline if begun and not exact(view, target, machine) else 2


def baseline_done(view: View, target: Target, machine: str) -> bool:
    """Tell whether enough is known of the base to compare anything on this kind of machine."""
    n = target.record(target.info.base, machine).primary.n
    return n >= 2 and n >= baseline_wanted(view, target, machine)
