"""Limits: when a run drains, how much room is left, and when it is expected to end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from story import MACHINE, Story

from swarm import budget
from swarm.config import RunConfig
from swarm.records import Finished, Launched, Paused, Resumed


def limited(groups: tuple[int | None, ...] = (None,), **limits: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "target": {"scope": ["x"], "run": "x", "metric": {"name": "m", "goal": "minimize"}},
            "agents": [{"proposer": "mutate", "budget": {"experiments": g}} for g in groups],
            "budget": limits,
        }
    )


def told(agents: int = 2) -> Story:
    story = Story(agents=agents)
    story.launch()
    return story


def discarded(story: Story, agent: str = "a1") -> int:
    number = story.propose(agent, "change")
    story.measure(number, 3.0)
    story.decide(number, "discard", z=-5.0)
    return number


def test_without_limits_a_run_never_drains_and_has_room() -> None:
    story = told()
    for _ in range(50):
        discarded(story)
    config, state = limited(), story.state
    assert budget.spent(config, state, story.now + timedelta(days=999)) is None
    assert budget.room(config, state, 7) is None
    assert budget.group_room(config, state) == {}
    assert budget.forecast(config, state, story.now) is None


def test_experiments_are_spent_when_decided_and_aborted_ones_never() -> None:
    config, story = limited(experiments=2), told()
    discarded(story)
    number = story.propose("a1", "change")
    assert budget.room(config, story.state, 0) == 0, "an open one has its place"
    assert budget.spent(config, story.state, story.now) is None, "it may yet be aborted"
    story.decide(number, "aborted")
    assert budget.room(config, story.state, 0) == 1
    assert budget.room(config, story.state, 1) == 0
    assert budget.spent(config, story.state, story.now) is None
    discarded(story)
    assert budget.room(config, story.state, 5) == 0
    assert budget.spent(config, story.state, story.now) == "budget: 2 experiments"


def test_time_counts_over_all_launches_but_not_between_them() -> None:
    story = told()
    config = limited(time="100s")
    launch = story.state.launch
    assert isinstance(launch, Launched)
    start = story.now
    story.add(Paused(), after=60)
    story.add(Resumed(), after=0)  # the last sign of life before a kill
    story.add(launch, after=10_000)
    assert story.state.elapsed(story.now) == pytest.approx(60)
    assert budget.spent(config, story.state, story.now) is None
    assert budget.forecast(config, story.state, story.now) == pytest.approx(40)
    later = story.now + timedelta(seconds=41)
    assert budget.spent(config, story.state, later) == "budget: 100 s of time"
    story.add(Finished(reason="done"), after=5)
    assert story.state.elapsed(start + timedelta(days=9)) == pytest.approx(65)


def test_a_clock_that_is_set_back_gives_no_time_back() -> None:
    story = told()
    story.add(Paused(), after=50)
    before = story.state.elapsed(story.now)
    launch = story.state.launch
    assert launch is not None
    story.add(launch, after=-3_600)
    story.add(launch, after=-3_600)
    assert story.state.elapsed(story.now) >= before


def test_a_run_is_stale_after_so_many_experiments_without_a_keep() -> None:
    config, story = limited(stale=2), told()
    discarded(story)
    number = story.propose("a2", "better")
    story.measure(number, 2.0)
    story.decide(number, "keep", z=9.0)
    discarded(story)
    assert budget.spent(config, story.state, story.now) is None
    discarded(story)
    assert budget.spent(config, story.state, story.now) == "budget: 2 experiments without a keep"


@pytest.mark.parametrize(("wanted", "reached"), [(2.0, False), (3.0, True), (3.5, True)])
def test_the_target_value_is_reached_by_the_record_of_best(wanted: float, reached: bool) -> None:
    story = told()
    config = limited(target=wanted)
    assert budget.spent(config, story.state, story.now) is None, "nothing is measured yet"
    story.baseline(2.9, 3.1)
    assert (budget.spent(config, story.state, story.now) is not None) == reached
    assert story.target.record(story.base, MACHINE).primary.mean == pytest.approx(3.0)


def test_a_groups_budget_is_shared_by_its_agents() -> None:
    config, story = limited((3, None)), told(agents=3)
    discarded(story, "a1")
    number = story.propose("a2", "change")
    assert budget.group_room(config, story.state) == {0: 1}
    assert budget.group_room(config, story.state, ["a3"]) == {0: 0}
    assert budget.group_room(config, story.state, ["a1", "a3"]) == {0: 0}
    story.decide(number, "aborted")
    assert budget.group_room(config, story.state) == {0: 2}


def test_the_forecast_is_the_rate_so_far() -> None:
    story = told()
    config = limited(experiments=10)
    assert budget.forecast(config, story.state, story.now) is None
    for _ in range(4):
        discarded(story)
    number = story.propose("a1", "change")
    story.decide(number, "aborted")
    elapsed = story.state.elapsed(story.now)
    assert budget.forecast(config, story.state, story.now) == pytest.approx(elapsed * 6 / 4)
