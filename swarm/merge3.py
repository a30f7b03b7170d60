"""Three-way merge of one file by lines, without git's demand for unchanged lines in between.

git calls two changes a conflict when they touch, and two constants in neighbouring lines are what
agents change most. Here only changes of the same lines are one. That is safe because a stack is
measured before `best` moves. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import NamedTuple

MAX_LINES = 5000
"""Longer files are left to git: the matcher takes quadratic time at worst."""


class _Change(NamedTuple):
    start: int
    end: int
    lines: tuple[bytes, ...]


def merge3(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """Give the merge of two versions, or None if they change the same lines differently."""
    if b"\0" in base + ours + theirs:
        return None
    old, left, right = (t.splitlines(keepends=True) for t in (base, ours, theirs))
    if max(len(old), len(left), len(right)) > MAX_LINES:
        return None
    changes = sorted({*_changes(old, left), *_changes(old, right)})
    for before, after in pairwise(changes):
        if _clash(before, after):
            return None
    return _apply(old, changes)


def _changes(old: Sequence[bytes], new: Sequence[bytes]) -> list[_Change]:
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return [
        _Change(i1, i2, tuple(new[j1:j2]))
        for tag, i1, i2, j1, j2 in matcher.get_opcodes()
        if tag != "equal"
    ]


def _clash(before: _Change, after: _Change) -> bool:
    """Sorted by start: they clash if they share a line, or insert at the same place."""
    if before.start == after.start:
        return before.end == before.start == after.end or after.end > before.start < before.end
    return after.start < before.end


def _apply(old: Sequence[bytes], changes: Sequence[_Change]) -> bytes:
    out: list[bytes] = []
    at = 0
    for change in changes:
        out += [*old[at : change.start], *change.lines]
        at = change.end
    return b"".join([*out, *old[at:]])
