"""Whether a change has been tried before: what two changes have in common, by text alone. Pure.

Owns what counts as the same change and the same summary. When that matters is decided in `repeats`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from swarm.records import Proposal

FEWEST_WORDS = 3
"""A summary of fewer words says too little to know a change by."""
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? ")
_WORD = re.compile(
    r"(?:(?<![^\s(\[=,:>])-(?=\d))?[^\W_]+(?:[.\-][0-9]+)*"  # with the sign of a number
    r"|(?<=\s)(?:[<>]=?|[+*/%])(?=\s)"  # what is done with numbers
)


class _Line(NamedTuple):
    """A line that a diff takes out or puts in."""

    file: str
    at: int
    """Where it is, or comes in, by the count of the old file."""
    text: str
    """With its sign, and without idle blanks."""


def _lines(diff: str) -> Iterator[_Line]:
    """Give what a diff changes: no context, no blank lines, no idle blanks.

    Indentation stays: in Python it is meaning.
    """
    file, at, within = "", 1, False
    for line in diff.split("\n"):
        if hunk := _HUNK.match(line):
            # A hunk that takes nothing out names the line before it.
            at, within = int(hunk[1]) + (hunk[2] == "0"), True
        elif line.startswith("diff --git "):
            within = False
        elif not within and line.startswith(("+++ ", "--- ")):
            file = line[:4] + line[6:]
            yield _Line(file, 0, file)
        elif line.startswith(("+", "-")):
            if body := line[1:].rstrip():
                indent = len(body) - len(body.lstrip())
                text = body[:indent] + re.sub(r"\s+", " ", body[indent:])
                yield _Line(file, at, line[0] + text)
            at += line[0] == "-"
        elif not line.startswith("\\"):
            at += 1


_SEED = re.compile(r"seed|random_state|\brng\b", re.IGNORECASE)
_DIGITS = re.compile(r"0x[0-9a-fA-F]+|[0-9][0-9_.]*")


def only_seeds(diff: str) -> bool:
    """Tell whether a diff does nothing but give seeds other numbers."""
    lines = [line.text for line in _lines(diff) if line.text[:3] not in ("+++", "---")]
    old = [text[1:] for text in lines if text[0] == "-"]
    new = [text[1:] for text in lines if text[0] == "+"]
    return (
        bool(old)
        and len(old) == len(new)
        and all(
            _SEED.search(a) and _DIGITS.sub("#", a) == _DIGITS.sub("#", b)
            for a, b in zip(old, new, strict=True)
        )
    )


def change_key(diff: str) -> str:
    """Reduce a diff to what it changes, wherever that is.

    Empty for an empty diff, for one that was cut, of which too little is known, and for one that
    changes nothing but blanks, which may be the whole point.
    """
    if any(line.startswith("[... ") for line in diff.split("\n")[-2:]):
        return ""
    found = list(_lines(diff))
    return "\n".join(line.text for line in found) if any(line.at for line in found) else ""


def places(diff: str) -> frozenset[tuple[str, int]]:
    """Give the places that a diff changes, to be compared with those of one on the same base."""
    return frozenset((line.file, line.at) for line in _lines(diff) if line.at)


def summary_key(summary: str) -> str:
    """Reduce a summary to its words: no case, no punctuation but what numbers are made of."""
    return " ".join(_WORD.findall(summary.lower()))


Likeness = Literal["change", "summary"]


def keys(proposal: Proposal) -> Iterator[tuple[Likeness, str]]:
    """Give what a proposal can be recognised by; nothing if its diff is not known."""
    if proposal.diff:
        if change := change_key(proposal.diff):
            yield "change", change
        unsaid = summary_key(f"change {', '.join(proposal.files)}")
        summary = summary_key(proposal.summary)
        if summary.count(" ") >= FEWEST_WORDS - 1 and summary != unsaid:
            yield "summary", summary


@dataclass
class Tried:
    """Which experiment was the last to make a change, or to say so."""

    _last: dict[tuple[Likeness, str], int] = field(default_factory=dict[tuple[Likeness, str], int])

    def add(self, number: int, proposal: Proposal) -> None:
        """Remember an experiment."""
        for key in keys(proposal):
            self._last[key] = number

    def drop(self, number: int, proposal: Proposal) -> None:
        """Forget one that was never found out."""
        for key in keys(proposal):
            if self._last.get(key) == number:
                del self._last[key]

    def find(self, proposal: Proposal) -> Iterator[tuple[Likeness, int]]:
        """Give the experiments that a proposal resembles, the closest likeness first."""
        for key in keys(proposal):
            if key in self._last:
                yield key[0], self._last[key]
