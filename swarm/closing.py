"""The number that the last line of an output says: for commands that print it and nothing else.

Owns what counts as the last line, which of its numbers is meant, and what pytest and ruff close
with. Pure: text in, a number or the reason why there is none out. Knows no other place of a number.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from swarm.patterns import LONGEST, NUMBER, literal
from swarm.records import Goal


class Closing(NamedTuple):
    """What the last line says: a number, or why it says none."""

    line: str
    value: float | None
    problem: str | None = None


def read_closing(text: str, name: str, goal: Goal, unit: str | None = None) -> Closing:
    """Read the last line of an output.

    Args:
        text: the output, without control sequences.
        name: of the metric; a number right behind it is the one, and of pytest's counts the one
            that is called so.
        goal: which of pytest's counts is meant otherwise: failures, or what passed.
        unit: sizes and times are turned into it, if it is one.
    """
    line = _last(text)
    if not line:
        return Closing("", None, "it printed nothing")
    if tests := _PYTEST.match(line):
        return _of_pytest(line, tests, name, goal)
    if errors := _RUFF.match(line):
        return Closing(line, float(errors["left"] or errors["found"] or 0))
    return _one_number(line, name, unit)


_REMARK = re.compile(r"\[\*\] |No fixes available|\d+ (?:hidden|unsafe) fix(?:es)? ")
"""What ruff says behind its count."""


def _last(text: str) -> str:
    for line in reversed(text.rstrip().split("\n")):
        if line.strip() and not _REMARK.match(line):
            return line.strip()[:LONGEST]
    return ""


# --- pytest and ruff ----------------------------------------------------------------------------

_RUFF = re.compile(
    r"All checks passed!$"
    r"|Found (?P<found>\d+) errors?(?: \(\d+ fixed, (?P<left>\d+) remaining\))?\.$"
)
_PYTEST = re.compile(
    r"=*\s*(?P<counts>no tests ran|\d+ [a-z ]+(?:, \d+ [a-z ]+)*) in (?P<seconds>[\d.]+)s\b[^=]*=*$"
)
_COUNTS = ("passed", "failed", "error", "skipped", "deselected", "xfailed", "xpassed", "warning")


def _of_pytest(line: str, match: re.Match[str], name: str, goal: Goal) -> Closing:
    counts: dict[str, int] = dict.fromkeys(_COUNTS, 0)
    for amount, what in re.findall(r"(\d+) ([a-z]+)", match["counts"]):
        counts[what.removesuffix("s") if what in ("errors", "warnings") else what] = int(amount)
    failed = counts["failed"] + counts["error"]
    if not counts["passed"] + counts["failed"]:
        # An import that fails leaves one error in place of many failures: that is no progress.
        return Closing(line, None, f"pytest ran no test: {line!r}")
    if name == "seconds":
        if failed:
            return Closing(line, None, f"tests fail, so their time says nothing: {line!r}")
        return Closing(line, float(match["seconds"]))
    singular = name.removesuffix("s") if name in ("errors", "warnings") else name
    if singular in _COUNTS and singular not in ("failed", "error"):
        return Closing(line, float(counts[singular]))
    return Closing(line, float(failed if goal == "minimize" else counts["passed"]))


# --- one number ---------------------------------------------------------------------------------


def _one_number(line: str, name: str, unit: str | None) -> Closing:
    numbers = list(NUMBER.finditer(line))
    if not numbers:
        return Closing(line, None, f"the last line has no number: {line!r}; {_REMEDY}")
    if len(numbers) > 1:
        words = re.escape(name).replace("_", "[ _-]")
        named = list(re.finditer(rf"(?i)(?<!\w){words}\s*[:=]?\s*(?={NUMBER.pattern})", line))
        behind = [number for number in numbers if number.start() in {m.end() for m in named}]
        if len(behind) != 1:
            return Closing(line, None, _which(line, numbers))
        numbers = behind
    number = numbers[0]
    value = float(number.group().replace(",", ""))
    follows = re.match(r"\s?([A-Za-zµ%]+)", line[number.end() :])
    return Closing(line, value * (_factor(follows[1], unit) if follows and unit else 1.0))


_REMEDY = (
    "end the command in one that prints the number alone, as `| grep -oP 'Total: \\K[\\d.]+'` does"
)


def _which(line: str, numbers: list[re.Match[str]]) -> str:
    shown = ", ".join(m.group() for m in numbers[:5])
    last = numbers[-1]
    before = re.search(r"[^\d,;|(]*$", line[: last.start()])
    lead = literal(before.group().lstrip() if before else "").replace("'", ".")
    cut = f"`| grep -oP '{lead}\\K[\\d.]+'` takes {last.group()}" if lead.strip() else _REMEDY
    return f"the last line has {len(numbers)} numbers ({shown}), and one is wanted: {line!r}; {cut}"


_SIZES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_TIMES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_LONG = {"byte": "b", "bytes": "b", "sec": "s", "secs": "s", "second": "s", "seconds": "s"}


def _factor(found: str, wanted: str) -> float:
    """Give what a number in one unit is multiplied by to be in the other."""
    a, b = (_LONG.get(unit.lower(), unit.lower()) for unit in (found, wanted))
    for family in (_SIZES, _TIMES):
        if a in family and b in family:
            return family[a] / family[b]
    return 1.0
