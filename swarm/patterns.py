r"""A regular expression that found nothing, beside the line that it was probably meant for.

Owns which line of an output is nearest to a pattern, and which pattern would have found its number:
`ns/op:\s+([\d.]+)` and `Sum-8   1000   123 ns/op` give `([\d.]+) ns/op`. Pure: text in, text out.
The output is the candidate's to write, so only linear work is done on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

CORRECT_IT = (
    "correct `metric.pattern` (`score` of an improve.md), so that it finds the number in the "
    "output as it is"
)
"""What to do about a pattern that finds nothing at the base."""
MOST_LINES = 20_000
"""Lines from the end of an output that are looked at."""
LONGEST = 400
"""Characters of a line that are looked at."""

NUMBER = re.compile(
    r"(?<![\w.,])(?<![A-Za-z]-)[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
    r"(?:[eE][-+]?\d+)?(?![\d.,]*\d)"
)
"""A number in running text: `p95`, `sha-256` and `1.2.3` have none, `412kB` and `1,234` are one."""


class Beside(NamedTuple):
    """What a pattern was probably meant for."""

    line: str
    suggestion: str | None
    """A pattern with one group, the number of that line; None where it has several alike."""


def beside(pattern: str, output: str) -> Beside | None:
    """Give the line of the output that is nearest to a pattern, None if no line is near."""
    words = literals(pattern)
    line = _nearest(words, output)
    return None if line is None else Beside(line, _suggest(words, line))


def literals(pattern: str) -> list[str]:
    """Give the words that a regular expression asks for literally."""
    text = re.sub(r"\\[dDsSwWbBAZ]|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:P?<\w+>|[^)]?)", " ", pattern)
    text = re.sub(r"\\([^\w\s])", r"\1\1", text)  # what is escaped is literal: kept below
    text = re.sub(r"([^\w\s/%µ-])\1|[^\w\s/%µ-]", lambda m: m[1] or " ", text)
    words = re.findall(r"[^\W\d][\w/%µ.-]*|%", text)
    return [word for word in words if len(word) > 1 or word == "%"]


def _nearest(words: Sequence[str], output: str) -> str | None:
    """Take the line with a number that shares most with the words; of equals the last."""
    best, found = 0, None
    wanted = [word.lower() for word in words]
    for line in _lines(output):
        low = line.lower()
        shared = sum(len(word) for word in wanted if word in low)
        if shared >= best and shared and NUMBER.search(line):
            best, found = shared, line
    return found


def _lines(output: str) -> Iterator[str]:
    for line in output.split("\n")[-MOST_LINES:]:
        yield line[:LONGEST].strip()


def _suggest(words: Sequence[str], line: str) -> str | None:
    """Build a pattern around the number that stands next to one of the words."""
    spots = [m.span() for word in words for m in re.finditer(re.escape(word), line, re.IGNORECASE)]
    gaps = [
        (max(number.start() - end, start - number.end()), number, start, end)
        for number in NUMBER.finditer(line)
        for start, end in spots
        if number.start() >= end or number.end() <= start
    ]
    if not gaps:
        return None
    _, number, start, end = min(gaps, key=lambda gap: gap[0])
    group = r"([\d.]+)" if re.fullmatch(r"[\d.]+", number.group()) else r"([-+\d.eE]+)"
    if number.start() >= end:
        pattern = literal(line[start : number.start()]) + group
    else:
        pattern = group + literal(line[number.end() : end])
    # The last match counts, and a number such as 1,234 is found only in part.
    matches = [m.group(1) for m in re.finditer(pattern, line)]
    return pattern if matches[-1:] == [number.group()] else None


def literal(text: str) -> str:
    """Escape a text for a pattern, in a form that people would write; columns may be padded."""
    parts = (re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", part) for part in re.split(r"(\s+)", text))
    return "".join(r"\s+" if part.isspace() and part != " " else part for part in parts)
