"""autoimprove's records: `.autoimprove/baseline.json`, and a file for each experiment.

Owns their words for outcomes, and that an experiment which a later kept one supersedes is not told
to anybody any more. Which way is better stands in the `improve.md` above them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from swarm.errors import ConfigError, UsageError
from swarm.formats import improve_md
from swarm.formats.family.cells import (
    Words,
    finite,
    listed,
    load,
    moment,
    named,
    sha,
    table,
    whole,
    words,
)
from swarm.formats.family.history import (
    NOT_RUN,
    Asked,
    Entry,
    Files,
    History,
    Status,
    compared,
    numbered,
)
from swarm.formats.text import one_line
from swarm.records import Goal

FOLDER = ".autoimprove"
_STATUSES: Mapping[str, Status] = {
    "kept_equal": "keep",
    "test_failed": "guard_failed",
    "guard_failed": "constraint_failed",
}
_WORDS: Mapping[Status, str] = {
    "keep": "kept",
    "guard_failed": "test_failed",  # our guard is a command, as their test is
    "constraint_failed": "guard_failed",  # their guard is a limit on a number
    "crash": "error",
    "timeout": "error",
}
"""Everything else is discarded."""


BASELINE = "baseline.json"


def is_autoimprove(files: Files) -> bool:
    """Tell whether there is a baseline or an experiment of autoimprove's."""
    if "score" in table(load(named(files, BASELINE) or "")):
        return True
    return any(
        {"id", "status", "score"} <= set(table(load(text)))
        for name, text in files.items()
        if name.endswith(".json")
    )


def read(files: Files, asked: Asked) -> History:
    """Read the records, in the order of their ids.

    Raises:
        UsageError: a record is broken, or nobody says which way is better.
    """
    loaded = {n: _load(n, text) for n, text in files.items() if n.endswith(".json")}
    spec, known = asked.spec("score", _goal(files)), Words(_STATUSES)
    baseline = [
        Entry(
            number=0,
            status="baseline",
            value=finite(said.get("score")),
            commit=sha(said.get("commit")),
            at=moment(said.get("timestamp")),
        )
        for name, said in loaded.items()
        if PurePosixPath(name).name == BASELINE
    ]
    records = sorted(
        ((_id(name, said), said) for name, said in loaded.items() if "status" in said),
        key=lambda pair: pair[0],
    )
    entries = [_entry(number, said, known, spec.sign) for number, said in records]
    replaced = {
        earlier
        for entry, (number, said) in zip(entries, records, strict=True)
        for earlier in map(whole, listed(said.get("supersedes")))
        if entry.status == "keep" and earlier is not None and earlier < number
    }
    told = (e.model_copy(update={"superseded": e.number in replaced}) for e in entries)
    return History(
        name=asked.name,
        metric=spec,
        entries=numbered([*baseline, *told]),
        notes=known.notes(),
    )


def _load(name: str, text: str) -> dict[str, Any]:
    found = table(load(text))
    if not found:
        what = f"`{name}` is no JSON object"
        raise UsageError(what, hint="mend or remove the file; each record is one object")
    return found


def _id(name: str, said: Mapping[str, Any]) -> int:
    leading = re.match(r"\d+", PurePosixPath(name).name)
    number = whole(said.get("id"))
    if number is None and leading is not None:
        number = whole(leading[0])
    if number is None:
        raise UsageError(f"`{name}` has no `id`", hint="give the record its number")
    return number


def _entry(number: int, said: Mapping[str, Any], known: Words, sign: int) -> Entry:
    found = known.status(said["status"])
    status = found or "discard"
    score = finite(said.get("score")) if found and status not in NOT_RUN else None
    standing = finite(said.get("baseline_score"))
    gain = None if score is None or standing is None else finite(sign * (score - standing))
    return Entry(
        number=number,
        status=status,
        value=score,
        commit=sha(said.get("commit")),
        summary=words(said.get("title")),
        rationale=words(said.get("reasoning")),
        gain=gain,
        seconds=finite(said.get("duration_s")),
        at=moment(said.get("timestamp")),
        files=tuple(map(words, listed(said.get("files_changed")))),
    )


def _goal(files: Files) -> Goal | None:
    text = named(files, "improve.md")
    try:
        return None if text is None else improve_md.parse(text, Path("improve.md")).goal
    except ConfigError:
        return None  # the records are what is read; --goal says it as well


# --- writing -----------------------------------------------------------------------------------


def write(history: History) -> Files:
    """Give the records: a baseline, and a file for each experiment."""
    files: dict[str, str] = {}
    for entry, incumbent, gain in compared(history):
        standing = None if incumbent is None else incumbent.value
        if gain is not None and entry.value is not None:
            standing = entry.value - history.metric.sign * gain
        if entry.status == "baseline":
            name = BASELINE
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
