"""Why an experiment has its verdict: the figures and the words of `swarm show`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from story import HOSTILE, Story, begun, half_a_morning, morning
from suite_story import SuiteStory, evening

from swarm import tables
from swarm.config import RunConfig
from swarm.grounds import Grounds, grounds
from swarm.records import Verdict
from swarm.views import experiment_json


def config(judge: dict[str, Any] | None = None, **target: Any) -> RunConfig:
    metric = {"name": "val_bpb", "goal": "minimize"}
    whole = {"scope": ["train.py"], "run": "python train.py", "metric": metric, **target}
    return RunConfig.model_validate({"target": whole, "judge": judge or {}})


def of(told: Story, number: int, config: RunConfig | None = None) -> Grounds:
    found = grounds(told.state, number, config)
    json.dumps(found.model_dump(), allow_nan=False)
    return found


def said(told: Story, number: int, config: RunConfig | None = None) -> str:
    return "\n".join(of(told, number, config).words)


def judged(verdict: Verdict, z: float | None, *values: float, reason: str = "") -> Story:
    """A run with one experiment."""
    told = begun()
    number = told.propose("a1", "x")
    told.measure(number, *values)
    told.decide(number, verdict, reason, z)
    return told


@pytest.mark.parametrize(
    ("verdict", "z", "words"),
    [
        ("discard", -4.0, "z = -4.00 is below 1: worse than its incumbent, so discarded"),
        ("discard", 0.9, "z = +0.90 is below 1: no visible gain, so discarded"),
        ("discard", 1.4, "z = +1.40 lies between 1 and 2 after all 5 runs: not told apart, so "
         "discarded"),
        ("keep", 2.2, "z = +2.20 reaches 2: told apart from the incumbent, so kept"),
        ("keep", 9.1, "z = +9.10 reaches 2: told apart from the incumbent, so kept"),
        ("keep", 0.3, "z = +0.30: not told apart from the incumbent; it measures as equal and has "
         "fewer lines, so it is kept"),
    ],
)  # fmt: skip
def test_where_z_falls(verdict: Verdict, z: float, words: str) -> None:
    told = judged(verdict, z, 2.97)
    assert words in said(told, 1)
    assert "the rule: below z = 1 discard, from 2 on keep, after two runs" in said(told, 1)


def test_the_thresholds_are_those_of_the_config() -> None:
    strict = config({"preset": "strict", "min_delta": "1%", "runs": 8})
    found = of(judged("discard", 1.4, 2.97), 1, strict)
    assert (found.rule.keep_above, found.rule.runs) == (2.5, 8)
    assert found.rule.least == pytest.approx(0.02981)
    assert "lies between 1 and 2.5 after all 8 runs" in found.words[0]
    assert "z counts the gain beyond 0.02981" in found.words[1]


def test_both_sides_with_their_errors() -> None:
    found = of(judged("keep", 3.0, 2.96, 2.964), 1)
    assert found.candidate is not None
    assert found.incumbent is not None
    assert (found.candidate.mean, found.candidate.n) == (pytest.approx(2.962), 2)
    assert (found.incumbent.mean, found.incumbent.n) == (pytest.approx(2.981), 5)
    assert found.se == pytest.approx((found.candidate.se**2 + found.incumbent.se**2) ** 0.5)  # type: ignore[operator]
    assert found.gain == pytest.approx(0.019)
    assert found.z == pytest.approx(found.gain / found.se)  # type: ignore[operator]


def test_a_record_that_has_grown_since_is_told() -> None:
    told = begun()
    one = told.propose("a1", "x")
    told.measure(one, 2.9)
    now = of(told, one)
    assert not now.grown
    told.decide(one, "keep", "", now.z)
    assert not of(told, one).grown
    assert "grown" not in said(told, one)
    told.measure(one, 2.92, purpose="confirm")
    assert of(told, one).grown
    assert "since then more was measured: by all runs so far, gain +0.071, z" in said(told, one)


def test_no_spread_is_explained() -> None:
    told = Story()
    told.launch()
    told.baseline(3.0, 3.0)
    one = told.propose("a1", "x")
    told.measure(one, 2.9, 2.9)
    told.decide(one, "keep")
    assert "had agreed exactly when it was judged, so any gain was real" in said(told, one)
    assert of(told, one).z is None


def test_an_equal_keep_without_spread_is_not_called_a_gain() -> None:
    told = Story()
    told.launch()
    told.baseline(3.0, 3.0)
    one = told.propose("a1", "x")
    told.measure(one, 3.0, 3.0)
    told.decide(one, "keep", "equal after 2 runs, and simpler")
    assert "it measures as equal and has fewer lines, so it is kept" in said(told, one)
    assert "gain was real" not in said(told, one)


def test_values_that_scatter_by_themselves_have_their_own_error() -> None:
    told = Story()
    told.launch()
    told.baseline(3.0, 3.0, 3.0)
    one = told.propose("a1", "x")
    told.measure(one, 2.0, 2.2)
    told.decide(one, "keep", "", 5.0)
    told.promote(one)
    made = experiment_json(told.state, one)
    assert made["se"] == pytest.approx(0.1), "the others agree exactly, but it does not"
    assert "value    val_bpb 2.1 ± 0.1 se (n=2)" in tables.experiment(made, "val_bpb", None)
    two = told.propose("a2", "y", on=told.target.best)
    told.measure(two, 2.1, 2.1)
    told.decide(two, "discard", "", 0.0)
    text = tables.experiment(experiment_json(told.state, two), "val_bpb", None)
    assert "against  2.1 ± 0.1 se (n=2)" in text


def test_with_a_window_the_last_runs_are_shown_with_their_own_error() -> None:
    told = Story()
    told.launch()
    told.baseline(*(10.0 + 0.5 * i + 0.01 * (i % 2) for i in range(11)))
    one = told.propose("a1", "x")
    told.measure(one, 12.0, 12.01)
    told.decide(one, "keep", "", 5.0)
    asked = config({"window": 5})
    made = experiment_json(told.state, one, asked)
    found, steps = of(told, one, asked), told.target.spread("cpu-x86")
    assert found.incumbent is not None
    assert (found.incumbent.n, found.incumbent.of) == (5, 11)
    assert found.incumbent.mean == pytest.approx(14.004)
    assert found.incumbent.se == pytest.approx((steps.steps / steps.freedom / 5) ** 0.5)
    assert found.gain == pytest.approx(14.004 - 12.005)
    assert found.z == pytest.approx(found.gain / found.se)  # type: ignore[operator]
    assert made["incumbent"]["mean"] == pytest.approx(14.004)
    assert made["incumbent"]["n"] == 5
    assert "(last 5 of 11 runs)" in tables.experiment(made, "val_bpb", None)
    assert "all its runs and the last 5 of the incumbent" in said(told, one, asked)


def test_an_experiment_in_flight() -> None:
    told = half_a_morning()
    assert "z = +1.04 so far; it is not decided yet" in said(told, 4)
    assert said(told, 5).startswith("it is not decided yet\nthe rule: ")


def test_the_cases_of_a_suite() -> None:
    told = evening()
    cases = of(told, 3).cases
    assert cases is not None
    assert cases.compared == 10
    (fixed,) = cases.fixed
    assert (fixed.id, fixed.candidate, fixed.incumbent) == ("c5", (1, 1), (0, 1))
    assert "fixed: c5 1/1, was 0/1" in said(told, 3)
    assert "broken: c1 0/1, was 1/1" in said(told, 3)
    assert "flaky: c6 0/1, was 3/5" in said(told, 2)
    assert "also after one more run" not in said(told, 3)


def test_a_keep_that_passed_once_more() -> None:
    told = SuiteStory("110000", "110000", "100000")
    one = told.tried("a1", "x", "111100", "keep", z=2.6, fixed="c3 c4")
    assert "z = +2.60 reaches 2, also after one more run of the whole suite: kept" in said(
        told, one
    )


LIMITS = (
    {"metric": "peak_memory_mb", "max": 2000},
    {"metric": "accuracy", "min": 0.4},
    {"metric": "val_bpb", "max_regression": "1%"},
    {"metric": "p95_ms", "max": 5},
)


def test_limits_with_value_and_margin() -> None:
    told = morning()
    asked = config(constraints=LIMITS)
    found = {(b.metric, b.kind): b for b in of(told, 12, asked).limits}
    accuracy, loss = found["accuracy", "min"], found["val_bpb", "max_regression"]
    assert (accuracy.value, accuracy.limit) == (0.5, 0.4)
    assert accuracy.margin == pytest.approx(0.1)
    assert loss.limit == pytest.approx(1.01 * 2.981), "the base's, not the incumbent's"
    assert loss.margin == pytest.approx(1.01 * 2.981 - 2.801)
    assert found["p95_ms", "max"].margin is None
    text = said(told, 12, asked)
    assert "limits come before the metric" in text
    assert "peak_memory_mb: 2048; max 2000, 48 beyond it" in text
    assert "accuracy: 0.5; min 0.4, 0.1 left" in text
    assert "p95_ms: not reported; max 5" in text
    assert of(told, 3, asked).limits[0].value is None, "it was never measured"


def test_a_case_that_must_pass_is_one_of_the_limits() -> None:
    told = SuiteStory("110", "110", "110")
    one = told.propose("a1", "x")
    told.candidate(one, "011", "011")
    told.decide(one, "constraint_failed", "case c1 must pass and failed 2 of 2 times", None)
    metric = {"name": "cases", "goal": "maximize"}
    limit = [{"metric": "seconds", "max": 100}]
    asked = config({"must_pass": ["c1", "c2", "c3"]}, metric=metric, constraints=limit)
    broken, held, unasked = of(told, one, asked).must_pass
    assert (broken.case, broken.candidate, broken.base) == ("c1", (0, 2), (3, 3))
    assert (broken.broken, held.broken, unasked.broken) == (True, False, False)
    text = said(told, one, asked)
    assert "must_pass: c1 0/2, the base 3/3: broken" in text
    assert "must_pass: passed in every run, 2 of 3" in text
    assert "within all limits" not in text
    assert "none of 3 cases" not in text
    told.experiment(one).verdict = "keep"
    held_all = config({"must_pass": ["c2"]}, metric=metric)
    assert "must_pass: passed in every run, 1 of 1" in said(told, one, held_all)


def test_a_regression_of_a_metric_that_is_maximized_is_downwards() -> None:
    told = Story(goal="maximize")
    told.launch()
    told.baseline(10.0, 10.2, 9.8)
    one = told.propose("a1", "x")
    told.measure(one, 9.0)
    asked = config(
        metric={"name": "val_bpb", "goal": "maximize"},
        constraints=[{"metric": "val_bpb", "max_regression": "5%"}],
    )
    (bound,) = of(told, one, asked).limits
    assert (bound.limit, bound.margin) == (pytest.approx(9.5), pytest.approx(-0.5))


def test_points_tell_their_parts() -> None:
    told = evening()
    metric = {"name": "cases", "goal": "maximize"}
    parts = ["cases", {"improves": "seconds"}, {"improves": "usd"}]
    asked = config({"points": parts}, metric=metric)
    found = of(told, 3, asked)
    assert [part.part for part in found.points] == ["cases", "seconds", "usd"]
    assert (found.points[1].candidate, found.points[1].incumbent) == (20.0, 20.0)
    assert found.points[2].candidate is None
    text = said(told, 3, asked)
    assert "it is judged by points; the parts come one after another" in text
    assert "seconds: 20 against 20" in text
    literal = config({"points": {"of": parts, "trade": "literal"}}, metric=metric)
    assert "the parts are added up" in said(told, 3, literal)


def test_a_jump_that_did_not_come_again() -> None:
    told = judged("invalid", 90.0, 1.0, 2.98)
    text = said(told, 1, config({"max_gain": "20%"}))
    assert "measured: 1, 2.98" in text
    assert "a gain beyond judge.max_gain (20%) is held in quarantine" in text
    assert "no number that could be compared" in said(morning(), 7)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (3, "ended without a number"),
        (6, "after `target.timeout`"),
        (8, "not measured again"),
        (11, "`target.guard` must exit with 0"),
        (10, "it changes the same lines as what is there"),
    ],
)
def test_all_other_verdicts_are_explained(number: int, words: str) -> None:
    assert words in said(morning(), number)


def test_the_machinery_is_not_blamed_on_the_change() -> None:
    told = begun()
    one = told.propose("a1", "x")
    told.decide(one, "aborted", "the machinery died under it 3 times")
    assert (
        said(told, one) == "the machinery died, which says nothing of the change; it is not counted"
    )


def test_show_tells_it_in_full_on_a_narrow_terminal() -> None:
    told = judged("discard", 1.4, 2.97, reason="0.011 better than the incumbent: z = +1.40")
    made = experiment_json(told.state, 1)
    lines = tables.experiment(made, "val_bpb", 44).splitlines()
    assert max(map(len, lines)) <= 44
    text = " ".join(line.strip() for line in lines)
    assert "lies between 1 and 2 after all 5 runs: not told apart, so discarded" in text
    assert "against  2.981 ± 0.0031 se (n=5)" in lines
    wide = tables.experiment(made, "val_bpb", None)
    assert "why      z = +1.40 lies between 1 and 2 after all 5 runs" in wide


def test_no_case_commands_a_terminal() -> None:
    told = evening()
    name = told.target.suite[0]
    told.experiment(3).broken = (name,)
    told.target.suite = (HOSTILE, *told.target.suite[1:])
    for record in told.target.records.values():
        record.cases[HOSTILE] = record.cases.pop(name)
    told.experiment(3).broken = (HOSTILE,)
    text = tables.experiment(experiment_json(told.state, 3), "cases", 100)
    assert "broken: red link" in text
    assert text.replace("\n", "").isprintable()


def test_what_the_merger_said_of_a_keep() -> None:
    told = morning()
    words = said(told, 10)
    assert "it changes the same lines as what is there (train.py line 12)" in words
