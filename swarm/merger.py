"""Which winner goes onto `best` next, and what its measured stack means. Pure; knows no git.

A winner whose base is still `best` is a fast-forward: its tree has been measured. Any other is
laid on `best` textually, and the stack is measured before `best` moves. What is rejected is named
by what was seen, never by inference: `redundant` (adds less than half of what was predicted) or
`antagonistic` (worse than `best`, or it does not run).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from swarm.entities import Experiment, Target
from swarm.judge import Ruling, compare, for_stack, shrunken
from swarm.judge.scalar import EQUAL
from swarm.records import MergeOutcome
from swarm.rules import JudgeConfig

SHARE = 0.5
"""A stack must reach this share of the sum of its parts' shrunken gains."""


class Step(NamedTuple):
    """What to do with the winner `number`."""

    kind: Literal["fast_forward", "stack", "already_there"]
    number: int


def next_step(target: Target, experiments: dict[int, Experiment], *, drain: bool) -> Step | None:
    """Pick the next winner: fast-forwards first, then the largest gain; chains stay in order."""
    if target.stack is not None or not target.queue:
        return None
    queued = [experiments[n] for n in target.queue]
    # A chain is stacked in order, but nothing waits behind a conflict.
    commits = {e.proposal.commit for e in queued if e.conflict_onto is None}
    ready = [e for e in queued if e.base not in commits and _may_try(e, target, drain)]
    if not ready:
        return None
    ready.sort(key=lambda e: -(e.gain or 0.0))
    best_tree = target.tree_of[target.best]
    for experiment in ready:
        if target.tree_of[experiment.base] == best_tree:
            return Step("fast_forward", experiment.number)
    first = ready[0]
    same = first.proposal.tree == best_tree
    return Step("already_there" if same else "stack", first.number)


def _may_try(experiment: Experiment, target: Target, drain: bool) -> bool:
    """A conflict waits for the next `best`, unless there will be none."""
    return drain or experiment.conflict_onto != target.best


def predicted(target: Target, experiment: Experiment) -> float:
    """Give what a winner is expected to add to `best`.

    One that was told apart from its incumbent by something else (it is simpler, faster, cheaper)
    promised nothing of the metric, whatever its luck.
    """
    if experiment.z is not None and experiment.z < EQUAL:
        return 0.0
    return shrunken(experiment.gain or 0.0, target.spread(experiment.machine or ""))


class Merge(NamedTuple):
    """What a measured stack means: accepted, or why not."""

    accepted: bool
    outcome: MergeOutcome | None
    reason: str


def judge_stack(target: Target, machine: str, rule: JudgeConfig, *, simpler: bool) -> Ruling:
    """Compare the measured stack with `best` by the milder rule; both must be measured."""
    assert target.stack is not None
    return compare(
        target.record(target.stack.commit, machine),
        target.record(target.best, machine),
        target.noise(machine),
        target.info.metric,
        for_stack(rule),
        simpler=simpler,
    )


def meaning(ruling: Ruling, predicted: float) -> Merge:
    """Turn the ruling on a stack into a merge decision."""
    wanted = SHARE * predicted
    # What was kept for being simpler, cheaper or faster promised nothing of the metric itself.
    if ruling.step == "keep" and (ruling.gain >= wanted or predicted == 0.0):
        return Merge(True, None, ruling.reason)
    if ruling.gain < 0 and (ruling.z is None or ruling.z <= -1):
        return Merge(False, "antagonistic", f"on best: {ruling.reason}")
    short = f"; {wanted:.6g} was asked" if ruling.gain < wanted else ""
    return Merge(False, "redundant", f"on best: {ruling.reason}{short}")
