"""Which winner is next, and what a measured stack means."""

from __future__ import annotations

from typing import Any

import pytest
from story import MACHINE, Story

from swarm import merger
from swarm.judge import Ruling
from swarm.merger import Step, meaning, next_step
from swarm.rules import JudgeConfig


def begun() -> Story:
    story = Story(goal="maximize", agents=4)
    story.launch()
    story.baseline(9.0, 11.0)
    return story


def kept(story: Story, agent: str, value: float, *, on: str | None = None) -> int:
    number = story.propose(agent, f"to {value}", on=on or story.base)
    story.measure(number, value)
    story.decide(number, "keep", z=9.0)
    return number


def step(story: Story, *, drain: bool = False) -> Step | None:
    return next_step(story.target, story.state.experiments, drain=drain)


def test_an_empty_queue_asks_for_nothing() -> None:
    assert step(begun()) is None


def test_the_largest_gain_is_fast_forwarded_first() -> None:
    story = begun()
    kept(story, "a1", 20.0)
    large = kept(story, "a2", 30.0)
    assert step(story) == Step("fast_forward", large)


def test_what_was_won_on_another_base_is_stacked_largest_first() -> None:
    story = begun()
    numbers = [kept(story, f"a{i}", v) for i, v in ((1, 40.0), (2, 20.0), (3, 30.0))]
    story.promote(numbers[0])
    assert step(story) == Step("stack", numbers[2])
    story.stack(numbers[2])
    assert step(story) is None, "one stack at a time"
    story.not_merged(numbers[2], "redundant", "")
    assert step(story) == Step("stack", numbers[1])


def test_a_chain_is_merged_in_its_order() -> None:
    story = begun()
    first = kept(story, "a1", 11.0)
    second = kept(story, "a1", 50.0, on=story.commit(first))
    assert step(story) == Step("fast_forward", first), "though the second gains more"
    story.promote(first)
    assert step(story) == Step("fast_forward", second), "best has the tree of its base"


def test_a_chain_is_stacked_in_its_order_too() -> None:
    story = begun()
    winner, first = kept(story, "a2", 40.0), kept(story, "a1", 11.0)
    second = kept(story, "a1", 50.0, on=story.commit(first))
    story.promote(winner)
    assert step(story) == Step("stack", first)
    story.not_merged(first, "redundant", "")
    assert step(story) == Step("stack", second), "what its first link could not is no bar"


def test_a_fast_forward_goes_before_any_stack() -> None:
    story = begun()
    first, other = kept(story, "a1", 11.0), kept(story, "a2", 90.0)
    second = kept(story, "a1", 12.0, on=story.commit(first))
    story.promote(first)
    assert step(story) == Step("fast_forward", second)
    story.promote(second)
    assert step(story) == Step("stack", other)


def test_a_conflict_waits_for_the_next_best_and_nothing_waits_behind_it() -> None:
    story = begun()
    winner, loser, third = (kept(story, f"a{i}", 40.0 - i) for i in (1, 2, 3))
    behind = kept(story, "a2", 99.0, on=story.commit(loser))
    story.promote(winner)
    story.not_merged(loser, "conflict", "", final=False)
    assert step(story) == Step("stack", behind)
    story.not_merged(behind, "redundant", "")
    assert step(story) == Step("stack", third)
    story.stack(third)
    story.promote(third, values=(60.0,))
    assert step(story) == Step("stack", loser), "best has moved"
    story.not_merged(loser, "conflict", "", final=True)
    assert step(story) is None


def test_a_draining_run_waits_for_no_next_best() -> None:
    story = begun()
    winner, loser = kept(story, "a1", 40.0), kept(story, "a2", 30.0)
    story.promote(winner)
    story.not_merged(loser, "conflict", "", final=False)
    assert step(story) is None
    assert step(story, drain=True) == Step("stack", loser)


def test_a_tree_that_best_has_already_is_not_stacked() -> None:
    story = begun()
    first = kept(story, "a1", 20.0)
    number = story.propose("a2", "the same", on=story.base, same_as=first)
    story.decide(number, "keep")
    story.promote(first)
    assert step(story) == Step("already_there", number)


@pytest.mark.parametrize(
    ("ruling", "z", "gain", "accepted", "outcome"),
    [
        ("keep", 1.0, 1.0, True, None),
        ("keep", 1.0, 0.5, True, None),
        ("keep", 1.0, 0.49, False, "redundant"),
        ("discard", 0.0, 0.0, False, "redundant"),
        ("discard", 0.9, 0.9, False, "redundant"),
        ("discard", -0.4, -0.1, False, "redundant"),
        ("discard", -1.6, -0.1, False, "antagonistic"),
        ("discard", None, -0.1, False, "antagonistic"),
    ],
)
def test_a_stack_must_reach_half_of_what_was_predicted(
    ruling: Any, z: float | None, gain: float, accepted: bool, outcome: str | None
) -> None:
    merge = meaning(Ruling(ruling, z, gain, "so it was measured"), predicted=1.0)
    assert merge.accepted == accepted
    assert merge.outcome == outcome
    assert "so it was measured" in merge.reason


def test_a_stack_is_judged_by_the_milder_rule() -> None:
    story = begun()
    winner, other = kept(story, "a1", 20.0), kept(story, "a2", 20.0)
    story.promote(winner)
    story.stack(other)
    stack = story.target.stack
    assert stack is not None
    for value in (21.6, 21.6):
        story._measured(stack.commit, stack.tree, "stack", other, **story.value(value))
    ruling = merger.judge_stack(story.target, MACHINE, JudgeConfig(), simpler=False)
    assert ruling.z is not None
    assert 1.0 <= ruling.z < 2.0
    assert ruling.step == "keep"


@pytest.mark.parametrize(
    ("z", "promised"), [(None, True), (2.5, True), (0.9, False), (-0.5, False)]
)
def test_what_was_kept_for_another_reason_promised_nothing(z: float | None, promised: bool) -> None:
    """A change that is simpler or faster has a gain too, by luck; its stack need not have it."""
    story = begun()
    number = kept(story, "a1", 20.0)
    experiment = story.state.experiments[number]
    experiment.z = z
    assert (merger.predicted(story.target, experiment) > 0.0) == promised
