"""What agents are asked for: roles in turn, another way after failures, old ideas on new ground."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from story import Story, long_night
from suite_story import SuiteStory

from swarm import repeats
from swarm.config import RunConfig, parse
from swarm.directives import (
    LOOKBACK,
    PIVOT_AFTER,
    PLATEAU_LEAST,
    RETRY_AFTER,
    RETRY_ONE_IN,
    directive,
)
from swarm.groups import Role


def config(agents: str = "[{count: 3, proposer: mutate}]") -> RunConfig:
    text = f"""
target:
  scope: [train.py]
  run: "true"
  metric: {{name: val_bpb, goal: minimize}}
agents: {agents}
"""
    return parse(text, Path("run.yaml"))


def begun(agents: int = 3) -> Story:
    story = Story(agents=agents)
    story.launch()
    story.baseline(3.0, 3.01, 2.99)
    return story


def discard(story: Story, agent: str, n: int = 1, *, z: float = -3.0) -> int:
    """Let an agent fail `n` times; give the last number."""
    number = 0
    for _ in range(n):
        number = story.propose(agent, f"idea {story.state.next_number}", on=story.target.best)
        story.measure(number, 3.05)
        story.decide(number, "discard", "worse", z)
    return number


def keep(story: Story, agent: str, summary: str = "a good one", *, promote: bool = True) -> int:
    number = story.propose(agent, summary, on=story.target.best)
    story.measure(number, 2.5 - 0.01 * number)
    story.decide(number, "keep", "better", 9.0)
    if promote:
        story.promote(number)
    return number


def roles(story: Story, agent: str, config: RunConfig) -> Counter[Role]:
    return Counter(directive(story.state, agent, "main", config, seed).role for seed in range(200))


# --- roles --------------------------------------------------------------------------------------


def test_a_group_may_have_its_role() -> None:
    story, fixed = begun(), config("[{count: 3, proposer: mutate, role: simplify}]")
    assert roles(story, "a1", fixed) == {"simplify": 200}
    discard(story, "a1", 30)
    made = directive(story.state, "a1", "main", fixed, 1)
    assert (made.role, made.plateau) == ("simplify", True)


def test_nothing_is_refined_or_combined_before_there_is_something() -> None:
    story = begun()
    assert set(roles(story, "a1", config())) <= {"explore", "simplify"}
    keep(story, "a1")
    for agent in ("a1", "a2", "a3"):
        assert "combine" not in roles(story, agent, config())


def test_agents_are_asked_for_different_things_in_turn() -> None:
    story, seen = begun(), Counter[Role]()
    keep(story, "a1")
    keep(story, "a2")
    for seed in range(40):
        for agent in ("a1", "a2", "a3"):
            seen[directive(story.state, agent, "main", config(), seed).role] += 1
            keep(story, agent, promote=False)
    assert set(seen) == {"explore", "refine", "simplify", "combine"}
    assert seen["explore"] + seen["refine"] > 2 * (seen["simplify"] + seen["combine"]) > 0


def test_the_same_state_and_seed_ask_for_the_same() -> None:
    story = long_night(60)
    for seed in range(20):
        one = directive(story.state, "a3", "main", config(), seed)
        assert one == directive(story.state, "a3", "main", config(), seed)


def test_an_agent_of_a_group_that_is_gone_is_asked_as_any() -> None:
    story = begun()
    assert directive(story.state, "a1", "main", config().model_copy(update={"agents": ()}), 1).role


# --- pivots and plateaus ------------------------------------------------------------------------


def test_a_pivot_comes_after_five_failures_and_after_five_more() -> None:
    story, pivots = begun(), list[int]()
    for failures in range(12):
        made = directive(story.state, "a1", "main", config(), 1)
        assert made.streak == failures
        if made.pivot:
            pivots.append(failures)
        discard(story, "a1")
    assert pivots == [PIVOT_AFTER, 2 * PIVOT_AFTER]
    assert not directive(story.state, "a2", "main", config(), 1).pivot, "the others have not failed"


def test_a_keep_ends_the_streak() -> None:
    story = begun()
    discard(story, "a1", 4)
    keep(story, "a1")
    discard(story, "a1")
    made = directive(story.state, "a1", "main", config(), 1)
    assert (made.pivot, made.streak) == (False, 1)


@pytest.mark.parametrize(("agents", "patience"), [(1, PLATEAU_LEAST), (3, 10), (5, 15)])
def test_a_plateau_asks_everybody_for_structure(agents: int, patience: int) -> None:
    story = begun(agents)
    for i in range(patience):
        made = directive(story.state, "a1", "main", config(), 1)
        assert not made.plateau
        assert made.role != "restructure"
        discard(story, f"a{1 + i % agents}")
    for agent in story.state.agents:
        made = directive(story.state, agent, "main", config(), 1)
        assert (made.role, made.plateau) == ("restructure", True)
    keep(story, "a1")
    assert not directive(story.state, "a1", "main", config(), 1).plateau


# --- old ideas ----------------------------------------------------------------------------------


def offered(story: Story) -> set[int | None]:
    return {directive(story.state, "a1", "main", config(), seed).retry for seed in range(100)}


def near_miss(story: Story, *, promotions: int, z: float | None = 0.5) -> int:
    number = story.propose("a2", "Nearly", on=story.target.best)
    story.measure(number, 2.999)
    story.decide(number, "discard", "not told apart", z)
    for _ in range(promotions):
        keep(story, "a3", f"win {story.state.next_number}")
    return number


def test_a_near_miss_is_offered_again_when_best_has_moved_far() -> None:
    story = begun()
    number = near_miss(story, promotions=RETRY_AFTER - 1)
    assert offered(story) == {None}
    keep(story, "a3", "one more")
    assert offered(story) == {None, number}


@pytest.mark.parametrize(
    ("z", "again"), [(-0.9, True), (0.0, True), (1.9, True), (-1.1, False), (-8.0, False)]
)
def test_a_clear_loss_is_not_offered_again(z: float, again: bool) -> None:
    story = begun()
    number = near_miss(story, promotions=3, z=z)
    assert (number in offered(story)) == again


def test_where_nothing_varies_a_small_loss_is_one_below_the_smallest_gain() -> None:
    story = begun()
    near = near_miss(story, promotions=0, z=None)  # 0.001 better
    far = story.propose("a2", "Far off", on=story.target.best)
    story.measure(far, 9.0)
    story.decide(far, "discard", "worse", None)
    for _ in range(RETRY_AFTER):
        keep(story, "a3", f"win {story.state.next_number}")
    assert offered(story) == {None, near}


def test_a_keep_that_won_nothing_makes_no_loss_look_large() -> None:
    """By points a change may be kept for its cost although it passes a case less."""
    story = begun()
    near = near_miss(story, promotions=0, z=None)  # 0.001 better
    cheap = story.propose("a3", "Cheaper", on=story.target.best)
    story.measure(cheap, 3.5)
    story.decide(cheap, "keep", "less usd", None)
    for _ in range(RETRY_AFTER):
        keep(story, "a3", f"win {story.state.next_number}")
    assert near in offered(story)


def test_a_loss_that_fixed_what_still_fails_is_offered_again() -> None:
    story = SuiteStory("1100", "1100")
    one = story.tried("a2", "Three", "0010", "discard", z=-3.0, fixed="c3", broken="c1 c2")
    two = story.tried("a2", "Four", "0001", "discard", z=-3.0, fixed="c4", broken="c1 c2")
    for name in ("one", "two", "three"):
        story.tried("a3", f"win {name}", "1101", "keep", fixed="c4")
    assert one in offered(story)
    assert two not in offered(story), "best passes it by now"


def test_it_comes_now_and_then_and_always_with_a_pivot() -> None:
    story = begun()
    number = near_miss(story, promotions=3)
    hits = [directive(story.state, "a1", "main", config(), s).retry == number for s in range(600)]
    assert 600 / RETRY_ONE_IN / 2 < sum(hits) < 600 / RETRY_ONE_IN * 2
    discard(story, "a1", PIVOT_AFTER)
    assert offered(story) == {number}


def test_what_was_tried_again_is_not_offered_again() -> None:
    story = begun()
    number = near_miss(story, promotions=3)
    again = story.propose("a1", "nearly!", on=story.target.best)
    assert offered(story) == {None}, "in flight is tried as well"
    story.measure(again, 2.9)
    story.decide(again, "discard", "worse", -5.0)
    assert number not in offered(story)


def test_the_search_is_bounded() -> None:
    story = begun()
    number = near_miss(story, promotions=3)
    discard(story, "a2", LOOKBACK // 2)
    assert number not in offered(story)


def test_what_is_offered_again_would_not_be_refused_as_a_repeat() -> None:
    assert RETRY_AFTER >= repeats.FAR
