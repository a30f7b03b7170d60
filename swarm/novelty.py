"""Whether a change has been tried before: what two changes have in common, by text alone. Pure.

Owns what counts as the same change and the same summary. When that matters is decided in `repeats`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from swarm.records import Proposal

_HEADER = ("diff --git ", "index ", "--- ", "+++ ", "@@ ", "new file mode", "similarity index")


def change_key(diff: str) -> str:
    """Reduce a diff to what it changes: no places, no context, no blank lines, no idle blanks.

    Indentation stays: in Python it is meaning. Empty for an empty diff, and for one that was cut,
    of which too little is known.
    """
    found: list[str] = []
    for line in diff.splitlines():
        if line.startswith("[... "):
            return ""
        if line.startswith(("+++ ", "--- ")):
            found.append(line[:4] + line[6:])
        elif line.startswith(_HEADER) or not line.startswith(("+", "-")):
            continue
        elif body := line[1:].rstrip():
            indent = len(body) - len(body.lstrip())
            found.append(line[0] + body[:indent] + re.sub(r"\s+", " ", body[indent:]))
    return "\n".join(found)


def summary_key(summary: str) -> str:
    """Reduce a summary to its words: no case, no punctuation but what numbers are made of."""
    words = re.findall(r"[^\W_]+(?:[.\-][0-9]+)*", summary.lower())
    return " ".join(words)


Likeness = Literal["change", "summary"]


def keys(proposal: Proposal) -> Iterator[tuple[Likeness, str]]:
    """Give what a proposal can be recognised by; nothing if its diff is not known."""
    if proposal.diff:
        if change := change_key(proposal.diff):
            yield "change", change
        if summary := summary_key(proposal.summary):
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
