"""
Every decision of a run: `plan(view) -> actions`. Pure; knows no git, no process and no clock.

The coordinator calls `plan`, carries out what it says, folds the events, and calls again until
nothing is left to do. Decisions come before work, so that work is always chosen from what is
known. Cost: O(agents + slots + open experiments + queue), never O(experiments).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from swarm import budget, merger
from swarm.config import RunConfig, TargetConfig
from swarm.judge import Record, Ruling, duel, violated
from swarm.records import (
    Decided,
    Draining,
    Dropped,
    FreshResult,
    NotMerged,
    Parked,
    Purpose,
    SlotInfo,
    Synced,
    Verdict,
)
from swarm.state import FINAL_INDEX, Agent, Experiment, RunState, Target

MAX_ABORTS = 2
"""Times that the machinery may die under one experiment before it is `aborted`."""
ABORTS_IN_A_ROW = 10
"""Aborted measurements in a row, and four more for each slot, that end the run: it would spin."""
MAX_INVALID = 5
"""Invalid proposals in a row that park an agent."""


# --- actions -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Emit:
    """Write an event; nothing else has to happen."""

    event: Decided | Draining | Dropped | NotMerged | Parked | Synced


@dataclass(frozen=True)
class Number:
    """Make an agent's prepared proposal an experiment, rebased first if its base has moved."""

    agent: str


@dataclass(frozen=True)
class Stack:
    """Lay a winner on `best`."""

    target: str
    number: int


@dataclass(frozen=True)
class Promote:
    """Move `best` to a winner (fast-forward) or to the accepted stack."""

    target: str
    number: int
    stacked: bool


@dataclass(frozen=True)
class Measure:
    """Measure a commit on a slot."""

    slot: str
    target: str
    commit: str
    tree: str
    index: int
    machine: str
    purpose: Purpose
    experiment: int | None = None


@dataclass(frozen=True)
class Propose:
    """Have an agent make a proposal on a base."""

    agent: str
    target: str
    base: str
    port: int | None = None


@dataclass(frozen=True)
class Finish:
    """The run is over."""

    reason: str
    results: dict[str, FreshResult]


@dataclass(frozen=True)
class Leave:
    """The run was interrupted and nothing is in flight any more."""

    reason: str


@dataclass(frozen=True)
class Fail:
    """The run cannot go on. `on_base` names the target whose base cannot be measured."""

    error: str
    hint: str
    on_base: str | None = None


Action = Emit | Number | Stack | Promote | Measure | Propose | Finish | Leave | Fail


@dataclass
class Crew:
    """Who is there and who is busy. Volatile: nothing here survives the coordinator."""

    slots: dict[str, SlotInfo]
    measuring: dict[str, Measure] = field(default_factory=dict[str, Measure])
    proposing: dict[str, Propose] = field(default_factory=dict[str, Propose])
    offered: set[int] = field(default_factory=set[int])
    """Ports that were handed to an agent in this launch; a port is offered once."""
    interrupted: str | None = None
    """Set by a signal: finish what is being measured, start nothing, leave."""

    def machines(self) -> list[str]:
        """The kinds of machine among the slots."""
        return list(dict.fromkeys(s.machine for s in self.slots.values()))


class View(NamedTuple):
    """What a decision is made from."""

    state: RunState
    crew: Crew
    config: RunConfig
    now: datetime

    def target_config(self, target: Target) -> TargetConfig:
        """Give a target's part of the config."""
        return next(t for t in self.config.targets if t.name == target.info.name)


def plan(view: View) -> list[Action]:
    """Say what to do next: decisions if there are any, else work, else the end of the run."""
    for step in (_decide, _merge, _number, _turn):
        actions = step(view)
        if actions:
            return actions
    if view.crew.interrupted:
        return [] if view.crew.measuring else [Leave(view.crew.interrupted)]
    if view.state.phase == "paused":
        return []
    work: list[Action] = [*_measure(view), *_sync_or_propose(view)]
    if not work and not view.crew.measuring and view.state.phase == "draining":
        return [Finish(view.state.reason, _results(view))]
    return work


# --- verdicts ----------------------------------------------------------------------------------


class _Look(NamedTuple):
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
) -> _Look:
    candidate, reference = target.record(commit, machine), target.record(incumbent, machine)
    spread = target.spread(machine)
    if candidate.primary.n == 0:
        return _Look(candidates=1)
    if not _baseline_done(view, target, machine):
        return _Look(candidates=candidate.primary.n)
    if reference.primary.n == 0:
        if controls > MAX_ABORTS:
            return _Look(hopeless=f"what it is compared with cannot be measured on {machine}")
        return _Look(candidates=candidate.primary.n, controls=controls + 1)
    violation = _violation(view, target, candidate, machine)
    if violation:
        return _Look(violation=violation)
    paired = 0 if spread.deterministic else candidate.primary.n - 1
    if controls < paired:
        return _Look(candidates=candidate.primary.n, controls=paired)
    ruling = judge(target, machine)
    if ruling.step != "measure":
        return _Look(ruling)
    more = candidate.primary.n + 1
    return _Look(candidates=more, controls=0 if spread.deterministic else more - 1)


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


def _look_at(view: View, target: Target, experiment: Experiment) -> _Look:
    commit, machine = experiment.proposal.commit, experiment.machine
    if commit is None or machine is None:
        return _Look(candidates=1)
    judge = _judge_of(view, experiment)
    return _look(view, target, commit, experiment.base, machine, experiment.controls, judge)


def _look_at_stack(view: View, target: Target) -> tuple[_Look, str | None]:
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
    return _Look(candidates=1), None


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


def _decide(view: View) -> list[Action]:
    busy = {m.experiment for m in view.crew.measuring.values()}
    actions: list[Action] = []
    for target in view.state.targets.values():
        for experiment in target.open.values():
            if experiment.number not in busy:
                event = _verdict(view, target, experiment)
                if event is not None:
                    actions.append(Emit(event))
    return actions


def _verdict(view: View, target: Target, experiment: Experiment) -> Decided | None:
    number, proposal = experiment.number, experiment.proposal

    def decided(verdict: Verdict, reason: str) -> Decided:
        return Decided(number=number, verdict=verdict, reason=reason)

    if proposal.invalid is not None or proposal.tree is None:
        return decided("invalid", proposal.invalid or "nothing was proposed")
    first = target.number_of.get(proposal.tree, number)
    if first != number:
        what = f"experiment {first}" if first else "the base"
        return decided("duplicate", f"same tree as {what}")
    if experiment.failed is not None and experiment.failed.failure is not None:
        failure = experiment.failed.failure
        return decided(failure.kind, failure.reason)
    if experiment.aborts > MAX_ABORTS:
        return decided("aborted", f"the machinery died under it {experiment.aborts} times")
    look = _look_at(view, target, experiment)
    if look.violation is not None:
        return decided("constraint_failed", look.violation)
    if look.hopeless is not None:
        return decided("aborted", look.hopeless)
    if look.ruling is None:
        return None
    ruling = look.ruling
    n = target.record(experiment.base, experiment.machine or "").primary.n
    verdict: Verdict = "keep" if ruling.step == "keep" else "discard"
    return Decided(
        number=number,
        verdict=verdict,
        reason=ruling.reason,
        z=ruling.z,
        gain=ruling.gain,
        incumbent_n=n,
    )


# --- merging -----------------------------------------------------------------------------------


def _merge(view: View) -> list[Action]:
    actions: list[Action] = []
    for target in view.state.targets.values():
        action = _merge_one(view, target)
        if action is not None:
            actions.append(action)
    return actions


def _merge_one(view: View, target: Target) -> Action | None:
    name = target.info.name
    if target.stack is not None:
        return _settle_stack(view, target)
    if view.crew.interrupted:
        return None
    drain = view.state.phase == "draining" and not target.open
    step = merger.next_step(target, view.state.experiments, drain=drain)
    if step is None:
        return None
    if step.kind == "fast_forward":
        return Promote(name, step.number, stacked=False)
    if step.kind == "stack":
        return Stack(name, step.number)
    reason = "best already has this tree"
    return Emit(
        NotMerged(
            target=name, number=step.number, outcome="redundant", reason=reason, onto=target.best
        )
    )


def _settle_stack(view: View, target: Target) -> Action | None:
    stack = target.stack
    assert stack is not None
    name = target.info.name
    if any(m.tree == stack.tree for m in view.crew.measuring.values()):
        return None

    def refuse(reason: str) -> Emit:
        return Emit(
            NotMerged(
                target=name,
                number=stack.number,
                outcome="antagonistic",
                reason=reason,
                onto=stack.onto,
            )
        )

    if target.stack_failed is not None and target.stack_failed.failure is not None:
        failure = target.stack_failed.failure
        return refuse(f"on best: {failure.kind}: {failure.reason}")
    if target.stack_aborts > MAX_ABORTS:
        return refuse("on best: the machinery died under its measurement")
    look, _ = _look_at_stack(view, target)
    if look.violation is not None or look.hopeless is not None:
        return refuse(f"on best: {look.violation or look.hopeless}")
    if look.ruling is None:
        return None
    merge = merger.meaning(look.ruling, stack.predicted)
    if merge.accepted:
        return Promote(name, stack.number, stacked=True)
    assert merge.outcome is not None
    return Emit(
        NotMerged(
            target=name,
            number=stack.number,
            outcome=merge.outcome,
            reason=merge.reason,
            onto=stack.onto,
        )
    )


# --- the run's turns ---------------------------------------------------------------------------


def _number(view: View) -> list[Action]:
    """Number prepared proposals whose turn has come; drop them when the run drains."""
    state, actions = view.state, list[Action]()
    if view.crew.interrupted or state.phase == "paused":
        return actions
    for name, agent in state.agents.items():
        if agent.prepared is None:
            continue
        if state.phase == "draining":
            actions.append(Emit(Dropped(agent=name, reason="the run is draining")))
        elif not agent.open:
            actions.append(Number(name))
    return actions


def _turn(view: View) -> list[Action]:
    """Park agents, start to drain, or give up."""
    state, crew = view.state, view.crew
    if crew.interrupted or state.phase not in ("running", "draining"):
        return []
    troubles = [_base_trouble(t) for t in state.targets.values()]
    for trouble in (*troubles, _machine_trouble(view)):
        if trouble is not None:
            return [trouble]
    if state.phase == "draining":
        return []
    for name, agent in state.agents.items():
        if agent.parked is None and agent.invalid_streak >= MAX_INVALID:
            reason = f"{agent.invalid_streak} invalid proposals in a row"
            return [Emit(Parked(agent=name, reason=reason))]
    reason = budget.spent(view.config, state, view.now)
    if reason is not None:
        return [Emit(Draining(reason=reason))]
    return _all_parked(view)


def _all_parked(view: View) -> list[Action]:
    agents = view.state.agents.values()
    left = budget.group_room(view.config, view.state)
    may = any(a.parked is None and left.get(a.info.group) != 0 for a in agents)
    still = may or any(a.open or a.prepared or a.queued for a in agents)
    if still or view.crew.proposing or view.crew.measuring:
        return []
    if all(a.exhausted for a in agents):
        return [Emit(Draining(reason="every proposer has tried all it can think of"))]
    reasons = sorted(f"{a.info.name}: {a.parked}" for a in agents if a.parked and not a.exhausted)
    if not reasons:
        return [Emit(Draining(reason="budget: what the groups of agents may use"))]
    return [
        Fail(
            "every agent is parked: " + "; ".join(reasons),
            "`swarm show` tells what was wrong with their last proposals; "
            "launch the run again to resume it",
        )
    ]


def _base_trouble(target: Target) -> Fail | None:
    """A base that cannot be measured ends the run: nothing could be compared with it."""
    failed = target.failed_on_base
    works = target.primary(target.info.base).n
    if not failed or (works and len(failed) < 2):
        return None
    failure = failed[-1].failure
    assert failure is not None
    what = "sometimes fails" if works else "cannot be measured"
    tail = f"\n--- end of its output ---\n{failure.tail.rstrip()}" if failure.tail.strip() else ""
    return Fail(
        f"target `{target.info.name}`: the base {what}: {failure.kind}: {failure.reason}{tail}",
        "run the target's commands by hand in a clean checkout of its base, then launch again",
        on_base=target.info.name,
    )


def _machine_trouble(view: View) -> Fail | None:
    """Measurements that all die say nothing of any commit, so they would be made for ever."""
    died = view.state.aborts
    if len(died) < ABORTS_IN_A_ROW + 4 * len(view.crew.slots):
        return None
    return Fail(
        f"the machinery died under the last {len(died)} measurements: {died[-1]}",
        "free the machine of what is in the way (a full disk, say), then launch again",
    )


# --- measuring ---------------------------------------------------------------------------------


class _Wish(NamedTuple):
    commit: str
    purpose: Purpose
    experiment: int | None = None
    machine: str | None = None
    """The only kind of machine that will do, or None."""
    final: int | None = None
    """Index of a final measurement."""


def _measure(view: View) -> list[Action]:
    """Give free slots to the most urgent wishes."""
    crew = view.crew
    free = [s for s in crew.slots.values() if s.name not in crew.measuring]
    # Behind the highest index in flight: those before it may come back aborted, without a record.
    pending: dict[tuple[str, str], int] = {}
    for m in crew.measuring.values():
        if m.purpose != "final":
            pending[m.tree, m.machine] = max(pending.get((m.tree, m.machine), 0), m.index + 1)
    actions: list[Action] = []
    for target in view.state.targets.values():
        for wish in _wishes(view, target):
            if not free:
                return actions
            slot = next((s for s in free if wish.machine in (None, s.machine)), None)
            if slot is None:
                continue
            free.remove(slot)
            tree = target.tree_of[wish.commit]
            key = (tree, slot.machine)
            if wish.final is not None:
                index = wish.final
            else:
                attempts = target.record(wish.commit, slot.machine).attempts
                index = max(attempts, pending.get(key, 0))
                pending[key] = index + 1
            actions.append(
                Measure(
                    slot=slot.name,
                    target=target.info.name,
                    commit=wish.commit,
                    tree=tree,
                    index=index,
                    machine=slot.machine,
                    purpose=wish.purpose,
                    experiment=wish.experiment,
                )
            )
    return actions


def _wishes(view: View, target: Target) -> Iterator[_Wish]:
    """All measurements that would help now, the most urgent first."""
    yield from _baseline_wishes(view, target)
    if target.primary(target.info.base).n == 0:
        return  # a base that does not run would make every other measurement worthless
    yield from _stack_wishes(view, target)
    yield from _record_wishes(view, target)
    looked = [
        (e, _look_at(view, target, e)) for e in target.open.values() if _measurable(target, e)
    ]
    for experiment, look in looked:
        if experiment.machine is not None:
            yield from _duel_wishes(view, target, experiment, look)
    for experiment, _ in looked:
        if experiment.machine is None:
            commit = experiment.proposal.commit
            if commit is not None and not _under_way(view, "candidate", experiment.number):
                yield _Wish(commit, "candidate", experiment.number)
    yield from _final_wishes(view, target)


def _measurable(target: Target, experiment: Experiment) -> bool:
    tree = experiment.proposal.tree
    return tree is not None and target.number_of.get(tree) == experiment.number


def _under_way(
    view: View, purpose: Purpose, experiment: int | None, tree: str | None = None
) -> int:
    return sum(
        m.purpose == purpose and m.experiment == experiment and tree in (None, m.tree)
        for m in view.crew.measuring.values()
    )


def _baseline_done(view: View, target: Target, machine: str) -> bool:
    n = target.record(target.info.base, machine).primary.n
    return n >= (2 if target.spread(machine).deterministic else view.config.judge.baseline)


def _baseline_wishes(view: View, target: Target) -> Iterator[_Wish]:
    base = target.info.base
    if view.state.phase == "draining" and not (target.open or target.queue):
        return
    for machine in view.crew.machines():
        spread = target.spread(machine)
        noisy = spread.freedom > 0 and not spread.deterministic
        wanted = view.config.judge.baseline if noisy else 2
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
    look, machine = _look_at_stack(view, target)
    have = 0 if machine is None else target.record(stack.commit, machine).primary.n
    have += _under_way(view, "stack", stack.number, stack.tree)
    for _ in range(look.candidates - have):
        yield _Wish(stack.commit, "stack", stack.number, machine)
    made = 0 if machine is None else target.stack_controls[machine]
    have = made + _under_way(view, "control", None, target.tree_of[stack.onto])
    for _ in range(look.controls - have):
        yield _Wish(stack.onto, "control", None, machine)


def _record_wishes(view: View, target: Target) -> Iterator[_Wish]:
    """Keep the records honest: fresh keeps are topped up, incumbents measured again."""
    for tree, commit in target.unconfirmed.items():
        if not _under_way(view, "confirm", None, tree):
            yield _Wish(commit, "confirm", machine=target.machine(commit))
    every = view.config.judge.control_every
    incumbents = {a.incumbent for a in view.state.agents.values()} | {target.best}
    for tree, commit in {target.tree_of[c]: c for c in incumbents if c in target.tree_of}.items():
        noisy = any(not s.deterministic for s in target.spreads.values())
        due = every and target.compared.get(tree, 0) >= every
        if noisy and due and not _under_way(view, "control", None, tree):
            yield _Wish(commit, "control")


def _duel_wishes(
    view: View, target: Target, experiment: Experiment, look: _Look
) -> Iterator[_Wish]:
    commit, machine = experiment.proposal.commit, experiment.machine
    assert commit is not None
    assert machine is not None
    have = target.record(commit, machine).primary.n
    have += _under_way(view, "candidate", experiment.number)
    for _ in range(look.candidates - have):
        yield _Wish(commit, "candidate", experiment.number, machine)
    have = experiment.controls + _under_way(view, "control", experiment.number)
    for _ in range(look.controls - have):
        yield _Wish(experiment.base, "control", experiment.number, machine)


def _final_wishes(view: View, target: Target) -> Iterator[_Wish]:
    """Measure base and best afresh, interleaved, once everything else is settled."""
    if not _settled(view, target) or view.state.phase != "draining":
        return
    base, best = target.info.base, target.best
    if target.tree_of[base] == target.tree_of[best]:
        return
    machine = max(view.crew.machines(), key=lambda m: target.record(base, m).primary.n)
    confirm = view.config.judge.confirm
    rounds = min(2, confirm) if target.spread(machine).deterministic else confirm
    made = {(c, i) for c, tried in target.finals_tried.items() for i in tried}
    made |= {(m.commit, m.index) for m in view.crew.measuring.values() if m.purpose == "final"}
    for index in range(FINAL_INDEX, FINAL_INDEX + rounds):
        for commit in (base, best):
            if (commit, index) not in made:
                yield _Wish(commit, "final", machine=machine, final=index)


def _settled(view: View, target: Target) -> bool:
    quiet = not target.open and not target.queue and target.stack is None
    return quiet and not any(
        m.purpose != "final" and m.target == target.info.name for m in view.crew.measuring.values()
    )


def _results(view: View) -> dict[str, FreshResult]:
    """Give the fresh difference of each target that moved; never pooled with the records."""
    results: dict[str, FreshResult] = {}
    for name, target in view.state.targets.items():
        before, after = (target.finals.get(c, []) for c in (target.info.base, target.best))
        if not before or not after or target.tree_of[target.best] == target.info.base_tree:
            continue
        base_mean, best_mean = sum(before) / len(before), sum(after) / len(after)
        machine = max(target.spreads, key=lambda m: target.spreads[m].freedom)
        sigma = target.spreads[machine].sigma or 0.0
        results[name] = FreshResult(
            gain=target.info.metric.sign * (best_mean - base_mean),
            se=sigma * (1 / len(before) + 1 / len(after)) ** 0.5,
            n=min(len(before), len(after)),
            base_mean=base_mean,
            best_mean=best_mean,
        )
    return results


# --- proposing ---------------------------------------------------------------------------------


def _sync_or_propose(view: View) -> list[Action]:
    """Set idle agents to work, on `best` if it moved and none of their own keeps is queued."""
    state, crew = view.state, view.crew
    if state.phase != "running":
        return []
    under_way = len(crew.proposing) + sum(a.prepared is not None for a in state.agents.values())
    room = budget.room(view.config, state, under_way)
    busy = [n for n, a in state.agents.items() if n in crew.proposing or a.prepared is not None]
    left = budget.group_room(view.config, state, busy)
    actions: list[Action] = []
    ports = [
        (t.info.name, n) for t in state.targets.values() for n in t.ports if n not in crew.offered
    ]
    for name, agent in sorted(state.agents.items(), key=lambda item: item[1].proposals):
        if room is not None and room <= 0:
            break
        group = agent.info.group
        if not _may_propose(view, name, agent) or left.get(group) == 0:
            continue
        target = state.targets[agent.info.target]
        base = agent.incumbent
        if view.config.merge.sync == "best" and not agent.queued:
            base = target.best
            if agent.incumbent != base:
                tree = target.tree_of[base]
                actions.append(Emit(Synced(agent=name, commit=base, tree=tree)))
        mine = (n for t, n in ports if t == agent.info.target)
        port = next(mine, None)
        if port is not None:
            ports.remove((agent.info.target, port))
        actions.append(Propose(name, agent.info.target, base, port))
        room = None if room is None else room - 1
        if group in left:
            left[group] -= 1
    return actions


def _may_propose(view: View, name: str, agent: Agent) -> bool:
    if agent.parked is not None or agent.prepared is not None or name in view.crew.proposing:
        return False
    return len(agent.open) <= view.config.lookahead
