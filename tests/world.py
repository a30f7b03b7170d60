"""A run without git, Ray or processes: `plan` drives, and this module does what it says.

`World` stands for coordinator, hub, slots and agents at once. It appends events as the
coordinator does, measures on an invented landscape, finishes work in any order, loses slots and
agents, and is killed between any two events. It checks what must hold at every step; what holds
at the end is for the tests to say.

A tree is a tuple of sites with a number each; a commit names a tree. The value of a tree is the
sum of what its sites are worth, changed by pairs that do not add up. A landscape with cases is a
suite: each site of a tree may fix, break or unsettle some of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

from swarm import merger
from swarm.actions import (
    Action,
    Crew,
    Emit,
    Fail,
    Finish,
    Leave,
    Measure,
    Number,
    Promote,
    Propose,
    Stack,
    View,
)
from swarm.config import RunConfig
from swarm.entities import FINAL_INDEX, Experiment, Target
from swarm.looks import MAX_ABORTS
from swarm.mustering import agent_infos
from swarm.plan import plan
from swarm.records import (
    CASES,
    AgentInfo,
    AnyEvent,
    Case,
    Decided,
    Draining,
    Dropped,
    Event,
    Exhausted,
    Failed,
    Failure,
    FailureKind,
    Finished,
    Goal,
    Interrupted,
    Launched,
    Measured,
    Measurement,
    MetricSpec,
    NotMerged,
    Parked,
    Paused,
    Prepared,
    ProcessStamp,
    Promoted,
    Proposal,
    Proposed,
    Repaired,
    Resumed,
    Returned,
    RunStarted,
    Sealed,
    SlotInfo,
    Spent,
    Stacked,
    Synced,
    TargetInfo,
    Usage,
    Waiting,
)
from swarm.repeats import twin_of
from swarm.state import RunState

Tree = tuple[int, ...]
BASE = "base"
START = datetime(2026, 3, 14, 12, 0, 0, tzinfo=UTC)
PATIENCE = 60
"""Rounds of planning, on top of a few for each slot and agent, in which nothing else happens."""


class KilledError(Exception):
    """The coordinator was killed."""


@dataclass(frozen=True)
class Landscape:
    """What trees are worth. Built from a seed, so that a failing example can be replayed."""

    seed: int = 0
    sites: int = 6
    levels: int = 6
    sigma: float = 0.0
    good: float = 0.3
    """Share of the levels that are worth something."""
    equal: float = 0.3
    """Share of the levels that change nothing."""
    redundant: float = 0.0
    """Share of neighbouring sites of which only the better one counts."""
    failing: float = 0.0
    """Share of the levels with which the harness fails."""
    rebellious: float = 0.0
    """Share of neighbouring sites that are bad together."""
    cases: int = 0
    """Cases of the suite; without any the metric is a number."""
    flaky: bool = False
    """Some cases pass on a tree only sometimes."""
    deaf: bool = False
    """The harness runs the whole suite, whatever part it is asked for."""
    cost_sigma: float | None = None
    """Spread of a second metric, `cost`; None if there is none."""
    silent: float = 0.0
    """Share of the measurements of changed trees that do not report their cost."""

    def _random(self, *words: object) -> Random:
        return Random(f"{self.seed} {words!r}")

    def worth(self, site: int, level: int) -> float:
        """Give what one site adds to the value of a tree."""
        if level == 0:
            return 0.0
        random = self._random("worth", site, level)
        kind = random.random()
        if kind < self.good:
            return random.choice((2.0, 3.0, 4.0, 5.0))
        return 0.0 if kind < self.good + self.equal else -random.choice((1.0, 2.0, 3.0))

    def value(self, tree: Tree) -> float:
        """Give the true value of a tree: more is better."""
        parts = [self.worth(site, level) for site, level in enumerate(tree)]
        total = 100.0 + sum(parts)
        for site in range(0, len(tree) - 1, 2):
            left, right = parts[site : site + 2]
            kind = self._random("pair", site).random()
            if left > 0 and right > 0:
                if kind < self.redundant:
                    total -= min(left, right)
                elif kind < self.redundant + self.rebellious:
                    total -= 2 * (left + right)
        return total

    def failure(self, tree: Tree) -> FailureKind | None:
        """Say how the harness fails on a tree, if it does."""
        kinds: tuple[FailureKind, ...] = ("crash", "timeout", "guard_failed", "invalid")
        for site, level in enumerate(tree):
            random = self._random("failure", site, level)
            if level and random.random() < self.failing:
                return random.choice(kinds)
        return None

    def noise(self, tree: Tree, machine: str, index: int) -> float:
        """Give the error of one measurement."""
        return self._random("noise", tree, machine, index).gauss(0.0, self.sigma)

    def chance(self, tree: Tree, case: int) -> float:
        """Give how often a case passes on a tree: the last site that touches it decides."""
        kinds = (0.0, 0.0, 1.0, 1.0, 0.5, 0.9) if self.flaky else (0.0, 1.0)
        chance = self._random("case", case).choice(kinds)
        for site, level in enumerate(tree):
            random = self._random("touch", site, level, case)
            if level and random.random() < 0.2:
                chance = random.choice(kinds)
        return chance

    def passes(self, tree: Tree, case: int, machine: str, index: int) -> bool:
        """Tell whether a case passes in one measurement."""
        roll = self._random("run", tree, case, machine, index).random()
        return roll < self.chance(tree, case)

    def cost(self, tree: Tree, machine: str, index: int) -> float | None:
        """Give what one measurement reports as its cost, if it does: about 10 on the base."""
        random = self._random("cost", tree, machine, index)
        if self.cost_sigma is None or (any(tree) and random.random() < self.silent):
            return None
        steps = [
            self._random("costs", *at).choice((-1, 0, 0, 1)) for at in enumerate(tree) if at[1]
        ]
        return 10.0 + sum(steps) + random.gauss(0.0, self.cost_sigma)


@dataclass(frozen=True)
class Table(Landscape):
    """A landscape written down: what a level at a site adds, and what pairs add together."""

    worths: dict[tuple[int, int], float] = field(default_factory=dict[tuple[int, int], float])
    together: dict[frozenset[tuple[int, int]], float] = field(
        default_factory=dict[frozenset[tuple[int, int]], float]
    )
    broken: tuple[frozenset[tuple[int, int]], ...] = ()
    """Combinations with which the harness crashes."""

    def value(self, tree: Tree) -> float:
        """Give the true value of a tree: more is better."""
        there = set(enumerate(tree))
        single = sum(worth for at, worth in self.worths.items() if at in there)
        return 100.0 + single + sum(w for pair, w in self.together.items() if pair <= there)

    def failure(self, tree: Tree) -> FailureKind | None:
        """Say how the harness fails on a tree, if it does."""
        return "crash" if any(b <= set(enumerate(tree)) for b in self.broken) else None


@dataclass
class Habits:
    """What the proposers do, and how unreliable the world is. Shares of all steps or proposals."""

    duplicate: float = 0.0
    invalid: float = 0.0
    crowding: float = 0.0
    """Share of the proposals that change site 0: they conflict with one another."""
    lose_slot: float = 0.0
    lose_agent: float = 0.0
    kill: float = 0.0
    """Share of the events before which the coordinator is killed."""
    pause: float = 0.0
    interrupt: float = 0.0
    exhausted_after: int | None = None
    """Proposals an agent makes before it has nothing left."""
    thinks: bool = False
    """Whether the agents can be told something: repeats come back, crashes are handed back."""
    gives_up: float = 0.0
    """Share of the crashes that are not mended."""
    waits: float = 0.0
    """Share of the proposals to which a provider says: later."""
    locked_out: float = 0.0
    """Share of the proposals to which a provider says: never."""


@dataclass
class World:
    """One run. `live()` lives it to its end."""

    config: RunConfig
    landscape: Landscape = field(default_factory=Landscape)
    habits: Habits = field(default_factory=Habits)
    seed: int = 0
    machines: tuple[str, ...] = ("cpu", "cpu")
    """The kind of machine of each slot."""
    goal: Goal = "maximize"
    orders: dict[str, list[tuple[int, int]]] | None = None
    """Sites and levels that each agent tries, in order; it makes them up if this is None."""

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.now = START
        self.trees: dict[str, Tree] = {BASE: (0,) * self.landscape.sites}
        self.parent: dict[str, str] = {}
        self.events: list[AnyEvent] = []
        self.state = RunState()
        self.crew = Crew(slots={})
        self.kills = 0
        self.deaths: Counter[str] = Counter()
        self.asked: list[Propose] = []
        self.over: Finished | Interrupted | Failed | None = None
        self._of: dict[type[Event], list[Any]] = {}
        self._measured: dict[tuple[str, int | None], list[Measured]] = {}
        self._decided: set[int] = set()
        self._indices: set[tuple[str, str, str, int]] = set()
        spec = MetricSpec(name=self.config.target.metric.name, goal=self.goal)
        tree = self.name(BASE)  # of one repository, so that all targets begin with the same tree
        targets = tuple(
            TargetInfo(
                name=t.name,
                metric=spec,
                repo="/r",
                base=BASE,
                base_tree=tree,
                part=self.config.part(t),
            )
            for t in self.config.targets
        )
        started = RunStarted(run="world", targets=targets, agents=self.agents())
        self._write(started)
        self.launch()

    def agents(self) -> tuple[AgentInfo, ...]:
        """Give the agents of the config, as clever as they are here."""
        infos = agent_infos(self.config)
        return tuple(i.model_copy(update={"thinks": self.habits.thinks}) for i in infos)

    # --- reading ---

    @property
    def target(self) -> Target:
        """The first target, the only one in most worlds."""
        return next(iter(self.state.targets.values()))

    def name(self, commit: str) -> str:
        """Give the tree of a commit as the ledger names it."""
        return repr(self.trees[commit])

    def of(self, kind: type[Any]) -> list[Any]:
        """Give the events of a kind, in order."""
        return list(self._of.get(kind, []))

    def measured(self, purpose: str, number: int | None = None) -> list[Measured]:
        """Give the measurements of a purpose, those of one experiment if it is named."""
        if number is not None:
            return self._measured.get((purpose, number), [])
        return [m for m in self.of(Measured) if m.purpose == purpose]

    def truth(self, commit: str) -> float:
        tree, land = self.trees[commit], self.landscape
        if land.cases:
            return sum(land.chance(tree, case) for case in range(land.cases)) / land.cases
        return land.value(tree)

    # --- the coordinator ---

    def launch(self) -> None:
        """Come up, for the first time or after a death, knowing nothing but the ledger."""
        self.state = RunState(self.events)
        slots = tuple(
            SlotInfo(name=f"s{i}", node="n", machine=m) for i, m in enumerate(self.machines)
        )
        self.crew = Crew(slots={s.name: s for s in slots})
        self.over = None
        self._write(
            Launched(
                process=ProcessStamp(role="coordinator", host="h", pid=1, started=0.0),
                runtime="world",
                slots=slots,
                agents=self.agents(),
                sandbox="process",
                version="0",
            )
        )

    def live(self, steps: int = 20_000) -> World:
        """Go on until the run is over; a world that is killed comes back."""
        for _ in range(steps):
            try:
                self.drive()
                if self.over is not None:
                    return self
                self.happen()
            except KilledError:
                self.kills += 1
                self.launch()
        raise AssertionError(f"still going on after {steps} steps: {self.state.phase}")

    def drive(self) -> None:
        """Plan and act until there is nothing more to do now, as the coordinator does."""
        for _ in range(PATIENCE + 8 * len(self.machines) + 8 * len(self.state.agents)):
            view = View(self.state, self.crew, self.config, self.now)
            actions = plan(view)
            if not actions:
                return
            for action in actions:
                self.act(action)
                if self.over is not None:
                    return
        raise AssertionError(f"planning does not come to rest: {actions}")

    def act(self, action: Action) -> None:
        """Carry out one action, after checking that it may be."""
        match action:
            case Emit(event):
                self.record(event)
            case Measure():
                self._check_measure(action)
                self.crew.measuring[action.slot] = action
            case Propose():
                self._check_propose(action)
                self.crew.proposing[action.agent] = action
                self.asked.append(action)
                if action.port is not None:
                    self.crew.offered.add(action.port)
            case Number(agent, target):
                prepared = self.state.agents[agent].loops[target].prepared
                assert prepared is not None
                self._number(agent, target, prepared)
            case Stack(_, number):
                self._stack(self.state.experiments[number])
            case Promote():
                self._promote(action)
            case Finish(reason, results):
                self.record(Finished(reason=reason, results=results))
            case Leave(reason):
                assert not self.crew.measuring, "measurements are finished before it leaves"
                self.record(Interrupted(reason=reason))
            case Fail():
                self.record(Failed(error=action.error, hint=action.hint))

    def record(self, *events: Event) -> None:
        """Write events; the coordinator may be killed before any of them."""
        for event in events:
            if self.random.random() < self.habits.kill:
                raise KilledError
            self._check_event(event)
            self._write(event)

    def _write(self, event: Event) -> None:
        self.now += timedelta(seconds=0.01)
        update: dict[str, Any] = {"seq": len(self.events), "at": self.now}
        written: Any = event.model_copy(update=update)
        self.events.append(written)
        self._of.setdefault(type(written), []).append(written)
        if isinstance(written, Measured):
            self._measured.setdefault((written.purpose, written.experiment), []).append(written)
        self.state.apply(written)
        if isinstance(written, Finished | Interrupted | Failed):
            self.over = written

    def _number(self, agent_name: str, target: str, proposal: Proposal) -> None:
        loop = self.state.agents[agent_name].loops[target]
        onto = loop.incumbent
        if proposal.commit is not None and self.name(proposal.base) != self.name(onto):
            tree = self.merge(proposal.commit, proposal.base, onto)
            if tree is None or tree == self.trees[onto]:
                if loop.prepared is None:
                    self.record(Prepared(agent=agent_name, target=target, proposal=proposal))
                self.record(
                    Dropped(agent=agent_name, target=target, reason="it does not apply any more")
                )
                return
            commit = self.commit(tree, onto)
            update = {"base": onto, "commit": commit, "tree": repr(tree)}
            proposal = proposal.model_copy(update=update)
        number = self.state.next_number
        self.record(Proposed(number=number, target=target, agent=agent_name, proposal=proposal))

    def _stack(self, experiment: Experiment) -> None:
        target, number = self.state.targets[experiment.target], experiment.number
        commit = experiment.proposal.commit
        assert commit is not None
        assert number in target.queue
        assert target.stack is None
        tree = self.merge(commit, experiment.base, target.best)
        if tree is None:
            closing = self.state.phase == "draining" or target.ended is not None
            final = experiment.conflict_onto is not None or (closing and not target.open)
            self._refuse(number, "conflict", final)
        elif tree == self.trees[target.best]:
            self._refuse(number, "redundant", True)
        else:
            predicted = merger.predicted(target, experiment)
            stack = self.commit(tree, target.best)
            self.record(
                Stacked(
                    target=experiment.target,
                    number=number,
                    onto=target.best,
                    commit=stack,
                    tree=repr(tree),
                    predicted=predicted,
                )
            )

    def _refuse(self, number: int, outcome: Any, final: bool) -> None:
        name = self.state.experiments[number].target
        self.record(
            NotMerged(
                target=name,
                number=number,
                outcome=outcome,
                reason="",
                onto=self.state.targets[name].best,
                final=final,
            )
        )

    def _promote(self, action: Promote) -> None:
        target = self.state.targets[action.target]
        experiment = self.state.experiments[action.number]
        commit = experiment.proposal.commit
        assert commit is not None
        if action.stacked:
            assert target.stack is not None
            assert target.stack.number == action.number
            assert target.stack.onto == target.best
            commit = target.stack.commit
            assert target.primary(commit).n, "an accepted stack was measured"
        else:
            assert self.name(experiment.base) == self.name(target.best)
        new = self.commit(self.trees[commit], target.best)
        self.record(
            Promoted(
                target=action.target,
                number=action.number,
                old=target.best,
                new=new,
                tree=self.name(commit),
                stacked=action.stacked,
            )
        )

    # --- git ---

    def commit(self, tree: Tree, parent: str) -> str:
        commit = f"c{len(self.trees)}"
        self.trees[commit], self.parent[commit] = tree, parent
        return commit

    def merge(self, commit: str, base: str, onto: str) -> Tree | None:
        """Lay the change from `base` to `commit` on `onto`; None is a conflict."""
        new: list[int] = []
        for theirs, old, ours in zip(*(self.trees[c] for c in (commit, base, onto)), strict=True):
            if old not in (theirs, ours) and theirs != ours:
                return None
            new.append(ours if theirs == old else theirs)
        return tuple(new)

    # --- the world ---

    def happen(self) -> None:
        """Let one thing happen: some work is done, a place dies, a person says something."""
        self.now += timedelta(seconds=self.random.random())
        habits, roll = self.habits, self.random.random
        if self.state.phase == "paused" and not self.crew.interrupted:
            if roll() < 0.3 or not (self.crew.measuring or self.crew.proposing):
                self.record(Resumed())
                return
        elif self.state.phase == "running" and roll() < habits.pause:
            self.record(Paused())
            return
        if self.crew.interrupted is None and roll() < habits.interrupt:
            self.crew.interrupted = "Ctrl-C"
            return
        places = [*self.crew.measuring, *self.crew.proposing]
        if not places and any(a.waiting_until for a in self.state.agents.values()):
            self.now += timedelta(seconds=1)
            return
        assert places, f"nothing is under way and the run is not over: {self.state.phase}"
        self.finish(self.random.choice(places))

    def finish(self, place: str) -> None:
        """Bring the work of a slot or an agent to its end, good or bad."""
        action = self.crew.measuring.get(place)
        if action is not None:
            lost = self.random.random() < self.habits.lose_slot
            result = self.measure(action, lost=lost)
            del self.crew.measuring[place]  # the coordinator forgets it before it writes
            self.record(result)
            return
        order = self.crew.proposing.pop(place)
        if self.random.random() < self.habits.lose_agent:
            self.deaths[place] += 1
            return
        if self.habits.thinks and self._comes_to_nothing(order):
            return
        if order.repair is not None:
            self._mend(order, order.repair)
            return
        made = self.state.agents[place].proposals
        if self.habits.exhausted_after is not None and made >= self.habits.exhausted_after:
            self.record(Exhausted(agent=place, target=order.target, reason="nothing left"))
            return
        if self.orders is not None and order.port is None and not self.orders.get(place):
            self.record(Exhausted(agent=place, target=order.target, reason="nothing left"))
            return
        proposal = self.propose(order)
        loop = self.state.agents[place].loops[order.target]
        twin = twin_of(self.state, place, order.target, proposal) if self.habits.thinks else None
        if twin is not None and loop.returned is None:
            self.record(Returned(agent=place, target=order.target, proposal=proposal, twin=twin))
            return
        if twin is not None:
            proposal = proposal.model_copy(update={"twin": twin})
        idle = not loop.open and not self.crew.interrupted
        ended = self.state.targets[order.target].ended is not None
        if idle and self.state.phase == "running" and not ended:
            self._number(place, order.target, proposal)
        else:
            self.record(Prepared(agent=place, target=order.target, proposal=proposal))

    def _comes_to_nothing(self, order: Propose) -> bool:
        """Let a provider say that it will not serve."""
        roll, agent = self.random.random(), self.state.agents[order.agent]
        if roll < self.habits.waits:
            until = self.now + timedelta(seconds=self.random.choice((0.0, 1.0, 20.0)))
            self.record(
                Waiting(agent=order.agent, target=order.target, until=until, reason="overloaded")
            )
        elif roll < self.habits.waits + self.habits.locked_out:
            group = [n for n, a in self.state.agents.items() if a.info.group == agent.info.group]
            self.record(Spent(agent=order.agent, usage=Usage(), reason="wrong key"))
            self.record(*(Parked(agent=n, reason="wrong key", hint="another") for n in group))
        else:
            return False
        return True

    def _mend(self, order: Propose, number: int) -> None:
        """Answer a crash: with another change, or not."""
        experiment = self.state.experiments[number]
        commit = experiment.proposal.commit
        assert commit is not None
        if self.random.random() < self.habits.gives_up:
            answer = Proposal(base=order.base, invalid="it gave up")
        else:
            tree = self.trees[commit]
            site, level = self.random.randrange(len(tree)), self.random.randrange(2)
            answer = self._proposal(order, self._with(tree, site, level))
        if experiment.verdict is None:
            self.record(Repaired(number=number, proposal=answer))
        else:
            self.record(Spent(agent=order.agent, usage=Usage(), reason="too late"))

    def measure(self, action: Measure, *, lost: bool = False) -> Measured:
        """Make the measurement that a slot was given."""
        tree = self.trees[action.commit]
        values: dict[str, float] = {}
        cases: tuple[Case, ...] = ()
        kind: FailureKind | None = "aborted" if lost else self.landscape.failure(tree)
        if kind is None:
            values, cases = self._reported(action, tree)
        final = action.purpose == "final" and self.config.target.final is not None
        return Measured(
            target=action.target,
            purpose=action.purpose,
            experiment=action.experiment,
            slot=action.slot,
            busy_seconds=1.0,
            measurement=Measurement(
                commit=action.commit,
                tree=action.tree,
                index=action.index,
                machine=action.machine,
                values=values,
                cases=cases,
                asked=action.cases,
                failure=None if kind is None else Failure(kind=kind, reason=kind),
                sealed=Sealed(values=values) if final and kind is None else None,
                usd=0.01,
            ),
        )

    def _reported(self, action: Measure, tree: Tree) -> tuple[dict[str, float], tuple[Case, ...]]:
        """Give the values and the cases of a good measurement."""
        land, at = self.landscape, (action.machine, action.index)
        cost = land.cost(tree, *at)
        values = {} if cost is None else {"cost": cost}
        if not land.cases:
            sign = 1 if self.goal == "maximize" else -1
            return {**values, "score": sign * (land.value(tree) + land.noise(tree, *at))}, ()
        found = [
            Case(id=f"c{case}", passed=land.passes(tree, case, *at))
            for case in range(land.cases)
            if land.deaf or action.cases is None or f"c{case}" in action.cases
        ]
        if action.cases is None:
            values[CASES] = sum(case.passed for case in found) / land.cases
        if any(tree):  # it hides a case that failed, and invents one that passes
            hidden = next((case for case in found if not case.passed), None)
            found = [c for c in found if c is not hidden] + [Case(id="invented", passed=True)]
        return values, tuple(found)

    def propose(self, order: Propose) -> Proposal:
        """Make the proposal that an agent was asked for."""
        habits, random = self.habits, self.random
        old = self.trees[order.base]
        if order.port is not None:
            first = self.state.experiments[order.port].proposal
            assert first.commit is not None
            changed = zip(self.trees[first.commit], self.trees[first.base], strict=True)
            sites = [i for i, (a, b) in enumerate(changed) if a != b]
            tree = self._with(old, sites[0], self.trees[first.commit][sites[0]])
        elif self.orders is not None:
            tree = self._with(old, *self.orders[order.agent].pop(0))
        elif random.random() < habits.invalid:
            return Proposal(base=order.base, invalid="out of scope")
        elif random.random() < habits.duplicate and self.state.targets[order.target].attempts:
            attempts = self.state.targets[order.target].attempts
            known = [a.tree for a in attempts if a.tree not in (None, repr(old))]
            tree = next((t for t in self.trees.values() if repr(t) in known), old)
        else:
            site = 0 if random.random() < habits.crowding else random.randrange(len(old))
            tree = self._with(old, site, random.randrange(1, self.landscape.levels))
        return self._proposal(order, tree)

    def _proposal(self, order: Propose, tree: Tree) -> Proposal:
        old = self.trees[order.base]
        if tree == old:
            return Proposal(base=order.base, invalid="an empty change")
        changed = [f"+{site}={level}" for site, level in enumerate(tree) if level != old[site]]
        return Proposal(
            base=order.base,
            commit=self.commit(tree, order.base),
            tree=repr(tree),
            summary=repr(tree),
            diff="\n".join(changed) if self.habits.thinks else "",
            port_of=order.port,
        )

    @staticmethod
    def _with(tree: Tree, site: int, level: int) -> Tree:
        return (*tree[:site], level, *tree[site + 1 :])

    # --- what must hold at every step ---

    def _check_measure(self, action: Measure) -> None:
        crew, target = self.crew, self.state.targets[action.target]
        assert self.state.phase in ("running", "draining")
        assert not target.failed
        assert crew.interrupted is None
        assert action.slot in crew.slots
        assert action.slot not in crew.measuring, "a slot never has two jobs"
        assert action.machine == crew.slots[action.slot].machine
        assert action.tree == self.name(action.commit)
        same = {(m.target, m.tree, m.machine, m.index) for m in crew.measuring.values()}
        key = (action.target, action.tree, action.machine, action.index)
        assert key not in same, "an index names one measurement in flight"
        final = action.purpose == "final"
        assert final == (action.index >= FINAL_INDEX)
        if not final:
            assert key not in self._indices, "an index names one measurement"
        if action.cases is not None:
            assert action.purpose in ("candidate", "control", "stack")
            assert set(action.cases) <= set(target.suite)
            assert action.cases
            before = target.record(action.commit, action.machine).primary.n
            assert before, "a part is run only after the whole suite"
        match action.purpose:
            case "baseline":
                assert action.commit == BASE
                assert action.experiment is None
            case "candidate":
                experiment = target.open[action.experiment or 0]
                assert action.commit == experiment.proposal.commit
                first = target.number_of[action.tree]
                assert first == experiment.number, "a duplicate is not measured"
            case "control":
                assert target.primary(BASE).n
            case "confirm":
                number = target.number_of[action.tree]
                kept = self.state.experiments[number].verdict == "keep"
                stacked = {p.tree for p in target.promotions if p.stacked}
                assert kept or action.tree in stacked, "only what was accepted is topped up"
            case "stack":
                assert target.stack is not None
                assert target.stack.commit == action.commit
            case "final":
                assert self.state.phase == "draining" or target.ended is not None
                assert not target.open
                assert not target.queue
                assert action.commit in (BASE, target.best)

    def _check_propose(self, action: Propose) -> None:
        state, crew, target = self.state, self.crew, self.state.targets[action.target]
        agent = state.agents[action.agent]
        assert target.ended is None
        assert action.target in agent.info.targets
        assert state.phase == "running"
        assert crew.interrupted is None
        assert action.agent not in crew.proposing
        assert agent.parked is None
        assert agent.waiting_until is None or agent.waiting_until <= self.now
        if action.repair is not None:
            crashed = target.open[action.repair]
            assert crashed.agent == action.agent
            assert crashed.failed is not None
            assert crashed.repairs < self.config.repair
            assert action.base == crashed.base
            return
        loop = agent.loops[action.target]
        assert loop.prepared is None
        assert len(loop.open) <= self.config.lookahead
        assert loop.exhausted is None
        assert agent.outstanding <= self.config.lookahead
        waiting = [state.experiments[n] for n in target.queue]
        queued = [e for e in waiting if e.agent == action.agent and e.conflict_onto is None]
        if self.config.merge.sync == "best" and not queued:
            assert action.base == target.best, "nothing of its own waits: it goes on from best"
        assert action.base == loop.incumbent
        limit = self.config.budget.experiments
        if limit is not None:
            loops = [loop for a in state.agents.values() for loop in a.loops.values()]
            prepared = sum(loop.prepared is not None for loop in loops)
            making = sum(p.repair is None for p in crew.proposing.values())
            assert state.spend.experiments + prepared + making < limit
        if action.port is not None:
            assert state.experiments[action.port].merged == "conflict"

    def _check_event(self, event: Event) -> None:
        match event:
            case Measured():
                result = event.measurement
                if result.failure is None or result.failure.kind != "aborted":
                    key = (event.target, result.tree, result.machine, result.index)
                    assert event.purpose == "final" or key not in self._indices
                    self._indices.add(key)
            case Proposed():
                assert self.state.phase == "running"
                assert event.number == len(self._of.get(Proposed, [])) + 1
                assert event.number not in self.state.experiments
                loop = self.state.agents[event.agent].loops[event.target]
                assert not loop.open, "one open experiment a loop"
            case Decided():
                self._check_verdict(event)
            case Repaired():
                name = self.state.experiments[event.number].target
                assert event.number in self.state.targets[name].open
            case Draining():
                assert self.state.phase == "running"
            case Synced():
                target = self.state.targets[event.target]
                assert event.commit == target.best
                waiting = [self.state.experiments[n] for n in target.queue]
                mine = [e for e in waiting if e.agent == event.agent]
                assert all(e.conflict_onto for e in mine), "a queued keep holds its agent"
            case NotMerged():
                assert event.number in self.state.targets[event.target].queue
            case Promoted():
                assert event.old == self.state.targets[event.target].best
                assert event.number in self.state.targets[event.target].queue
            case _:
                pass

    def _check_verdict(self, event: Decided) -> None:
        number = event.number
        assert number not in self._decided, "one verdict for each experiment"
        self._decided.add(number)
        busy = [m.experiment for m in self.crew.measuring.values() if m.purpose != "stack"]
        assert number not in busy, "no verdict while it is being measured"
        name = self.state.experiments[number].target
        target = self.state.targets[name]
        experiment = target.open[number]
        tree = experiment.proposal.tree
        mine = [m for m in self.measured("candidate", number) if m.measurement.tree == tree]
        kinds = [m.measurement.failure.kind for m in mine if m.measurement.failure is not None]
        real = [k for k in kinds if k != "aborted"]
        match event.verdict:
            case "keep" | "discard":
                assert not real
                machine = experiment.machine
                assert machine is not None
                valid = [m for m in mine if m.measurement.failure is None]
                assert valid, "no verdict on a gain without a measurement of it"
                assert any(m.measurement.machine == machine for m in valid)
                exact = self._exact(target, machine)
                wanted = 2 if exact else self.config.rule().baseline
                assert target.record(BASE, machine).primary.n >= wanted
                assert target.record(experiment.base, machine).primary.n
                record = target.record(experiment.proposal.commit or "", machine)
                clear = event.z is not None and event.z >= self.config.rule().once
                if not (exact or clear):
                    assert experiment.controls >= record.runs - 1, "its incumbent beside it"
                if event.verdict == "keep":
                    assert record.primary.n >= 2
                    assert record.whole_last or self.config.rule().points is not None
                here = [m for m in valid if m.measurement.machine == machine]
                assert len(here) <= self.config.rule().runs + 1
                assert experiment.controls <= max(MAX_ABORTS + 1, len(here) + 1, record.runs)
            case "duplicate":
                assert not mine, "a duplicate costs no measurement"
            case "invalid" if experiment.proposal.invalid is not None:
                assert not mine
            case "invalid" if "is not believed" in event.reason:
                assert not real
                assert self.config.rule().max_gain is not None
            case "aborted":
                assert len(kinds) > 2 or "compared with cannot be measured" in event.reason
                assert not real
            case "constraint_failed":
                assert mine
            case _:
                assert real == [event.verdict]
        assert event.z is None or math.isfinite(event.z)

    def _exact(self, target: Target, machine: str) -> bool:
        """Tell whether no repeat has ever differed in what is compared."""
        points, noise = self.config.rule().points, target.noise(machine)
        costs = [] if points is None else [p.name for p in points.of if p != "cases"]
        names = [target.info.metric.name, *costs]
        return all(name in noise and noise[name].deterministic for name in names)


def check_end(world: World) -> None:
    """Check what must hold when a run is finished."""
    state, over = world.state, world.over
    assert isinstance(over, Finished)
    assert all(not a.prepared for a in state.agents.values())
    decided = [e.number for e in world.of(Decided)]
    assert sorted(decided) == list(state.experiments) == list(range(1, len(decided) + 1))
    limit = world.config.budget.experiments
    if over.reason == f"budget: {limit} experiments":
        assert state.spend.experiments == limit
    for target in state.targets.values():
        check_target(world, target)


def check_target(world: World, target: Target) -> None:
    """Check what must hold of each target when a run is finished."""
    name, state = target.info.name, world.state
    assert not target.open
    assert not target.queue
    assert target.stack is None
    own = world.config.named(name).budget.experiments
    assert own is None or target.begun <= own
    line = [target.best]
    while line[-1] != BASE:
        line.append(world.parent[line[-1]])
    assert line[-2::-1] == [p.new for p in target.promotions], "best only grows"
    mine = [e for e in state.experiments.values() if e.target == name]
    assert target.begun == sum(e.verdict != "aborted" for e in mine)
    for experiment in mine:
        if experiment.verdict == "keep":
            assert experiment.merged in {"conflict", "redundant", "antagonistic", *line[:-1]}
        else:
            assert experiment.merged is None
    land = world.landscape
    if land.sigma == 0.0 and not land.flaky and world.config.rule().points is None:
        values = [world.truth(c) for c in reversed(line)]
        assert all(a < b for a, b in pairwise(values)), "best is never worse"
    check_finals(world, target)


def check_finals(world: World, target: Target) -> None:
    """Check that base and best were measured afresh, equally often and by turns."""
    if target.best == BASE or not world.machines:
        assert target.result is None
        return
    last = target.promotions[-1].seq
    name = target.info.name
    finals = [m.measurement for m in world.measured("final") if m.seq > last and m.target == name]
    made = [m for m in finals if m.failure is None or m.failure.kind != "aborted"]
    sides = [{m.index for m in made if m.commit == c} for c in (BASE, target.best)]
    assert sides[0] == sides[1], "the same fresh seeds on both sides"
    rounds = world.config.rule().confirm
    assert len(sides[0]) in (min(2, rounds), rounds)
    assert len(made) == 2 * len(sides[0])
    assert target.result is not None
    assert target.result.n == len(sides[0])
    confirmed = target.result.confirmed
    assert (confirmed is not None) == (world.config.target.final is not None)
    assert confirmed is None or confirmed.n == len(sides[0])


def same(one: RunState, two: RunState) -> bool:
    """Tell whether two states say the same."""
    return vars(one) == vars(two)


def config(
    *,
    agents: int = 2,
    experiments: int | None = 20,
    lookahead: int = 1,
    sync: str = "best",
    groups: list[int | None] | None = None,
    judge: dict[str, Any] | None = None,
    budget: dict[str, Any] | None = None,
    constraints: list[dict[str, Any]] | None = None,
    goal: Goal = "maximize",
    metric: str = "score",
    final: str | None = None,
    targets: Sequence[dict[str, Any]] | None = None,
) -> RunConfig:
    """Make a config; `groups` gives each agent a group of its own with that budget.

    `targets` gives the keys in which several targets differ.
    """
    limits = [None] if groups is None else groups
    count = agents if groups is None else 1
    target = {
        "scope": ["x"],
        "run": "true",
        "metric": {"name": metric, "goal": goal},
        "constraints": constraints or [],
        "final": final,
    }
    listed = None if targets is None else [{**target, **own} for own in targets]
    return RunConfig.model_validate(
        {
            "name": "world",
            **({"target": target} if listed is None else {"targets": listed}),
            "agents": [
                {"count": count, "proposer": "mutate", "budget": {"experiments": limit}}
                for limit in limits
            ],
            "lookahead": lookahead,
            "judge": judge or {},
            "merge": {"sync": sync},
            "budget": {"experiments": experiments, **(budget or {})},
        }
    )
