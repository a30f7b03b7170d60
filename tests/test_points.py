"""Keep or discard by points: no case is sold for speed, and nothing is waited for for ever."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tallies import SUITE, again, noise, sample, tally

from swarm.judge import Noise, Record, Ruling, compare
from swarm.judge.suite import gained, lost, pair
from swarm.rules import JudgeConfig


def rule(*costs: str, trade: str = "lexicographic", **changes: Any) -> JudgeConfig:
    parts = ["cases", *({"improves": cost} for cost in costs)]
    return JudgeConfig.model_validate({"points": {"of": parts, "trade": trade}, **changes})


FAST = rule("seconds")
LITERAL = rule("seconds", "usd", trade="literal")
EXACT = noise(0.0, seconds=0.1)
"""The cases never differ between runs; the seconds do."""


def base(cases: str = "1100", seconds: float = 10.0) -> Record:
    return tally(*[cases] * 5, seconds=[seconds] * 5, usd=[1.0] * 5)


def judged(candidate: Record, noise: Noise = EXACT, rule: JudgeConfig = FAST) -> Ruling:
    return compare(candidate, base(), noise, SUITE, rule)


# --- lexicographic ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cases", "seconds", "step"),
    [
        ("1100", 9.0, "keep"),
        ("1100", 10.0, "discard"),
        ("1100", 11.0, "discard"),
        ("1110", 99.0, "keep"),
        ("1110", 1.0, "keep"),
        ("1000", 1.0, "discard"),
        ("1010", 1.0, "discard"),
        ("0000", 1.0, "discard"),
    ],
)
def test_the_cases_first_and_then_the_time(cases: str, seconds: float, step: str) -> None:
    ruling = judged(tally(cases, cases, seconds=[seconds, seconds]))
    assert ruling.step == step, ruling.reason


def test_a_later_cost_counts_only_where_the_earlier_are_equal() -> None:
    both, spreads = rule("seconds", "usd"), noise(0.0, seconds=0.1, usd=0.01)
    for seconds, usd, step in ((10.0, 0.5, "keep"), (11.0, 0.5, "discard"), (9.0, 2.0, "keep")):
        made = tally("1100", "1100", seconds=[seconds] * 2, usd=[usd] * 2)
        assert judged(made, spreads, both).step == step


def test_a_cost_that_might_be_less_is_measured_again() -> None:
    ruling = judged(tally("1100", seconds=[9.8]))
    assert (ruling.step, ruling.cases) == ("measure", None)
    assert judged(tally("1100", seconds=[9.95])).step == "discard"


@pytest.mark.parametrize("which", [FAST, LITERAL])
def test_no_single_run_is_kept(which: JudgeConfig) -> None:
    spreads = noise(0.0, seconds=0.1, usd=0.01)
    once = tally("1100", seconds=[1.0], usd=[0.1])
    assert judged(once, spreads, which).step == "measure"
    twice = tally("1100", "1100", seconds=[1.0, 1.0], usd=[0.1, 0.1])
    assert judged(twice, spreads, which).step == "keep"


@pytest.mark.parametrize("which", [FAST, LITERAL])
@pytest.mark.parametrize("runs", [1, 5])
def test_a_cost_that_is_not_reported_again_is_not_waited_for(which: JudgeConfig, runs: int) -> None:
    capped = which.model_copy(update={"runs": runs})
    candidate = tally("1100", seconds=[9.8])
    while judged(candidate, EXACT, capped).step == "measure":
        again(candidate, "1100")
        assert candidate.runs <= runs + 1
    assert judged(candidate, EXACT, capped).step == "discard"


def test_a_cost_that_one_side_does_not_report() -> None:
    unknown = compare(tally("11", "11"), tally("11", "11"), EXACT, SUITE, FAST)
    assert unknown.step == "discard"
    assert "not measured on the incumbent" in unknown.reason
    silent = judged(tally("1100", "1100"))
    assert silent.step == "discard"
    assert "not reported" in silent.reason


sides = st.lists(
    st.tuples(st.sampled_from([0, 0.2, 0.9, 1, 1]), st.sampled_from([0, 0.2, 0.9, 1, 1])),
    min_size=1,
    max_size=8,
)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), sides, st.floats(0.1, 12), st.integers(1, 6), st.booleans())
def test_no_lost_case_is_bought_by_speed_in_any_sequence(
    seed: int, truth: list[tuple[float, float]], seconds: float, runs: int, simpler: bool
) -> None:
    random = Random(seed)
    which = rule("seconds", "usd", runs=runs, keep_if_equal="simpler" if simpler else "never")
    spreads = noise(0.1, seconds=0.5, usd=0.1)

    def run(record: Record, side: int, part: tuple[str, ...] | None, costs: float) -> None:
        marks = (
            str(int(random.random() < case[side])) if part is None or f"c{i}" in part else "-"
            for i, case in enumerate(truth, 1)
        )
        again(record, "".join(marks))
        if part is None:
            for name, spread in (("seconds", 0.5), ("usd", 0.1)):
                value = random.gauss(costs, spread)
                record.others.setdefault(name, sample()).add(value)

    incumbent, candidate = Record(), Record()
    for _ in range(5):
        run(incumbent, 1, None, 10.0)
    run(candidate, 0, None, seconds)
    while True:
        ruling = compare(candidate, incumbent, spreads, SUITE, which, simpler=simpler)
        if ruling.step != "measure":
            break
        run(candidate, 0, ruling.cases, seconds)
        run(incumbent, 1, ruling.cases, 10.0)
        assert candidate.runs <= runs + 1
    pairs = pair(candidate, incumbent)
    if ruling.step == "keep":
        assert candidate.primary.n >= 2
        assert gained(pairs) > 0 or not lost(pairs)


# --- literal ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cases", "seconds", "usd", "step"),
    [
        ("1100", 9.0, 1.0, "keep"),
        ("1110", 99.0, 9.0, "keep"),
        ("1000", 1.0, 1.0, "discard"),  # one case for one point
        ("1000", 1.0, 0.1, "keep"),  # one case for two
        ("0000", 1.0, 0.1, "discard"),
        ("1100", 10.0, 1.0, "discard"),
        ("1111", 11.0, 9.0, "keep"),
    ],
)
def test_points_add_up_where_the_user_says_so(
    cases: str, seconds: float, usd: float, step: str
) -> None:
    candidate = tally(cases, cases, seconds=[seconds] * 2, usd=[usd] * 2)
    ruling = judged(candidate, noise(0.0, seconds=0.1, usd=0.01), LITERAL)
    assert ruling.step == step, ruling.reason


def test_literal_points_at_a_cap_of_one_are_confirmed_once() -> None:
    capped = LITERAL.model_copy(update={"runs": 1})
    spreads = noise(0.0, seconds=0.1, usd=0.01)
    assert judged(tally("1111", seconds=[10.0], usd=[1.0]), spreads, capped).step == "measure"
    twice = tally("1111", "1111", seconds=[10.0] * 2, usd=[1.0] * 2)
    assert judged(twice, spreads, capped).step == "keep"
