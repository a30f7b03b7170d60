"""The fold: the same events always give the same state, and its counts are what was counted."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from story import Story, half_a_morning, morning
from world import Habits, Landscape, World

from swarm.entities import verdict_counts
from swarm.records import (
    EVENT,
    AgentInfo,
    AnyEvent,
    Decided,
    Failure,
    Interrupted,
    Launched,
    Measured,
    Paused,
    Prepared,
    Promoted,
    Proposed,
    Resumed,
    SlotInfo,
)
from swarm.state import RunState

habits = st.builds(
    Habits,
    duplicate=st.sampled_from([0.0, 0.2]),
    invalid=st.sampled_from([0.0, 0.3]),
    crowding=st.sampled_from([0.0, 0.5]),
    lose_slot=st.sampled_from([0.0, 0.2]),
    lose_agent=st.sampled_from([0.0, 0.2]),
    kill=st.sampled_from([0.0, 0.05]),
    pause=st.sampled_from([0.0, 0.1]),
)


@st.composite
def lived(draw: st.DrawFn) -> World:
    """A run that was lived to its end."""
    seed = draw(st.integers(0, 2**32))
    sigma = draw(st.sampled_from([0.0, 1.0]))
    config = world.config(agents=draw(st.integers(1, 4)), experiments=draw(st.integers(1, 15)))
    landscape = Landscape(seed=seed, sigma=sigma, failing=0.1, redundant=0.2)
    machines = draw(st.sampled_from([("cpu",), ("cpu", "cpu", "cpu"), ("cpu", "gpu")]))
    return World(config, landscape, draw(habits), seed=seed, machines=machines).live()


@settings(max_examples=40, deadline=None)
@given(lived())
def test_a_fold_is_the_same_twice_and_through_the_ledgers_lines(run: World) -> None:
    again = RunState(run.events)
    assert world.same(again, run.state)
    lines = [e.model_dump_json(exclude_none=True) for e in run.events]
    assert world.same(RunState(EVENT.validate_json(line) for line in lines), again)


@settings(max_examples=15, deadline=None)
@given(lived(), st.data())
def test_a_fold_can_be_broken_off_anywhere_and_gone_on_with(
    run: World, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(run.events)))
    state = RunState(run.events[:cut])
    for event in run.events[cut:]:
        state.apply(event)
    assert world.same(state, run.state)


def recorded(events: list[AnyEvent]) -> dict[tuple[str, str], list[float]]:
    """Group the values that count, by tree and kind of machine."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if isinstance(event, Measured) and event.purpose != "final":
            result = event.measurement
            if result.failure is None:
                found[result.tree, result.machine].append(result.values["score"])
    return dict(found)


@settings(max_examples=40, deadline=None)
@given(lived())
def test_counts_are_what_a_recount_gives(run: World) -> None:
    state, target = run.state, run.target
    decided: list[Decided] = run.of(Decided)
    verdicts = Counter(e.verdict for e in decided)
    counts = verdict_counts(target)
    assert counts.pop("total") == len(decided)
    assert {v: n for v, n in counts.items() if n} == dict(verdicts)

    measured: list[Measured] = run.of(Measured)
    proposed: list[Proposed] = run.of(Proposed)
    assert state.spend.experiments == len(proposed) - verdicts["aborted"]
    assert state.spend.measurements == len(measured)
    assert state.spend.busy_seconds == pytest.approx(sum(e.busy_seconds for e in measured))
    assert state.spend.usd == pytest.approx(sum(e.measurement.usd for e in measured))
    assert state.next_number == len(proposed) + 1
    assert target.best == [run.target.info.base, *(e.new for e in run.of(Promoted))][-1]

    agent_of = {e.number: e.agent for e in proposed}
    fates = Counter((agent_of[e.number], e.verdict) for e in decided)
    for name, agent in state.agents.items():
        mine = sum(a == name for a in agent_of.values())
        assert agent.experiments == mine - fates[name, "aborted"]
        assert agent.keeps == fates[name, "keep"]
        assert not agent.open
        assert not agent.loops["main"].queued


@settings(max_examples=40, deadline=None)
@given(lived())
def test_records_hold_every_valid_measurement_and_nothing_else(run: World) -> None:
    target, values = run.target, recorded(run.events)
    for key, numbers in values.items():
        sample = target.records[key].primary
        assert sample.n == len(numbers)
        assert sample.mean == pytest.approx(statistics.fmean(numbers))
    for key, record in target.records.items():
        assert record.primary.n == len(values.get(key, [])), "a failure is no value"
        assert record.others.keys() <= {"seconds", "peak_memory_mb"}
    for machine, spread in target.spreads.items():
        groups = [v for (_, m), v in values.items() if m == machine and len(v) > 1]
        freedom = sum(len(g) - 1 for g in groups)
        assert spread.freedom == freedom
        if freedom:
            squares = sum(statistics.variance(g) * (len(g) - 1) for g in groups)
            assert spread.sigma == pytest.approx(math.sqrt(squares / freedom), abs=1e-9)


def test_a_morning_folds_from_its_lines() -> None:
    story = morning()
    lines = [e.model_dump_json(exclude_none=True) for e in story.events]
    assert world.same(RunState(EVENT.validate_json(line) for line in lines), story.state)


# --- coming back --------------------------------------------------------------------------------


def relaunched(story: Story, **changes: Any) -> None:
    launch = story.state.launch
    assert launch is not None
    story.add(launch.model_copy(update=changes))


def test_a_launch_gives_parked_agents_and_a_failing_base_another_chance() -> None:
    story = half_a_morning()
    story.state.agents["a1"].parked = "5 invalid proposals in a row"
    story.state.agents["a1"].loops["main"].invalid_streak = 5
    story._measured(
        story.base, story.base_tree, "baseline", None, failure=Failure(kind="crash", reason="x")
    )
    assert story.target.failed_on_base
    relaunched(story)
    assert story.state.agents["a1"].parked is None
    assert story.state.agents["a1"].loops["main"].invalid_streak == 0
    assert not story.target.failed_on_base


def test_agents_that_left_the_config_are_parked_and_come_back_with_it() -> None:
    story = half_a_morning()
    launch = story.state.launch
    assert launch is not None
    extra = AgentInfo(name="a9", targets=("main",), proposer="mutate")
    relaunched(story, agents=(*launch.agents[:1], extra))
    agents = story.state.agents
    assert [n for n, a in agents.items() if a.parked is None] == ["a1", "a9"]
    assert agents["a9"].loops["main"].incumbent == story.target.best
    assert agents["a2"].experiments == 2, "what it did is not forgotten"
    relaunched(story, agents=launch.agents)
    assert [n for n, a in agents.items() if a.parked is None] == ["a1", "a2", "a3"]


def test_an_open_comparison_starts_afresh_where_the_machines_are_others() -> None:
    story = half_a_morning()
    relaunched(story)
    assert story.experiment(4).machine is not None
    assert story.experiment(4).controls == 1
    relaunched(story, slots=(SlotInfo(name="s0", node="n", machine="other"),))
    assert story.experiment(4).machine is None
    assert story.experiment(4).controls == 0


def test_a_pause_outlives_a_relaunch_and_a_drain_does_not() -> None:
    story = half_a_morning()
    story.add(Paused())
    relaunched(story)
    assert story.state.phase == "paused"
    story = half_a_morning()
    story.drain()
    relaunched(story)
    assert story.state.phase == "running"


def test_a_prepared_proposal_is_paid_for_once() -> None:
    story = half_a_morning()
    before = story.state.spend.usd
    proposal = story.experiment(5).proposal
    story.add(Prepared(agent="a3", target="main", proposal=proposal))
    paid = story.state.spend.usd
    assert paid == pytest.approx(before + proposal.usage.usd)
    story.add(Proposed(number=6, target="main", agent="a3", proposal=proposal))
    assert story.state.spend.usd == paid
    assert story.state.agents["a3"].loops["main"].prepared is None


def test_an_aborted_experiment_gives_its_tree_and_its_place_back() -> None:
    story = half_a_morning()
    tree = story.experiment(5).proposal.tree
    assert tree is not None
    spent = story.state.spend.experiments
    story.decide(5, "aborted")
    assert tree not in story.target.number_of
    assert story.state.spend.experiments == spent - 1
    assert isinstance(story.events[1], Launched)


def test_a_pause_costs_no_time() -> None:
    state = half_a_morning().state
    assert state.last_at is not None
    now, before = state.last_at, state.elapsed(state.last_at)
    hour = timedelta(hours=1)
    state.apply(Paused(at=now))
    assert state.elapsed(now + hour) == before
    state.apply(Resumed(at=now + hour))
    assert state.elapsed(now + hour) == before
    assert state.elapsed(now + 2 * hour) == before + hour.total_seconds()
    state.apply(Paused(at=now + 2 * hour))
    state.apply(Interrupted(at=now + 3 * hour, reason="interrupted"))
    assert state.elapsed(now + 9 * hour) == before + hour.total_seconds()
