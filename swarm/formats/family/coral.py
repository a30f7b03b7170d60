"""CORAL's attempts: `.coral/public/attempts/<sha>.json`, in the order of their times. Read only.

Owns their words for outcomes. What its grader could not grade has no value, and what was spent on
tuning the grader or is still open is no experiment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from swarm.formats.family.cells import (
    Words,
    finite,
    goal_of,
    load,
    moment,
    named,
    sha,
    table,
    words,
)
from swarm.formats.family.history import NOT_RUN, Asked, Entry, Files, History, Status
from swarm.formats.text import counted, first_line
from swarm.records import Goal

_STATUSES: Mapping[str, Status] = {
    "improved": "keep",
    "regressed": "discard",
    "reverted": "discard",
}
_GRADER = re.compile(r"^grader:[ \t]*\n((?:[ \t]+.*\n|[ \t]*\n)*)", re.M)
_DIRECTION = re.compile(r"^\s+direction:\s*[\"']?(\w+)", re.M)
_NEVER = datetime.min.replace(tzinfo=UTC)


def is_coral(files: Files) -> bool:
    """Tell whether there is an attempt."""
    return bool(_attempts(files))


def _attempts(files: Files) -> list[dict[str, Any]]:
    loaded = (table(load(text)) for name, text in files.items() if name.endswith(".json"))
    found = [said for said in loaded if "commit_hash" in said]
    return sorted(
        found, key=lambda a: (moment(a.get("timestamp")) or _NEVER, words(a["commit_hash"]))
    )


def read(files: Files, asked: Asked) -> History:
    """Read all attempts.

    Raises:
        UsageError: nobody says which way is better.
    """
    known, entries = Words(_STATUSES), list[Entry]()
    left = timeless = 0
    for said in _attempts(files):
        kind = table(said.get("metadata")).get("budget_class")
        if said.get("status") == "pending" or kind == "tune":
            left += 1
            continue
        timeless += moment(said.get("timestamp")) is None
        begun = bool(entries) and entries[0].status == "baseline"
        number = len(entries) + (not begun)
        entries.append(_entry(said, number, kind, known, first=not entries))
    notes = known.notes()
    if left:
        notes += (f"{counted(left, 'attempt')} open or of tuning left out",)
    if timeless:
        notes += (f"{counted(timeless, 'attempt')} without a time, put first",)
    return History(
        name=asked.name,
        metric=asked.spec("score", _goal(files)),
        entries=tuple(entries),
        notes=notes,
    )


def _goal(files: Files) -> Goal | None:
    grader = _GRADER.search((named(files, "task.yaml") or "") + "\n")
    said = _DIRECTION.search(grader[1]) if grader else None
    return goal_of(said[1]) if said else None


def _entry(
    said: Mapping[str, Any], number: int, kind: object, known: Words, *, first: bool
) -> Entry:
    found = known.status(said.get("status"))
    status = found or "discard"
    if status == "baseline" and not first:
        # Only the first is where the search began; later ones are no better than that.
        status = "discard"
    if kind == "grader_error":
        status = "crash"
    measured = found is not None and status not in NOT_RUN
    return Entry(
        number=0 if status == "baseline" else number,
        status=status,
        value=finite(said.get("score")) if measured else None,
        commit=sha(said.get("commit_hash")),
        agent=words(said.get("agent_id")),
        summary=words(said.get("title")),
        reason=first_line(words(said.get("feedback"))),
        at=moment(said.get("timestamp")),
    )
