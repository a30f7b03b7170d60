"""The skill loops' folder: `results.tsv` with scores and their maximum, `results.json`, a log.

The metric is the share of checks that pass, 0 to 1. These loops know neither a crash nor a score
that is missing: both are written as a discard of score 0 that says so in its description, in the
words of agenthub, and are read back as what they were.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from swarm.errors import UsageError
from swarm.formats import results_tsv
from swarm.formats.family.cells import Words, finite, listed, load, named, table, whole
from swarm.formats.family.history import (
    NOT_RUN,
    Asked,
    Entry,
    Files,
    History,
    compared,
    numbered,
    tally,
)
from swarm.formats.family.lines import marked, marks
from swarm.formats.family.tables import columns, table_of, tsv
from swarm.formats.text import number, one_line

METRIC = "pass_rate"
HEADER = ("experiment", "score", "max_score", "pass_rate", "status", "description")
_ENDS: Mapping[str, str] = {
    "finished": "complete",
    "interrupted": "idle",
    "failed": "idle",
    "paused": "idle",
}
"""Whatever else a run is in, it runs."""


def is_skill(files: Files) -> bool:
    """Tell whether it is a folder of a skill loop."""
    return "max_score" in columns(files) or bool(_listed(files))


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
    known, reasons = Words(), _reasons(files)
    rows = _table(files) if "max_score" in columns(files) else _listed(files)
    entries = [_entry(row, place, reasons, known) for place, row in enumerate(rows)]
    return History(
        name=asked.name,
        metric=asked.spec(METRIC, "maximize"),
        entries=numbered(entries),
        notes=known.notes(),
    )


def _table(files: Files) -> list[_Row]:
    header, *lines = results_tsv.lines(table_of(files))
    names = [name.strip() for name in header.split("\t")]
    found: list[_Row] = []
    for line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        row = dict(zip(names, cells, strict=False))
        found.append(_Row(*(row.get(name, "") for name in HEADER)))
    return found


def _listed(files: Files) -> list[_Row]:
    said = table(load(named(files, "results.json") or ""))
    rows = [table(row) for row in listed(said.get("experiments"))]
    keys = ("id", *HEADER[1:])
    return [_Row(*(str(row.get(key, "")) for key in keys)) for row in rows if "status" in row]


def _entry(row: _Row, place: int, reasons: Mapping[int, str], known: Words) -> Entry:
    found = known.status(row.status)
    status = found or "discard"
    count = whole(row.number)
    count = place if count is None else count
    # Where guards fail or time is up, some write a row without a score.
    scored = bool(row.score or row.rate) or status in ("keep", "baseline")
    value = _share(row) if scored and found is not None and status not in NOT_RUN else None
    told, reason = marks(row.said), ""
    # Only where nothing passed: a rule on (CRASH) reports is no crash.
    if status in ("discard", "baseline") and value == 0 and (told.crash or told.unmeasured):
        value, reason = None, told.crash or ""
        if told.crash and status == "discard":
            status = "crash"
    else:
        told = told._replace(said=row.said)
    return Entry(
        number=0 if status == "baseline" else count,
        status=status,
        value=value,
        summary=told.said,
        rationale=reasons.get(count, ""),
        reason=reason,
    )


def _share(row: _Row) -> float:
    """Give passes over checks; the rate, which is rounded, only where these are missing."""
    score, most, rate = finite(row.score), finite(row.most), finite(row.rate.rstrip("%"))
    share = None
    if score is not None and most:
        share = finite(score / most)
    elif rate is not None:
        share = rate / 100
    name = one_line(row.number, 20) or "?"
    if share is None:
        what = f"experiment {name} has neither score and max_score nor a pass rate"
        raise UsageError(what, hint="each row of a skill loop has them")
    if not 0 <= share <= 1:
        what = f"experiment {name} has {one_line(row.score, 20)} of {one_line(row.most, 20)} checks"
        raise UsageError(what, hint="a score is from 0 to max_score")
    return share


def _reasons(files: Files) -> dict[int, str]:
    """Give each experiment's reasoning, as the log tells it."""
    parts = re.split(
        r"^## Experiment (\d{1,9})\b.*$", named(files, "changelog.md") or "", flags=re.M
    )
    told = zip(parts[1::2], parts[2::2], strict=True)
    found = {int(n): re.search(r"\*\*Reasoning:?\*\*:?[ \t]*(.*)", body) for n, body in told}
    said = {n: match[1].strip() for n, match in found.items() if match}
    return {n: text for n, text in said.items() if text != "-"}


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
    mark, why = "", ""
    if entry.unmeasured:
        mark, why = "CRASH", entry.reason or entry.status
    elif entry.value is None:
        mark = "NOT MEASURED"
    said = marked(entry.said, mark, why)
    shown = str(whole) if abs(score - whole) < 1e-6 else repr(score)
    return _Row(str(entry.number), shown, str(most), f"{100 * value:.1f}%", status, said)


def _results(history: History, rows: list[_Row]) -> dict[str, Any]:
    found = tally(history)
    return {
        "skill_name": history.name,
        "status": _ENDS.get(history.phase, "running"),
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
