"""autoimprove's records: `.autoimprove/baseline.json`, and a file for each experiment.

Owns their words for outcomes, and that an experiment which a later kept one supersedes is not told
to anybody any more. Which way is better stands in the `improve.md` above them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from swarm.errors import ConfigError, UsageError
from swarm.formats import improve_md
from swarm.formats.family.history import (
    Asked,
    Entry,
    Files,
    History,
    Status,
    compared,
    finite,
    moment,
    numbered,
    sha,
    unknown,
)
from swarm.formats.text import one_line
from swarm.records import Goal

FOLDER = ".autoimprove"
_STATUSES: Mapping[object, Status] = {
    "kept": "keep",
    "kept_equal": "keep",
    "discarded": "discard",
    "test_failed": "guard_failed",
    "guard_failed": "constraint_failed",
    "error": "crash",
}
_WORDS: Mapping[Status, str] = {
    "keep": "kept",
    "guard_failed": "test_failed",  # our guard is a command, as their test is
    "constraint_failed": "guard_failed",  # their guard is a limit on a number
    "crash": "error",
    "timeout": "error",
}
"""Everything else is discarded."""


def is_autoimprove(files: Files) -> bool:
    """Tell whether there is a baseline or an experiment of autoimprove's."""
    return any(
        isinstance(found, dict) and "score" in found and {"id", "commit"} & {*found}
        for found in (_lenient(text) for name, text in files.items() if name.endswith(".json"))
    )


def _lenient(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read(files: Files, asked: Asked) -> History:
    """Read the records, in the order of their ids.

    Raises:
        UsageError: a record is broken, or nobody says which way is better.
    """
    loaded = {n: _load(n, text) for n, text in files.items() if n.endswith(".json")}
    strange: Counter[str] = Counter()
    baseline = [
        Entry(
            number=0,
            status="baseline",
            value=finite(said.get("score")),
            commit=sha(said.get("commit")),
            at=moment(said.get("timestamp")),
        )
        for name, said in loaded.items()
        if PurePosixPath(name).name == "baseline.json"
    ]
    records = sorted(
        ((_id(name, said), said) for name, said in loaded.items() if "status" in said),
        key=lambda pair: pair[0],
    )
    replaced = {
        number
        for _, said in records
        if _STATUSES.get(said["status"]) == "keep"
        for number in cast("list[Any]", said.get("supersedes") or [])
    }
    entries = [_entry(n, said, n in replaced, strange) for n, said in records]
    return History(
        name=asked.name,
        metric=asked.spec("score", _goal(files)),
        entries=numbered([*baseline, *entries]),
        notes=unknown(strange, "discard"),
    )


def _load(name: str, text: str) -> dict[str, Any]:
    found = _lenient(text)
    if not isinstance(found, dict):
        what = f"`{name}` is no JSON object"
        raise UsageError(what, hint="mend or remove the file; each record is one object")
    return cast("dict[str, Any]", found)


def _id(name: str, said: Mapping[str, Any]) -> int:
    number = said.get("id")
    if isinstance(number, int):
        return number
    leading = re.match(r"\d+", str(number) if number else PurePosixPath(name).name)
    if leading is None:
        raise UsageError(f"`{name}` has no `id`", hint="give the record its number")
    return int(leading[0])


def _entry(number: int, said: Mapping[str, Any], replaced: bool, strange: Counter[str]) -> Entry:
    status = _STATUSES.get(said["status"]) if isinstance(said["status"], str) else None
    if status is None:
        strange[str(said["status"])] += 1
        status = "discard"
    named = said.get("files_changed")
    return Entry(
        number=number,
        status=status,
        value=None if status == "crash" else finite(said.get("score")),
        commit=sha(said.get("commit")),
        summary=str(said.get("title") or ""),
        rationale=str(said.get("reasoning") or ""),
        seconds=finite(said.get("duration_s")),
        at=moment(said.get("timestamp")),
        files=tuple(map(str, cast("list[Any]", named))) if isinstance(named, list) else (),
        superseded=replaced,
    )


def _goal(files: Files) -> Goal | None:
    for name, text in files.items():
        if PurePosixPath(name).name == "improve.md":
            try:
                return improve_md.parse(text, Path(name)).goal
            except ConfigError:
                return None  # the records are what is read; --goal says it as well
    return None


# --- writing -----------------------------------------------------------------------------------


def write(history: History) -> Files:
    """Give the records: a baseline, and a file for each experiment."""
    files: dict[str, str] = {}
    for entry, incumbent, _ in compared(history):
        standing = None if incumbent is None else incumbent.value
        if entry.status == "baseline":
            name = "baseline.json"
            said: dict[str, Any] = {"score": entry.value, "commit": entry.commit}
        else:
            slug = re.sub(r"[^a-z0-9]+", "-", entry.said.lower()).strip("-")[:40].rstrip("-")
            name = f"experiments/{entry.number:03d}-{slug or 'experiment'}.json"
            said = _record(entry, standing)
        said["timestamp"] = None if entry.at is None else entry.at.isoformat()
        files[f"{FOLDER}/{name}"] = json.dumps(said, indent=2) + "\n"
    return files


def _record(entry: Entry, standing: float | None) -> dict[str, Any]:
    delta = None
    if entry.value is not None and standing:
        delta = round(100 * (entry.value - standing) / abs(standing), 4)
    return {
        "id": entry.number,
        "title": one_line(entry.said, 120),
        "status": _WORDS.get(entry.status, "discarded"),
        "commit": entry.commit if entry.outcome == "keep" else None,
        "score": None if entry.outcome == "crash" else entry.value,
        "baseline_score": standing,
        "delta_pct": delta,
        "duration_s": entry.seconds,
        "reasoning": entry.rationale,
        "files_changed": list(entry.files),
        "supersedes": [],
    }
