"""Numbers and cases in what a run has left: its output and its result file.

Owns where a metric may stand, what is made of several values of it, and the shape of the result
file. Pure: text in, a `Reading` out. All of that text is the candidate's to write, so nothing in it
is trusted. Knows no process, no file and no judge.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from statistics import fmean, median
from typing import Any, Literal, NamedTuple, TypeVar, cast

from swarm.closing import read_closing
from swarm.formats.text import one_line, printable, sanitise
from swarm.patterns import beside
from swarm.records import CASES, Case, Goal

FEEDBACK_CHARS = 20_000
REFUSAL_CHARS = 400
MOST_METRICS = 100
"""Each measurement goes to the ledger as one line: metrics beyond this many are left out."""
MOST_VALUES = 100_000
"""Values of one metric in one measurement, where they are taken together."""
MOST_CASES = 5_000
MOST_DOCUMENTS = 50
"""JSON values over several lines that are looked into, from the end."""
CASE_ID_CHARS = 200
QUESTION_CHARS = 300

Aggregate = Literal["last", "min", "max", "mean", "median"]
Bounds = tuple[float | None, float | None]
Lines = Literal["named", "last"]
T = TypeVar("T")
Token = float | str
"""A number, or the text that stood where one was wanted."""


@dataclass(frozen=True)
class MetricRule:
    """The primary metric and where its value stands when `SWARM_RESULT` does not have it.

    The value of the metric `cases` is the share of the cases in `SWARM_RESULT` that passed.
    """

    name: str
    goal: Goal
    pattern: str | None = None
    """A regex with one group, multiline; its last match wins, or all are taken together."""
    json_path: str | None = None
    """Keys and indices joined by dots (`results.0.p95`), into the last JSON line that has it."""
    lines: Lines = "named"
    """`last`: a line `SCORE: value` comes before `pattern` and `json_path`; where neither is given,
    the last line of the output may be the number (`closing`)."""
    unit: str | None = None
    """What a size or time of the last line is turned into."""

    def __post_init__(self) -> None:
        if self.pattern is not None and re.compile(self.pattern).groups != 1:
            raise ValueError(f"metric.pattern {self.pattern!r} must have exactly one group")


class Reading(NamedTuple):
    """What a run says of itself. `problem` is why it is no good, or None; then nothing else is."""

    values: dict[str, float]
    feedback: str
    problem: str | None
    cases: tuple[Case, ...] = ()


# The text is the candidate's and may be huge: no expression here takes more than linear time.
_NUMBER = r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)"
_IS_NUMBER = re.compile(_NUMBER, re.IGNORECASE)
_METRIC_LINE = re.compile(r"^METRIC[ \t]+([^\s=]+)=(\S+)[ \t]*$", re.MULTILINE)
_SUMMARY_LINE = re.compile(
    rf"^([^\W\d][\w.µ-]*):[ \t]*({_NUMBER})[ \t]*$", re.MULTILINE | re.IGNORECASE
)
_RULER = re.compile(r"^---[ \t]*$", re.MULTILINE)
# Colours and cursor movements (CSI), titles and links (OSC), other escapes, control characters.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def read_metrics(
    rule: MetricRule,
    output: str,
    result_json: str | None,
    also: Collection[str] = (),
    *,
    patterns: Mapping[str, str] = {},
    aggregate: Aggregate = "last",
    bounds: Bounds | None = None,
    partial: bool = False,
) -> Reading:
    """Find the metrics in the output of a run and in the result file it wrote, if it did.

    The primary metric is taken from the first of these that has it: the result file; the pattern
    or JSON path of the rule; lines of the output. What is found there is put together by
    `aggregate`; when that comes to no finite number within `bounds` there is no value. Other
    metrics, those of `patterns` too, are kept where they are finite; `seconds` and `usd` of all
    cases are added up unless the harness does. A `partial` run of a suite has cases but no share.
    """
    text = plain(output)
    report = _Report() if result_json is None else _read_report(result_json)
    problem = report.problem
    value: float | None = None
    if problem is None and rule.name == CASES:
        value, problem = _share(report.cases, result_json is not None, partial)
    elif problem is None:
        found = _primary(rule, text, report.metrics, aggregate)
        if found is None:
            problem = _absent(rule, text, result_json is not None)
        elif isinstance(found, str):
            problem = f"no metric: {found}"
        else:
            value, problem = _settle(rule.name, found, aggregate)
    if value is not None and bounds is not None:
        problem = _outside(rule.name, value, bounds)
    if problem is not None:
        return Reading({}, report.feedback, problem)
    others = _others(rule, text, report.metrics, also, patterns, aggregate)
    values = {**_costs(report.cases), **others}
    if value is not None:
        values[rule.name] = value
    return Reading(values, report.feedback, None, report.cases)


def _costs(cases: Sequence[Case]) -> dict[str, float]:
    """Give what all cases took together, where each says it and the harness does not."""
    sums: dict[str, float] = {}
    for name, each in (("seconds", [c.seconds for c in cases]), ("usd", [c.usd for c in cases])):
        known = [cost for cost in each if cost is not None]
        if known and len(known) == len(each):
            sums[name] = sum(known)
    return sums


def plain(text: str) -> str:
    r"""Drop control sequences; `\r`, which a progress bar ends its lines with, ends a line."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


# --- the primary metric ------------------------------------------------------------------------


class _Found(NamedTuple):
    """What stands at the place where the primary metric was found."""

    place: str
    tokens: Sequence[Token]
    listed: bool = False
    """One list, and not one value after another: none of them is the last word."""


def _primary(
    rule: MetricRule, text: str, metrics: Mapping[str, Token | list[Token]], how: Aggregate
) -> _Found | str | None:
    """Look into one place after the other; a text is why the last of them has no number."""
    if rule.name in metrics:
        return _in_json("SWARM_RESULT", metrics[rule.name])
    if rule.lines == "last" and (found := _in_lines(_SCORE_LINE, text, how)):
        return found
    if rule.pattern is not None:
        groups = (m.group(1) for m in re.finditer(rule.pattern, text, re.MULTILINE))
        # A group that took no part in the match says as little as no match.
        if tokens := _wanted((g for g in groups if g is not None), how):
            return _Found(f"metric.pattern {rule.pattern!r}", tokens)
    if rule.json_path is not None:
        found = _from_json_lines(rule.json_path, text)
        if found is not None:
            return _in_json(f"metric.json `{rule.json_path}`", found)
    name = re.escape(rule.name)
    lines = (
        rf"^(?:METRIC[ \t]+{name}=(?P<metric>\S+)|SCORE:[ \t]*(?P<score>\S+)"
        rf"|{name}:[ \t]*(?P<line>(?i:{_NUMBER})))[ \t]*$"
    )
    if found := _in_lines(lines, text, how):
        return found
    if rule.lines == "last" and rule.pattern is None and rule.json_path is None:
        said = read_closing(text, rule.name, rule.goal, rule.unit)
        if said.problem is not None or said.value is None:
            return said.problem
        return _Found(f"the last line {_short(said.line)!r}", [said.value])
    return None


_SCORE_LINE = r"^SCORE:[ \t]*(?P<score>\S+)[ \t]*$"


def _in_lines(lines: str, text: str, how: Aggregate) -> _Found | None:
    matches = _wanted(re.finditer(lines, text, re.MULTILINE), how)
    if not matches:
        return None
    one = f"the line {_short(matches[0].group())!r}"
    place = one if len(matches) == 1 else "the lines of the output"
    return _Found(place, [m.group(cast("str", m.lastgroup)) for m in matches])


def _in_json(place: str, value: Token | list[Token]) -> _Found:
    if isinstance(value, list):
        return _Found(place, value, listed=True)
    return _Found(place, [value])


def _wanted(found: Iterable[T], how: Aggregate) -> Sequence[T]:
    """Give the last one, or all up to one more than is allowed."""
    return deque(found, maxlen=1) if how == "last" else list(islice(found, MOST_VALUES + 1))


def _settle(name: str, found: _Found, how: Aggregate) -> tuple[float | None, str | None]:
    """Make one value of what was found, or say why there is none."""
    what = f"`{name}` from {found.place}"
    if found.listed and how == "last":
        return None, (
            f"{what} is a list: set judge.aggregate to what is to be made of it, "
            "min, max, mean or median"
        )
    if not found.tokens:
        return None, f"{what} is an empty list"
    if len(found.tokens) > MOST_VALUES:
        return None, f"{what} has more than {MOST_VALUES} values"
    numbers: list[float] = []
    for token in found.tokens:
        number = _number(token)
        if number is None or not math.isfinite(number):
            wanted = "a finite number" if number is not None else "a number"
            return None, f"{what} is not {wanted}: {token!r}"
        numbers.append(number)
    value = _together(numbers, how)
    if not math.isfinite(value):
        return None, f"the {how} of {what} is not a finite number"
    return value, None


_COMBINED: dict[Aggregate, Callable[[Sequence[float]], float]] = {
    "last": lambda numbers: numbers[-1],
    "min": min,
    "max": max,
    "mean": fmean,
    "median": median,
}


def _together(numbers: Sequence[float], how: Aggregate) -> float:
    try:
        return _COMBINED[how](numbers)
    except OverflowError:
        return math.inf


def _outside(name: str, value: float, bounds: Bounds) -> str | None:
    low, high = bounds
    if (low is None or low <= value) and (high is None or value <= high):
        return None
    shown = ", ".join("null" if b is None else _exact(b) for b in bounds)
    return f"`{name}` = {_exact(value)} is outside judge.bounds [{shown}]"


def _exact(value: float) -> str:
    """Give all digits: rounded to the bound, a value beyond it would look inside."""
    return repr(float(value)).removesuffix(".0")


def _share(cases: Sequence[Case], reported: bool, partial: bool) -> tuple[float | None, str | None]:
    if not cases:
        where = "`cases` in SWARM_RESULT" + ("" if reported else " (not written)")
        shape = '{"cases": [{"id": "c1", "pass": true}, ...]}'
        return None, f"no cases: looked for {where}, of the shape {shape}"
    return (None if partial else sum(case.passed for case in cases) / len(cases)), None


def _absent(rule: MetricRule, text: str, reported: bool) -> str:
    where = [f"`{rule.name}` in SWARM_RESULT" + ("" if reported else " (not written)")]
    if rule.pattern is not None:
        where.append(f"metric.pattern {rule.pattern!r}")
    if rule.json_path is not None:
        where.append(f"metric.json `{rule.json_path}` in a JSON line")
    where.append(f"a line `METRIC {rule.name}=...`, `SCORE: ...` or `{rule.name}: ...`")
    return f"no metric: looked for {'; '.join(where)}" + _near(rule.pattern, text)


def _near(pattern: str | None, text: str) -> str:
    """Show a pattern that found nothing beside the line that it was probably meant for."""
    near = None if pattern is None else beside(pattern, text)
    if near is None:
        return ""
    rows = [("pattern", pattern), ("output", sanitise(near.line)), ("try", near.suggestion)]
    return "".join(f"\n  {label:7}  {row}" for label, row in rows if row is not None)


# --- the other metrics -------------------------------------------------------------------------


def _others(
    rule: MetricRule,
    text: str,
    metrics: Mapping[str, Token | list[Token]],
    also: Collection[str],
    patterns: Mapping[str, str],
    how: Aggregate,
) -> dict[str, float]:
    values = dict(_secondary(text, also))
    for name, pattern in patterns.items():
        groups = (m.group(1) for m in re.finditer(pattern, text, re.MULTILINE))
        found = [_number(token) for token in _wanted((g for g in groups if g is not None), how)]
        numbers = [n for n in found if n is not None and math.isfinite(n)]
        values.pop(name, None)
        if numbers and len(numbers) == len(found):
            values[name] = _together(numbers, how)
    for name, value in metrics.items():
        number = _one(value, how)
        if number is not None and math.isfinite(number):
            values[name] = number
    values.pop(rule.name, None)
    if len(values) > MOST_METRICS:
        named = {k: v for k, v in values.items() if k in also}
        values = dict(islice((named | values).items(), MOST_METRICS))
    return values


def _one(value: Token | list[Token], how: Aggregate) -> float | None:
    """Give the number that a metric of the result file is, None for none."""
    if not isinstance(value, list):
        return value if isinstance(value, float) else None
    numbers = [v for v in value if isinstance(v, float) and math.isfinite(v)]
    if how == "last" or not numbers or len(numbers) < len(value):
        return None
    return _together(numbers, how)


def _secondary(text: str, also: Collection[str]) -> Iterator[tuple[str, float]]:
    """Give the finite metrics of the lines, the weakest form first."""
    ruler = -1
    for match in _RULER.finditer(text):
        ruler = match.end()
    for match in _SUMMARY_LINE.finditer(text):
        name, token = match.groups()
        if (0 <= ruler < match.start() or name in also) and math.isfinite(number := float(token)):
            yield name, number
    for match in _METRIC_LINE.finditer(text):
        number = _number(match.group(2))
        # pi-autoresearch's own words for these names are that they are none.
        if number is not None and math.isfinite(number) and match.group(1) not in _NO_NAMES:
            yield match.group(1), number


_NO_NAMES = ("__proto__", "constructor", "prototype")


# --- JSON ---------------------------------------------------------------------------------------


def _from_json_lines(path: str, text: str) -> Token | list[Token] | None:
    for line in reversed(text.split("\n")):
        if line.lstrip()[:1] not in ("{", "["):
            continue
        try:
            found = _descend(json.loads(line), path)
        except (ValueError, RecursionError):
            continue
        if found is not None:
            return found
    return _from_last_document(path, text)


def _from_last_document(path: str, text: str) -> Token | list[Token] | None:
    """Look into what is JSON over several lines, as pretty-printers write it."""
    opening = deque((m.start() for m in _OPENING.finditer(text)), maxlen=MOST_DOCUMENTS)
    decoder = json.JSONDecoder()
    for start in reversed(opening):
        try:
            found = _descend(decoder.raw_decode(text, start)[0], path)
        except (ValueError, RecursionError):
            continue
        if found is not None:
            return found
    return None


_OPENING = re.compile(r"^[{\[][ \t]*$", re.MULTILINE)


def _descend(value: Any, path: str) -> Token | list[Token] | None:
    for part in path.split("."):
        if isinstance(value, dict):
            value = cast("dict[str, Any]", value).get(part)
        elif isinstance(value, list) and part.isascii() and part.isdigit():
            items = cast("list[Any]", value)
            value = items[int(part)] if int(part) < len(items) else None
        else:
            return None
    return None if value is None else _tokens(value)


def _tokens(value: Any) -> Token | list[Token]:
    if isinstance(value, list):
        return [_scalar(item) for item in cast("list[Any]", value)]
    return _scalar(value)


def _scalar(value: Any) -> float | str:
    """Give a JSON number as a float and anything else as the text to show."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
        return math.inf
    return json.dumps(value)[:80]


def _number(token: float | str) -> float | None:
    if not isinstance(token, str):
        return token
    return float(token) if _IS_NUMBER.fullmatch(token.strip()) else None


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


# --- the result file ---------------------------------------------------------------------------


class _Report(NamedTuple):
    """What the result file holds, as far as it can be used."""

    metrics: Mapping[str, Token | list[Token]] = {}
    feedback: str = ""
    cases: tuple[Case, ...] = ()
    problem: str | None = None


class _MalformedError(Exception):
    """Something in the result file is not of the shape that it must have."""


def _read_report(text: str) -> _Report:
    """Read the result file. A malformed one is a problem, not something to guess around."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _Report(problem=f"SWARM_RESULT is not JSON: {error}")
    if not isinstance(data, dict):
        return _Report(problem="SWARM_RESULT is not a JSON object")
    fields = cast("dict[str, Any]", data)
    feedback = fields.get("feedback") or ""
    if not isinstance(feedback, str):
        return _Report(problem="`feedback` in SWARM_RESULT is not a string")
    feedback = sanitise(feedback)[:FEEDBACK_CHARS]
    if fields.get("invalid") is not None:
        return _Report(feedback=feedback, problem=_refused(fields["invalid"]))
    metrics = fields.get("metrics", {})
    if not isinstance(metrics, dict):
        return _Report(feedback=feedback, problem="`metrics` in SWARM_RESULT is not an object")
    named = cast("dict[str, Any]", metrics)
    try:
        cases = _read_cases(fields.get("cases", []))
    except _MalformedError as error:
        return _Report(feedback=feedback, problem=str(error))
    return _Report({printable(n): _tokens(v) for n, v in named.items()}, feedback, cases)


def _refused(why: Any) -> str:
    """Say why the harness takes no number of this candidate. Whoever can write the file may say
    so, as it helps nobody.
    """
    words = one_line(why, REFUSAL_CHARS) if isinstance(why, str) else ""
    if not words:
        return "`invalid` in SWARM_RESULT is not a text that says why"
    return f"invalid, says the harness: {words}"


def _read_cases(cases: Any) -> tuple[Case, ...]:
    if not isinstance(cases, list):
        raise _MalformedError("`cases` in SWARM_RESULT is not a list")
    listed = cast("list[Any]", cases)
    if len(listed) > MOST_CASES:
        raise _MalformedError(
            f"SWARM_RESULT has {len(listed)} cases; at most {MOST_CASES} are allowed"
        )
    found: dict[str, Case] = {}
    for item in listed:
        case = _read_case(cast("dict[str, Any]", item) if isinstance(item, dict) else {})
        if case.id in found:
            raise _MalformedError(f"the case id {_short(case.id)!r} is twice in SWARM_RESULT")
        found[case.id] = case
    return tuple(found.values())


def _read_case(fields: Mapping[str, Any]) -> Case:
    name = fields.get("id")
    if not isinstance(name, str) or not name:
        raise _MalformedError("a case in SWARM_RESULT has no `id` that is a string")
    shown = f"the case {_short(name)!r} in SWARM_RESULT"
    if len(name) > CASE_ID_CHARS:
        raise _MalformedError(f"the id of {shown} has more than {CASE_ID_CHARS} characters")
    # SWARM_CASES has one id a line, and readers of such files strip their lines.
    if not name.isprintable() or name != name.strip():
        what = "a line end, a control character or a blank at an end"
        raise _MalformedError(f"the id of {shown} has {what}")
    passed, question = fields.get("pass"), fields.get("question")
    if not isinstance(passed, bool):
        raise _MalformedError(f"`pass` of {shown} is not true or false")
    if not isinstance(question, str | None):
        raise _MalformedError(f"`question` of {shown} is not a string")
    return Case(
        id=name,
        passed=passed,
        seconds=_cost(fields, "seconds", shown),
        usd=_cost(fields, "usd", shown),
        question=one_line(question, QUESTION_CHARS) if question else None,
    )


def _cost(fields: Mapping[str, Any], key: str, shown: str) -> float | None:
    if fields.get(key) is None:
        return None
    cost = _scalar(fields[key])
    if isinstance(cost, str) or not 0 <= cost < math.inf:
        raise _MalformedError(f"`{key}` of {shown} is not a number from 0 up")
    return cost
