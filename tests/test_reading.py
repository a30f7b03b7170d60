"""Where a metric may stand, what is made of several values, what a result file may hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.reading import (
    MOST_CASES,
    MOST_METRICS,
    MOST_VALUES,
    Aggregate,
    MetricRule,
    plain,
    read_metrics,
)
from swarm.records import Case

BPB = MetricRule("val_bpb", "minimize")
SUITE = MetricRule("cases", "maximize")
PATTERN = MetricRule("val_bpb", "minimize", pattern=r"^final\s+(\S+)")
JSON = MetricRule("p95", "minimize", json_path="summary.p95")

SUMMARY = """\
step 10 | loss 3.2\rstep 20 | loss 3.1\rstep 30 | loss 3.0
---
val_bpb:          0.997900
training_seconds: 300.1
peak_vram_mb:     45060.2
num_steps:        953
device: H100
"""


@pytest.mark.parametrize(
    ("rule", "output", "result", "value"),
    [
        # 1. the result file, before everything else
        (BPB, "val_bpb: 2", '{"metrics": {"val_bpb": 1}}', 1),
        (PATTERN, "final 2", '{"metrics": {"val_bpb": 1.5}}', 1.5),
        (BPB, "val_bpb: 2", '{"metrics": {"other": 1}}', 2),
        (BPB, "val_bpb: 2", "{}", 2),
        # 2. the pattern, or the path into the last JSON line that has it
        (PATTERN, "final 1\nfinal 2\nnot final 3\n", None, 2),
        (PATTERN, "final 1e-3 x\n", None, 0.001),
        (PATTERN, "final 1\nval_bpb: 7\n", None, 1),
        (PATTERN, "val_bpb: 7\n", None, 7),
        (JSON, '{"summary": {"p95": 3}}\n{"summary": {"p95": 4.5}}\n', None, 4.5),
        (JSON, '{"summary": {"p95": 3}}\ndone {"p95": 1}\n{"event": "done"}\n{broken\n', None, 3),
        (MetricRule("v", "maximize", json_path="r.1.v"), '{"r": [{"v": 1}, {"v": 2}]}', None, 2),
        (MetricRule("v", "maximize", json_path="0"), "[5]\n", None, 5),
        # 3. lines
        (BPB, SUMMARY, None, 0.9979),
        (BPB, "METRIC val_bpb=0.5\n", None, 0.5),
        (BPB, "SCORE: 12\n", None, 12),
        (BPB, "METRIC val_bpb=1\nSCORE: 2\nval_bpb: 3\n", None, 3),
        (BPB, "val_bpb: 3\nMETRIC val_bpb=1\n", None, 1),
        (BPB, "val_bpb: 1\rval_bpb: 2\r\nother", None, 2),
        (BPB, "\x1b[32mval_bpb: 4\x1b[0m\n", None, 4),
        (BPB, "val_bpb: -.5e-2\t\n", None, -0.005),
        (MetricRule("latency.p95-ms", "minimize"), "METRIC latency.p95-ms=3\n", None, 3),
    ],
)
def test_where_a_metric_may_stand(
    rule: MetricRule, output: str, result: str | None, value: float
) -> None:
    reading = read_metrics(rule, output, result)
    assert reading.problem is None
    assert reading.values[rule.name] == value


@pytest.mark.parametrize(
    ("rule", "output", "result", "said"),
    [
        (BPB, "", None, "looked for `val_bpb` in SWARM_RESULT (not written); a line `METRIC"),
        (BPB, " val_bpb: 1\nbest val_bpb: 2\nval_bpb = 3\nval_bpb: 4 of 5\n", None, "no metric"),
        (BPB, "val_bpbx: 1\nMETRIC val_bpb.x=1\n", None, "no metric"),
        (BPB, "val_bpb: 1\nval_bpb: nan\n", None, "not a finite number: 'nan'"),
        (BPB, "val_bpb: 1\nMETRIC val_bpb=inf\n", None, "not a finite number: 'inf'"),
        (BPB, "val_bpb: 1e999\n", None, "not a finite number"),
        (BPB, "METRIC val_bpb=1_000\n", None, "not a number: '1_000'"),
        (BPB, "METRIC val_bpb=fast\n", None, "not a number: 'fast'"),
        (PATTERN, "nothing", None, r"metric.pattern '^final\\s+(\\S+)'"),
        (PATTERN, "final nan\nval_bpb: 1", None, "not a finite number: 'nan'"),
        (PATTERN, "final 0,98", None, "not a number: '0,98'"),
        (JSON, "{}", None, "metric.json `summary.p95`"),
        (JSON, '{"summary": {"p95": NaN}}', None, "not a finite number"),
        (JSON, '{"summary": {"p95": "3"}}', None, "not a number"),
        (JSON, '{"summary": {"p95": true}}', None, "not a number"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": NaN}}', "from SWARM_RESULT is not a finite"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": -Infinity}}', "not a finite number"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": 1e400}}', "not a finite number"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": 1' + 400 * "0" + "}}", "not a finite"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": "0.5"}}', "not a number"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": null}}', "not a number"),
        (BPB, "val_bpb: 1", "", "SWARM_RESULT is not JSON"),
        (BPB, "val_bpb: 1", "{", "SWARM_RESULT is not JSON"),
        (BPB, "val_bpb: 1", "[" * 100_000, "SWARM_RESULT is not JSON"),
        (BPB, "val_bpb: 1", "[]", "not a JSON object"),
        (BPB, "val_bpb: 1", '{"metrics": []}', "`metrics` in SWARM_RESULT"),
        (BPB, "val_bpb: 1", '{"feedback": 3}', "`feedback` in SWARM_RESULT"),
        (BPB, "val_bpb: 1", '{"cases": {}}', "`cases` in SWARM_RESULT"),
        (BPB, "val_bpb: 1", '{"cases": [{"id": 1}]}', "no `id` that is a string"),
        (BPB, "val_bpb: 1", '{"cases": [3]}', "no `id` that is a string"),
        (BPB, "val_bpb: 1", '{"metrics": {"val_bpb": [1, 2]}}', "is a list: set judge.aggregate"),
        (JSON, '{"summary": {"p95": [1, 2]}}', None, "is a list: set judge.aggregate"),
        (BPB, "val_bpb: 1", '{"invalid": "looked\\nahead"}', "says the harness: looked ahead"),
        (BPB, "", '{"metrics": {"val_bpb": 1}, "invalid": "late"}', "says the harness: late"),
        (BPB, "", '{"metrics": {"val_bpb": 1}, "invalid": true}', "`invalid` in SWARM_RESULT"),
        (BPB, "", '{"metrics": {"val_bpb": 1}, "invalid": " "}', "`invalid` in SWARM_RESULT"),
        (SUITE, "", '{"cases": [{"id": "a", "pass": true}], "invalid": "x"}', "the harness: x"),
    ],
)
def test_no_metric_says_what_was_looked_for(
    rule: MetricRule, output: str, result: str | None, said: str
) -> None:
    reading = read_metrics(rule, output, result)
    assert reading.values == {}
    assert said in (reading.problem or "")


def test_other_metrics_come_along() -> None:
    reading = read_metrics(BPB, SUMMARY, None)
    assert reading.values == {
        "val_bpb": 0.9979,
        "training_seconds": 300.1,
        "peak_vram_mb": 45060.2,
        "num_steps": 953,
    }
    output = "epoch: 3\nMETRIC p95_ms=1\nMETRIC p95_ms=2\nMETRIC bad=nan\nMETRIC µs=5\nval_bpb: 1\n"
    assert read_metrics(BPB, output, None).values == {"val_bpb": 1, "p95_ms": 2, "µs": 5}
    assert read_metrics(BPB, output, None, also=["epoch"]).values["epoch"] == 3
    result = json.dumps({"metrics": {"val_bpb": 2, "p95_ms": 9, "gone": math.inf, "text": "x"}})
    assert read_metrics(BPB, output, result).values == {"val_bpb": 2, "p95_ms": 9, "µs": 5}


def test_feedback_is_data_without_control_sequences() -> None:
    result = json.dumps({"metrics": {"val_bpb": 1}, "feedback": "\x1b[2Jcase c1\nfailed\x07"})
    assert read_metrics(BPB, "", result).feedback == "case c1\nfailed"
    assert len(read_metrics(BPB, "", json.dumps({"feedback": "x" * 10**6})).feedback) < 50_000


def test_many_metrics_do_not_flood_the_ledger() -> None:
    output = "".join(f"METRIC m{i}={i}\n" for i in range(10_000)) + "zz: 1\nval_bpb: 2\n"
    values = read_metrics(BPB, output, None, also=["zz", "m9999"]).values
    assert len(values) <= MOST_METRICS + 1
    assert (values["val_bpb"], values["zz"], values["m9999"]) == (2, 1, 9999)


@pytest.mark.parametrize(
    "line",
    ["1" * 10**6 + "x", "METRIC " * 150_000, "val_bpb:" + " " * 10**6 + "x", "\x1b[" * 500_000],
)
@pytest.mark.timeout(20)
def test_hostile_output_is_read_in_linear_time(line: str) -> None:
    assert read_metrics(BPB, f"---\nval_bpb: 1\nx: {line}\n{line}\n", None).values["val_bpb"] == 1


def test_rules_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="one group"):
        MetricRule("x", "minimize", pattern="x: (a)(b)")


# --- cases -------------------------------------------------------------------------------------


def suite(*cases: object) -> str:
    return json.dumps({"cases": cases})


def test_the_value_of_a_suite_is_the_share_that_passed() -> None:
    first = {"id": "a b", "pass": True, "seconds": 2, "usd": 0.5, "question": "Is it\x1b[1m good?"}
    result = suite(first, {"id": "c2", "pass": False}, {"id": "c3", "pass": True, "usd": None})
    reading = read_metrics(SUITE, "SCORE: 9\nMETRIC usd=2\nMETRIC cases=7\n", result)
    assert reading.problem is None
    assert reading.values == {"cases": 2 / 3, "usd": 2}
    assert reading.cases == (
        Case(id="a b", passed=True, seconds=2, usd=0.5, question="Is it good?"),
        Case(id="c2", passed=False),
        Case(id="c3", passed=True),
    )
    # A part of it has no share that could be compared with others.
    part = read_metrics(SUITE, "METRIC usd=2\nMETRIC cases=7\n", result, partial=True)
    assert (part.values, part.cases) == ({"usd": 2}, reading.cases)


def test_what_all_cases_took_is_added_up_unless_the_harness_says_it() -> None:
    each = {"pass": True, "seconds": 1.5, "usd": 0.25}
    whole = suite({"id": "a", **each}, {"id": "b", **each})
    assert read_metrics(SUITE, "", whole).values == {"cases": 1, "seconds": 3, "usd": 0.5}
    assert read_metrics(SUITE, "METRIC usd=9\n", whole).values["usd"] == 9
    some = suite({"id": "a", **each}, {"id": "b", "pass": True, "seconds": 1})
    assert read_metrics(SUITE, "", some).values == {"cases": 1, "seconds": 2.5}


def test_another_metric_may_come_with_cases() -> None:
    reading = read_metrics(BPB, "val_bpb: 1", suite({"id": "a", "pass": False}))
    assert (reading.values, reading.cases) == ({"val_bpb": 1}, (Case(id="a", passed=False),))


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, "no cases: looked for `cases` in SWARM_RESULT (not written), of the shape {"),
        ("{}", "no cases: looked for `cases` in SWARM_RESULT, of the shape"),
        ('{"metrics": {"cases": 0.5}, "cases": []}', "no cases"),
        (suite({"id": "", "pass": True}), "no `id`"),
        (suite({"id": "a", "pass": True}, {"id": "a", "pass": True}), "the case id 'a' is twice"),
        (suite({"id": "a"}), "`pass` of the case 'a' in SWARM_RESULT is not true or false"),
        (suite({"id": "a", "pass": 1}), "is not true or false"),
        (suite({"id": "a", "pass": "yes"}), "is not true or false"),
        (suite({"id": "a\nb", "pass": True}), r"'a\nb' in SWARM_RESULT has a line end, a control"),
        (suite({"id": "a\x1b[2J", "pass": True}), "a control character"),
        (suite({"id": "a\u2028b", "pass": True}), "a line end"),
        (suite({"id": "\ud800", "pass": True}), "a control character"),
        (suite({"id": "a ", "pass": True}), "a blank at an end"),
        (suite({"id": "x" * 201, "pass": True}), "has more than 200 characters"),
        (suite({"id": "a", "pass": True, "seconds": "1"}), "`seconds` of the case 'a'"),
        (suite({"id": "a", "pass": True, "usd": -1}), "`usd` of the case 'a'"),
        (suite({"id": "a", "pass": True, "usd": math.nan}), "is not a number from 0 up"),
        (suite({"id": "a", "pass": True, "question": 3}), "`question` of the case 'a'"),
        (suite(*({"id": str(i), "pass": True} for i in range(5001))), "has 5001 cases; at most"),
    ],
)
def test_a_suite_without_clear_cases_has_no_value(
    result: str | None, said: str, partial: bool
) -> None:
    reading = read_metrics(SUITE, "METRIC cases=0.5\n", result, partial=partial)
    assert said in (reading.problem or "")
    assert (reading.values, reading.cases) == ({}, ())


def test_a_large_suite_is_read_whole() -> None:
    long = {"id": "x" * 200, "pass": True, "question": "why " * 1000}
    rest = ({"id": str(i), "pass": False} for i in range(MOST_CASES - 1))
    reading = read_metrics(SUITE, "", suite(long, *rest))
    assert len(reading.cases) == MOST_CASES
    assert reading.values == {"cases": 1 / MOST_CASES}
    assert len(reading.cases[0].question or "") == 300


# --- several values, bounds --------------------------------------------------------------------

LINES = "val_bpb: 3\nMETRIC val_bpb=1\nSCORE: 5\nval_bpb: 7\n"


@pytest.mark.parametrize(
    ("how", "value"), [("last", 7), ("min", 1), ("max", 7), ("mean", 4), ("median", 4)]
)
@pytest.mark.parametrize("place", ["lines", "pattern", "SWARM_RESULT", "json"])
def test_several_values_come_together(how: Aggregate, value: float, place: str) -> None:
    rule, output, result = BPB, LINES, None
    if place == "pattern":
        rule, output = PATTERN, "final 3\nfinal 1\nfinal 5\nfinal 7\n"
    elif place == "SWARM_RESULT":
        output, result = (
            "",
            '{"metrics": {"val_bpb": [3, 1, 5, 7], "mem": [4, 4], "bad": [1, "x"]}}',
        )
    elif place == "json":
        # One JSON line has one value: only a list has several.
        rule, output = JSON, '{"summary": {"p95": 0}}\n{"summary": {"p95": [3, 1, 5, 7]}}\n'
    reading = read_metrics(rule, output, result, aggregate=how)
    if how == "last" and place in ("SWARM_RESULT", "json"):
        assert "is a list: set judge.aggregate" in (reading.problem or "")
        return
    assert reading.problem is None
    assert reading.values[rule.name] == value
    if place == "SWARM_RESULT":
        assert reading.values == {"val_bpb": value, "mem": 4}


def test_one_json_line_has_one_value() -> None:
    output = '{"summary": {"p95": 1}}\n{"summary": {"p95": 4}}\n'
    assert read_metrics(JSON, output, None, aggregate="min").values == {"p95": 4}


def test_other_lists_are_left_out_where_the_last_value_counts() -> None:
    result = '{"metrics": {"val_bpb": 1, "mem": [1, 2]}}'
    assert read_metrics(BPB, "", result).values == {"val_bpb": 1}


@pytest.mark.parametrize(
    ("output", "result", "said"),
    [
        (
            "val_bpb: 1\nval_bpb: nan\nval_bpb: 2\n",
            None,
            "from the lines of the output is not a fin",
        ),
        ("SCORE: fast\nval_bpb: 2\n", None, "is not a number: 'fast'"),
        ("", '{"metrics": {"val_bpb": [1, null]}}', "is not a number: 'null'"),
        ("", '{"metrics": {"val_bpb": [1, [2]]}}', "is not a number: '[2]'"),
        ("", '{"metrics": {"val_bpb": []}}', "is an empty list"),
        (
            "",
            '{"metrics": {"val_bpb": [1.7e308, 1.7e308]}}',
            "the mean of `val_bpb` from SWARM_RESULT",
        ),
        ("SCORE: 1\n" * (MOST_VALUES + 1), None, "more than 100000 values"),
    ],
)
def test_every_value_that_is_taken_together_must_be_one(
    output: str, result: str | None, said: str
) -> None:
    reading = read_metrics(BPB, output, result, aggregate="mean")
    assert reading.values == {}
    assert said in (reading.problem or "")


@pytest.mark.parametrize(
    ("value", "bounds", "problem"),
    [
        ("0", (0, 10), None),
        ("10", (0, 10), None),
        ("-3", (0, 10), "`val_bpb` = -3 is outside judge.bounds [0, 10]"),
        ("1.0000000001", (0.5, 1), "`val_bpb` = 1.0000000001 is outside judge.bounds [0.5, 1]"),
        ("1e9", (0, None), None),
        ("-1", (0, None), "`val_bpb` = -1 is outside judge.bounds [0, null]"),
        ("2", (None, 1), "`val_bpb` = 2 is outside judge.bounds [null, 1]"),
    ],
)
def test_a_value_that_cannot_be_true_is_none(
    value: str, bounds: tuple[float | None, float | None], problem: str | None
) -> None:
    reading = read_metrics(BPB, f"val_bpb: {value}\nMETRIC mem=99\n", None, bounds=bounds)
    assert reading.problem == problem
    assert reading.values == ({} if problem else {"val_bpb": float(value), "mem": 99})


def test_half_characters_do_not_reach_the_ledger() -> None:
    result = '{"metrics": {"val_bpb": 1, "m\\ud800": 2}, "feedback": "half \\ud800"}'
    reading = read_metrics(BPB, "", result)
    assert reading.problem is None
    (reading.feedback + "".join(reading.values)).encode()


# --- whatever is written -----------------------------------------------------------------------

FORMS: list[Callable[[str], str]] = [
    lambda v: f"val_bpb: {v}",
    lambda v: f"METRIC val_bpb={v}",
    lambda v: f"SCORE: {v}",
]
lines = st.tuples(st.sampled_from(FORMS), st.floats()).map(lambda p: (p[0](repr(p[1])), p[1]))
noise = st.text(alphabet="abc :=0.\t\x1b[m", max_size=12).map(lambda s: ("# " + s, None))


@given(st.lists(st.one_of(lines, noise), min_size=1), st.sampled_from(["\n", "\r", "\r\n"]))
def test_the_last_value_wins_and_is_never_other_than_finite(
    written: list[tuple[str, float | None]], end: str
) -> None:
    reading = read_metrics(BPB, end.join(text for text, _ in written) + end, None)
    values = [value for _, value in written if value is not None]
    if values and math.isfinite(values[-1]):
        assert reading == ({"val_bpb": values[-1]}, "", None, ())
    else:
        assert reading.values == {}
        assert reading.problem


@given(st.text(max_size=200), st.text(max_size=200) | st.none())
def test_any_text_gives_finite_values_or_a_problem(output: str, result: str | None) -> None:
    for rule in (BPB, PATTERN, JSON):
        reading = read_metrics(rule, output, result)
        assert all(math.isfinite(value) for value in reading.values.values())
        assert (reading.problem is None) == (rule.name in reading.values)


one_case = st.fixed_dictionaries(
    {"id": st.text(max_size=3), "pass": st.booleans()},
    optional={"seconds": st.floats(), "question": st.text(max_size=5)},
)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "metrics": json_values | st.fixed_dictionaries({"val_bpb": json_values}),
            "cases": json_values | st.lists(one_case, max_size=3),
            "feedback": json_values,
        },
    )
)
def test_any_json_result_gives_finite_values_or_a_problem(result: dict[str, object]) -> None:
    for rule, how in ((BPB, "last"), (BPB, "median"), (SUITE, "last")):
        reading = read_metrics(rule, "val_bpb: 1", json.dumps(result), aggregate=how)
        assert all(math.isfinite(value) for value in reading.values.values())
        assert (reading.problem is None) == (rule.name in reading.values)


@given(st.text())
def test_plain_text_has_no_control_characters(text: str) -> None:
    shown = plain(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert plain(shown) == shown
