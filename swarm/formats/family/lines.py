"""agenthub's lines, one for a shared experiment, and the marks in their descriptions.

`commit:<sha> platform:<gpu> val_bpb:<number> vram_gb:<number> | <description>`, where `---` is no
number, and the outcome stands in the description: `(DISCARD)`, or `(CRASH: why)`.
"""

from __future__ import annotations

import re

from swarm.errors import UsageError
from swarm.formats.family.history import Asked, Entry, Files, History, Status, numbered, sha
from swarm.formats.family.tables import KNOWN_GOALS
from swarm.formats.text import counted, one_line

FILE = "agenthub.txt"
NOTHING = "---"
_LINE = re.compile(
    r"commit:(?P<commit>\S+)\s+platform:(?P<platform>.*?)\s+(?P<metric>[^\s:]+):(?P<value>\S+)"
    r"\s+vram_gb:(?P<memory>\S+)\s*\|\s?(?P<said>.*)"
)
_CRASH = re.compile(r"\(CRASH(?::\s*(?P<why>.*))?\)\s*$", re.I)
_MARK = re.compile(r"\((?=(?:DISCARD|CRASH|NOT MEASURED)\b)", re.I)


def marked(text: str, mark: str) -> bool:
    """Tell whether a description carries a mark."""
    return f"({mark})" in text.upper()


def crash_of(text: str) -> str | None:
    """Give why it crashed, if a description says that it did."""
    found = _CRASH.search(text)
    return None if found is None else (found["why"] or "crash").strip()


def without_marks(text: str) -> str:
    """Give a description without the marks at its end; inside of it they lose their meaning."""
    text = _CRASH.sub("", text)
    text = re.sub(r"\s*\((?:DISCARD|NOT MEASURED)\)\s*$", "", text, flags=re.I).rstrip()
    return _MARK.sub("[", text)


def is_agenthub(files: Files) -> bool:
    """Tell whether a line of it is one of agenthub's."""
    return any(_LINE.match(line.strip()) for text in files.values() for line in text.split("\n"))


def read(files: Files, asked: Asked) -> History:
    """Read the lines; others between them are passed over.

    Raises:
        UsageError: lines of two metrics, or nobody says which way is better.
    """
    every = [line.strip() for text in files.values() for line in text.split("\n") if line.strip()]
    found = [match for line in every if (match := _LINE.match(line))]
    metrics = list(dict.fromkeys(match["metric"] for match in found))
    if len(metrics) > 1:
        what = f"lines of {len(metrics)} metrics: {', '.join(one_line(m, 40) for m in metrics[:4])}"
        raise UsageError(what, hint="keep the lines of one metric in a file of their own")
    other = len(every) - len(found)
    return History(
        name=asked.name,
        metric=asked.spec(metrics[0], KNOWN_GOALS.get(metrics[0])),
        entries=numbered([_entry(match, place) for place, match in enumerate(found)]),
        platform=found[0]["platform"],
        notes=(f"{counted(other, 'line')} passed over",) if other else (),
    )


def _entry(match: re.Match[str], place: int) -> Entry:
    said = match["said"]
    crash = crash_of(said)
    status: Status = "crash" if crash is not None else "keep"
    if marked(said, "DISCARD"):
        status = "discard"
    if place == 0 and status != "discard":
        status = "baseline"
    return Entry(
        number=place,
        status=status,
        value=None if crash is not None else _number(match["value"]),
        commit=sha(match["commit"]),
        summary=without_marks(said),
        reason=crash or "",
        memory_gb=_number(match["memory"]),
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def write(history: History) -> Files:
    """Give one line for the baseline and each experiment."""
    platform = "_".join(one_line(history.platform).split()) or NOTHING
    metric = re.sub(r"[\s:]+", "_", one_line(history.metric.name))
    lines: list[str] = []
    for entry in history.entries:
        crashed = entry.outcome == "crash" or (entry.status == "baseline" and entry.value is None)
        said = without_marks(entry.said)
        if crashed:
            said += f" (CRASH: {one_line(entry.reason, 80) or entry.status})"
        elif entry.outcome == "discard":
            said += " (DISCARD)"
        value = NOTHING if crashed or entry.value is None else f"{entry.value + 0.0:.6f}"
        memory = NOTHING if crashed or entry.memory_gb is None else f"{entry.memory_gb:.1f}"
        commit = (entry.commit or "-" * 7)[:7]
        lines.append(
            f"commit:{commit} platform:{platform} {metric}:{value} vram_gb:{memory} | {said}\n"
        )
    return {FILE: "".join(lines)}
