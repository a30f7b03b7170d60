"""What stands in the files of strangers, taken for what it can be: no surprise, and no error.

Owns the words for outcomes that all tables share. A row with a word that nobody knows has no value:
what stands there may be a sentinel.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, cast

from swarm.formats.family.history import Files, Status
from swarm.formats.text import one_line
from swarm.records import Goal

_SAID: tuple[tuple[Status, tuple[str, ...]], ...] = (
    ("baseline", ("baseline",)),
    ("keep", ("keep", "kept")),
    ("discard", ("discard", "discarded", "revert", "reverted", "reject", "rejected", "rollback")),
    ("crash", ("crash", "crashed", "error", "err", "failed", "fail", "oom", "nan")),
    ("timeout", ("timeout", "timed_out", "timed-out", "timed out")),
    ("guard_failed", ("guard_failed", "guard-failed", "guard_fail", "guard-fail")),
)
STATUSES: Mapping[str, Status] = {word: status for status, words in _SAID for word in words}
_WAYS: tuple[tuple[Goal, tuple[str, ...]], ...] = (
    ("minimize", ("lower", "lower_is_better", "minimize", "min")),
    ("maximize", ("higher", "higher_is_better", "maximize", "max")),
)
GOALS: Mapping[str, Goal] = {word: goal for goal, words in _WAYS for word in words}
_SHA = re.compile(r"[0-9a-f]{7,40}")
_MOST_DIGITS = 9


class Words:
    """Reads outcomes, and remembers the words that it did not know."""

    def __init__(self, own: Mapping[str, Status] | None = None) -> None:
        """Know the shared words, and the form's own before them."""
        self._known: dict[str, Status] = {**STATUSES, **(own or {})}
        self._strange: Counter[str] = Counter()

    def status(self, word: object) -> Status | None:
        """Give the status that a word stands for, in any case; None for an unknown one."""
        said = word.strip().lower() if isinstance(word, str) else ""
        # `keep (reworked)` is a keep.
        found = self._known.get(said) or self._known.get(said.partition("(")[0].strip())
        if found is None:
            self._strange[one_line(str(word), 40)] += 1
        return found

    def notes(self, read_as: str = "a discard without a value") -> tuple[str, ...]:
        """Say which words were not known, and what they were taken for."""
        found = sorted(self._strange.items())
        return tuple(f"{n} with the unknown status {w!r}, read as {read_as}" for w, n in found)


def load(text: str) -> Any:
    """Give what a text holds as JSON, None if it holds none."""
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None


def table(value: object) -> dict[str, Any]:
    """Take a JSON value for an object; an empty one, if it is none."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def listed(value: object) -> list[Any]:
    """Take a JSON value for a list; an empty one, if it is none."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def words(value: object) -> str:
    """Take a JSON value for a text; nothing and empty ones are none."""
    return str(value).encode("utf-8", "replace").decode() if value else ""


def finite(value: object) -> float | None:
    """Take a number or its text for a finite number; None if it is none."""
    if isinstance(value, str):
        text = value.strip()
        try:
            value = None if "_" in text else float(text)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def whole(value: object) -> int | None:
    """Take a number or its text for a count from 0 up; None if it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 10**_MOST_DIGITS else None
    text = value.strip() if isinstance(value, str) else ""
    short = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) if short else None


def goal_of(word: object) -> Goal | None:
    """Take a word for which way is better; None if it says nothing of that."""
    return GOALS.get(word.strip().lower()) if isinstance(word, str) else None


def sha(value: object) -> str | None:
    """Take what stands in a commit's place for a sha, if it can be one."""
    word = str(value).strip().lower()
    return word if _SHA.fullmatch(word) else None


def moment(value: object) -> datetime | None:
    """Read a time: ISO 8601, UTC where no zone is said, or seconds since the epoch."""
    try:
        if (seconds := finite(value)) is not None:
            return datetime.fromtimestamp(seconds, UTC)
        found = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def named(files: Files, name: str) -> str | None:
    """Give the text of the file with this name, in whatever folder."""
    return next((text for path, text in files.items() if PurePosixPath(path).name == name), None)
