"""Keep or discard: the 1-2 rule by table, by law, and in small invented worlds."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from swarm.judge import (
    Breach,
    Noise,
    Record,
    Sample,
    Spread,
    beyond_doubt,
    breach,
    duel,
    for_stack,
    shrunken,
)
from swarm.quantities import margin
from swarm.records import MetricSpec
from swarm.rules import JudgeConfig, Limit

RULE = JudgeConfig()
Step = Literal["keep", "discard", "measure"]

values = st.floats(-1e3, 1e3).map(lambda x: round(x, 6))
samples = st.lists(values, min_size=1, max_size=6)
signs = st.sampled_from([1, -1])


def sample(*numbers: float) -> Sample:
    taken = Sample()
    for number in numbers:
        taken.add(number)
    return taken


def level(mean: float, n: int) -> Sample:
    """Give a sample of which only mean and count matter."""
    return Sample(n=n, mean=mean, values=[mean] * n)


def spread(sigma: float, freedom: int = 4) -> Spread:
    return Spread(squares=sigma * sigma * freedom, freedom=freedom, agreed=sigma == 0)


def step_at(z: float, n: int, rule: JudgeConfig = RULE, **changes: Any) -> Step:
    """Give the step for a candidate of `n` measurements at this z, against five of 0."""
    rule = rule.model_copy(update=changes)
    gain = z * math.sqrt(1 / n + 1 / 5) + margin(rule.min_delta, 0.0)
    return duel(level(gain, n), level(0.0, 5), spread(1.0), sign=1, rule=rule).step


# --- the rule, by table -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "z", "step"),
    [
        (1, -4.0, "discard"),
        (1, 0.0, "discard"),
        (1, 0.99, "discard"),
        (1, 1.01, "measure"),
        (1, 2.5, "measure"),
        (1, 2.99, "measure"),
        (1, 9.0, "measure"),
        (2, 0.99, "discard"),
        (2, 1.01, "measure"),
        (2, 1.99, "measure"),
        (2, 2.01, "keep"),
        (4, 1.01, "measure"),
        (4, 1.99, "measure"),
        (4, 2.01, "keep"),
        (5, 0.99, "discard"),
        (5, 1.99, "discard"),
        (5, 2.01, "keep"),
        (9, 1.99, "discard"),
    ],
)
def test_the_one_two_rule(n: int, z: float, step: Step) -> None:
    assert step_at(z, n) == step


@pytest.mark.parametrize(
    ("changes", "n", "z", "step"),
    [
        ({"runs": 1}, 1, 1.9, "discard"),
        ({"runs": 1}, 1, 2.1, "measure"),
        ({"runs": 1}, 2, 2.1, "keep"),
        ({"runs": 3}, 3, 1.5, "discard"),
        ({"runs": 8}, 5, 1.5, "measure"),
        ({"drop_below": 0.0}, 1, 0.5, "measure"),
        ({"keep_above": 1.0}, 2, 1.5, "keep"),
        ({"min_delta": 0.5}, 2, 2.01, "keep"),
        ({"min_delta": 0.5}, 2, 0.99, "discard"),
    ],
)
def test_every_number_of_the_rule_can_be_set(
    changes: dict[str, Any], n: int, z: float, step: Step
) -> None:
    assert step_at(z, n, **changes) == step


def test_undecided_at_the_cap_says_so() -> None:
    ruling = duel(level(1.0, 5), level(0.0, 5), spread(1.0), sign=1, rule=RULE)
    assert ruling.step == "discard"
    assert "undecided after 5 runs" in ruling.reason


def test_a_duel_needs_both_sides_and_a_spread() -> None:
    for candidate, incumbent, noise in (
        (Sample(), level(0, 1), spread(1)),
        (level(0, 1), Sample(), spread(1)),
        (level(0, 1), level(0, 1), Spread()),
    ):
        with pytest.raises(ValueError):
            duel(candidate, incumbent, noise, sign=1, rule=RULE)


# --- no spread ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "min_delta", "n", "step"),
    [
        (1.0, 0.0, 1, "measure"),
        (1.0, 0.0, 2, "keep"),
        (1e-12, 0.0, 2, "keep"),
        (0.0, 0.0, 1, "discard"),
        (0.0, 0.0, 2, "discard"),
        (-1.0, 0.0, 1, "discard"),
        (0.5, 0.5, 1, "discard"),
        (0.5, 0.5, 2, "discard"),
        (0.75, 0.5, 1, "measure"),
        (0.75, 0.5, 2, "keep"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_without_spread_any_gain_is_kept_at_the_second_run(
    gain: float, min_delta: float, n: int, step: Step, sign: int
) -> None:
    rule = RULE.model_copy(update={"min_delta": min_delta})
    ruling = duel(level(sign * gain, n), level(0.0, 2), spread(0.0), sign=sign, rule=rule)
    assert ruling.step == step
    assert ruling.z is None
    assert ruling.gain == gain


@pytest.mark.parametrize("runs", [1, 5])
def test_a_second_run_is_asked_for_even_at_a_cap_of_one(runs: int) -> None:
    rule = RULE.model_copy(update={"runs": runs})
    ruling = duel(level(1.0, 1), level(0.0, 2), spread(0.0), sign=1, rule=rule)
    assert ruling.step == "measure"


@given(st.lists(st.just(0.1) | st.just(1 / 3), min_size=2, max_size=20))
def test_one_difference_ends_determinism(repeats: list[float]) -> None:
    taken, noise = Sample(), Spread()
    for value in repeats:
        noise.take(taken, value)
    assert noise.deterministic == (len(set(repeats)) == 1)


# --- laws ---------------------------------------------------------------------------------------


@given(samples, samples, st.floats(0.1, 10), signs)
def test_minimizing_is_maximizing_the_negative(
    candidate: list[float], incumbent: list[float], sigma: float, sign: int
) -> None:
    one = duel(sample(*candidate), sample(*incumbent), spread(sigma), sign=sign, rule=RULE)
    negated = (sample(*(-x for x in side)) for side in (candidate, incumbent))
    two = duel(*negated, spread(sigma), sign=-sign, rule=RULE)
    assert one == two


@given(samples, samples, st.floats(0.1, 10), st.floats(-1e3, 1e3), st.floats(0.01, 100))
def test_z_depends_on_neither_the_origin_nor_the_unit(
    candidate: list[float], incumbent: list[float], sigma: float, shift: float, scale: float
) -> None:
    one = duel(sample(*candidate), sample(*incumbent), spread(sigma), sign=1, rule=RULE)
    moved = (sample(*(scale * x + shift for x in side)) for side in (candidate, incumbent))
    two = duel(*moved, spread(scale * sigma), sign=1, rule=RULE)
    assert one.z is not None
    assert two.z is not None
    assert math.isclose(one.z, two.z, rel_tol=1e-6, abs_tol=1e-5)


@given(st.floats(-10, 10), st.floats(0, 5), st.integers(1, 9), st.integers(1, 9))
def test_more_gain_is_never_judged_worse(
    gain: float, more: float, n_candidate: int, n_incumbent: int
) -> None:
    order = ["discard", "measure", "keep"]
    incumbent, noise = level(0.0, n_incumbent), spread(1.0)
    less, better = (
        duel(level(g, n_candidate), incumbent, noise, sign=1, rule=RULE).step
        for g in (gain, gain + more)
    )
    assert order.index(less) <= order.index(better)


@given(st.floats(-10, 10), st.integers(1, 9), st.integers(1, 9))
def test_more_measurements_sharpen_a_gain(gain: float, n: int, more: int) -> None:
    incumbent, noise = level(0.0, 5), spread(1.0)
    few, many = (duel(level(gain, k), incumbent, noise, sign=1, rule=RULE).z for k in (n, n + more))
    assert few is not None
    assert many is not None
    assert abs(few) <= abs(many)


@given(st.lists(values, min_size=1, max_size=50))
def test_a_sample_is_its_mean_and_variance(numbers: list[float]) -> None:
    taken = sample(*numbers)
    assert taken.n == len(numbers)
    assert math.isclose(taken.mean, statistics.fmean(numbers), rel_tol=1e-9, abs_tol=1e-9)
    if taken.n > 1:
        variance = statistics.variance(numbers)
        assert math.isclose(taken.m2 / (taken.n - 1), variance, rel_tol=1e-6, abs_tol=1e-9)


@given(st.lists(st.lists(values, min_size=1, max_size=6), min_size=1, max_size=6))
def test_the_spread_pools_every_commit_measured_twice(groups: list[list[float]]) -> None:
    noise = Spread()
    for group in groups:
        taken = Sample()
        for value in group:
            noise.take(taken, value, pinned=True)
    freedom = sum(len(g) - 1 for g in groups)
    if freedom == 0:
        assert noise.sigma is None
        return
    squares = sum(statistics.variance(g) * (len(g) - 1) for g in groups if len(g) > 1)
    assert noise.sigma is not None
    assert math.isclose(noise.sigma, math.sqrt(squares / freedom), rel_tol=1e-6, abs_tol=1e-6)


thresholds = st.floats(-3, 5).map(lambda x: round(x, 3))


@given(thresholds, thresholds, thresholds, st.floats(-6, 6), st.integers(1, 5))
def test_the_rule_for_stacks_is_never_stricter(
    drop: float, keep: float, once: float, z: float, n: int
) -> None:
    assume(drop <= keep <= once)
    rule = RULE.model_copy(update={"drop_below": drop, "keep_above": keep, "once": once})
    order = ["discard", "measure", "keep"]
    assert order.index(step_at(z, n, rule)) <= order.index(step_at(z, n, for_stack(rule)))


def test_the_rule_for_stacks_is_one_step_milder() -> None:
    assert step_at(0.5, 1, for_stack(RULE)) == "measure"
    assert step_at(1.01, 2, for_stack(RULE)) == "keep"
    assert step_at(-0.01, 1, for_stack(RULE)) == "discard"
    assert step_at(2.9, 1, for_stack(RULE)) == "measure", "one lucky run is still one run"


def test_a_gain_is_shrunk_only_where_there_is_luck() -> None:
    assert shrunken(2.0, spread(0.0)) == 2.0
    assert 0 < shrunken(2.0, spread(1.0)) < 2.0
    assert shrunken(-2.0, spread(1.0)) == 0.0


@pytest.mark.parametrize(
    ("value", "limit", "broken"),
    [
        (5.0, Limit("cost", maximum=5.0), False),
        (5.1, Limit("cost", maximum=5.0), True),
        (5.0, Limit("cost", minimum=5.0), False),
        (4.9, Limit("cost", minimum=5.0), True),
        (None, Limit("cost", maximum=5.0), True),
        (10.4, Limit("cost", max_regression=0.05), False),
        (10.6, Limit("cost", max_regression=0.05), True),
        (1.0, Limit("cost", max_regression=0.05), False),
        (10.6, Limit("score", max_regression=0.05), False),
        (9.4, Limit("score", max_regression=0.05), True),
    ],
)
def test_a_constraint_is_a_limit(value: float | None, limit: Limit, broken: bool) -> None:
    metric = MetricSpec(name="score", goal="maximize")
    given = None if value is None else level(value, 1)
    found = _breach_of(limit, given, level(10.0, 5), metric, {})
    assert (found is not None) == broken
    assert found is None or (found.sure and limit.metric in found.words)


def _breach_of(
    limit: Limit, given: Sample | None, base: Sample, metric: MetricSpec, noise: Noise
) -> Breach | None:
    def record(sample: Sample | None) -> Record:
        if limit.metric == metric.name:
            return Record(primary=sample or Sample())
        return Record(primary=level(1.0, 1), others={} if sample is None else {"cost": sample})

    return breach(limit, record(given), record(base), noise, metric, RULE)


# --- a spread of one's own ----------------------------------------------------------------------


def pooled(noise: Spread, *numbers: float, pinned: bool = False) -> Sample:
    """Give the sample of a commit whose scatter was taken into a spread."""
    taken = Sample()
    for number in numbers:
        noise.take(taken, number, pinned=pinned)
    return taken


groups_of_values = st.lists(st.lists(values, min_size=1, max_size=6), min_size=1, max_size=8)


@given(groups_of_values, st.randoms(use_true_random=False))
def test_the_spread_is_that_of_the_commits_that_are_not_foreign(
    groups: list[list[float]], random: Any
) -> None:
    """In whatever order the values come; the base is in it whatever its scatter."""
    noise, taken = Spread(), [Sample() for _ in groups]
    order = [(i, value) for i, group in enumerate(groups) for value in group]
    random.shuffle(order)
    for i, value in order:
        noise.take(taken[i], value, pinned=i == 0)
        assert noise.squares >= 0.0
        inside = [s for s in taken if s.n > 1 and not s.foreign]
        assert noise.freedom == sum(s.n - 1 for s in inside)
        squares = sum(s.m2 for s in inside)
        assert math.isclose(noise.squares, squares, rel_tol=1e-6, abs_tol=1e-4)
    assert not taken[0].foreign
    same = all(len(set(s.values)) == 1 for s in taken)
    assert noise.deterministic == (same and noise.freedom > 0)


def test_a_foreign_commit_goes_out_and_comes_in_again() -> None:
    noise = Spread()
    pooled(noise, 0.0, 1.0, -1.0, 0.5, -0.5, pinned=True)
    before = noise.sigma
    wild = pooled(noise, 0.0, 100.0)
    assert wild.foreign
    assert noise.sigma == before, "it does not blur the others"
    assert noise.squared_error(wild) == wild.variance / 2
    for value in [50.0] * 1500:
        noise.take(wild, value)
    assert not wild.foreign
    assert noise.freedom == 4 + 1501


def test_one_difference_ends_determinism_even_of_a_foreign_commit() -> None:
    noise = Spread()
    pooled(noise, 1.0, 1.0, pinned=True)
    assert noise.deterministic
    assert pooled(noise, 1.0, 1.5).foreign
    assert not noise.deterministic
    assert noise.sigma == 0.0


@pytest.mark.parametrize("base", [(0.0, 1.0, -1.0, 0.5, -0.5), (0.0, 0.0, 0.0, 0.0, 0.0)])
def test_an_absurd_candidate_does_not_change_the_verdict_on_others(base: tuple[float, ...]) -> None:
    def judged(noise: Spread, incumbent: Sample) -> list[str]:
        tried = [(0.2,), (1.9,), (3.5,), (1.9, 2.4), (1.0, 1.2), (-1.0,)]
        samples = [sample(*numbers) for numbers in tried]
        return [duel(s, incumbent, noise, sign=1, rule=RULE).step for s in samples]

    noise = Spread()
    incumbent = pooled(noise, *base, pinned=True)
    before = judged(noise, incumbent)
    pooled(noise, 1e6, 0.0)
    pooled(noise, 1e100, -1e100, 3.0)
    assert judged(noise, incumbent) == before


# --- gains that nobody can believe --------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "step"),
    [
        ((900.0,), "measure"),
        ((900.0, 1.0), "invalid"),
        ((1.0, 900.0), "invalid"),
        ((900.0, 1.0, 1.0), "invalid"),
        ((900.0, 901.0), "keep"),
        ((30.0,), "measure"),
        ((30.0, 31.0), "keep"),
        ((-900.0,), "discard"),
    ],
)
@pytest.mark.parametrize("max_gain", [100.0, "100%"])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_absurd_gain_is_believed_when_it_comes_again(
    numbers: tuple[float, ...], step: str, max_gain: float | str, sign: int
) -> None:
    rule = RULE.model_copy(update={"max_gain": max_gain})
    noise = Spread()
    incumbent = pooled(noise, *(100.0 + x for x in (0.0, 1.0, -1.0, 2.0, -2.0)), pinned=True)
    candidate = pooled(noise, *(100.0 + sign * x for x in numbers))
    assert duel(candidate, incumbent, noise, sign=sign, rule=rule).step == step


# --- equal, and simpler -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "n", "sigma", "step"),
    [
        (0.0, 1, 0.0, "measure"),
        (0.0, 2, 0.0, "keep"),
        (-1e-9, 2, 0.0, "discard"),
        (0.1, 1, 1.0, "measure"),
        (0.1, 5, 1.0, "keep"),
        (-0.1, 5, 1.0, "keep"),
        (-2.0, 1, 1.0, "discard"),
        (-2.0, 5, 1.0, "discard"),
        (0.9, 5, 1.0, "keep"),
    ],
)
def test_what_is_simpler_need_only_be_equal(gain: float, n: int, sigma: float, step: str) -> None:
    rule = RULE.model_copy(update={"keep_if_equal": "simpler"})
    sides = (level(gain, n), level(0.0, 5), spread(sigma))
    assert duel(*sides, sign=1, rule=rule, simpler=True).step == step
    plain = duel(*sides, sign=1, rule=RULE, simpler=True)
    assert duel(*sides, sign=1, rule=rule) == plain, "no simpler, no matter"


@given(st.floats(-10, 10), st.integers(1, 6), st.floats(0, 3))
def test_what_is_simpler_is_never_kept_when_it_is_worse(gain: float, n: int, sigma: float) -> None:
    rule = RULE.model_copy(update={"keep_if_equal": "simpler"})
    ruling = duel(level(gain, n), level(0.0, 5), spread(sigma), sign=1, rule=rule, simpler=True)
    if ruling.step == "keep":
        assert gain >= 0.0 or (ruling.z is not None and ruling.z > -1.0)


# --- windows and margins ------------------------------------------------------------------------


def test_a_window_forgets_what_the_incumbent_once_was() -> None:
    incumbent, candidate = sample(0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 5.0), sample(4.0)
    for window, step in (("all", "measure"), (5, "measure"), (2, "discard")):
        rule = RULE.model_copy(update={"window": window})
        assert duel(candidate, incumbent, spread(1.0), sign=1, rule=rule).step == step


@pytest.mark.parametrize("mean", [200.0, -200.0])
def test_a_min_delta_in_per_cent_is_one_of_the_incumbents_magnitude(mean: float) -> None:
    rule = RULE.model_copy(update={"min_delta": "1%"})
    for gain, step in ((1.9, "discard"), (2.1, "keep")):
        ruling = duel(level(mean + gain, 2), level(mean, 2), spread(0.0), sign=1, rule=rule)
        assert ruling.step == step


# --- invented worlds ----------------------------------------------------------------------------


@dataclass
class Campaign:
    """One search by the rule: one agent, records shared, a control every eight candidates."""

    random: Random
    sigma: float
    noise: Spread = field(default_factory=Spread)
    spent: int = 0

    def measure(self, true: float, record: Sample) -> None:
        self.spent += 1
        self.noise.take(record, self.random.gauss(true, self.sigma))

    def search(self, evaluations: int, effects: list[float]) -> tuple[float, float]:
        """Give what the best is worth, and what is claimed for it over the base's record."""
        base, true = Sample(), 0.0
        for _ in range(RULE.baseline):
            self.measure(0.0, base)
        best, compared = base, 0
        while self.spent < evaluations:
            effect = true + self.random.choice(effects)
            candidate, step = Sample(), "measure"
            while step == "measure":
                self.measure(effect, candidate)
                ruling = duel(candidate, best, self.noise, sign=1, rule=RULE)
                if candidate.n > 1 and not beyond_doubt(ruling, RULE):
                    self.measure(true, best)
                    ruling = duel(candidate, best, self.noise, sign=1, rule=RULE)
                step = ruling.step
            compared += 1
            if compared % RULE.control_every == 0:
                self.measure(true, best)
            if step == "keep":
                best, true = candidate, effect
                for _ in range(max(1, 3 - best.n)):
                    self.measure(true, best)
        return true, best.mean - base.mean


def naive(random: Random, sigma: float, evaluations: int, effects: list[float]) -> float:
    """Give what is claimed by whoever takes the best value ever seen for a record."""
    true, base = 0.0, random.gauss(0.0, sigma)
    best = base
    for _ in range(evaluations - 1):
        effect = true + random.choice(effects)
        seen = random.gauss(effect, sigma)
        if seen > best:
            best, true = seen, effect
    return best - base


RANDOM = Random(1)
HARM = [-RANDOM.uniform(0.1, 5.0) for _ in range(35)]
NOTHING_HELPS = [0.0] * 65 + HARM
SOME_HELP = [RANDOM.uniform(0.5, 2.0) for _ in range(5)] + [0.0] * 60 + HARM
"""Effects in per cent of the base's value, as in the simulations the rule was chosen by."""


def test_where_nothing_helps_next_to_nothing_is_claimed() -> None:
    """At a spread of 1 %, a rule that believes the best value seen claims over 2 %."""
    claims = [Campaign(Random(s), 1.0).search(120, NOTHING_HELPS)[1] for s in range(200)]
    naive_claims = [naive(Random(s), 1.0, 120, NOTHING_HELPS) for s in range(200)]
    assert statistics.fmean(claims) <= 0.4
    assert statistics.fmean(naive_claims) > 2.0


def test_a_record_is_hardly_above_the_truth() -> None:
    sigma = 0.3
    found = [Campaign(Random(s), sigma).search(120, SOME_HELP) for s in range(200)]
    assert statistics.fmean(claim - true for true, claim in found) <= 0.25 * sigma
    assert statistics.fmean(true for true, _ in found) > 2.0, "and it does find what helps"
