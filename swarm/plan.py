"""Every decision of a run: `plan(view) -> actions`. Pure; knows no git, no process and no clock.

The coordinator calls `plan`, carries out what it says, folds the events, and calls again until
nothing is left to do. Decisions come before work, so that work is always chosen from what is
known. Cost: O(agents + slots + open experiments + queue), never O(experiments).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from swarm import budget, merger
from swarm.actions import (
    Action,
    Emit,
    Fail,
    Finish,
    Leave,
    Number,
    Promote,
    Propose,
    Stack,
    View,
)
from swarm.config import TargetConfig
from swarm.entities import Agent, Experiment, Target
from swarm.judge import Step, case_changes, drifted, parted
from swarm.looks import MAX_ABORTS, look_at, look_at_stack
from swarm.measuring import measurements, results
from swarm.patterns import CORRECT_IT
from swarm.records import (
    DRIFT,
    Decided,
    Draining,
    Dropped,
    Ended,
    Exhausted,
    Failure,
    MergeOutcome,
    NotMerged,
    Parked,
    Synced,
    Verdict,
    Warned,
)
from swarm.state import RunState

ABORTS_IN_A_ROW = 10
"""Aborted measurements in a row, and four more for each slot, that end the run: it would spin."""
FAILED = "its target has ended: nothing can be compared with its base"
LONGEST_HELD_S = 600.0
"""A crash whose proposer has to wait for longer than this is not held open for it."""
MAX_INVALID = 5
"""Invalid proposals in a row that park an agent."""


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
    work: list[Action] = [*measurements(view), *_sync_or_propose(view)]
    if not work and not view.crew.measuring and view.state.phase == "draining":
        return [Finish(view.state.reason, results(view))]
    return work


# --- verdicts ----------------------------------------------------------------------------------


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
    if proposal.twin is not None:
        return decided("duplicate", f"same {proposal.twin.same} as {_called(proposal.twin.number)}")
    if target.failed:
        return decided("aborted", FAILED)
    first = target.number_of.get(proposal.tree, number)
    if first != number:
        return decided("duplicate", f"same tree as {_called(first)}")
    if experiment.failed is not None and experiment.failed.failure is not None:
        if _may_be_mended(view, experiment):
            return None
        failure = experiment.failed.failure
        return decided(failure.kind, failure.reason)
    if experiment.aborts > MAX_ABORTS:
        return decided("aborted", f"the machinery died under it {experiment.aborts} times")
    look = look_at(view, target, experiment)
    if look.hopeless is not None:
        return decided("aborted", look.hopeless)
    machine = experiment.machine or ""
    candidate, incumbent = (
        target.record(c, machine) for c in (proposal.commit or "", experiment.base)
    )
    fixed, broken = case_changes(candidate, incumbent)
    if look.violation is not None:
        failed = decided("constraint_failed", look.violation)
        return failed.model_copy(update={"fixed": fixed, "broken": broken})
    if look.ruling is None:
        return None
    ruling = look.ruling
    verdicts: dict[Step, Verdict] = {"keep": "keep", "invalid": "invalid"}
    return Decided(
        number=number,
        verdict=verdicts.get(ruling.step, "discard"),
        reason=ruling.reason,
        z=ruling.z,
        gain=ruling.gain,
        incumbent_n=incumbent.runs,
        fixed=fixed,
        broken=broken,
    )


def _called(number: int | None) -> str:
    if number is None:
        return "what another agent has prepared"
    return f"experiment {number}" if number else "the base"


def _may_be_mended(view: View, experiment: Experiment) -> bool:
    """Tell whether a crash goes back to its proposer."""
    agent = view.state.agents[experiment.agent]
    failed = experiment.failed
    crashed = failed is not None and failed.failure is not None and failed.failure.kind == "crash"
    again = experiment.repairs < view.config.repair and not experiment.gave_up
    serves = experiment.target in agent.info.targets
    able = agent.info.thinks and agent.parked is None and serves
    until = agent.waiting_until
    soon = until is None or (until - view.now).total_seconds() < LONGEST_HELD_S
    closing = view.state.closing(view.state.targets[experiment.target])
    return crashed and again and able and soon and not closing


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
    if target.failed:
        waiting = [target.stack.number] if target.stack is not None else target.queue
        return next((_refuse(target, n, "antagonistic", FAILED) for n in waiting), None)
    if target.stack is not None:
        return _settle_stack(view, target)
    if view.crew.interrupted:
        return None
    drain = view.state.closing(target) and not target.open
    step = merger.next_step(target, view.state.experiments, drain=drain)
    if step is None:
        return None
    if step.kind == "fast_forward":
        return Promote(name, step.number, stacked=False)
    if step.kind == "stack":
        return Stack(name, step.number)
    return _refuse(target, step.number, "redundant", "best already has this tree")


def _refuse(target: Target, number: int, outcome: MergeOutcome, reason: str) -> Emit:
    name, onto = target.info.name, target.best
    event = NotMerged(target=name, number=number, outcome=outcome, reason=reason, onto=onto)
    return Emit(event)


def _settle_stack(view: View, target: Target) -> Action | None:
    stack = target.stack
    assert stack is not None
    flying = view.crew.measuring.values()
    if any(m.tree == stack.tree and m.target == target.info.name for m in flying):
        return None

    def refuse(reason: str) -> Emit:
        return _refuse(target, stack.number, "antagonistic", reason)

    if target.stack_failed is not None and target.stack_failed.failure is not None:
        failure = target.stack_failed.failure
        return refuse(f"on best: {failure.kind}: {failure.reason}")
    if target.stack_aborts > MAX_ABORTS:
        return refuse("on best: the machinery died under its measurement")
    look, _ = look_at_stack(view, target)
    if look.violation is not None or look.hopeless is not None:
        return refuse(f"on best: {look.violation or look.hopeless}")
    if look.ruling is None:
        return None
    merge = merger.meaning(look.ruling, stack.predicted)
    if merge.accepted:
        return Promote(target.info.name, stack.number, stacked=True)
    assert merge.outcome is not None
    return _refuse(target, stack.number, merge.outcome, merge.reason)


# --- the run's turns ---------------------------------------------------------------------------


def _number(view: View) -> list[Action]:
    """Number prepared proposals whose turn has come; drop them when the run drains."""
    state, actions = view.state, list[Action]()
    if view.crew.interrupted or state.phase == "paused":
        return actions
    for name, agent in state.agents.items():
        for target, loop in agent.loops.items():
            if loop.prepared is None:
                continue
            if view.state.closing(state.targets[target]):
                what = "run is draining" if state.phase == "draining" else "target has ended"
                actions.append(Emit(Dropped(agent=name, target=target, reason=f"the {what}")))
            elif not loop.open:
                actions.append(Number(name, target))
    return actions


def _turn(view: View) -> list[Action]:
    """Park agents, start to drain, or give up."""
    state, crew = view.state, view.crew
    if crew.interrupted or state.phase not in ("running", "draining"):
        return []
    targets = state.targets.values()
    trouble = next(_target_troubles(view), None)
    if trouble is not None:
        return [trouble]
    drift = next((event for t in targets if (event := _drift(view, t))), None)
    if drift is not None:
        return [Emit(drift)]
    if state.phase == "draining":
        return []
    stopped = next(_no_use(view), None)
    if stopped is not None:
        return [Emit(stopped)]
    warnings = budget.warning(view.config, state, view.now)
    if warnings:
        return [Emit(Warned(limit=limit, message=words)) for limit, words in warnings]
    reason = budget.spent(view.config, state, view.now)
    if reason is not None:
        return [Emit(Draining(reason=reason))]
    return _end_targets(view) or _all_parked(view)


def _no_use(view: View) -> Iterator[Parked | Exhausted]:
    """Stop an agent where it proposes nothing that can be measured; altogether, if it is so there
    where it was last of use.
    """
    for name, agent in view.state.agents.items():
        for target, loop in agent.loops.items():
            stops = loop.invalid_streak >= MAX_INVALID and loop.exhausted is None
            if agent.parked is not None or not stops:
                continue
            reason = f"{loop.invalid_streak} invalid proposals in a row"
            if any(t != target and _may_try(view, agent, t) for t in agent.info.targets):
                yield Exhausted(agent=name, target=target, reason=reason)
            else:
                yield Parked(agent=name, reason=reason)


def _target_troubles(view: View) -> Iterator[Action]:
    """End a target that cannot be measured; when there is no other, the run cannot go on."""
    for target in view.state.targets.values():
        looks = (_base_trouble, _unknown_names, _machine_trouble)
        found = (look(view, target) for look in looks if not target.failed)
        trouble = next((one for one in found if one is not None), None)
        if trouble is not None:
            others = (t for t in view.state.targets.values() if t is not target)
            last = all(t.failed for t in others)
            name = target.info.name
            reason = trouble.error.removeprefix(f"target `{name}`: ")
            yield trouble if last else Emit(Ended(target=name, reason=reason, failed=True))


def _end_targets(view: View) -> list[Action]:
    """End the targets that have used up what they may; with the last of them the run drains."""
    found = {
        t.info.name: budget.target_spent(view.config, view.state, t, view.now)
        for t in view.state.targets.values()
    }
    if len(found) == 1:
        return [Emit(Draining(reason=f"budget: {why}")) for why in found.values() if why]
    ended = [t.ended is not None for t in view.state.targets.values()]
    new = {name: why for name, why in found.items() if why is not None}
    if new:
        return [Emit(Ended(target=name, reason=f"budget: {why}")) for name, why in new.items()]
    return [Emit(Draining(reason="every target has come to its end"))] if all(ended) else []


def _all_parked(view: View) -> list[Action]:
    agents = [a for a in view.state.agents.values() if not a.gone]
    left = budget.group_room(view.config, view.state, now=view.now)
    more = {a.info.name: any(_may_try(view, a, t) for t in a.info.targets) for a in agents}
    may = any(
        a.parked is None and more[a.info.name] and left.get(a.info.group) != 0 for a in agents
    )
    loops = [loop for agent in agents for loop in agent.loops.values()]
    still = may or any(loop.outstanding or loop.queued for loop in loops)
    if still or view.crew.proposing or view.crew.measuring:
        return []
    stuck = [a for a in agents if a.parked]
    if not stuck and not any(more.values()):
        return [Emit(Draining(reason="every proposer has tried all it can think of"))]
    if not stuck:
        return [Emit(Draining(reason=budget.groups_spent(view.config, view.state, view.now)))]
    names: dict[str, list[str]] = {}
    for agent in stuck:
        names.setdefault(agent.parked or "", []).append(agent.info.name)
    reasons = "; ".join(f"{', '.join(who)}: {why}" for why, who in names.items())
    hints = list(dict.fromkeys(a.hint for a in stuck if a.hint))
    known = "; ".join(hints) or "`swarm show` tells what was wrong with their last proposals"
    error, hint = f"every agent is parked: {reasons}", f"{known}; launch the run again to resume it"
    return [Fail(error, hint, results=results(view))]


def _base_trouble(view: View, target: Target) -> Fail | None:
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
        _mending(failure, view.target_config(target)),
        on_base=target.info.name,
    )


def _mending(failure: Failure, config: TargetConfig) -> str:
    """Say what helps against a base that cannot be measured."""
    metric = config.metric
    if failure.kind == "invalid" and metric.pattern is not None:
        return CORRECT_IT
    if failure.kind == "invalid" and metric.lines == "last":
        return "`run` has to end in a command that prints the number, alone or with its name"
    printed = [line for line in failure.tail.splitlines() if not line.startswith("=== swarm:")]
    if failure.kind == "crash" and not "".join(printed).strip() and "grep" in config.run:
        return (
            "it printed nothing: what stands before the `grep` failed, or printed no such line; "
            "run that by hand in a clean checkout of its base"
        )
    return (
        "`swarm check` says what the sandbox hides that it asks for; or run the target's commands "
        "by hand in a clean checkout of its base, then launch again"
    )


def _unknown_names(view: View, target: Target) -> Fail | None:
    """A case or a cost that does not exist would be watched over by nobody."""
    machine = target.machine(target.info.base)
    if machine is None or not target.primary(target.info.base).n:
        return None
    rule, base = view.rule(target), target.record(target.info.base, machine)
    costs = [] if rule.points is None else [p.name for p in rule.points.of if p != "cases"]
    limits = view.target_config(target).constraints
    sought = tuple(c.metric for c in limits if c.pattern is not None)
    for key, wanted, there, what in (
        ("judge.must_pass", rule.must_pass, target.suite, "cases"),
        ("judge.points", costs, tuple(base.others), "costs"),
        ("a `pattern` of target.constraints", sought, tuple(base.others), "metrics"),
    ):
        unknown = [name for name in wanted if name not in there]
        if unknown:
            return Fail(
                f"target `{target.info.name}`: {key} names {what} that the harness does not "
                f"report: {', '.join(unknown)}",
                f"correct {key} and launch under another --name; reported for the base: "
                f"{', '.join(there[:6]) or 'none'}",
                on_base=target.info.name,
            )
    return None


def _drift_key(state: RunState, target: Target) -> str:
    return DRIFT if len(state.targets) == 1 else f"{DRIFT}.{target.info.name}"


def _drift(view: View, target: Target) -> Warned | None:
    """Notice, once, that a commit no longer measures as it did; controls show it."""
    rule = view.rule(target)
    key = _drift_key(view.state, target)
    if key in view.state.warnings or rule.window != "all":
        return None
    for machine, spread in target.spreads.items():
        for commit in (target.info.base, target.best):
            sample = target.record(commit, machine).primary
            # The first values of a keep are those that it was chosen for.
            chosen = 0 if commit == target.info.base else rule.runs
            apart = drifted(sample, spread, rule.baseline, after=chosen)
            last = target.finals.get(commit, []) if chosen == 0 else []
            apart = apart or parted(sample.values[: rule.baseline], last, spread)
            if apart is not None:
                name = target.info.metric.name
                where = "" if key == DRIFT else f" (target `{target.info.name}`)"
                words = (
                    f"the machine drifts{where}: {name} of the same commit has moved by "
                    f"{apart:+.1f} standard errors since it was first measured; set judge.window "
                    "to 5, and give each slot a core or a GPU of its own"
                )
                return Warned(limit=key, message=words)
    return None


def _machine_trouble(view: View, target: Target) -> Fail | None:
    """Measurements that all die say nothing of any commit, so they would be made for ever."""
    died = target.aborts
    if len(died) < ABORTS_IN_A_ROW + 4 * len(view.crew.slots):
        return None
    return Fail(
        f"the machinery died under the last {len(died)} measurements of target "
        f"`{target.info.name}`: {died[-1]}",
        "free the machine of what is in the way (a full disk, say), then launch again",
    )


# --- proposing ---------------------------------------------------------------------------------


def _sync_or_propose(view: View) -> list[Action]:
    """Set idle agents to work, on `best` if it moved and none of their own keeps is queued."""
    state, crew = view.state, view.crew
    if state.phase != "running":
        return []
    mending = _mend(view)
    taken = {m.agent for m in mending}
    making = {n for n, p in crew.proposing.items() if p.repair is None}
    at_work = [*crew.proposing, *taken]
    rooms = _Rooms(view, making, at_work)
    actions: list[Action] = [*mending]
    ports = [
        (t.info.name, n) for t in state.targets.values() for n in t.ports if n not in crew.offered
    ]
    for name, agent in sorted(state.agents.items(), key=lambda item: item[1].proposals):
        if name in taken or not _may_propose(view, name, agent) or not rooms.group(agent):
            continue
        chosen = _next_target(view, agent, rooms)
        if chosen is None:
            continue
        target, loop = state.targets[chosen], agent.loops[chosen]
        base = loop.incumbent
        if view.config.merge.sync == "best" and not loop.queued:
            base = target.best
            if loop.incumbent != base:
                tree = target.tree_of[base]
                actions.append(Emit(Synced(agent=name, target=chosen, commit=base, tree=tree)))
        mine = (n for t, n in ports if t == chosen)
        port = next(mine, None) if loop.returned is None else None
        if port is not None:
            ports.remove((chosen, port))
        actions.append(Propose(name, chosen, base, port))
        rooms.take(agent, chosen)
    return actions


class _Rooms:
    """How many more proposals may begin: of the run, of each group, for each target."""

    def __init__(self, view: View, making: set[str], at_work: list[str]) -> None:
        state, config = view.state, view.config
        ahead = Counter(p.target for p in view.crew.proposing.values() if p.repair is None)
        for agent in state.agents.values():
            ahead.update(t for t, loop in agent.loops.items() if loop.prepared is not None)
        busy = [n for n, a in state.agents.items() if n in making or a.prepared]
        self._all = budget.room(config, state, sum(ahead.values()), at_work)
        self._groups = budget.group_room(config, state, busy, at_work, view.now)
        self._targets = budget.target_room(config, state, ahead)
        self._weights = {t.name: t.weight for t in config.targets}
        self._waiting = {n: len(t.open) + ahead[n] for n, t in state.targets.items()}

    def group(self, agent: Agent) -> bool:
        return self._all != 0 and self._groups.get(agent.info.group) != 0

    def target(self, name: str) -> bool:
        return self._targets.get(name) != 0

    def urgency(self, agent: Agent, name: str) -> tuple[float, float]:
        """Say what speaks against an agent's going on with a target: what waits there, and what it
        has tried there already.
        """
        weight = self._weights[name]
        return self._waiting[name] / weight, agent.loops[name].experiments / weight

    def take(self, agent: Agent, target: str) -> None:
        """Count a proposal that is about to begin."""
        self._all = None if self._all is None else self._all - 1
        if agent.info.group in self._groups:
            self._groups[agent.info.group] -= 1
        if target in self._targets:
            self._targets[target] -= 1
        self._waiting[target] += 1


def _next_target(view: View, agent: Agent, rooms: _Rooms) -> str | None:
    """Choose what an agent works on next: where least waits to be measured, for its weight.

    So no slot is idle for want of proposals; who gets the slots is settled there. Of targets alike
    it takes the one on which it has tried least: each agent has its own part of what can be tried.
    An agent that has to be told of a repeat goes on where it made it.
    """
    may = [t for t in agent.info.targets if _may_try(view, agent, t) and rooms.target(t)]
    told = next((t for t in may if agent.loops[t].returned is not None), None)
    return told or min(may, key=lambda t: rooms.urgency(agent, t), default=None)


def _may_try(view: View, agent: Agent, target: str) -> bool:
    """Tell whether an agent has anything left to try on a target."""
    return view.state.targets[target].ended is None and agent.loops[target].exhausted is None


def _mend(view: View) -> list[Propose]:
    """Hand crashes back to their proposers: their experiments have begun, so they come first."""
    measured = {m.experiment for m in view.crew.measuring.values()}
    found: dict[str, Propose] = {}
    for target in view.state.targets.values():
        for experiment in target.open.values():
            name = experiment.agent
            due = experiment.number not in measured and _may_be_mended(view, experiment)
            if due and name not in found and _is_free(view, name):
                base, number = experiment.base, experiment.number
                found[name] = Propose(name, target.info.name, base, repair=number)
    return list(found.values())


def _is_free(view: View, name: str) -> bool:
    """Tell whether an agent can be given anything to do now."""
    agent, crew = view.state.agents[name], view.crew
    until = agent.waiting_until
    waits = until is not None and view.now < until
    return agent.parked is None and not waits and name not in crew.away | crew.proposing.keys()


def _may_propose(view: View, name: str, agent: Agent) -> bool:
    return _is_free(view, name) and agent.outstanding <= view.config.lookahead
