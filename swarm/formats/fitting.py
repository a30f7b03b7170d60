"""Sections of a text that share a limited room: the important ones first, and nothing cut silently.

Owns how room is divided. Knows nothing of what the sections say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarm.formats.fence import OVERHEAD, fenced, head, tail
from swarm.formats.text import sanitise

ENOUGH = 1_000_000
"""More room than any section asks for."""
LEAST = 200
"""Below this many characters a cut text tells nothing."""


@dataclass(frozen=True)
class Section:
    """A part of a text that can be shorter."""

    title: str
    share: float
    """At most so much of the room while others still want some."""
    make: Callable[[int], str]
    """Gives the body in at most so many characters; empty where that is too few."""
    least: int = 0
    """Characters that it has in any case; `ENOUGH` for what is never shortened."""


def lay_out(sections: Sequence[Section], order: Sequence[int], room: int) -> str:
    """Put sections below each other in about `room` characters.

    Args:
        sections: from the most important to the least.
        order: their places as they are read, as indices into `sections`.
        room: characters for all together; sections that must be shown may exceed it.
    """
    whole = [s.make(ENOUGH) for s in sections]
    wants = [len(text) for text in whole]
    bodies = [
        text if len(text) <= given else section.make(given) if given else ""
        for section, text, given in zip(
            sections, whole, _divide(sections, wants, room), strict=True
        )
    ]
    shown = [f"## {sections[i].title}\n{bodies[i]}" for i in order if bodies[i]]
    lost = [sections[i].title for i in order if wants[i] and not bodies[i]]
    if lost:
        shown.append(f"(Left out for lack of room: {', '.join(lost)}.)")
    return "\n\n".join(shown)


def _divide(sections: Sequence[Section], wants: Sequence[int], room: int) -> list[int]:
    """Divide the room: what each has in any case, then its share, then the rest by rank."""
    fees = [len(s.title) + 6 if want else 0 for s, want in zip(sections, wants, strict=True)]
    given = [min(want, s.least) for s, want in zip(sections, wants, strict=True)]
    left = room - sum(given) - sum(fees)
    shares = [int(s.share * room) for s in sections]
    for caps in (shares, wants):
        for i, (want, cap) in enumerate(zip(wants, caps, strict=True)):
            more = min(min(want, cap) - given[i], left)
            if more > 0:
                given[i] += more
                left -= more
    return given


def rows(
    lines: Sequence[str], room: int, label: str, more: Callable[[int], str] = "{} more".format
) -> str:
    """Fence as many lines as fit, the first ones first, and say what was left out.

    Args:
        lines: one-line texts, or several lines that belong together.
        room: characters for all.
        label: what the block holds.
        more: given how many are shown, says in words what is not.
    """
    whole = fenced("\n".join(lines), label) if lines else ""
    if len(whole) <= room:
        return whole
    left = room - OVERHEAD - len(label) - 80  # for what was left out
    shown = 0
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            break
        shown += 1
    if not shown:
        return ""
    return f"{fenced(chr(10).join(lines[:shown]), label)}\n... and {more(shown)}."


def block(text: str, room: int, label: str, *, end: bool = False) -> str:
    """Fence a text that may be cut: its beginning, or its `end` for a log. Empty if too little."""
    whole = fenced(text, label) if text.strip() else ""
    if len(whole) <= room:
        return whole
    space = room - OVERHEAD - len(label)
    if space < LEAST:
        return ""
    text = sanitise(text)
    return fenced(tail(text, space) if end else head(text, space), label)
