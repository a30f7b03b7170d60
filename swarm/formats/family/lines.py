"""agenthub's lines, one for a shared experiment, and the marks in their descriptions.

`commit:<sha> platform:<gpu> val_bpb:<number> vram_gb:<number> | <description>`, where `---` is no
number, and the outcome stands in the description: `(DISCARD)`, or `(CRASH: why)`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from swarm.errors import UsageError
from swarm.formats.family.cells import finite, sha
from swarm.formats.family.history import Asked, Entry, Files, History, Status, numbered
from swarm.formats.family.tables import KNOWN_GOALS
from swarm.formats.results_tsv import cell
from swarm.formats.text import counted, one_line

FILE = "agenthub.txt"
NOTHING = "---"
LONGEST = 4096
"""Characters of a line that are looked at."""
_LINE = re.compile(
    r"commit:(?P<commit>\S+)\s+platform:(?P<platform>.{0,200}?)\s+(?P<metric>[^\s:]+):(?P<value>\S+)"
    r"\s+vram_gb:(?P<memory>\S+)\s*\|\s?(?P<said>.*)"
)
_MARK = re.compile(
    r"\s*\((?P<mark>DISCARD|CRASH|NOT MEASURED)\b(?::?\s*(?P<why>[^()]*(?:\([^()]*\)[^()]*)*))?\)"
)


class Marks(NamedTuple):
    """A description, and what the marks in it say."""

    said: str
    """The description without them."""
    crash: str | None = None
    """Why it crashed."""
    discard: bool = False
    unmeasured: bool = False


def marks(text: str) -> Marks:
    """Take the marks out of a description, wherever they stand."""
    text = text[:LONGEST]
    found = {match["mark"]: (match["why"] or "").strip() for match in _MARK.finditer(text)}
    crash = found.get("CRASH")
    return Marks(
        said=_MARK.sub("", text).strip(),
        crash=None if crash is None else crash or "crash",
        discard="DISCARD" in found,
        unmeasured="NOT MEASURED" in found,
    )


def marked(said: str, mark: str, why: str = "") -> str:
    """Add a mark to a description; what looks like one in it loses its meaning."""
    said = re.sub(r"\((?=(?:DISCARD|CRASH|NOT MEASURED)\b)", "[", said)
    if not mark:
        return said
    why = one_line(re.sub(r"[()]", " ", why), 80)
    return f"{said} ({mark}: {why})" if why else f"{said} ({mark})"


def is_agenthub(files: Files) -> bool:
    """Tell whether a line of it is one of agenthub's."""
    every = (line for text in files.values() for line in text.split("\n"))
    return any(_LINE.match(line.strip()[:LONGEST]) for line in every)


def read(files: Files, asked: Asked) -> History:
    """Read the lines; others between them are passed over.

    Raises:
        UsageError: lines of two metrics, or nobody says which way is better.
    """
    every = [line.strip()[:LONGEST] for text in files.values() for line in text.split("\n")]
    every = [line for line in every if line]
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
    told = marks(match["said"])
    status: Status = "keep" if told.crash is None else "crash"
    if told.discard:
        status = "discard"
    if place == 0 and status != "discard":
        status = "baseline"
    return Entry(
        number=place,
        status=status,
        value=finite(match["value"]) if told.crash is None else None,
        commit=sha(match["commit"]),
        summary=told.said,
        reason=told.crash or "",
        memory_gb=finite(match["memory"]),
    )


def write(history: History) -> Files:
    """Give one line for the baseline and each experiment."""
    platform = "_".join(one_line(history.platform).split()) or NOTHING
    metric = re.sub(r"[\s:]+", "_", one_line(history.metric.name))
    lines: list[str] = []
    for entry in history.entries:
        mark, why = "", ""
        if entry.unmeasured:
            mark, why = "CRASH", entry.reason or entry.status
        elif entry.outcome == "discard":
            mark = "DISCARD"
        said = marked(entry.said, mark, why)
        value = NOTHING if entry.unmeasured or entry.value is None else cell(entry.value)
        memory = NOTHING if entry.memory_gb is None else f"{entry.memory_gb:.1f}"
        lines.append(
            f"commit:{entry.short} platform:{platform} {metric}:{value} vram_gb:{memory} | {said}\n"
        )
    return {FILE: "".join(lines)}
