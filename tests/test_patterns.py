"""A pattern that finds nothing, beside the line that it was meant for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.patterns import Beside, beside, literals

GO = """\
goos: linux
BenchmarkParse-8   1000000   1234 ns/op   12 B/op
BenchmarkSum-8     2000000   123 ns/op    0 B/op
PASS
ok   example   2.417s
"""


@pytest.mark.parametrize(
    ("pattern", "output", "line", "suggestion"),
    [
        (r"ns/op:\s+", "123 ns/op", "123 ns/op", r"([\d.]+) ns/op"),
        (r"ns/op:\s+([\d.]+)", GO, GO.splitlines()[2], r"([\d.]+) ns/op"),
        (r"^val_bpb=(\S+)", "--\nval_bpb:  0.9979\n", "val_bpb:  0.9979", r"val_bpb:\s+([\d.]+)"),
        (r"Accuracy: (\d+)%", "accuracy = 0.9 (1)", "accuracy = 0.9 (1)", r"accuracy = ([\d.]+)"),
        (r"p95\(ms\): ([\d.]+)", "p95 (ms) 12.5", "p95 (ms) 12.5", r"ms\) ([\d.]+)"),
        (r"loss ([-\d.]+)", "  loss=-1.5e-3", "loss=-1.5e-3", r"loss=([-+\d.eE]+)"),
        # the line that shares most with it, not the last
        (r"error rate: (\d+)", "Error rate 0.02\nerrors 3", "Error rate 0.02", r"rate ([\d.]+)"),
        # the last of those that are equally near
        (r"acc: (\d+)", "acc 1\nacc 2\nother 3", "acc 2", r"acc ([\d.]+)"),
        # a number that is one only with its commas
        (r"size: (\d+) kB", "Size  1,234 kB", "Size  1,234 kB", None),
    ],
)  # fmt: skip
def test_the_nearest_line_and_a_pattern_for_it(
    pattern: str, output: str, line: str, suggestion: str | None
) -> None:
    assert beside(pattern, output) == Beside(line, suggestion)


@pytest.mark.parametrize("output", ["", "nothing of it\n", "ns/op but no number\n"])
def test_no_line_is_near(output: str) -> None:
    assert beside(r"ns/op:\s+([\d.]+)", output) is None
    assert beside(r"(\d+)", "3 4 5") is None  # a pattern without a word is near nothing


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"^ns/op:\s+([\d.]+)$", ["ns/op"]),
        (r"(?P<value>\d+) ms total", ["ms", "total"]),
        (r"Average loss: ([0-9.]+), Accuracy", ["Average", "loss", "Accuracy"]),
        (r"[abc]+\w{3}(?:x|y)", []),
        (r"\(mean\)\s*=\s*(\S+)", ["mean"]),
    ],
)  # fmt: skip
def test_the_words_of_a_pattern(pattern: str, words: list[str]) -> None:
    assert literals(pattern) == words


@given(st.text(max_size=60), st.text(max_size=200))
def test_anything_may_be_asked(pattern: str, output: str) -> None:
    found = beside(pattern, output)
    if isinstance(found, Beside) and found.suggestion is not None:
        assert re.compile(found.suggestion).groups == 1
        assert re.search(found.suggestion, found.line)
