"""CORAL's attempts: `.coral/public/attempts/<sha>.json`, in the order of their times. Read only.

Owns their words for outcomes. What its grader could not grade has no value, and what was spent on
tuning the grader or is still open is no experiment.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, cast

from swarm.formats.family.history import (
    Asked,
    Entry,
    Files,
    History,
    Status,
    finite,
    moment,
    sha,
    unknown,
)
from swarm.formats.text import counted, first_line
from swarm.records import Goal

_STATUSES: Mapping[object, Status] = {
    "improved": "keep",
    "regressed": "discard",
    "reverted": "discard",
    "crashed": "crash",
    "timeout": "timeout",
}
_GOALS: Mapping[str, Goal] = {
    "maximize": "maximize",
    "minimize": "minimize",
    "higher": "maximize",
    "lower": "minimize",
}
_DIRECTION = re.compile(r"^\s+direction:\s*[\"']?(\w+)", re.M)


def is_coral(files: Files) -> bool:
    """Tell whether there is an attempt."""
    return bool(_attempts(files))


def _attempts(files: Files) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name, text in files.items():
        if not name.endswith(".json"):
            continue
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict) and "commit_hash" in said:
            found.append(cast("dict[str, Any]", said))
    return sorted(
        found, key=lambda a: (moment(a.get("timestamp")) or _NEVER, str(a["commit_hash"]))
    )


_NEVER = datetime.min.replace(tzinfo=UTC)


def read(files: Files, asked: Asked) -> History:
    """Read all attempts.

    Raises:
        UsageError: nobody says which way is better.
    """
    strange: Counter[str] = Counter()
    entries: list[Entry] = []
    left = 0
    for said in _attempts(files):
        more = said.get("metadata")
        kind = cast("dict[str, Any]", more).get("budget_class") if isinstance(more, dict) else None
        if said.get("status") == "pending" or kind == "tune":
            left += 1
            continue
        begun = bool(entries) and entries[0].status == "baseline"
        entries.append(_entry(said, len(entries) + (not begun), kind, strange, first=not entries))
    notes = unknown(strange, "discard")
    if left:
        notes += (f"{counted(left, 'attempt')} open or of tuning left out",)
    return History(
        name=asked.name,
        metric=asked.spec("score", _goal(files)),
        entries=tuple(entries),
        notes=notes,
    )


def _goal(files: Files) -> Goal | None:
    for name, text in files.items():
        if PurePosixPath(name).name == "task.yaml" and (match := _DIRECTION.search(text)):
            return _GOALS.get(match[1].lower())
    return None


def _entry(
    said: Mapping[str, Any], number: int, kind: Any, strange: Counter[str], *, first: bool
) -> Entry:
    word = said.get("status")
    status = _STATUSES.get(word) if isinstance(word, str) else None
    if word == "baseline":
        # Only the first is where the search began; later ones are no better than that.
        status = "baseline" if first else "discard"
    if status is None:
        strange[str(word)] += 1
        status = "discard"
    if kind == "grader_error":
        status = "crash"
    value = None
    if status not in ("crash", "timeout"):
        value = finite(said.get("score"))
    feedback = said.get("feedback")
    return Entry(
        number=0 if status == "baseline" else number,
        status=status,
        value=value,
        commit=sha(said.get("commit_hash")),
        agent=str(said.get("agent_id") or ""),
        summary=str(said.get("title") or ""),
        reason=first_line(str(feedback)) if feedback else "",
        at=moment(said.get("timestamp")),
    )
