"""improve.md as its users write it: the keys of both ages, its traps, and every mistake at once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from swarm.errors import ConfigError
from swarm.formats.improve_md import Guard, Improve, Score, parse, parts, read_score
from swarm.reading import MetricRule, read_metrics

WHOLE = r"""# autoimprove: parser-speed

Anything may stand here.

<!-- A template
## Change
of theirs -->
## Change
scope: src/parser.py, src/lexer/*.py   # the hot path
exclude: src/lexer/generated.py

## Check
test: python -m pytest -q  # the shell knows comments
test-files: tests/
run: python bench.py --tag '#1' 2>&1
score: p95#?: ([\d.]+) ms
goal: lower        # milliseconds
guard: error rate: ([\d.]+) < 0.05
guard: a < b: ([\d.]+) >= 3   # at least
keep_if_equal: true
timeout: 3m

## Stop
budget: 4h
rounds: 50   # or so
target: 12.5
stale: 10

## Agent
provider: anthropic
model: claude-opus-5-5

## Instructions
Be bold.

## Change
scope: not/a/key
```
guard: nor this
```
"""


def read(text: str) -> Improve:
    return parse(text, Path("improve.md"))


def mistakes(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def test_a_whole_file() -> None:
    found = read(WHOLE)
    assert found.title == "parser-speed"
    assert found.scope == ("src/parser.py", "src/lexer/*.py")
    assert found.exclude == ("src/lexer/generated.py",)
    assert found.test == "python -m pytest -q  # the shell knows comments"
    assert found.test_files == ("tests/",)
    assert found.run == "python bench.py --tag '#1' 2>&1"
    assert found.score == Score(pattern=r"p95#?: ([\d.]+) ms")
    assert found.goal == "minimize"
    assert found.guards == (
        Guard("error_rate", r"error rate: ([\d.]+)", maximum=math.nextafter(0.05, 0)),
        Guard("guard", r"a < b: ([\d.]+)", minimum=3.0),
    )
    assert found.keep_if_equal
    assert (found.timeout, found.budget) == (180.0, 4 * 3600.0)
    assert (found.rounds, found.target, found.stale) == (50, 12.5, 10)
    assert (found.provider, found.model) == ("anthropic", "claude-opus-5-5")
    assert found.instructions.startswith("Be bold.\n\n## Change\nscope: not/a/key")
    assert found.spots["score"].line == WHOLE.splitlines().index(r"score: p95#?: ([\d.]+) ms") + 1


LEAST = "## Change\nfiles: a.py\ncontext: b.py, c/\n## Check\nrun: ./bench\ngoal: higher\n"


def test_the_older_keys_and_the_least_that_is_needed() -> None:
    found = read(LEAST)
    assert (found.scope, found.context) == (("a.py",), ("b.py", "c/"))
    assert (found.score, found.goal, found.title) == (Score(), "maximize", None)
    assert (found.guards, found.instructions, found.keep_if_equal) == ((), "", False)


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_line_ends_blanks_bullets_and_backticks(end: str) -> None:
    lines = ["#  AutoImprove:  X  #", "## change:", "  - scope :  a.py,  `b.py`,", "exclude:"]
    lines += ["## CHECK ##", "run: `./b`", "goal: LOWER", "score:", ""]
    found = read(end.join(lines))
    assert (found.title, found.scope, found.run) == ("X", ("a.py", "b.py"), "./b")
    assert (found.exclude, found.score, found.goal) == ((), Score(), "minimize")


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("SCORE: {value}", None),
        (r"ns/op:\s+([\d.]+)", Score(pattern=r"ns/op:\s+([\d.]+)")),  # not anchored: as it is
        (r"^acc (\d+)$", Score(pattern=r"^acc (\d+)$")),
        # the first group counts; others are made to capture nothing
        (r"(\d+) (ms|s) (?:a) [(] \( (x)", Score(pattern=r"(\d+) (?:ms|s) (?:a) [(] \( (?:x)")),
        (r"(?P<v>\d+) of (?P<n>\d+)", Score(pattern=r"(?P<v>\d+) of (?:\d+)")),
        # parentheses make it a regex, a dot first does not matter then
        (r".*: (\d+)", Score(pattern=r".*: (\d+)")),
        (".results[0].p95", Score(json="results.0.p95")),
        ('.["p 95"].x', Score(json="p 95.x")),
        (".[2]", Score(json="2")),
    ],
)  # fmt: skip
def test_the_three_forms_of_a_score(text: str, score: Score | None) -> None:
    found = read(f"{LEAST}score: {text}\n")
    assert found.score == (score or Score())
    if score is not None:
        assert read_score(text) == score


def test_a_line_score_wins_over_both_other_forms() -> None:
    for score in (read_score(r"p95: (\d+)"), read_score(".p95")):
        rule = MetricRule("score", "minimize", score.pattern, score.json, lines="last")
        output = "SCORE: 3\np95: 9\n" + json.dumps({"p95": 9}) + "\n"
        assert read_metrics(rule, output, None).values["score"] == 3
        assert read_metrics(rule, output.replace("SCORE", "x"), None).values["score"] == 9


def test_jq_paths_look_into_json_over_several_lines() -> None:
    score = read_score(".summary.runs[1].p95")
    rule = MetricRule("score", "minimize", None, score.json, lines="last")
    told = json.dumps({"summary": {"runs": [{"p95": 1}, {"p95": 2.5}]}}, indent=2)
    assert read_metrics(rule, f"warming up\n{told}\ndone\n", None).values["score"] == 2.5


@pytest.mark.parametrize(
    ("guard", "maximum", "minimum"),
    [
        (r"errors: (\d+) <= 3", 3.0, None),
        (r"errors: (\d+) < 3", math.nextafter(3, 0), None),
        (r"x > y (\d+) > 0.5", None, math.nextafter(0.5, 1)),
        (r"recall (\S+) >= -1e-3", None, -0.001),
    ],
)
def test_guards(guard: str, maximum: float | None, minimum: float | None) -> None:
    [found] = read(f"{LEAST}guard: {guard}\n").guards
    assert (found.maximum, found.minimum) == (maximum, minimum)
    assert found.pattern == guard.rsplit(" ", 2)[0]


def test_guards_have_names_of_their_own() -> None:
    lines = [r"score (\d+) < 1", r"(\d+) < 2", r"(\d+) < 3", r"p95: (\d+) < 4", r"p95= (\d+) < 5"]
    found = read(LEAST + "".join(f"guard: {line}\n" for line in lines)).guards
    names = [guard.name for guard in found]
    assert names == ["score_2", "guard", "guard_2", "p95", "p95_2"]


WRONG = r"""# autoimprove: x
## Chnge
scope: a
## Check
rn: foo
score: ns/op
goal: smaller
guard: errors: (\d+) < few
guard: errors: \d+ < 3
guard: errors
timeout: soon
keep_if_equal: yes
Measure it well.
stale: 3
goal: lower
## Stop
rounds: 1.5
target: low
## Check
"""


def test_every_mistake_is_told_at_once_with_its_line() -> None:
    said = mistakes(WRONG)
    for line, words in (
        (2, "unknown section `Chnge`"),
        (4, "`run` is required"),
        (5, "unknown key `rn`"),
        (6, "`score`: a regular expression with its number in parentheses"),
        (7, "`goal` is lower or higher, not 'smaller'"),
        (8, "a number is wanted, not 'few'"),
        (9, "this has no group"),
        (10, "`<regular expression> < number` is wanted"),
        (11, "a duration such as 90s, 3m or 4h is wanted, not 'soon'"),
        (12, "true or false is wanted, not 'yes'"),
        (13, "this is no `key: value`; free text belongs below `## Instructions`"),
        (14, "`stale` belongs below `## Stop`"),
        (15, "`goal` is given twice, first on line 7"),
        (17, "a whole number above 0 is wanted, not '1.5'"),
        (18, "a number is wanted, not 'low'"),
        (19, "section `Check` is given twice, first on line 4"),
        (19, "there is no section `## Change`, which holds `scope`"),
    ):
        [found] = [
            x for x in said.splitlines() if x.startswith(f"improve.md:{line}:") and words in x
        ]
        assert found
    for meant in ("## Change", "run", r"ns/op:\s*([\d.]+)", "lower"):
        assert f"did you mean `{meant}`?" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (r"score: ns/op:\s+", r"did you mean `ns/op:\s+([\d.]+)`?"),
        ("score: val_bpb", r"did you mean `val_bpb:\s*([\d.]+)`?"),
        ("score: p95: (", "no regular expression: missing ), unterminated subpattern"),
        (r"score: \(ms\)", "this has no group"),
        (r"score: (a)(b)\2", "write the others as (?:...)"),
        ("score: .a | length", "only a path is understood"),
        ("score: .a[]", "only a path is understood"),
        ("test_files: x", "did you mean `test-files`?"),
        ("keep-if-equal: true", "did you mean `keep_if_equal`?"),
        ("Guard: x", "did you mean `guard`?"),
        ("metric: x", "`## Check` has test, test-files, run, score"),
        ("goal: maximise", "did you mean `higher`?"),
        ("scope: x", "`scope` belongs below `## Change`"),
    ],
)
def test_a_wrong_line(line: str, said: str) -> None:
    text = LEAST.replace("goal: higher\n", "") if line.startswith("goal") else LEAST
    assert said in mistakes(f"{text}{line}\n")


def test_the_caret_stands_under_what_is_wrong() -> None:
    lines = mistakes(LEAST + "score: p95: (\\d+\n").splitlines()
    assert lines[0].startswith("improve.md:7:13: ")
    assert lines[1].index("(") == lines[2].index("^")


def test_an_empty_file_says_what_is_needed() -> None:
    said = mistakes("")
    assert "`## Change`" in said
    assert "`## Check`, which holds `run` and `goal`" in said
    assert "`files` means the same as `scope`" in mistakes(LEAST.replace("context", "scope"))


def test_lists() -> None:
    assert parts("a, b/{x,y}.py, [a,b].c,, `d`") == ("a", "b/{x,y}.py", "[a,b].c", "d")
