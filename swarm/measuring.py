"""Which measurements to make next: wishes in the order of their urgency, dealt to free slots.

Pure. Baselines come first, then the merger's stacks, then what keeps records honest, then
experiments that are being compared, then new ones; base and best afresh at the very end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from swarm.actions import Measure, View
from swarm.entities import FINAL_INDEX, Experiment, Target
from swarm.judge import difference
from swarm.looks import Look, baseline_wanted, exact, look_at, look_at_stack
from swarm.records import FreshResult, Purpose


class _Wish(NamedTuple):
    commit: str
    purpose: Purpose
    experiment: int | None = None
    machine: str | None = None
    """The only kind of machine that will do, or None."""
    final: int | None = None
    """Index of a final measurement."""
    cases: tuple[str, ...] | None = None
    """The cases of a suite to be run; None for all."""


def measurements(view: View) -> list[Measure]:
    """Give free slots to the most urgent wishes of those targets that have had least."""
    crew = view.crew
    free = [s for s in crew.slots.values() if s.name not in crew.measuring]
    # Behind the highest index in flight: those before it may come back aborted, without a record.
    pending: dict[tuple[str, str, str], int] = {}
    for m in crew.measuring.values():
        if m.purpose != "final":
            key = (m.target, m.tree, m.machine)
            pending[key] = max(pending.get(key, 0), m.index + 1)
    chosen: list[Measure] = []
    # The trees of two targets may be the same, but their records never are: see `key`.
    wishes = {name: _wishes(view, t) for name, t in view.state.targets.items()}
    shares = Shares(view)
    while free and wishes:
        name = shares.least(wishes)
        target = view.state.targets[name]
        wish = next(wishes[name], None)
        if wish is None:
            del wishes[name]
            continue
        slot = next((s for s in free if wish.machine in (None, s.machine)), None)
        if slot is None:
            continue
        free.remove(slot)
        shares.take(name)
        tree = target.tree_of[wish.commit]
        key = (name, tree, slot.machine)
        if wish.final is not None:
            index = wish.final
        else:
            attempts = target.record(wish.commit, slot.machine).attempts
            index = max(attempts, pending.get(key, 0))
            pending[key] = index + 1
        chosen.append(
            Measure(
                slot=slot.name,
                target=name,
                commit=wish.commit,
                tree=tree,
                index=index,
                machine=slot.machine,
                purpose=wish.purpose,
                experiment=wish.experiment,
                cases=wish.cases,
            )
        )
    return chosen


class Shares:
    """How much of the slots' time each target has had lately, for its weight.

    Lately, so that one with nothing to measure for hours does not take all slots for as long after.
    """

    def __init__(self, view: View) -> None:
        """Count what was measured, and what is in flight at what it has taken so far."""
        targets = view.state.targets.values()
        busy, made = sum(t.busy_seconds for t in targets), sum(t.measurements for t in targets)
        usual = busy / made if busy > 0 else 1.0
        self._weights = {t.info.name: view.target_config(t).weight for t in targets}
        self._each = {
            t.info.name: t.busy_seconds / t.measurements if t.busy_seconds > 0 else usual
            for t in targets
        }
        self._had = {t.info.name: t.lately for t in targets}
        for m in view.crew.measuring.values():
            self.take(m.target)

    def take(self, name: str) -> None:
        """Count a measurement that a target is going to have."""
        self._had[name] += self._each[name]

    def least(self, names: Iterable[str]) -> str:
        """Give the target that has had least; of equals the first."""
        return min(names, key=lambda name: self._had[name] / self._weights[name])


def _wishes(view: View, target: Target) -> Iterator[_Wish]:
    """All measurements that would help now, the most urgent first."""
    if target.failed:
        return  # nothing can be compared there any more
    yield from _baseline_wishes(view, target)
    if target.primary(target.info.base).n == 0:
        return  # a base that does not run would make every other measurement worthless
    yield from _stack_wishes(view, target)
    yield from _record_wishes(view, target)
    looked = [(e, look_at(view, target, e)) for e in target.open.values() if _measurable(target, e)]
    for experiment, look in looked:
        if experiment.machine is not None:
            yield from _duel_wishes(view, target, experiment, look)
    for experiment, _ in looked:
        if experiment.machine is None:
            commit = experiment.proposal.commit
            if commit is not None and not _under_way(view, target, "candidate", experiment.number):
                yield _Wish(commit, "candidate", experiment.number)
    yield from _final_wishes(view, target)


def _measurable(target: Target, experiment: Experiment) -> bool:
    tree = experiment.proposal.tree
    known = tree is not None and target.number_of.get(tree) == experiment.number
    return known and experiment.failed is None and experiment.proposal.twin is None


def _under_way(
    view: View, target: Target, purpose: Purpose, experiment: int | None, tree: str | None = None
) -> int:
    return sum(
        m.target == target.info.name
        and m.purpose == purpose
        and m.experiment == experiment
        and tree in (None, m.tree)
        for m in view.crew.measuring.values()
    )


def _baseline_wishes(view: View, target: Target) -> Iterator[_Wish]:
    base = target.info.base
    if view.state.closing(target) and not (target.open or target.queue):
        return
    for machine in view.crew.machines():
        wanted = baseline_wanted(view, target, machine)
        have = target.record(base, machine).primary.n
        have += sum(
            m.purpose == "baseline" and m.machine == machine and m.target == target.info.name
            for m in view.crew.measuring.values()
        )
        for _ in range(wanted - have):
            yield _Wish(base, "baseline", machine=machine)


def _stack_wishes(view: View, target: Target) -> Iterator[_Wish]:
    stack = target.stack
    if stack is None or target.stack_failed is not None:
        return
    look, machine = look_at_stack(view, target)
    have = 0 if machine is None else target.record(stack.commit, machine).runs
    have += _under_way(view, target, "stack", stack.number, stack.tree)
    for _ in range(look.candidates - have):
        yield _Wish(stack.commit, "stack", stack.number, machine, cases=look.cases)
    made = 0 if machine is None else target.stack_controls[machine]
    have = made + _under_way(view, target, "control", None, target.tree_of[stack.onto])
    for _ in range(look.controls - have):
        yield _Wish(stack.onto, "control", None, machine, cases=look.cases)


def _record_wishes(view: View, target: Target) -> Iterator[_Wish]:
    """Keep the records honest: fresh keeps are topped up, incumbents measured again."""
    for tree, commit in target.unconfirmed.items():
        if not _under_way(view, target, "confirm", None, tree):
            yield _Wish(commit, "confirm", machine=target.machine(commit))
    every = view.rule(target).control_every
    name = target.info.name
    loops = (a.loops[name] for a in view.state.agents.values() if name in a.loops)
    incumbents = {loop.incumbent for loop in loops} | {target.best}
    for tree, commit in {target.tree_of[c]: c for c in incumbents if c in target.tree_of}.items():
        noisy = any(not s.deterministic for s in target.spreads.values())
        due = every and target.compared.get(tree, 0) >= every
        if noisy and due and not _under_way(view, target, "control", None, tree):
            yield _Wish(commit, "control")


def _duel_wishes(view: View, target: Target, experiment: Experiment, look: Look) -> Iterator[_Wish]:
    commit, machine = experiment.proposal.commit, experiment.machine
    assert commit is not None
    assert machine is not None
    have = target.record(commit, machine).runs
    have += _under_way(view, target, "candidate", experiment.number)
    for _ in range(look.candidates - have):
        yield _Wish(commit, "candidate", experiment.number, machine, cases=look.cases)
    have = experiment.controls + _under_way(view, target, "control", experiment.number)
    for _ in range(look.controls - have):
        yield _Wish(experiment.base, "control", experiment.number, machine, cases=look.cases)


def _final_wishes(view: View, target: Target) -> Iterator[_Wish]:
    """Measure base and best afresh, interleaved, once everything else is settled."""
    if not _settled(view, target) or not view.state.closing(target):
        return
    base, best = target.info.base, target.best
    if target.tree_of[base] == target.tree_of[best]:
        return
    machine = max(view.crew.machines(), key=lambda m: target.record(base, m).primary.n)
    confirm = view.rule(target).confirm
    # Where `run` always says the same, the `final` command may still vary.
    once = exact(view, target, machine) and view.target_config(target).final is None
    rounds = min(2, confirm) if once else confirm
    made = {(c, i) for c, tried in target.finals_tried.items() for i in tried}
    name = target.info.name
    flying = [m for m in view.crew.measuring.values() if m.target == name]
    made |= {(m.commit, m.index) for m in flying if m.purpose == "final"}
    for index in range(FINAL_INDEX, FINAL_INDEX + rounds):
        for commit in (base, best):
            if (commit, index) not in made:
                yield _Wish(commit, "final", machine=machine, final=index)


def _settled(view: View, target: Target) -> bool:
    quiet = not target.open and not target.queue and target.stack is None
    return quiet and not any(
        m.purpose != "final" and m.target == target.info.name for m in view.crew.measuring.values()
    )


def results(view: View) -> dict[str, FreshResult]:
    """Give the fresh difference of each target that moved; never pooled with the records."""
    found: dict[str, FreshResult] = {}
    for name, target in view.state.targets.items():
        if target.tree_of[target.best] == target.info.base_tree:
            continue
        ends, sign = (target.info.base, target.best), target.info.metric.sign
        machine = max(target.spreads, key=lambda m: target.spreads[m].freedom)
        sigma = target.spreads[machine].sigma or 0.0
        before, after = (target.finals.get(c, []) for c in ends)
        result = difference(before, after, sign, sigma)
        before, after = (target.sealed.get(c, []) for c in ends)
        confirmed = difference(before, after, sign, sigma)
        if result is not None:
            found[name] = result.model_copy(update={"confirmed": confirmed})
    return found
