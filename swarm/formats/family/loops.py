"""The logs of uditgoenka and of leo: a table whose first comment says which way is better.

Both number by `iteration`, with 0 for the baseline. Owns their words for outcomes. leo's rows of
parallel helpers (`5a`, `5b`) are details of the row without a letter, and are passed over; so are
rows that tell of a decision and not of an experiment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final

from swarm.errors import PreconditionError
from swarm.formats import results_tsv
from swarm.formats.family.cells import (
    Words,
    finite,
    goal_of,
    load,
    moment,
    named,
    sha,
    table,
    whole,
    words,
)
from swarm.formats.family.history import Asked, Entry, Files, History, Status, compared, numbered
from swarm.formats.family.tables import columns, table_of, tsv
from swarm.formats.results_tsv import Row, cell
from swarm.formats.text import counted

NONE: Final = "-"
"""A cell that does not apply."""
_COMMENT = re.compile(r"^#[ \t]*(\w+):[ \t]*(\S.*?)[ \t\r]*$", re.M)
_STATUSES: Mapping[str, Status] = {
    "metric-error": "crash",
    "no-op": "invalid",
    "hook-blocked": "invalid",
    "blocked": "invalid",
}
_DECISIONS = frozenset({"refine", "pivot", "search", "drift"})
"""leo's notes on where to go next."""
_WORDS: Mapping[Status, str] = {
    "baseline": "baseline",
    "keep": "keep",
    "crash": "crash",
    "timeout": "crash",
    "invalid": "no-op",
    "duplicate": "no-op",
}
"""Everything else is a discard."""
_ENDS: Mapping[str, str] = {
    "finished": "COMPLETE",
    "interrupted": "USER_INTERRUPT",
    "failed": "ERROR",
}
"""A run that goes on is as far as it has come: bounded."""


def is_uditgoenka(files: Files) -> bool:
    """Tell whether it is uditgoenka's log."""
    return {"iteration", "timestamp", "status"} <= set(columns(files))


def is_leo(files: Files) -> bool:
    """Tell whether it is leo's log."""
    names = set(columns(files))
    return {"iteration", "status"} <= names and "timestamp" not in names


def read(files: Files, asked: Asked) -> History:
    """Read a log, and what a `handoff.json` beside it says of the metric.

    Raises:
        UsageError: it is no log, or nobody says which way is better.
    """
    text = table_of(files)
    above = dict(_COMMENT.findall(text))
    handed = table(table(load(named(files, "handoff.json") or "")).get("config"))
    way, _, _ = above.get("metric_direction", "").partition(" ")
    goal = goal_of(way) or goal_of(handed.get("direction"))
    metric, scope, verify = (
        words(handed.get(key)) or above.get(key, "") for key in ("metric", "scope", "verify")
    )
    spec, known = asked.spec(metric or "metric", goal), Words(_STATUSES)
    rows = results_tsv.parse(text)
    found = [row for row in rows if _is_experiment(row)]
    notes: tuple[str, ...] = ()
    if passed_over := len(rows) - len(found):
        notes = (f"{counted(passed_over, 'row')} of helpers or decisions passed over",)
    entries = [_entry(row, known, spec.sign) for row in found]
    return History(
        name=asked.name,
        metric=spec,
        entries=numbered(entries),
        scope=tuple(part.strip() for part in scope.split(",") if part.strip()),
        run=verify,
        notes=known.notes() + notes,
    )


def _is_experiment(row: Row) -> bool:
    numbered_row = whole(row.extra.get("iteration")) is not None
    return numbered_row and row.status not in _DECISIONS


def _entry(row: Row, known: Words, sign: int) -> Entry:
    found = known.status(row.status)
    status = found or "discard"
    if status == "discard" and row.extra.get("guard", "").lower() == "fail":
        status = "guard_failed"
    measured = found is not None and status not in ("crash", "timeout", "invalid")
    delta = finite(row.extra.get("delta"))
    stated = measured and delta is not None and status != "baseline"
    return Entry(
        number=whole(row.extra.get("iteration")) or 0,
        status=status,
        value=row.value if measured else None,
        commit=sha(row.commit),
        summary=row.description,
        gain=sign * delta if stated and delta is not None else None,
        at=moment(row.extra.get("timestamp")),
    )


# --- writing -----------------------------------------------------------------------------------


def uditgoenka(history: History) -> Files:
    """Give a finished loop's folder: the log, and the hand-over to what comes after it."""
    began = next((e.at for e in history.entries if e.at is not None), None)
    stamp = "000000-0000" if began is None else began.astimezone(UTC).strftime("%y%m%d-%H%M")
    folder = f"autoresearch/loop-{stamp}"
    table = f"{folder}/{history.name}-results.tsv"
    better = "higher_is_better" if history.metric.goal == "maximize" else "lower_is_better"
    names = (
        *("iteration", "timestamp", "commit", "metric", "delta"),
        *("guard", "guard-metric", "status", "description"),
    )
    lines = [names]
    for entry, _, gain in compared(history):
        at = NONE if entry.at is None else entry.at.astimezone(UTC).isoformat(timespec="seconds")
        value = NONE if entry.value is None else cell(entry.value)
        delta = "0.0" if entry.status == "baseline" else NONE
        if gain is not None:
            delta = _moved(history, gain)
        shared = (_commit(entry), value, delta, _guard(entry), NONE, _word(entry), entry.said)
        lines.append((str(entry.number), at, *shared))
    handed = {
        "version": "1.0",
        "source": "swarm",
        "timestamp": max((e.at for e in history.entries if e.at), default=None),
        "status": _ENDS.get(history.phase, "BOUNDED"),
        "results_tsv": PurePosixPath(table).name,
        "findings": [e.said for e in history.experiments if e.status == "keep"],
        "config": {
            "goal": f"{history.metric.goal} {history.metric.name}",
            "scope": ", ".join(history.scope),
            "metric": history.metric.name,
            "direction": better.removesuffix("_is_better"),
            "verify": history.run,
        },
    }
    return {
        table: f"# metric_direction: {better}\n" + tsv(lines),
        f"{folder}/handoff.json": json.dumps(handed, indent=2, default=datetime.isoformat) + "\n",
    }


def leo(history: History) -> Files:
    """Give leo's log, as its own scripts read it: every row counts one up, and has a number.

    Where nothing was measured they write what is retained, and call it a crash or a no-op.

    Raises:
        PreconditionError: the baseline has no value: no log begins without one.
    """
    lines = [("iteration", "commit", "metric", "delta", "guard", "status", "description")]
    for count, (entry, incumbent, gain) in enumerate(compared(history)):
        standing = entry if entry.value is not None else incumbent
        if standing is None or standing.value is None:
            raise PreconditionError(
                "the baseline has no value, and leo's log begins with one",
                hint="export another form",
            )
        delta = "0" if entry is not standing or gain is None else _moved(history, gain)
        word = _word(entry)
        if entry.value is None and word == "discard":
            word = "no-op"
        shared = (cell(standing.value), delta, _guard(entry), word, entry.said)
        lines.append((str(count), _commit(entry), *shared))
    better = "higher" if history.metric.goal == "maximize" else "lower"
    return {
        "autoresearch-results/results.tsv": f"# metric_direction: {better}\n"
        f"# metric: {history.metric.name}\n" + tsv(lines)
    }


def _moved(history: History, gain: float) -> str:
    """Give a gain as the difference of values that it is."""
    moved = history.metric.sign * gain
    return f"+{cell(moved)}" if moved >= 0 else cell(moved)


def _guard(entry: Entry) -> str:
    if entry.status == "guard_failed":
        return "fail"
    return "pass" if entry.value is not None else NONE


def _word(entry: Entry) -> str:
    return _WORDS.get(entry.status, "discard")


def _commit(entry: Entry) -> str:
    return NONE if entry.commit is None else entry.commit[:7]
