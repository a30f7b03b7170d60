"""Keep or discard by cases: the paired z by law and against its textbook, the duel by table."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tallies import SUITE, again, noise, tally

from swarm.judge import Count, Record, case_changes, compare, complete, for_stack
from swarm.judge.suite import Pair, Pairs, active, duel, gained, lost, pair, squared_error, z_cases
from swarm.records import Case
from swarm.rules import JudgeConfig

RULE = JudgeConfig()


@st.composite
def counts(draw: st.DrawFn, most: int = 6) -> Count:
    runs = draw(st.integers(1, most))
    return Count(passes=draw(st.integers(0, runs)), runs=runs)


pairs_of_cases = st.lists(st.builds(Pair, counts(), counts()), min_size=1, max_size=12).map(
    lambda found: {f"c{i}": p for i, p in enumerate(found)}
)


def swapped(pairs: Pairs) -> Pairs:
    return {name: Pair(p.incumbent, p.candidate) for name, p in pairs.items()}


# --- the paired z -------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_with_one_run_on_each_side_it_is_mcnemars(found: list[tuple[bool, bool]]) -> None:
    pairs = {f"c{i}": Pair(Count(a, 1), Count(b, 1)) for i, (a, b) in enumerate(found)}
    fixed = sum(a and not b for a, b in found)
    broken = sum(b and not a for a, b in found)
    wanted = (fixed - broken) / math.sqrt(fixed + broken) if fixed + broken else 0.0
    assert z_cases(pairs) == pytest.approx(wanted)


def textbook(pairs: Pairs) -> float:
    """Cochran-Mantel-Haenszel as its tables have it: the cell a, its mean, its variance."""
    a = mean = variance = 0.0
    for ours, theirs in pairs.values():
        row1, row2 = ours.runs, theirs.runs
        column1 = ours.passes + theirs.passes
        total = row1 + row2
        column2 = total - column1
        a += ours.passes
        mean += row1 * column1 / total
        variance += row1 * row2 * column1 * column2 / (total**2 * (total - 1))
    return (a - mean) / math.sqrt(variance) if variance else 0.0


@given(pairs_of_cases)
def test_it_is_cochran_mantel_haenszel(pairs: Pairs) -> None:
    assert z_cases(pairs) == pytest.approx(textbook(pairs))


@given(pairs_of_cases, st.randoms(use_true_random=False))
def test_the_order_of_the_cases_does_not_matter(pairs: Pairs, random: Any) -> None:
    names = list(pairs)
    random.shuffle(names)
    assert z_cases({n: pairs[n] for n in names}) == pytest.approx(z_cases(pairs), abs=1e-9)


@given(pairs_of_cases)
def test_swapping_the_sides_negates(pairs: Pairs) -> None:
    assert z_cases(swapped(pairs)) == pytest.approx(-z_cases(pairs), abs=1e-9)
    assert gained(swapped(pairs)) == pytest.approx(-gained(pairs), abs=1e-9)
    assert case_changes_of(swapped(pairs)) == case_changes_of(pairs)[::-1]


def case_changes_of(pairs: Pairs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    sides = [Record(cases={n: p[i] for n, p in pairs.items()}) for i in (0, 1)]
    return case_changes(sides[0], sides[1])


@given(pairs_of_cases, st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_constant_cases_drop_out(pairs: Pairs, ours: int, theirs: int, passed: bool) -> None:
    constant = Pair(Count(ours * passed, ours), Count(theirs * passed, theirs))
    more = {**pairs, "constant": constant}
    assert z_cases(more) == pytest.approx(z_cases(pairs))
    assert "constant" not in active(more)
    assert squared_error(more) == pytest.approx(squared_error(pairs))


@given(pairs_of_cases)
def test_only_active_cases_can_change_the_answer(pairs: Pairs) -> None:
    moved = set(active(pairs))
    assert z_cases({n: p for n, p in pairs.items() if n in moved}) == pytest.approx(z_cases(pairs))
    assert set(lost(pairs)) <= moved


# --- the duel, by table -------------------------------------------------------------------------


def ruled(candidate: Record, incumbent: Record, **changes: Any) -> tuple[str, float]:
    ruling = duel(candidate, incumbent, RULE.model_copy(update=changes))
    assert ruling.z is not None
    return ruling.step, round(ruling.z, 2)


def test_one_fixed_case_is_kept_after_two_whole_runs() -> None:
    """The worked example of the documentation: against five runs of the baseline."""
    base, candidate = tally(*["1100"] * 5), tally("1110")
    first = duel(candidate, base, RULE)
    assert (first.step, first.cases, round(first.z or 0, 2)) == ("measure", None, 2.24)
    again(candidate, "1110")
    again(base, "1100")
    assert ruled(candidate, base) == ("keep", 2.65)


def test_later_rounds_run_what_is_mixed_and_a_keep_the_whole_suite() -> None:
    base = tally("11000", "11010", "11000", "11010", "11000")
    candidate = tally("11011")
    first = duel(candidate, base, RULE)
    assert first.step == "measure"
    assert (first.z or 0.0) > RULE.keep_above
    assert first.cases is None

    candidate = tally("11010")
    doubtful = duel(candidate, base, RULE)
    assert (doubtful.step, doubtful.cases) == ("measure", ("c4",))
    for run in ("---1-", "---1-"):
        again(candidate, run)
    while (ruling := duel(candidate, base, RULE)).step == "measure" and ruling.cases:
        again(candidate, "---1-")
    assert not (ruling.step == "keep" and not candidate.whole_last)


def test_a_part_alone_is_never_kept() -> None:
    base = tally(*["0000"] * 5)
    candidate = tally("1000", "1---", "1---", "1---", "1---")
    ruling = duel(candidate, base, RULE)
    assert (ruling.step, ruling.cases) == ("measure", None), "also at the cap"
    again(candidate, "1000")
    assert duel(candidate, base, RULE).step == "keep"


def test_the_last_whole_run_may_take_a_keep_back() -> None:
    base = tally(*["110000"] * 5)
    candidate = tally("111000", "--1---", "000000")
    assert duel(candidate, base, RULE).step == "discard"


def test_whole_runs_that_a_limit_asked_for_do_not_lower_what_a_keep_needs() -> None:
    """Only a candidate that had passed is confirmed by the milder threshold."""
    base = tally("10100", "10010", "10100", "10010", "10100")
    candidate = tally("10110", "10110", "10100")
    ruling = duel(candidate, base, RULE)
    assert ruling.z is not None
    assert 1.0 < ruling.z < 2.0
    assert ruling.step == "measure"


@pytest.mark.parametrize(("runs", "n"), [(1, 2), (2, 2), (5, 5), (8, 8)])
def test_the_cap_on_runs(runs: int, n: int) -> None:
    base = tally("01", "01", "00", "01", "00")
    candidate = tally("01")
    step, rule = "measure", RULE.model_copy(update={"runs": runs, "drop_below": 0.1})
    while step == "measure":
        ruling = duel(candidate, base, rule)
        step = ruling.step
        if step == "measure":
            again(candidate, "-1" if ruling.cases else "01")
    assert candidate.runs <= n
    assert step in ("keep", "discard")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(
        st.tuples(st.sampled_from([0, 0.3, 0.8, 1]), st.sampled_from([0, 0.3, 0.8, 1])),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["default", "explore", "strict", "llm-judged"]),
    st.integers(1, 6),
    st.booleans(),
)
def test_every_duel_ends_in_time_and_keeps_only_what_was_run_whole_twice(
    seed: int, truth: list[tuple[float, float]], preset: str, runs: int, simpler: bool
) -> None:
    rule = JudgeConfig.model_validate({"preset": preset, "runs": runs})
    if simpler:
        rule = rule.model_copy(update={"keep_if_equal": "simpler"})
    random = Random(seed)

    def run(side: int, part: tuple[str, ...] | None) -> str:
        return "".join(
            str(int(random.random() < case[side])) if part is None or f"c{i}" in part else "-"
            for i, case in enumerate(truth, 1)
        )

    base, candidate = tally(*(run(1, None) for _ in range(5))), tally(run(0, None))
    while (ruling := duel(candidate, base, rule, simpler=simpler)).step == "measure":
        if ruling.cases is not None:
            assert set(ruling.cases) == set(active(pair(candidate, base)))
            assert ruling.cases, "nothing to run cannot help"
        again(candidate, run(0, ruling.cases))
        again(base, run(1, ruling.cases))
        assert candidate.runs <= runs + 1
    if ruling.step == "keep" and not simpler:
        assert candidate.whole_last
        assert candidate.primary.n >= 2
        assert ruling.gain > 0
    if ruling.step == "keep":
        assert not lost(pair(candidate, base)) or ruling.gain > 0


@given(pairs_of_cases, st.integers(1, 6))
def test_the_rule_for_stacks_of_suites_is_never_stricter(pairs: Pairs, runs: int) -> None:
    candidate, base = (Record(cases={n: p[i] for n, p in pairs.items()}, runs=3) for i in (0, 1))
    base.primary.add(0.5)
    rule = RULE.model_copy(update={"runs": runs})
    order = ["discard", "measure", "keep"]
    plain, milder = (duel(candidate, base, r).step for r in (rule, for_stack(rule)))
    assert order.index(plain) <= order.index(milder)


# --- what counts as better ----------------------------------------------------------------------


def test_a_gain_below_min_delta_is_not_told_apart() -> None:
    base, candidate = tally(*["1100000000"] * 6), tally("1110000000", "1110000000")
    assert ruled(candidate, base) == ("keep", 2.65)
    for least in (0.1, "50%"):
        assert ruled(candidate, base, min_delta=least) == ("discard", 0.0)
    assert ruled(candidate, base, min_delta=0.05) == ("measure", 1.32), "z is over what is asked"
    assert ruled(candidate, base, min_delta="10%")[0] == "keep"


def test_simpler_and_equal_is_kept_without_a_lost_case() -> None:
    rule = RULE.model_copy(update={"keep_if_equal": "simpler"})
    base = tally(*["1100"] * 5)
    assert duel(tally("1100"), base, rule, simpler=True).step == "measure"
    assert duel(tally(*["1100"] * 5), base, rule, simpler=True).step == "keep"
    assert duel(tally(*["1100"] * 5), base, rule).step == "discard"
    assert duel(tally(*["1000"] * 5), base, rule, simpler=True).step == "discard"
    swap = tally(*["1010"] * 5)
    assert duel(swap, base, rule, simpler=True).step == "discard", "one fixed, one lost"


def test_a_suite_without_any_spread_is_its_share() -> None:
    base = tally("1100", "1100")
    for run, step in (("1100", "discard"), ("1000", "discard"), ("1110", "measure")):
        assert compare(tally(run), base, noise(0.0), SUITE, RULE).step == step
    assert compare(tally("1110", "1110"), base, noise(0.0), SUITE, RULE).step == "keep"


def test_an_absurd_share_is_looked_at_twice() -> None:
    rule = RULE.model_copy(update={"max_gain": 0.5})
    base = tally(*["10000000"] * 5)
    wonder = tally("11111111")
    assert compare(wonder, base, noise(0.05), SUITE, rule).step == "measure"
    lucky = tally("11111111", "10000000")
    assert compare(lucky, base, noise(0.05), SUITE, rule).step == "invalid"
    again(wonder, "11111111")
    assert compare(wonder, base, noise(0.05), SUITE, rule).step == "keep"


names = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True).map(tuple)


@given(names, st.dictionaries(st.sampled_from("abcdefghxyz"), st.booleans()))
def test_leaving_cases_out_or_adding_some_gains_nothing(
    suite: tuple[str, ...], reported: dict[str, bool]
) -> None:
    honest = {name: reported.get(name, False) for name in suite}
    shown = tuple(Case(id=name, passed=passed) for name, passed in reported.items())
    assert complete(suite, shown) == honest
    fewer = tuple(case for case in shown if case.passed)
    assert complete(suite, fewer) == honest
