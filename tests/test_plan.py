"""Every decision of a run, driven in an invented world that loses slots, agents and itself."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any

import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from world import BASE, Habits, Landscape, Table, World, check_end, config

from swarm.actions import (
    Crew,
    Finish,
    Measure,
    Propose,
    View,
)
from swarm.entities import FINAL_INDEX
from swarm.plan import ABORTS_IN_A_ROW, MAX_INVALID, plan
from swarm.records import (
    Decided,
    Draining,
    Dropped,
    Failed,
    Failure,
    FailureKind,
    Finished,
    Interrupted,
    Measured,
    NotMerged,
    Parked,
    Paused,
    Promoted,
    Proposed,
    Resumed,
    Stacked,
    Synced,
    Waiting,
)
from swarm.state import RunState


def shares(*values: float) -> st.SearchStrategy[float]:
    return st.sampled_from(values)


@st.composite
def any_world(draw: st.DrawFn) -> World:
    """A world with anything in it; `World` itself checks every step."""
    seed = draw(st.integers(0, 2**32))
    agents = draw(st.sampled_from([1, 2, 3, 4, 7]))
    goal = draw(st.sampled_from(["maximize", "minimize"]))
    settled = config(
        agents=agents,
        experiments=draw(st.sampled_from([1, 5, 12, 30])),
        lookahead=draw(st.integers(0, 1)),
        sync=draw(st.sampled_from(["best", "none"])),
        groups=draw(st.sampled_from([None, [3] * agents, [2] + [None] * (agents - 1)])),
        judge=draw(
            st.sampled_from(
                [
                    {},
                    {"baseline": 2, "runs": 1},
                    {"runs": 3, "control_every": 1, "confirm": 1},
                    {"min_delta": 1.0},
                    {"drop_below": -5, "keep_above": -1, "once": -1},
                ]
            )
        ),
        budget=draw(st.sampled_from([{}, {"stale": 6}, {"target": 110}, {"time": 40}])),
        goal=goal,
    )
    landscape = Landscape(
        seed=seed,
        sites=draw(st.sampled_from([2, 4, 8])),
        levels=draw(st.sampled_from([2, 4, 8])),
        sigma=draw(shares(0.0, 0.3, 1.0, 3.0)),
        redundant=draw(shares(0.0, 0.3)),
        rebellious=draw(shares(0.0, 0.3)),
        failing=draw(shares(0.0, 0.15)),
    )
    habits = Habits(
        duplicate=draw(shares(0.0, 0.2)),
        invalid=draw(shares(0.0, 0.1, 0.5)),
        crowding=draw(shares(0.0, 0.3, 1.0)),
        lose_slot=draw(shares(0.0, 0.1, 0.3)),
        lose_agent=draw(shares(0.0, 0.2)),
        kill=draw(shares(0.0, 0.02, 0.1)),
        pause=draw(shares(0.0, 0.1)),
        interrupt=draw(shares(0.0, 0.01)),
        exhausted_after=draw(st.sampled_from([None, 4])),
        thinks=draw(st.booleans()),
        gives_up=draw(shares(0.0, 0.3)),
        waits=draw(shares(0.0, 0.2)),
        locked_out=draw(shares(0.0, 0.0, 0.05)),
    )
    kinds = [("cpu",), ("cpu",) * 2, ("cpu",) * 5, ("cpu", "gpu"), ("cpu", "cpu", "gpu", "gpu")]
    machines = draw(st.sampled_from(kinds))
    return World(settled, landscape, habits, seed=seed, machines=machines, goal=goal)


@settings(max_examples=200, deadline=None)
@given(any_world())
def test_every_run_ends_and_everything_in_it_adds_up(run: World) -> None:
    """Whatever happens. A run that stopped or gave up is launched again until it is finished."""
    run.live()
    for _ in range(30):
        if isinstance(run.over, Finished):
            break
        run.launch()
        run.live()
    check_end(run)
    assert world.same(run.state, RunState(run.events)), "nothing but the ledger was needed"


@settings(max_examples=60, deadline=None)
@given(any_world(), st.data())
def test_with_several_targets_too(run: World, data: st.DataObject) -> None:
    """Targets that begin with the same tree, with budgets and weights of their own."""
    limits = data.draw(st.lists(st.sampled_from([None, 2, 9]), min_size=2, max_size=3))
    targets = [
        {"name": f"t{i}", "weight": 1 + i, "budget": {"experiments": limit, "stale": 8}}
        for i, limit in enumerate(limits)
    ]
    metric = run.config.target.metric
    settled = config(
        agents=sum(g.count for g in run.config.agents),
        experiments=run.config.budget.experiments,
        lookahead=run.config.lookahead,
        sync=run.config.merge.sync,
        goal=metric.goal,
        metric=metric.name,
        targets=targets,
    )
    several = World(
        settled, run.landscape, run.habits, seed=run.seed, machines=run.machines, goal=run.goal
    ).live()
    for _ in range(30):
        if isinstance(several.over, Finished):
            break
        several.launch()
        several.live()
    check_end(several)
    assert world.same(several.state, RunState(several.events)), "nothing but the ledger was needed"


# --- what it costs ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1))
def test_on_a_deterministic_target_a_discard_costs_one_measurement_and_a_keep_two(
    seed: int, agents: int, slots: int, lookahead: int
) -> None:
    settled = config(agents=agents, experiments=20, lookahead=lookahead)
    habits = Habits(duplicate=0.2, invalid=0.1)
    machines = ("cpu",) * slots
    run = World(settled, Landscape(seed=seed), habits, seed=seed, machines=machines).live()
    check_end(run)
    assert len(run.measured("baseline")) == 2
    assert not run.measured("control")
    assert not run.measured("confirm")
    stacked = {e.tree for e in run.of(Stacked)}
    for number, experiment in run.state.experiments.items():
        made = len(run.measured("candidate", number))
        wanted = {"keep": 2, "discard": 1}.get(experiment.verdict or "", 0)
        known = experiment.proposal.tree in stacked  # a stack's measurements count for its tree
        assert made == wanted or (known and 1 <= made < wanted)


def test_a_difference_between_repeats_ends_determinism_and_completes_the_baseline() -> None:
    """The noise is on trees that are not the base, so the base looks deterministic at first."""

    class Shaky(Table):
        def noise(self, tree: world.Tree, machine: str, index: int) -> float:
            return float(index % 2) if any(tree) else 0.0

    landscape = Shaky(worths={(0, 1): 5.0})
    run = World(config(agents=1), landscape, machines=("cpu",), orders={"a1": [(0, 1)]}).live()
    check_end(run)
    assert len(run.measured("baseline")) == run.config.rule().baseline
    baselines = [m.seq for m in run.measured("baseline")]
    assert run.of(Decided)[0].seq > max(baselines), "it is judged when the baseline is complete"
    assert not run.target.spread("cpu").deterministic


def test_a_noisy_keep_is_topped_up_and_its_incumbent_is_measured_beside_it() -> None:
    orders = {"a1": [(0, 1)]}
    landscape = Table(sigma=0.5, worths={(0, 1): 50.0})
    run = World(config(agents=1), landscape, machines=("cpu",), orders=orders).live()
    check_end(run)
    tree = run.state.experiments[1].proposal.tree
    assert run.state.experiments[1].verdict == "keep"
    assert run.target.records[tree or "", "cpu"].primary.n >= 3
    assert run.measured("confirm")


def test_incumbents_are_measured_again_after_so_many_candidates() -> None:
    settled = config(agents=1, experiments=20, judge={"control_every": 4})
    landscape = Landscape(sigma=0.01, good=0.0, equal=0.0)
    run = World(settled, landscape, machines=("cpu",)).live()
    compared = len(run.measured("candidate"))
    controls = [m for m in run.measured("control") if m.experiment is None]
    assert len(controls) == compared // 4


def test_a_duplicate_of_what_was_tried_costs_nothing() -> None:
    orders = {"a1": [(0, 1), (1, 1), (0, 1)], "a2": [(1, 1), (0, 1)]}
    run = World(config(agents=2), Table(), orders=orders).live()
    verdicts = Counter(e.verdict for e in run.of(Decided))
    assert verdicts == {"discard": 2, "duplicate": 3}
    assert len(run.measured("candidate")) == 2
    reasons = {e.reason for e in run.of(Decided) if e.verdict == "duplicate"}
    assert reasons <= {"same tree as experiment 1", "same tree as experiment 2"}


@pytest.mark.parametrize("kind", ["crash", "timeout", "guard_failed", "invalid"])
def test_a_failure_is_the_verdict_and_is_not_repeated(kind: FailureKind) -> None:
    class Failing(Table):
        def failure(self, tree: world.Tree) -> FailureKind | None:
            return kind if any(tree) else None

    run = World(config(agents=1), Failing(), orders={"a1": [(0, 1), (0, 2)]}).live()
    assert [e.verdict for e in run.of(Decided)] == [kind, kind]
    assert len(run.measured("candidate")) == 2


def test_a_constraint_goes_before_the_metric() -> None:
    constraints = [{"metric": "score", "max": 103}]
    landscape = Table(worths={(0, 1): 2.0, (0, 2): 50.0})
    settled = config(agents=1, constraints=constraints)
    run = World(settled, landscape, orders={"a1": [(0, 2), (0, 1)]}).live()
    assert [e.verdict for e in run.of(Decided)] == ["constraint_failed", "keep"]


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_a_regression_of_the_targets_own_metric_follows_its_goal(goal: Any) -> None:
    constraints = [{"metric": "score", "max_regression": "3%"}]
    landscape = Table(worths={(0, 1): 20.0, (0, 2): -20.0, (0, 3): -1.0})
    settled = config(agents=1, constraints=constraints, goal=goal)
    orders = {"a1": [(0, 2), (0, 3), (0, 1)]}
    run = World(settled, landscape, orders=orders, goal=goal).live()
    assert [e.verdict for e in run.of(Decided)] == ["constraint_failed", "discard", "keep"]


def operations(act: Callable[..., object], *given: object) -> int:
    """Count the bytecode instructions that something takes; a clock would count the weather."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act(*given)
    finally:
        sys.settrace(before)
    return count


def test_planning_and_folding_cost_the_same_after_3000_experiments_as_after_200() -> None:
    settled = config(agents=4, experiments=None)
    landscape = Landscape(sites=40, levels=40, sigma=1.0, good=0.05, failing=0.05)
    run = World(settled, landscape, Habits(crowding=0.1), machines=("cpu",) * 4)

    def cost_until(number: int) -> tuple[int, int]:
        """Give operations of a plan and of a fold, the medians of the last hundred."""
        plans: list[int] = []
        folds: list[int] = []
        while run.state.next_number <= number:
            run.drive()
            run.happen()
            if run.state.next_number > number - 100:
                plans.append(operations(plan, View(run.state, run.crew, settled, run.now)))
                state, event = run.state, run.events[-1]
                if isinstance(event, Measured):
                    folds.append(operations(state._take, run.target, event))
        return sorted(plans)[len(plans) // 2], sorted(folds)[len(folds) // 2]

    early, late = cost_until(200), cost_until(3000)
    assert late[0] < 1.5 * early[0]
    assert late[1] < 1.5 * early[1]


# --- slots, agents, budget ----------------------------------------------------------------------


def test_no_slot_idles_while_there_is_something_to_measure() -> None:
    settled = config(agents=8, experiments=60, lookahead=1)
    run = World(settled, Landscape(seed=3, sigma=1.0), machines=("cpu",) * 3)
    idle = 0
    for _ in range(400):
        run.drive()
        if run.over is not None:
            break
        ready = [
            e
            for e in run.target.open.values()
            if e.machine is None
            and not any(m.experiment == e.number for m in run.crew.measuring.values())
        ]
        proven = run.target.primary(BASE).n > 0  # until then only the base is measured
        idle += proven and bool(ready) and len(run.crew.measuring) < 3
        run.happen()
    assert idle == 0


def test_with_lookahead_an_agent_proposes_while_its_experiment_is_open() -> None:
    for lookahead, wanted in ((0, False), (1, True)):
        run = World(config(agents=1, experiments=10, lookahead=lookahead), Landscape())
        seen = False
        while run.over is None:
            run.drive()
            if run.over is None:
                seen |= bool(run.crew.proposing) and bool(run.target.open)
                run.happen()
        assert seen is wanted


def test_a_prepared_proposal_that_was_overtaken_is_rebased_or_redone_unnumbered() -> None:
    landscape = Table(worths={(0, 1): 5.0})
    for second, dropped in (((1, 1), 0), ((0, 2), 1)):
        orders = {"a1": [(0, 1), second]}
        run = World(config(agents=1), landscape, machines=("cpu",), orders=orders)
        while run.over is None:
            run.drive()
            waiting = run.state.agents["a1"].loops["main"].prepared is None and run.crew.proposing
            if run.over is None:
                # Proposing is quick here, so that the second is prepared on the old base.
                run.finish(next(iter(run.crew.proposing if waiting else run.crew.measuring)))
        assert len(run.of(Dropped)) == dropped
        proposed: list[Proposed] = run.of(Proposed)
        assert len(proposed) == 2 - dropped
        if not dropped:
            assert run.name(proposed[1].proposal.base) == run.name(run.target.best)


def test_budgets_of_groups_are_kept_and_end_the_run_together() -> None:
    run = World(config(experiments=None, groups=[3, 5]), Landscape(), Habits(lose_slot=0.3)).live()
    check_end(run)
    assert [a.experiments for a in run.state.agents.values()] == [3, 5]
    assert isinstance(run.over, Finished)
    assert run.over.reason == "budget: agents.0: 3 experiments, agents.1: 5 experiments"


def test_an_aborted_experiment_gives_its_place_in_the_budget_back() -> None:
    settled, habits = config(agents=2, experiments=10), Habits(lose_slot=0.45)
    run = World(settled, Landscape(), habits, seed=4).live()
    verdicts = Counter(e.verdict for e in run.of(Decided))
    assert verdicts["aborted"] > 0
    assert verdicts.total() - verdicts["aborted"] == 10


def test_a_lost_measurement_never_lends_its_index_to_another_in_flight() -> None:
    """Two in flight, the first is lost: a second run with the seed of the other tells nothing."""
    run = World(config(agents=1), Landscape(sigma=1.0), machines=("cpu",) * 2)
    run.drive()
    assert [m.index for m in run.crew.measuring.values()] == [0, 1]
    run.habits.lose_slot = 1.0
    run.finish("s0")
    run.drive()
    assert sorted(m.index for m in run.crew.measuring.values()) == [1, 2]


def test_agents_that_left_the_config_get_no_work() -> None:
    run = World(config(agents=4, experiments=20), Landscape(), Habits())
    for _ in range(20):
        run.drive()
        run.happen()
    run.config = config(agents=2, experiments=20)
    run.launch()
    asked = len(run.asked)
    check_end(run.live())
    assert {p.agent for p in run.asked[asked:]} == {"a1", "a2"}


def test_agents_that_keep_proposing_nonsense_are_parked_and_the_run_fails_resumably() -> None:
    run = World(config(agents=2), Landscape(), Habits(invalid=1.0)).live()
    assert isinstance(run.over, Failed)
    assert "every agent is parked" in run.over.error
    assert len(run.of(Parked)) == 2
    assert len(run.of(Decided)) == 2 * MAX_INVALID
    run.habits.invalid = 0.0
    run.launch()
    check_end(run.live())


def test_when_nobody_has_anything_left_the_run_is_finished() -> None:
    run = World(config(agents=3, experiments=None), Landscape(), Habits(exhausted_after=4)).live()
    check_end(run)
    assert isinstance(run.over, Finished)
    assert "all it can think of" in run.over.reason


# --- merging ------------------------------------------------------------------------------------


def merged(landscape: Landscape, orders: dict[str, list[tuple[int, int]]]) -> World:
    """Live a run in which the agents' first proposals are all on the base."""
    settled = config(agents=len(orders), lookahead=0)
    run = World(settled, landscape, machines=("cpu",) * len(orders), orders=orders)
    run.drive()
    for agent in orders:
        run.finish(agent)
    return run.live()


def test_two_wins_on_one_base_add_up() -> None:
    landscape = Table(worths={(0, 1): 5.0, (1, 1): 3.0})
    run = merged(landscape, {"a1": [(0, 1)], "a2": [(1, 1)]})
    check_end(run)
    assert run.truth(run.target.best) == 108.0
    promoted: list[Promoted] = run.of(Promoted)
    assert [e.stacked for e in promoted] == [False, True]
    assert run.target.result is not None
    assert run.target.result.gain == 8.0


def test_a_win_that_adds_nothing_on_best_is_redundant() -> None:
    both = frozenset({(0, 1), (1, 1)})
    landscape = Table(worths={(0, 1): 5.0, (1, 1): 4.0}, together={both: -4.0})
    run = merged(landscape, {"a1": [(0, 1)], "a2": [(1, 1)]})
    check_end(run)
    outcomes = {e.merged for e in run.state.experiments.values()}
    assert "redundant" in outcomes
    assert run.truth(run.target.best) in (104.0, 105.0)


@pytest.mark.parametrize("how", ["worse", "broken"])
def test_wins_that_are_bad_together_are_antagonistic(how: str) -> None:
    both = frozenset({(0, 1), (1, 1)})
    worths = {(0, 1): 5.0, (1, 1): 4.0}
    if how == "worse":
        landscape = Table(worths=worths, together={both: -20.0})
    else:
        landscape = Table(worths=worths, broken=(both,))
    run = merged(landscape, {"a1": [(0, 1)], "a2": [(1, 1)]})
    check_end(run)
    assert "antagonistic" in {e.merged for e in run.state.experiments.values()}
    assert run.truth(run.target.best) > 100.0


def test_a_conflict_is_tried_on_the_next_best_and_then_offered_as_a_port_once() -> None:
    """Two agents win at site 0; a third moves best, so that the loser is tried again."""
    landscape = Table(worths={(0, 1): 9.0, (0, 2): 8.0, (1, 1): 1.0})
    orders = {"a1": [(0, 1)], "a2": [(0, 2)], "a3": [(2, 1), (3, 1), (1, 1), (4, 1), (5, 1)]}
    run = merged(landscape, orders)
    check_end(run)
    conflicts: list[NotMerged] = [e for e in run.of(NotMerged) if e.outcome == "conflict"]
    assert [e.final for e in conflicts] == [False, True]
    assert conflicts[0].onto != conflicts[1].onto
    assert len({e.number for e in conflicts}) == 1
    number = conflicts[0].number
    assert [p.port for p in run.asked if p.port is not None] == [number]
    ports = [e for e in run.state.experiments.values() if e.proposal.port_of == number]
    assert len(ports) == 1
    assert run.state.experiments[number].ported_by == ports[0].number


def test_an_agent_does_not_wait_with_its_conflict() -> None:
    landscape = Table(worths={(0, 1): 9.0, (0, 2): 8.0})
    run = merged(landscape, {"a1": [(0, 1)], "a2": [(0, 2), (1, 1)]})
    last = run.state.experiments[max(run.state.experiments)]
    assert run.name(last.base) == run.name(run.target.best)


def test_four_agents_with_many_wins_meet_on_one_best_that_has_them_all() -> None:
    sites = {f"a{i + 1}": [(4 * i + j, 1) for j in range(4)] for i in range(4)}
    worths = {at: 1.0 + at[0] for tried in sites.values() for at in tried}
    landscape = Table(sites=16, worths=worths)
    for seed in range(10):
        orders = {name: list(tried) for name, tried in sites.items()}
        settled = config(agents=4, experiments=None)
        run = World(settled, landscape, seed=seed, machines=("cpu",) * 4, orders=orders).live()
        check_end(run)
        dropped = len(run.of(Dropped))
        assert dropped == 0, "disjoint changes always apply"
        assert run.truth(run.target.best) == 100.0 + sum(worths.values())
        assert {e.merged for e in run.state.experiments.values()}.isdisjoint({"conflict", None})


def test_islands_stay_where_they_are_and_the_merger_still_brings_them_together() -> None:
    landscape = Table(worths={(0, 1): 5.0, (1, 1): 3.0, (2, 1): 1.0, (3, 1): 1.0})
    orders = {"a1": [(0, 1), (2, 1)], "a2": [(1, 1), (3, 1)]}
    run = World(config(agents=2, sync="none"), landscape, orders=orders).live()
    check_end(run)
    assert not run.of(Synced)
    assert run.truth(run.target.best) == 110.0


# --- pausing, leaving, draining -----------------------------------------------------------------


def test_nothing_starts_while_paused_and_it_goes_on_after() -> None:
    run = World(config(agents=3, experiments=12), Landscape(sigma=1.0), machines=("cpu",) * 2)
    for _ in range(15):
        run.drive()
        run.happen()
    run.record(Paused())
    while run.crew.measuring or run.crew.proposing:
        busy = {*run.crew.measuring, *run.crew.proposing}
        run.finish(next(iter(sorted(busy))))
        run.drive()
        assert {*run.crew.measuring, *run.crew.proposing} < busy
    assert plan(View(run.state, run.crew, run.config, run.now)) == []
    assert run.state.phase == "paused"
    run.record(Resumed())
    check_end(run.live())


def test_a_limit_that_is_reached_in_a_pause_waits_for_its_end() -> None:
    run = World(config(agents=1, budget={"time": 10}), Landscape(), machines=("cpu",))
    run.drive()
    run.record(Paused())
    while run.crew.measuring or run.crew.proposing:
        run.finish(next(iter([*run.crew.measuring, *run.crew.proposing])))
    run.now = run.now.replace(year=2030)
    run.drive()
    assert run.state.phase == "paused"
    assert not run.crew.measuring
    run.record(Resumed())
    run.live()
    assert isinstance(run.over, Finished)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(0, 1000), st.booleans())
def test_an_interrupt_finishes_what_is_measured_starts_nothing_and_leaves(
    steps: int, seed: int, paused: bool
) -> None:
    landscape = Landscape(seed=seed, sigma=1.0)
    run = World(config(agents=3, experiments=12), landscape, seed=seed, machines=("cpu",) * 2)
    for _ in range(steps):
        run.drive()
        if run.over is not None:
            return
        run.happen()
    if paused and run.state.phase == "running":
        run.record(Paused())
    run.crew.interrupted = "Ctrl-C"
    in_flight = len(run.crew.measuring)
    before = run.state.spend.measurements
    while run.over is None:
        run.drive()
        if run.over is None:
            run.finish(next(iter(run.crew.measuring)))
    assert isinstance(run.over, Interrupted)
    assert run.state.spend.measurements == before + in_flight
    run.launch()
    if run.state.phase == "paused":
        run.record(Resumed())
    check_end(run.live())


def test_a_draining_run_measures_base_and_best_afresh_by_turns() -> None:
    landscape = Table(sigma=0.1, worths={(0, 1): 5.0})
    run = World(config(agents=1), landscape, machines=("cpu",), orders={"a1": [(0, 1)]}).live()
    check_end(run)
    finals = [m.measurement for m in run.measured("final")]
    assert [m.commit for m in finals] == [BASE, run.target.best] * run.config.rule().confirm
    assert [m.index - FINAL_INDEX for m in finals] == [i for i in range(5) for _ in range(2)]
    record = run.target.record(BASE, "cpu").primary
    assert record.n < len(run.measured("baseline")) + len(finals), "never pooled with the record"


def test_a_lost_final_measurement_is_made_again() -> None:
    landscape = Table(sigma=0.1, worths={(0, 1): 5.0})
    for seed in range(10):
        orders = {"a1": [(0, 1)]}
        habits = Habits(lose_slot=0.3)
        machines = ("cpu",) * 3
        run = World(config(agents=1), landscape, habits, seed, machines, orders=orders).live()
        check_end(run)
        assert run.target.result is None or run.target.result.n == 5


def test_a_run_that_is_stopped_at_once_measures_nothing_more() -> None:
    run = World(config(agents=2), Landscape(), machines=("cpu",))
    run.record(Draining(reason="stopped"))
    run.live()
    assert isinstance(run.over, Finished)
    assert not run.of(Measured)


def test_work_is_finished_and_the_queue_emptied_before_a_stopped_run_ends() -> None:
    for steps in range(0, 60, 3):
        run = World(config(agents=4), Landscape(seed=steps, sigma=0.3), Habits(crowding=0.5))
        for _ in range(steps):
            run.drive()
            run.happen()
        if run.state.phase != "running":
            continue
        proposed = len(run.of(Proposed))
        run.record(Draining(reason="stopped"))
        check_end(run.live())
        assert len(run.of(Proposed)) == proposed, "no new experiments"


# --- trouble ------------------------------------------------------------------------------------


class BadBase(Table):
    """A landscape whose base does not run."""

    def failure(self, tree: world.Tree) -> FailureKind | None:
        return None if any(tree) else "crash"


def test_a_base_that_does_not_run_ends_the_run_at_once_and_says_why() -> None:
    run = World(config(agents=2), BadBase(), machines=("cpu",)).live()
    assert isinstance(run.over, Failed)
    assert "the base cannot be measured: crash" in run.over.error
    assert len(run.of(Measured)) == 1
    run.landscape = Table()
    run.launch()
    check_end(run.live())


def test_a_base_that_does_not_run_ends_a_draining_run_too() -> None:
    run = World(config(agents=2), BadBase(), machines=("cpu",))
    run.drive()
    for agent in ("a1", "a2"):
        run.finish(agent)
    assert run.target.open
    run.record(Draining(reason="stopped"))
    run.live()
    assert isinstance(run.over, Failed)


def test_machinery_that_always_dies_ends_the_run_instead_of_spinning() -> None:
    for phase in ("running", "draining"):
        landscape = Table(sigma=0.1, worths={(0, 1): 5.0})
        orders = {"a1": [(0, 1), *((1, n) for n in range(1, 6))]}
        run = World(config(agents=1), landscape, machines=("cpu",), orders=orders)
        while not run.of(Decided):
            run.drive()
            run.happen()
        if phase == "draining":
            run.record(Draining(reason="stopped"))
        before = len(run.of(Measured))
        run.habits.lose_slot = 1.0
        run.live()
        assert isinstance(run.over, Failed)
        assert "the machinery died" in run.over.error
        assert len(run.of(Measured)) <= before + ABORTS_IN_A_ROW + 4 + 1
        run.habits.lose_slot = 0.0
        run.launch()
        check_end(run.live())


def test_a_keep_that_crashes_when_it_is_topped_up_is_not_tried_for_ever() -> None:
    class Moody(Table):
        def failure(self, tree: world.Tree) -> FailureKind | None:
            return "crash" if any(tree) and broken else None

    broken = False
    landscape = Moody(sigma=0.1, worths={(0, 1): 50.0})
    run = World(config(agents=1), landscape, machines=("cpu",), orders={"a1": [(0, 1)]})
    while not run.of(Decided):
        run.drive()
        run.happen()
    broken = True
    run.live()
    assert isinstance(run.over, Finished)
    crashed = [m for m in run.measured("confirm") if m.measurement.failure is not None]
    assert len(crashed) == 1


def test_a_number_too_large_to_reckon_with_does_not_break_the_run() -> None:
    """Finite is all that is asked of a number, and a candidate reports what it likes."""

    class Absurd(Table):
        def noise(self, tree: world.Tree, machine: str, index: int) -> float:
            if not any(tree):
                return float(index % 3)
            return -1.7e308 if index % 2 else 1.7e308

    orders = {"a1": [(0, 1), (1, 1), (2, 1)], "a2": [(3, 1), (4, 1)]}
    run = World(config(agents=2), Absurd(sigma=1.0), orders=orders).live()
    check_end(run)
    assert len(run.of(Decided)) == 5


def test_a_stack_whose_machinery_dies_is_given_up() -> None:
    landscape = Table(worths={(0, 1): 5.0, (1, 1): 3.0})
    orders = {"a1": [(0, 1)], "a2": [(1, 1)]}
    run = World(config(agents=2, lookahead=0), landscape, machines=("cpu",), orders=orders)
    run.drive()
    for agent in orders:
        run.finish(agent)
    while run.target.stack is None:
        run.drive()
        run.happen()
    run.habits.lose_slot = 1.0
    while run.target.stack is not None:
        run.drive()
        run.happen()
    run.habits.lose_slot = 0.0
    check_end(run.live())
    assert "antagonistic" in {e.merged for e in run.state.experiments.values()}


# --- kinds of machines --------------------------------------------------------------------------


def test_values_of_different_kinds_of_machine_are_never_compared() -> None:
    class Uneven(Table):
        def noise(self, tree: world.Tree, machine: str, index: int) -> float:
            return 1000.0 if machine == "fast" else 0.0

    landscape = Uneven(worths={(0, 1): 5.0, (1, 1): -5.0})
    for seed in range(10):
        orders = {"a1": [(0, 1), (2, 1)], "a2": [(1, 1), (3, 1)]}
        machines = ("slow", "fast")
        run = World(config(agents=2), landscape, seed=seed, machines=machines, orders=orders)
        check_end(run.live())
        assert len(run.measured("baseline")) == 4
        gains = {e.gain for e in run.of(Decided) if e.gain is not None}
        assert gains <= {5.0, 0.0, -5.0}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 80), st.integers(0, 1000), shares(0.0, 1.0))
def test_a_run_goes_on_where_the_machines_are_others(steps: int, seed: int, sigma: float) -> None:
    landscape = Landscape(seed=seed, sigma=sigma)
    run = World(config(agents=3, experiments=12), landscape, seed=seed, machines=("old",) * 2)
    for _ in range(steps):
        run.drive()
        if run.over is not None:
            return
        run.happen()
    run.machines = ("new",) * 2
    run.launch()
    check_end(run.live())


def test_what_cannot_run_on_a_kind_of_machine_does_not_hold_the_run_up() -> None:
    """A win of the large machine does not run on the small one, where it is the incumbent too."""
    landscape = Table(worths={(0, 1): 5.0})
    run = World(config(agents=1), landscape, machines=("large",), orders={"a1": [(0, 1)]})
    while not run.of(Promoted):
        run.drive()
        run.happen()
    best = run.name(run.target.best)
    measure = run.measure

    def on_small(action: Measure, *, lost: bool = False) -> Measured:
        event = measure(action, lost=lost)
        if action.machine == "small" and action.tree == best:
            failed = {"failure": Failure(kind="crash", reason="out of memory"), "values": {}}
            result = event.measurement.model_copy(update=failed)
            event = event.model_copy(update={"measurement": result})
        return event

    run.measure = on_small
    run.orders, run.machines = {"a1": [(1, 1), (1, 2)]}, ("small",)
    run.launch()
    run.live()
    assert isinstance(run.over, Finished)
    assert {run.state.experiments[n].verdict for n in (2, 3)} == {"aborted"}


# --- small things -------------------------------------------------------------------------------


def test_a_plan_without_slots_or_agents_does_nothing() -> None:
    run = World(config(agents=1), Landscape())
    actions = plan(View(run.state, Crew(slots={}), run.config, run.now))
    assert [type(a) for a in actions] == [Propose]


def test_the_end_carries_the_reason_of_the_drain() -> None:
    run = World(config(agents=1, experiments=1), Landscape(), machines=("cpu",)).live()
    assert isinstance(run.over, Finished)
    assert run.over.reason == run.of(Draining)[0].reason == "budget: 1 experiments"
    last = plan(View(RunState(run.events[:-1]), run.crew, run.config, run.now))
    assert [type(a) for a in last] == [Finish]


def test_a_crash_is_not_held_open_for_a_proposer_that_has_to_wait_long() -> None:
    broken = (frozenset({(0, 1)}),)
    landscape = Table(worths={}, broken=broken)
    run = World(
        config(agents=1, experiments=1, lookahead=0),
        landscape,
        Habits(thinks=True),
        orders={"a1": [(0, 1)]},
    )
    while not run.target.open or next(iter(run.target.open.values())).failed is None:
        run.drive()
        run.happen()
    for wait, verdict in ((60.0, None), (3600.0, "crash")):
        until = run.now + timedelta(seconds=wait)
        run.record(Waiting(agent="a1", target="main", until=until, reason="later"))
        run.crew.proposing.clear()
        run.drive()
        assert run.state.experiments[1].verdict == verdict
