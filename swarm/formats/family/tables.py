"""The tables of karpathy and of labclaw: `results.tsv`, and every dialect with the same frame.

The first row is the baseline. Owns what the status words of these tables mean, and labclaw's
summary, which is printed at the end. The lines themselves are read by `results_tsv`.
"""

from __future__ import annotations

from collections.abc import Mapping

from swarm.formats import results_tsv
from swarm.formats.family.cells import Words, finite, sha, whole
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
from swarm.formats.results_tsv import CRASH_VALUE, DESCRIBES, NOTHING, Row, cell, unquoted
from swarm.formats.text import number, one_line, signed
from swarm.records import Goal

TABLE = "results.tsv"
LABCLAW: tuple[str, ...] = ("commit", "metric", "status", "description")
KNOWN_GOALS: Mapping[str, Goal] = {
    "val_bpb": "minimize",
    "val_loss": "minimize",
    "new_score": "maximize",
}
"""Metrics that all copies of the original mean the same by."""


def table_of(files: Files) -> str:
    """Give the text of the table."""
    return next(text for name, text in files.items() if name.endswith(".tsv"))


def columns(files: Files) -> tuple[str, ...]:
    """Give the names in the table's header; none where there is no table."""
    for name, text in files.items():
        if name.endswith(".tsv"):
            header = next(iter(results_tsv.lines(text)), "")
            return tuple(word.strip() for word in header.split("\t"))
    return ()


def is_karpathy(files: Files) -> bool:
    """Tell whether it is the original's table or a dialect of it."""
    names = columns(files)
    frame = "status" in names and any(name in names for name in DESCRIBES)
    marked = {"commit", "experiment_id", "experiment"} & set(names)
    others = {"iteration", "max_score"} & set(names)
    return frame and bool(marked) and not others and names != LABCLAW


def is_labclaw(files: Files) -> bool:
    """Tell whether it is labclaw's table of four columns."""
    return columns(files) == LABCLAW


def read(files: Files, asked: Asked) -> History:
    """Read a table by its header's names.

    Raises:
        UsageError: it is no results table, or nobody says which way is better.
    """
    rows = results_tsv.parse(table_of(files))
    metric = rows[0].metric if rows else "metric"
    words, spec = Words(), asked.spec(metric, KNOWN_GOALS.get(metric))
    entries = [_entry(row, place, words, spec.sign) for place, row in enumerate(rows)]
    notes = words.notes()
    if all(entry.value is None for entry in entries):
        notes += (f"no row has a number for {one_line(metric, 60)!r}",)
    return History(
        name=asked.name,
        metric=spec,
        entries=numbered(entries),
        notes=notes,
    )


def _entry(row: Row, place: int, words: Words, sign: int) -> Entry:
    known = words.status(row.status)
    status = known or "discard"
    measured = known is not None and status not in NOT_RUN
    # The first row is the baseline by the protocol. A table whose first row was thrown away is
    # a part of one.
    if place == 0 and status != "discard":
        status = "baseline"
    numbers = (whole(row.extra.get(name, "")) for name in ("experiment", "experiment_id"))
    count = next((number for number in numbers if number is not None), place)
    # No loss is 0: it is what stands for a crash, whatever the row calls it.
    nothing = row.metric in KNOWN_GOALS and sign < 0 and row.value == 0
    value = row.value if measured and not nothing else None
    # A table of several skills says of each row what it was compared with.
    old = finite(row.extra.get("old_score"))
    gain = None
    if value is not None and old is not None and status != "baseline":
        gain = sign * (value - old)
    return Entry(
        number=0 if status == "baseline" else count,
        status=status,
        value=value,
        commit=sha(row.commit),
        gain=gain,
        agent=row.extra.get("agent", ""),
        summary=row.description,
        rationale=row.extra.get("hypothesis", ""),
        memory_gb=row.memory_gb,
    )


# --- writing -----------------------------------------------------------------------------------


def karpathy(history: History) -> Files:
    """Give the table of the original: exactly its five columns."""
    name = one_line(history.metric.name)
    lines = [("commit", name, "memory_gb", "status", "description")]
    for entry in history.entries:
        memory = 0.0 if entry.unmeasured else entry.memory_gb or 0.0
        value = _value(entry, CRASH_VALUE)
        lines.append((entry.short, value, f"{memory:.1f}", entry.word, entry.said))
    return {TABLE: tsv(lines)}


def labclaw(history: History) -> Files:
    """Give labclaw's table, and the summary that it ends with."""
    rows = ((e.short, _value(e, "ERR"), e.word, e.said) for e in history.entries)
    return {TABLE: tsv([LABCLAW, *rows]), "summary.txt": _summary(history)}


def _value(entry: Entry, crashed: str) -> str:
    if entry.unmeasured:
        return crashed
    return NOTHING if entry.value is None else cell(entry.value)


def tsv(lines: list[tuple[str, ...]]) -> str:
    """Put cells that hold no tab and no line end into a table."""
    return "".join("\t".join(map(unquoted, line)) + "\n" for line in lines)


def _summary(history: History) -> str:
    found = tally(history)
    sign = history.metric.sign
    moved = "none"
    if found.baseline is not None and found.best is not None:
        moved = signed(sign * (found.best - found.baseline))
    told = list(compared(history))
    kept = [(e, g) for e, _, g in told if e.status == "keep"]
    kept.sort(key=lambda pair: -(pair[1] or 0.0))
    top = [
        f"{place}. {e.short} — {e.said} — {number(e.value)}"
        for place, (e, _) in enumerate(kept[:5], 1)
    ]
    failed = [e for e in history.experiments if e.outcome != "keep"][:10]
    ideas = [f"- {e.said} — {one_line(e.reason, 120) or e.status}" for e in failed]
    return "\n".join(
        [
            "=== Autoresearch Summary ===",
            f"Branch: swarm/{history.name}/best",
            f"Experiments run: {found.experiments}",
            f"Kept: {found.kept}",
            f"Discarded: {found.discarded}",
            f"Crashed: {found.crashed}",
            f"Baseline metric: {number(found.baseline)}",
            f"Best metric: {number(found.best)} (improvement: {moved})",
            "",
            "Top improvements:",
            *(top or ["none"]),
            *(["", "Failed ideas (for reference):", *ideas] if ideas else []),
            "",
        ]
    )
