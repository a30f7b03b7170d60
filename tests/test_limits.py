"""What must hold besides: sure, unsure, and decided at the cap; cases that must pass."""

from __future__ import annotations

from typing import Any

import pytest
from tallies import noise, sample, spread, tally

from swarm.judge import Breach, Noise, Record, breach, failing
from swarm.records import MetricSpec
from swarm.rules import JudgeConfig, Limit

SCORE = MetricSpec(name="score", goal="maximize")
NOISE: Noise = {"score": spread(1.0), "cost": spread(1.0)}


def reported(*cost: float, runs: int | None = None, others: bool = True) -> Record:
    """Give a record of `runs` measurements of which some reported the cost."""
    record = Record(primary=sample(*[5.0] * 5), runs=len(cost) if runs is None else runs)
    if others:
        record.others["cost"] = sample(*cost)
    return record


def found(candidate: Record, limit: Limit, runs: int = 5, noise: Noise = NOISE) -> Breach | None:
    rule = JudgeConfig(runs=runs)
    return breach(limit, candidate, reported(*[10.0] * 4), noise, SCORE, rule)


@pytest.mark.parametrize(
    ("values", "sure"),
    [
        ([11.0], None),
        ([12.9], False),
        ([13.9], False),
        ([14.1], True),
        ([12.5, 12.5], False),
        ([13.5, 13.5], True),
        ([12.1] * 4, False),
        ([12.1] * 5, True),
        ([11.9] * 5, None),
    ],
)
def test_a_limit_within_the_noise_is_looked_at_again(
    values: list[float], sure: bool | None
) -> None:
    breached = found(reported(*values), Limit("cost", maximum=12.0))
    assert (breached.sure if breached else None) == sure


def test_a_regression_has_the_noise_of_both_sides() -> None:
    limit = Limit("cost", max_regression=0.2)
    for value, sure in ((12.1, False), (14.1, False), (14.3, True)):
        breached = found(reported(value), limit)
        assert breached is not None
        assert breached.sure == sure


def test_a_regression_is_towards_what_is_worse() -> None:
    """Of a quality less is worse; of a cost more, as long as nothing is said."""
    quality = Limit("cost", max_regression=0.2, goal="maximize")
    assert found(reported(20.0), quality) is None
    assert found(reported(8.5), quality) is None
    breached = found(reported(4.0), quality)
    assert breached is not None
    assert breached.sure
    assert "more than 20.0% under 10" in breached.words
    cost = Limit("cost", max_regression=0.2, goal="minimize")
    assert found(reported(4.0), cost) is None
    # The target's own metric has a goal, and what is said of it comes first.
    assert Limit("score").worse(SCORE) == -SCORE.sign
    assert Limit("score", goal="minimize").worse(SCORE) == 1


def test_a_metric_that_is_reported_only_once_is_not_waited_for() -> None:
    for runs, sure in ((1, False), (4, False), (5, True), (6, True)):
        breached = found(reported(12.1, runs=runs), Limit("cost", maximum=12.0))
        assert breached is not None
        assert breached.sure == sure


def test_what_is_beyond_doubt_is_said_first() -> None:
    limit = Limit("cost", maximum=14.0, max_regression=0.2)
    breached = found(reported(14.9), limit)
    assert breached is not None
    assert breached.sure
    assert "more than 20.0% over 10" in breached.words


@pytest.mark.parametrize("spreads", [{}, {"cost": spread(0.0)}, {"cost": noise()["cases"]}])
def test_without_noise_any_breach_is_sure(spreads: Any) -> None:
    breached = found(reported(13.0), Limit("cost", maximum=12.0), noise=spreads)
    assert breached is not None
    assert breached.sure


def test_what_is_not_reported_breaks_its_limit() -> None:
    breached = found(reported(others=False), Limit("cost", maximum=12.0))
    assert breached == Breach(True, "cost was not reported")


# --- cases that must pass -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "sure"),
    [
        (["11"], None),
        (["01"], False),
        (["01", "11"], None),
        (["01", "01"], True),
        (["11", "11", "01"], None),
        (["11", "01", "01"], True),
        (["01", "-1", "-1"], False),
    ],
)
def test_a_case_that_must_pass_may_not_fail_twice(runs: list[str], sure: bool | None) -> None:
    breached = failing(("c1",), tally(*runs), tally("11", "10"))
    assert (breached.sure if breached else None) == sure
    assert breached is None or "c1" in breached.words


def test_only_what_the_base_always_passed_is_watched() -> None:
    broken = tally("00", "00")
    assert failing(("c1",), broken, tally("11", "01")) is None
    assert failing(("c1", "c2"), broken, tally("11", "01")) is not None
    assert failing((), broken, tally("11")) is None
