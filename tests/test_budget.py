"""Limits: when a run drains, how much room is left, and when it is expected to end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from story import MACHINE, Story

from swarm import budget
from swarm.config import RunConfig
from swarm.errors import BudgetRefusedError
from swarm.records import Finished, Launched, Paused, Resumed


def limited(groups: tuple[Any, ...] = (None,), **limits: Any) -> RunConfig:
    own = [g if isinstance(g, dict) else {"experiments": g} for g in groups]
    return RunConfig.model_validate(
        {
            "target": {"scope": ["x"], "run": "x", "metric": {"name": "m", "goal": "minimize"}},
            "agents": [{"proposer": "mutate", "budget": g} for g in own],
            "budget": limits,
        }
    )


def told(agents: int = 2) -> Story:
    story = Story(agents=agents)
    story.launch()
    return story


def grouped(*groups: int) -> Story:
    """Tell of a run whose agents, one after another, are of these groups."""
    story = told(agents=len(groups))
    for agent, group in zip(story.state.agents.values(), groups, strict=True):
        agent.info = agent.info.model_copy(update={"group": group})
    return story


def kept(story: Story, agent: str) -> None:
    number = story.propose(agent, "better")
    story.measure(number, 2.0)
    story.decide(number, "keep", z=9.0)


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
    assert budget.forecast(config, story.state, story.now) == (pytest.approx(40), None, "time")
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
    assert ended(config, story) is None
    discarded(story)
    assert ended(config, story) == "2 experiments without a keep"


def ended(config: RunConfig, story: Story) -> str | None:
    """Say which limit the only target has reached."""
    return budget.target_spent(config, story.state, story.target, story.now)


@pytest.mark.parametrize(("wanted", "reached"), [(2.0, False), (3.0, True), (3.5, True)])
def test_the_target_value_is_reached_by_the_record_of_best(wanted: float, reached: bool) -> None:
    story = told()
    config = limited(target=wanted)
    assert ended(config, story) is None, "nothing is measured yet"
    story.baseline(2.9, 3.1)
    assert (ended(config, story) is not None) == reached
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
    found = budget.forecast(config, story.state, story.now)
    assert found is not None
    assert (found.seconds, found.limit) == (pytest.approx(elapsed * 6 / 4), "experiments")
    assert found.usd == pytest.approx(0.05 + 0.05 * 6 / 4), "the aborted one was paid for too"


def test_the_forecast_ends_with_the_first_limit() -> None:
    story = told()
    for _ in range(4):
        discarded(story)  # 1000 tokens and a cent each
    now, elapsed = story.now, story.state.elapsed(story.now)
    found = budget.forecast(limited(experiments=100, usd=0.05, tokens=10_000), story.state, now)
    assert found == (pytest.approx(elapsed / 4), pytest.approx(0.05), "usd")
    found = budget.forecast(limited(usd=9, tokens=5000), story.state, now)
    assert found is not None
    assert found.limit == "tokens"


def test_the_forecast_in_words() -> None:
    assert budget.Forecast(11_160, 212.3, "usd").words() == "ends in 3h 6m, about $212"
    assert budget.Forecast(40, 1.234, "time").words() == "ends in 40s, about $1.23"
    assert budget.Forecast(40, None, "time").words() == "ends in 40s"


# --- money and tokens --------------------------------------------------------------------------


def paid(story: Story, agent: str, usd: float) -> int:
    number = story.propose(agent, "change", usd=usd)
    story.measure(number, 3.0)
    story.decide(number, "discard", z=-5.0)
    return number


def test_money_is_spent_when_it_is_paid() -> None:
    config, story = limited(usd=20), told()
    paid(story, "a1", 19.99)
    assert budget.spent(config, story.state, story.now) is None
    story.propose("a1", "change", usd=0.01)
    assert budget.spent(config, story.state, story.now) == "budget: $20.00"
    assert budget.room(config, story.state, 1) == 0


def test_tokens_are_spent_when_they_are_used() -> None:
    config, story = limited(tokens="2k"), told()
    paid(story, "a1", 0)
    assert budget.spent(config, story.state, story.now) is None
    paid(story, "a1", 0)
    assert budget.spent(config, story.state, story.now) == "budget: 2k tokens"


def test_what_is_in_flight_counts_at_the_mean_so_far() -> None:
    config, story = limited(usd=10), told(agents=4)
    assert budget.room(config, story.state, 3, ["a1", "a2", "a3"]) is None, "nothing is known yet"
    paid(story, "a1", 1)
    paid(story, "a2", 3)
    assert budget.room(config, story.state, 0) == 3
    assert budget.room(config, story.state, 1, ["a1"]) == 2
    assert budget.room(config, story.state, 3, ["a1", "a2", "a3"]) == 0
    assert budget.spent(config, story.state, story.now) is None
    assert budget.room(config, story.state, 3) == 3, "what is prepared is paid for"


def test_the_smallest_room_counts() -> None:
    story = told()
    paid(story, "a1", 1)
    assert budget.room(limited(usd=100, tokens=3000, experiments=50), story.state, 0) == 2
    assert budget.room(limited(usd=100, tokens=3000, experiments=2), story.state, 0) == 1


def test_a_proposer_that_costs_nothing_is_not_held_back() -> None:
    config, story = limited(usd=1), told()
    for _ in range(5):
        paid(story, "a1", 0)
    assert budget.room(config, story.state, 9, ["a1", "a2"]) is None


@settings(max_examples=100, deadline=None)
@given(st.data(), st.floats(0.1, 20.0), st.integers(1, 6), st.booleans())
def test_money_is_not_overspent_by_a_wave(
    data: st.DataObject, limit: float, agents: int, grouped: bool
) -> None:
    """All that may start is started, and proposals come in one by one, each at its own price."""
    config = limited(({"usd": limit},)) if grouped else limited(usd=limit)
    story, at_work = told(agents=agents), list[str]()
    state = story.state
    for _ in range(15):
        idle = [name for name in state.agents if name not in at_work]
        if grouped:
            room = budget.group_room(config, state, at_work, at_work).get(0)
        else:
            room = budget.room(config, state, len(at_work), at_work)
        begun = idle[:room]
        at_work += begun
        made = state.next_number - 1
        mean = state.spend.usd / made if made else 0.0
        if begun:
            expected = state.spend.usd + mean * len(at_work)
            assert expected <= limit + mean + 1e-6, "not by more than one proposal"
        if not at_work:
            assert state.spend.usd >= limit, "a run that may go on does"
            return
        name = data.draw(st.sampled_from(at_work))
        at_work.remove(name)
        paid(story, name, data.draw(st.floats(0, 3)))


# --- groups ------------------------------------------------------------------------------------


def closed(config: RunConfig, story: Story, **at: Any) -> bool:
    return budget.group_room(config, story.state, **at).get(0) == 0


def test_a_group_stops_at_its_own_money_and_tokens() -> None:
    story = told()
    paid(story, "a1", 1.5)
    for limits in ({"usd": 1.5}, {"tokens": 1000}):
        assert closed(limited((limits,)), story)
    config = limited(({"usd": 3.1}, None))
    assert budget.group_room(config, story.state) == {0: 2}
    assert budget.group_room(config, story.state, ["a1"], ["a1"]) == {0: 1}
    assert budget.group_room(config, story.state, ["a1", "a2"], ["a1", "a2"]) == {0: 0}
    assert budget.group_room(config, story.state, ["a1", "a2"]) == {0: 2}, "prepared and paid for"


def test_a_group_stops_after_its_own_time() -> None:
    story, config = told(), limited(({"time": "100s"},))
    start = story.now
    assert budget.group_room(config, story.state, now=start + timedelta(seconds=99)) == {}
    assert closed(config, story, now=start + timedelta(seconds=101))
    assert budget.spent(config, story.state, start + timedelta(seconds=999)) is None
    story.add(Paused(), after=101)
    assert closed(config, story), "without a clock it is as late as the last event"


def test_a_group_stops_when_its_agents_together_keep_nothing() -> None:
    story = grouped(0, 0, 1)
    config = limited(({"stale": 3}, {"stale": 3}))
    for agent in ("a1", "a1", "a2", "a3"):
        discarded(story, agent)
    assert closed(config, story)
    assert 1 not in budget.group_room(config, story.state)
    kept(story, "a2")
    assert not closed(config, story)
    discarded(story, "a1")
    assert not closed(config, story), "its agents have four without a keep, but not in a row"
    story.decide(story.propose("a1", "aborted"), "aborted")
    discarded(story, "a2")
    kept(story, "a3")
    assert not closed(config, story)
    discarded(story, "a1")
    assert closed(config, story)


def test_a_group_stops_at_its_target_value() -> None:
    story = told()
    story.baseline(2.9, 3.1)
    assert closed(limited(({"target": 3.0},)), story)
    assert not closed(limited(({"target": 2.5},)), story)


def test_why_no_group_may_go_on() -> None:
    story = grouped(0, 1)
    paid(story, "a1", 5)
    paid(story, "a2", 0)
    config = limited(({"usd": 5}, {"experiments": 1}))
    assert budget.group_room(config, story.state) == {0: 0, 1: 0}
    said = budget.groups_spent(config, story.state, story.now)
    assert said == "budget: agents.0: $5.00, agents.1: 1 experiments"


def test_agents_of_a_group_that_is_gone_have_no_room_and_no_limit() -> None:
    story = grouped(0, 7)
    discarded(story, "a2")
    assert budget.group_room(limited((3,)), story.state, ["a2"], ["a2"]) == {0: 3}
    assert budget.room(limited(usd=1), story.state, 1, ["a2"]) is None


# --- warnings ----------------------------------------------------------------------------------


def test_a_warning_when_a_limit_is_nearly_used_up() -> None:
    config, story = limited(usd=20, tokens="2.4k", experiments=10, time="1h"), told()
    paid(story, "a1", 15.99)
    assert budget.warning(config, story.state, story.now) == []
    paid(story, "a1", 0.04)
    assert budget.warning(config, story.state, story.now) == [
        ("usd", "80 % of the budget is used: $16.03 of $20.00"),
        ("tokens", "83 % of the budget is used: 2k of 2.4k tokens"),
    ]
    story.state.warnings["usd"] = "said"
    names = [n for n, _ in budget.warning(config, story.state, story.now)]
    assert names == ["tokens"]
    assert [n for n, _ in budget.nearly(config, story.state, story.now)] == ["usd", "tokens"]
    later = story.now + timedelta(minutes=50)
    assert ("time", "84 % of the budget is used: 50m 24s of 1h") in budget.warning(
        config, story.state, later
    )


def test_a_run_that_has_reached_its_limit_is_not_warned() -> None:
    config, story = limited(experiments=2), told()
    paid(story, "a1", 1)
    paid(story, "a1", 1)
    assert budget.warning(config, story.state, story.now) == []


def test_a_warning_of_a_group() -> None:
    config, story = limited(({"usd": 5}, {"usd": 9})), told()
    paid(story, "a1", 4.5)
    words = "90 % of the budget of agents.0 (mutate) is used: $4.50 of $5.00"
    assert budget.warning(config, story.state, story.now) == [("agents.0.usd", words)]
    paid(story, "a1", 1.5)
    assert budget.nearly(config, story.state, story.now)[0][1].startswith("120 % of the budget of")


# --- what cannot be kept to --------------------------------------------------------------------


def with_proposers(*proposers: Any, own: Any = None, **limits: Any) -> RunConfig:
    groups = [{"proposer": p, **({"budget": own} if own else {})} for p in proposers]
    data = limited(**limits).model_dump(mode="json", by_alias=True)
    return RunConfig.model_validate({**data, "agents": groups})


UNKNOWN = {"kind": "messages", "model": "nobody-knows-it"}
PROGRAM = {"kind": "headless", "cli": ["./mine"]}
CODEX = {"kind": "headless", "cli": "codex"}


@pytest.mark.parametrize(
    "proposer",
    [
        "mutate",
        {"kind": "messages", "model": "claude-opus-5-5"},
        {**UNKNOWN, "base_url": "http://localhost:11434"},
        {**UNKNOWN, "prices": {"input": 1, "output": 2}},
        {"kind": "headless", "cli": "claude"},
        {"kind": "headless", "cli": "opencode"},
        {**CODEX, "model": "gpt-5.6"},
        {**CODEX, "prices": {"proposal": 0.2}},
        {**PROGRAM, "prices": {"proposal": 0}},
    ],
)
def test_a_budget_that_can_be_kept_to(proposer: Any) -> None:
    budget.check(with_proposers(proposer, usd=20), {})
    budget.check(with_proposers(proposer, own={"usd": 20}), {})


@pytest.mark.parametrize("proposer", [UNKNOWN, CODEX, PROGRAM])
def test_without_a_limit_of_money_no_price_is_needed(proposer: Any) -> None:
    budget.check(with_proposers(proposer, experiments=3, time="3h"), {})


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        (
            with_proposers("mutate", UNKNOWN, usd=20),
            "agents.1: what `messages/nobody-knows-it` costs is not known, so `budget.usd` cannot "
            "be kept to",
            "give the proposer `prices: {input: ..., output: ...}` (USD for a million tokens) or "
            "`prices: {proposal: ...}` (USD for each proposal), or drop `budget.usd`",
        ),
        (
            with_proposers(CODEX, own={"usd": 3}),
            "agents.0: what `headless/codex` (no model is named) costs is not known, so "
            "`agents.0.budget.usd` cannot be kept to",
            "or drop `agents.0.budget.usd`",
        ),
        (
            with_proposers({**PROGRAM, "prices": {"input": 1, "output": 1}}, usd=3),
            "agents.0: what the program `./mine` costs is not known, so `budget.usd` cannot be "
            "kept to",
            "give the proposer `prices: {proposal: ...}` (USD for each proposal), or drop",
        ),
        (
            with_proposers(PROGRAM, tokens="5M"),
            "agents.0: the program `./mine` does not tell how many tokens it takes, so "
            "`budget.tokens` cannot be kept to",
            "drop `budget.tokens`; `experiments` and `time` can be kept to, and `usd` with prices",
        ),
    ],
)
def test_a_budget_that_cannot_be_kept_to_is_refused(
    config: RunConfig, message: str, hint: str
) -> None:
    with pytest.raises(BudgetRefusedError) as caught:
        budget.check(config, {})
    assert caught.value.exit_code == 5
    assert caught.value.message == message
    assert hint in (caught.value.hint or "")


def test_all_that_cannot_be_kept_to_is_said_at_once() -> None:
    with pytest.raises(BudgetRefusedError, match=r"agents\.0: .*; agents\.1: .*; agents\.1: .*"):
        budget.check(with_proposers(UNKNOWN, PROGRAM, usd=1, tokens=1), {})


def test_the_server_decides_on_the_price() -> None:
    config = with_proposers({"kind": "messages", "model": "qwen"}, usd=1)
    budget.check(config, {"ANTHROPIC_BASE_URL": "http://127.0.0.1:8080"})
    with pytest.raises(BudgetRefusedError):
        budget.check(config, {})
