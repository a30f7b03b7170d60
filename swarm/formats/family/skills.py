"""The skill loops' folder: `results.tsv` with scores and their maximum, `results.json`, a log.

The metric is the share of checks that pass, 0 to 1. These loops know neither a crash nor a score
that is missing: both are written as a discard of score 0 that says so in its description, in the
words of agenthub, and are read back as what they were.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple, cast

from swarm.errors import UsageError
from swarm.formats.family.history import (
    Asked,
    Entry,
    Files,
    History,
    Status,
    compared,
    numbered,
    tally,
    unknown,
)
from swarm.formats.family.lines import crash_of, marked, without_marks
from swarm.formats.family.tables import columns, table_of, tsv
from swarm.formats.text import number, one_line

METRIC = "pass_rate"
HEADER = ("experiment", "score", "max_score", "pass_rate", "status", "description")
_STATUSES: Mapping[str, Status] = {
    "baseline": "baseline",
    "keep": "keep",
    "discard": "discard",
    "crash": "crash",
}


def is_skill(files: Files) -> bool:
    """Tell whether it is a folder of a skill loop."""
    if "max_score" in columns(files):
        return True
    names = {PurePosixPath(name).name for name in files}
    return "results.json" in names and bool(_listed(files))


class _Row(NamedTuple):
    number: str
    score: str
    most: str
    rate: str
    status: str
    said: str


def read(files: Files, asked: Asked) -> History:
    """Read the table, or `results.json` where there is none, and the reasons in the log.

    Raises:
        UsageError: a row has no score, or the person says that less is better.
    """
    strange: Counter[str] = Counter()
    reasons = _reasons(files)
    rows = _table(files) if "max_score" in columns(files) else _listed(files)
    entries = [_entry(row, place, reasons, strange) for place, row in enumerate(rows)]
    return History(
        name=asked.name,
        metric=asked.spec(METRIC, "maximize"),
        entries=numbered(entries),
        notes=unknown(strange, "discard"),
    )


def _table(files: Files) -> list[_Row]:
    lines = [x.rstrip("\r") for x in table_of(files).removeprefix("\ufeff").split("\n")]
    lines = [line for line in lines if line.strip()]
    names = [name.strip() for name in lines[0].split("\t")]
    found: list[_Row] = []
    for line in lines[1:]:
        cells = line.split("\t", len(names) - 1)
        row = dict(zip(names, [c.strip() for c in cells], strict=False))
        found.append(_Row(*(row.get(name, "") for name in HEADER)))
    return found


def _listed(files: Files) -> list[_Row]:
    for name, text in files.items():
        if PurePosixPath(name).name != "results.json":
            continue
        try:
            found = json.loads(text)["experiments"]
            rows = [cast("dict[str, Any]", row) for row in found]
            return [_Row(*(str(r.get(k, "")) for k in ("id", *HEADER[1:]))) for r in rows]
        except (ValueError, KeyError, TypeError, AttributeError):
            return []
    return []


def _entry(row: _Row, place: int, reasons: Mapping[int, str], strange: Counter[str]) -> Entry:
    status = _STATUSES.get(row.status.lower())
    if status is None:
        strange[row.status] += 1
        status = "discard"
    count = int(row.number) if row.number.isdecimal() else place
    crash = crash_of(row.said)
    value = None
    if crash is not None:
        status = "baseline" if status == "baseline" else "crash"
    elif marked(row.said, "NOT MEASURED"):
        value = None
    elif status != "crash":
        value = _share(row)
    return Entry(
        number=0 if status == "baseline" else count,
        status=status,
        value=value,
        summary=without_marks(row.said),
        rationale=reasons.get(count, ""),
        reason=crash or "",
    )


def _share(row: _Row) -> float:
    """Give passes over checks; the rate, which is rounded, only where these are missing."""
    try:
        most = float(row.most)
        return float(row.score) / most
    except (ValueError, ZeroDivisionError):
        pass
    try:
        rate = float(row.rate.rstrip("%"))
    except ValueError:
        what = f"experiment {row.number or '?'} has neither score and max_score nor a pass rate"
        raise UsageError(what, hint="each row of a skill loop has them") from None
    return rate / 100


def _reasons(files: Files) -> dict[int, str]:
    """Give each experiment's reasoning, as the log tells it."""
    for name, text in files.items():
        if PurePosixPath(name).name == "changelog.md":
            parts = re.split(r"^## Experiment (\d+)\b.*$", text, flags=re.M)
            told = zip(parts[1::2], parts[2::2], strict=True)
            found = {int(n): re.search(r"\*\*Reasoning:?\*\*:?\s*(.+)", body) for n, body in told}
            return {n: match[1].strip() for n, match in found.items() if match}
    return {}


# --- writing -----------------------------------------------------------------------------------


def write(history: History) -> Files:
    """Give the folder of a skill loop.

    Raises:
        UsageError: the metric is no share of which more is better.
    """
    values = [e.value for e in history.entries if e.value is not None]
    if history.metric.goal != "maximize" or any(not 0 <= value <= 1 for value in values):
        raise UsageError(
            f"{one_line(history.metric.name, 60)} is no share of checks that pass, and a skill "
            "loop knows nothing else",
            hint="export another form, such as karpathy or pi",
        )
    folder = f"autoresearch-{history.name}"
    rows = [_row(entry, history.suite) for entry in history.entries]
    return {
        f"{folder}/results.tsv": tsv([HEADER, *rows]),
        f"{folder}/results.json": json.dumps(_results(history, rows), indent=2) + "\n",
        f"{folder}/changelog.md": _log(history, rows),
    }


def _row(entry: Entry, suite: int | None) -> _Row:
    most = (suite or 100) * max(1, entry.n)
    value = entry.value or 0.0
    score = value * most
    whole = round(score)
    status = {"keep": "keep", "baseline": "baseline"}.get(entry.status, "discard")
    said = without_marks(entry.said)
    if entry.outcome == "crash":
        said = f"{said} (CRASH: {one_line(entry.reason, 80) or entry.status})"
    elif entry.value is None:
        said = f"{said} (NOT MEASURED)"
    shown = str(whole) if abs(score - whole) < 1e-6 else repr(score)
    return _Row(str(entry.number), shown, str(most), f"{100 * value:.1f}%", status, said)


def _results(history: History, rows: list[_Row]) -> dict[str, Any]:
    found = tally(history)
    return {
        "skill_name": history.name,
        "status": "complete",
        "current_experiment": max((e.number for e in history.entries), default=0),
        "baseline_score": 100 * (found.baseline or 0.0),
        "best_score": 100 * (found.best or 0.0),
        "experiments": [
            {
                "id": int(row.number),
                "score": float(row.score),
                "max_score": int(row.most),
                "pass_rate": float(row.rate.rstrip("%")),
                "status": row.status,
                "description": row.said,
            }
            for row in rows
        ],
        "eval_breakdown": [
            {"name": name, "pass_count": passes, "total": runs}
            for name, passes, runs in history.breakdown
        ],
    }


def _log(history: History, rows: list[_Row]) -> str:
    parts = [f"# {one_line(history.name)}\n"]
    for (entry, _, gain), row in zip(compared(history), rows, strict=True):
        moved = "" if gain is None else f", {number(100 * gain, 3)} points"
        parts.append(
            f"## Experiment {row.number} — {row.status}\n\n"
            f"**Score:** {row.score}/{row.most} ({row.rate})\n"
            f"**Change:** {row.said}\n"
            f"**Reasoning:** {one_line(entry.rationale, 500) or '-'}\n"
            f"**Result:** {one_line(entry.reason, 300) or row.status}{moved}\n"
        )
    return "\n".join(parts)
