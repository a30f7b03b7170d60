"""The last line of an output: one number, or what pytest and ruff close with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swarm.closing import read_closing
from swarm.reading import MetricRule, read_metrics
from swarm.records import Goal

RUFF = "src/a.py:1:8: F401\nFound 4 errors.\n[*] 3 fixable with `--fix`.\n"


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("123.4\n", 123.4),
        ("noise 1\n  412  \n\n", 412),
        ("412.\n", 412),  # `grep -oP 'Total: \K[\d.]+'` of a sentence's end
        ("-1.5e-3\n", -0.0015),
        ("Total size: 412 kB\n", 412),
        ("Total size: 1,234.5 kB\n", 1234.5),
        ("val_bpb:          0.997900\n", 0.9979),
        ("accuracy: 93.1%\n", 93.1),
        ("epoch 10 accuracy=0.93 loss=0.2\n", 0.93),  # the metric's own name stands before it
        ("sha-256 of p95: 12ms", 12),
        ("All checks passed!\n", 0),
        ("Found 1 error.\n", 1),
        ("Found 12 errors.\nNo fixes available (2 hidden fixes can be enabled with ...).\n", 12),
        ("Found 12 errors (3 fixed, 9 remaining).\n", 9),
        (RUFF, 4),
    ],
)
def test_one_number(output: str, value: float) -> None:
    found = read_closing(output, "accuracy", "minimize")
    assert found.problem is None
    assert found.value == value


PYTEST = "===== 3 failed, 12 passed, 1 skipped, 2 errors, 4 warnings in 65.40s (0:01:05) ====="


@pytest.mark.parametrize(
    ("line", "name", "goal", "value"),
    [
        ("3 failed, 12 passed in 0.40s", "failing_tests", "minimize", 3),
        ("3 failed, 12 passed in 0.40s", "tests", "maximize", 12),
        ("12 passed in 0.40s", "failures", "minimize", 0),
        ("1 failed in 0.40s", "passed", "maximize", 0),
        ("12 passed in 0.40s", "seconds", "minimize", 0.4),
        (PYTEST, "failures", "minimize", 5),
        (PYTEST, "passed", "maximize", 12),
        (PYTEST, "skipped", "minimize", 1),
        (PYTEST, "warnings", "minimize", 4),
        (PYTEST, "errors", "minimize", 5),
    ],
)
def test_what_pytest_closes_with(line: str, name: str, goal: Goal, value: float) -> None:
    assert read_closing(f"F.F\n{line}\n", name, goal).value == value


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("no tests ran in 0.01s", "failures", "pytest ran no test"),
        # three failures and then a syntax error: one error is no progress
        ("1 error in 0.05s", "failures", "pytest ran no test"),
        ("2 skipped in 0.05s", "failures", "pytest ran no test"),
        ("1 failed, 2 passed in 0.05s", "seconds", "tests fail, so their time says nothing"),
        ("", "x", "it printed nothing"),
        ("Build finished, all good", "x", "has no number: 'Build finished, all good'"),
        ("done v1.2.3", "x", "has no number"),
        ("step 3/10", "x", "2 numbers (3, 10), and one is wanted"),
        ("acc 0.93 (best 0.95)", "x", r"`| grep -oP 'best \K[\d.]+'` takes 0.95"),
    ],
)  # fmt: skip
def test_what_is_no_number_says_why(line: str, name: str, said: str) -> None:
    found = read_closing(f"1\n{line}\n" if line else "\n", name, "minimize")
    assert found.value is None
    assert said in (found.problem or "")


@pytest.mark.parametrize(
    ("line", "unit", "value"),
    [
        ("Total: 1.02 MB", "kB", 1020),
        ("Total: 412 kB", "kB", 412),
        ("Total: 2 KiB", "bytes", 2048),
        ("took 250 ms", "s", 0.25),
        ("took 3 s", "kB", 3),  # another kind of unit: as it is
        ("took 3 s", "frobs", 3),
    ],
)
def test_a_unit_is_turned_into_the_metrics_own(line: str, unit: str, value: float) -> None:
    assert read_closing(line, "x", "minimize", unit).value == pytest.approx(value)


def test_the_grep_that_is_proposed_takes_the_number(tmp_path: Path) -> None:
    line = "it's size (total): 12 of 34.5 kB"
    problem = read_closing(line, "x", "minimize").problem or ""
    command = problem.split("`|")[1].split("`")[0]
    file = tmp_path / "out"
    file.write_text(line + "\n")
    shown = subprocess.run(
        ["sh", "-c", f"cat {file} | {command}"], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "34.5\n"


def test_what_the_real_ruff_says(tmp_path: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    source = tmp_path / "a.py"

    def count(text: str) -> float | None:
        source.write_text(text)
        done = subprocess.run(
            [ruff, "check", "--no-cache", "--isolated", "--select=F", source],
            capture_output=True,
            text=True,
        )
        return read_closing(done.stdout + done.stderr, "errors", "minimize").value

    assert count("import os\nimport sys\nprint(y)\n") == 3
    assert count("print(y)\n") == 1
    assert count("") == 0


LAST = MetricRule("score", "minimize", lines="last")


@pytest.mark.parametrize(
    ("rule", "output", "value"),
    [
        (LAST, "x\n7\n", 7),
        (LAST, "SCORE: 5\n7\n", 5),
        (LAST, "METRIC score=4\n7\n", 4),
        (LAST, "score: 3\n7\n", 3),
        # a line SCORE comes before a pattern only with `lines: last`
        (MetricRule("score", "minimize", r"p95: (\d+)", lines="last"), "SCORE: 5\np95: 9\n", 5),
        (MetricRule("score", "minimize", r"p95: (\d+)"), "SCORE: 5\np95: 9\n", 9),
        (MetricRule("score", "minimize", None, "a.0", lines="last"), 'x\n{\n  "a": [3]\n}\n', 3),
    ],
)
def test_where_it_stands_among_the_other_places(
    rule: MetricRule, output: str, value: float
) -> None:
    assert read_metrics(rule, output, None).values["score"] == value


def test_a_last_line_is_not_read_unasked_nor_in_place_of_a_pattern() -> None:
    assert read_metrics(MetricRule("score", "minimize"), "7\n", None).problem is not None
    rule = MetricRule("score", "minimize", r"ns/op:\s+([\d.]+)", lines="last")
    reading = read_metrics(rule, "Sum-8   1000   123 ns/op\n", None)
    assert reading.values == {}
    assert (reading.problem or "").endswith(
        "\n  pattern  ns/op:\\s+([\\d.]+)"
        "\n  output   Sum-8   1000   123 ns/op"
        "\n  try      ([\\d.]+) ns/op"
    )


def test_other_metrics_by_pattern() -> None:
    patterns = {"error_rate": r"error rate: ([\d.]+)", "absent": r"nothing (\d)"}
    output = "error rate: 0.5\nerror rate: 0.02\nerror_rate: 9\n7\n"
    reading = read_metrics(LAST, output, None, ["error_rate"], patterns=patterns)
    assert reading.values == {"score": 7, "error_rate": 0.02}
    worse = "error rate: 0..2\nerror_rate: 9\n7\n"
    assert (
        "error_rate"
        not in read_metrics(LAST, worse, None, ["error_rate"], patterns=patterns).values
    )
