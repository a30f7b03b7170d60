"""pi-autoresearch's log: `.auto/log.jsonl`, one JSON object a line.

A config line opens a segment, whose first run is its baseline. Owns what pi makes of what is
missing or strange, as far as that is data: an unknown status is a keep there, and a line that
cannot be read is passed over; a number that is not there is 0 there and nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any, NamedTuple

from swarm.formats.family.cells import Words, finite, goal_of, load, moment, sha, table, words
from swarm.formats.family.history import NOT_RUN, Asked, Entry, Files, History, Status, numbered
from swarm.formats.text import counted
from swarm.records import Goal

LOG = ".auto/log.jsonl"
_STATUSES: Mapping[str, Status] = {"checks_failed": "guard_failed"}
_WORDS: Mapping[Status, str] = {
    "baseline": "keep",
    "keep": "keep",
    "crash": "crash",
    "timeout": "crash",
    "guard_failed": "checks_failed",
}
"""Everything else is a discard."""


def is_pi(files: Files) -> bool:
    """Tell whether a line of it is one of pi's."""
    return any(
        _is_run(line) or line.get("type") == "config"
        for text in files.values()
        for line in _lines(text)
    )


def read(files: Files, asked: Asked) -> History:
    """Read a log: its last segment, and those before it that were about the same.

    Raises:
        UsageError: person and file disagree on which way is better.
    """
    known, config = Words(_STATUSES), dict[str, Any]()
    segments: list[tuple[dict[str, Any], list[Entry]]] = [(config, [])]
    for line in _lines(next(iter(files.values()))):
        if _is_run(line):
            begun = segments[-1][1]
            begun.append(_entry(line, known, first=not begun))
        elif line.get("type") == "config":
            config = {**config, **line}
            if segments[-1][1]:
                segments.append((config, []))
            else:
                segments[-1] = config, []
    done = [(said, entries) for said, entries in segments if entries] or segments
    last = _about(done[-1][0])
    same = [entries for said, entries in done if _about(said) == last]
    notes = known.notes("keep, as pi does")
    if len(same) < len(done):
        notes += (f"{counted(len(done) - len(same), 'segment')} about another metric left out",)
    # Where nobody says it, less is better: so it is in pi.
    goal = last.goal or (None if asked.goal else "minimize")
    return History(
        name=asked.name,
        metric=asked.spec(last.metric, goal, last.unit),
        entries=numbered([entry for entries in same for entry in entries]),
        notes=notes,
    )


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.split("\n"):
        if found := table(load(line)):
            yield found


def _is_run(line: Mapping[str, Any]) -> bool:
    number = line.get("run")
    # A hook's line may speak of a run, too.
    known = line.get("type") not in ("config", "hook")
    return known and isinstance(number, int) and not isinstance(number, bool)


class _About(NamedTuple):
    metric: str
    goal: Goal | None
    unit: str | None


def _about(config: Mapping[str, Any]) -> _About:
    return _About(
        words(config.get("metricName")) or "metric",
        goal_of(config.get("bestDirection")),
        words(config.get("metricUnit")) or None,
    )


def _entry(line: Mapping[str, Any], known: Words, *, first: bool) -> Entry:
    status = known.status(line.get("status", "keep")) or "keep"
    # A first run that failed its checks is nothing to compare with; often it has a 0 there.
    measured = status not in NOT_RUN and not (first and status == "guard_failed")
    info = table(line.get("asi"))
    milliseconds = finite(line.get("timestamp"))
    return Entry(
        number=0 if first else max(0, int(line["run"]) - 1),
        status="baseline" if first else status,
        value=finite(line.get("metric")) if measured else None,
        commit=sha(line.get("commit", "")),
        summary=words(line.get("description")),
        rationale=words(info.get("hypothesis")) or words(info.get("rationale")),
        reason=words(info.get("rollback_reason")),
        at=moment(milliseconds / 1000) if milliseconds else None,
    )


# --- writing -----------------------------------------------------------------------------------


def write(history: History) -> Files:
    """Give a log of one segment for each baseline."""
    spec = history.metric
    config = {
        "type": "config",
        "name": history.name,
        "metricName": spec.name,
        "metricUnit": spec.unit or "",
        "bestDirection": "higher" if spec.goal == "maximize" else "lower",
    }
    lines: list[dict[str, Any]] = []
    segment: list[Entry] = []
    at = -1
    for count, entry in enumerate(history.entries, start=1):
        if entry.status == "baseline" or at < 0:
            lines.append(config)
            segment, at = [], at + 1
        segment.append(entry)
        lines.append(_line(entry, count, at, confidence(segment, spec.sign)))
    return {LOG: "".join(json.dumps(line) + "\n" for line in lines)}


def _line(entry: Entry, count: int, segment: int, sure: float | None) -> dict[str, Any]:
    word = "crash" if entry.unmeasured else _WORDS.get(entry.status, "discard")
    line: dict[str, Any] = {"run": count, "commit": (entry.commit or "")[:7]}
    if word == "crash":
        line |= {"metric": 0}  # as pi itself writes it
    elif entry.value is not None:
        line |= {"metric": entry.value}
    # `metrics` are those beside the primary one, and pi asks for each of them in later runs.
    line |= {"metrics": {}, "status": word, "description": entry.said}
    line |= {"segment": segment, "confidence": sure}
    if entry.at is not None:
        line["timestamp"] = round(entry.at.timestamp() * 1000)
    told = {"hypothesis": entry.rationale}
    if word != "keep":
        told["rollback_reason"] = entry.reason
    told = {name: text for name, text in told.items() if text}
    return line | ({"asi": told} if told else {})


def confidence(segment: list[Entry], sign: int) -> float | None:
    """Give the gain of the best keep over the baseline, in units of the values' median deviation.

    Only values above 0 count, as in pi; None with fewer than three of them, without spread, or
    without an improvement.
    """
    values = [e.value for e in segment if e.outcome != "crash" and e.value and e.value > 0]
    if len(values) < 3 or segment[0].value is None:
        return None
    middle = median(values)
    deviation = median(abs(value - middle) for value in values)
    kept = [sign * e.value for e in segment if e.outcome == "keep" and e.value is not None]
    gain = max(kept) - sign * segment[0].value
    return gain / deviation if gain > 0 and deviation > 0 else None
