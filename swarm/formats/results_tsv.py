"""`results.tsv`, the table that the autoresearch family shares: written from a run, read by name.

The first five columns are the family's own; swarm's follow. Owns the file's text and how a row is
added to it. What a verdict means to others is decided by the map here: every other tool knows
only keep, discard and crash.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swarm.entities import Experiment, Target
from swarm.errors import UsageError
from swarm.formats.text import one_line
from swarm.judge import Record, Sample
from swarm.records import Verdict
from swarm.state import RunState

FRAME = ("commit", "memory_gb", "status", "description")
"""The family's columns beside the metric, which stands after `commit`."""
OWN = ("experiment", "agent", "n", "se", "seconds", "usd")
"""What swarm adds at the end of a row."""
KNOWN = frozenset(
    {
        *(*FRAME, *OWN, "experiment_id", "session", "hypothesis", "iteration", "timestamp"),
        *("delta", "note", "notes", "skill", "old_score", "dimension", "eval_mode"),
    }
)
"""Columns of any dialect that cannot be the metric."""
DESCRIBES = ("description", "note", "notes")
"""Columns that say what was tried; the first that says something does."""
FAMILIAR = ("metric", "val_bpb", "val_loss", "new_score")
"""Columns that are the metric wherever they stand."""
CRASHED: frozenset[Verdict | None] = frozenset({"crash", "timeout"})
DESCRIPTION = 300
"""Characters of a description: rows are read by people and in terminals."""
CRASH_VALUE = "0.000000"
NOTHING = "nan"
"""A number that does not exist: the crash value is for crashes, and an empty cell is no float."""


# --- writing -----------------------------------------------------------------------------------


def status(verdict: Verdict | None) -> str:
    """Give a verdict in the family's words."""
    if verdict in CRASHED:
        return "crash"
    return "keep" if verdict == "keep" else "discard"


def header(state: RunState, target: str) -> str:
    """Give the header line of a target's table."""
    metric = one_line(state.targets[target].info.metric.name)
    # A reader by name must find the metric: a column of ours that is called like it gives way.
    own = (f"swarm_{name}" if name == metric else name for name in OWN)
    return "\t".join(("commit", metric, *FRAME[1:], *own)) + "\n"


def row(state: RunState, number: int, target: str | None = None) -> str:
    """Give the line of a decided experiment; 0 is the baseline of `target` (the first)."""
    if number:
        return _experiment_row(state, state.experiments[number])
    chosen = _target(state, target)
    base = chosen.info.base
    sample = chosen.primary(base)
    record = fullest(chosen, base)
    cells = [
        base[:7],
        _cell(sample.mean) if sample.n else CRASH_VALUE,
        f"{memory_mb(record, 0.0) / 1024:.1f}",
        "keep" if sample.n else "crash",
        "baseline",
        "0",
        "",
        str(sample.n),
        _cell(chosen.se(base)),
        f"{record.others.get('seconds', Sample()).mean * sample.n:.1f}",
        "0.0000",
    ]
    return "\t".join(cells) + "\n"


def _experiment_row(state: RunState, experiment: Experiment) -> str:
    target = state.targets[experiment.target]
    commit, verdict = experiment.proposal.commit, experiment.verdict
    record, machine = record_of(target, experiment), experiment.machine
    n = record.primary.n
    crashed = verdict in CRASHED
    value = CRASH_VALUE if crashed else _cell(record.primary.mean if n else None)
    memory = 0.0 if crashed else memory_mb(record, experiment.peak_memory_mb)
    said = experiment.proposal.summary or experiment.reason
    summary = unquoted(one_line(said, DESCRIPTION)) or f"experiment {experiment.number}"
    cells = [
        (commit or "-" * 7)[:7],
        value,
        f"{memory / 1024:.1f}",
        status(verdict),
        summary,
        str(experiment.number),
        experiment.agent,
        str(n),
        _cell(target.spread(machine).se(record.primary) if machine is not None else None),
        f"{experiment.seconds:.1f}",
        f"{experiment.usd:.4f}",
    ]
    return "\t".join(cells) + "\n"


def table(state: RunState, target: str | None = None) -> str:
    """Give the whole table of a target (the first): baseline, then what was decided, by number."""
    return "".join(_lines(state, _target(state, target).info.name))


def _lines(state: RunState, target: str) -> Iterator[str]:
    yield header(state, target)
    yield row(state, 0, target)
    for number in sorted(state.experiments):
        experiment = state.experiments[number]
        if experiment.target == target and experiment.verdict not in (None, "aborted"):
            yield row(state, number)


def append(path: Path, state: RunState, number: int) -> None:
    """Add the row of a decided experiment; a missing, empty or torn file is written anew.

    Nothing is written before the baseline has a value: its row comes first.
    """
    target = state.targets[state.experiments[number].target]
    if target.primary(target.info.base).n == 0:
        return
    whole = _sound(path)
    with open(path, "a" if whole else "w", encoding="utf-8", newline="\n") as file:
        file.write(row(state, number) if whole else table(state, target.info.name))


def _sound(path: Path) -> bool:
    """Tell whether the file ends with a whole line."""
    try:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError:  # not there, or empty
        return False


def _target(state: RunState, name: str | None) -> Target:
    return next(iter(state.targets.values())) if name is None else state.targets[name]


def record_of(target: Target, experiment: Experiment) -> Record:
    """Give what was measured of an experiment; empty if it never was."""
    commit, machine = experiment.proposal.commit, experiment.machine
    return Record() if commit is None or machine is None else target.record(commit, machine)


def fullest(target: Target, commit: str) -> Record:
    """Give the record of a commit on the machine kind that measured it most."""
    found = (target.record(commit, machine) for machine in target.spreads)
    return max(found, key=lambda r: r.primary.n, default=Record())


def memory_mb(record: Record, peak_mb: float) -> float:
    """Give what the harness says about GPU memory, as the family does, else what swarm saw."""
    for name in ("peak_vram_mb", "peak_memory_mb"):
        if name in record.others:
            return record.others[name].mean
    return peak_mb


def _cell(value: float | None) -> str:
    return NOTHING if value is None else cell(value)


def cell(value: float) -> str:
    """Give a number with six decimals, as the family does; a small one keeps its digits."""
    small = value != 0 and abs(value) < 1e-3
    return f"{value:.6g}" if small else f"{value + 0.0:.6f}"


def unquoted(text: str) -> str:
    """Give a cell that nobody takes for a quoted one.

    The family does not quote, and pandas and csv do: after a quote at a cell's start they read on
    over tabs and line ends, up to the next one.
    """
    return text.replace('"', "'") if text.startswith('"') else text


# --- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of a results table, whoever wrote it."""

    commit: str
    """A short sha, or a word such as `baseline`."""
    metric: str
    """Name of the metric's column."""
    value: float | None
    """None for a crash: its number is a sentinel, never data."""
    memory_gb: float | None
    status: str
    """In lower case, as found; `keep`, `discard` and `crash` are the usual ones."""
    description: str
    extra: dict[str, str] = field(default_factory=dict[str, str])
    """All other columns, as found."""


def parse(text: str) -> list[Row]:
    """Read a results table of any dialect, by its header's names.

    Raises:
        UsageError: the first line is not the header of a results table.
    """
    found = lines(text)
    if not found:
        return []
    columns = [c.strip() for c in found[0].split("\t")]
    metric = _metric_column(columns, found[1:])
    if metric is None or "status" not in columns:
        raise UsageError(
            f"not a results table: {one_line(found[0], 80)!r}",
            hint="the first line names the columns: commit, a metric, memory_gb, status, ...",
        )
    return [_read(line, columns, metric) for line in found[1:]]


def lines(text: str) -> list[str]:
    """Give the lines of a table that say something: no empty ones, and no comments."""
    # Not splitlines(): a description may hold a form feed or another rare line end.
    found = (line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n"))
    return [line for line in found if line.strip() and not line.startswith("#")]


def _metric_column(columns: list[str], rows: list[str]) -> int | None:
    """Find the metric: a familiar name, what follows `commit`, or the first of no known meaning.

    Of the latter the first that holds a number.
    """
    for name in FAMILIAR:
        if name in columns:
            return columns.index(name)
    places = [i for i, name in enumerate(columns) if name and name not in KNOWN]
    if "commit" in columns[:-1]:
        after = columns.index("commit") + 1
        # A metric may be called like a known column; then the name stands there twice.
        known = columns[after] in FRAME and columns.count(columns[after]) == 1
        if columns[after] and not known:
            places = [after, *(i for i in places if i != after)]
    cells = [line.split("\t") for line in rows]
    holds = (i for i in places if any(len(c) > i and _float(c[i]) is not None for c in cells))
    return next(holds, next(iter(places), None))


def _read(line: str, columns: list[str], metric: int) -> Row:
    # A description at the end of the line may hold anything, stray tabs too.
    last_is_text = columns[-1] == "description"
    cells = line.split("\t", len(columns) - 1 if last_is_text else -1)
    cells += [""] * (len(columns) - len(cells))
    named = {c: cells[i].strip() for i, c in enumerate(columns) if i != metric}
    state = named.get("status", "").lower()
    return Row(
        commit=named.get("commit", ""),
        metric=columns[metric],
        value=None if state == "crash" else _float(cells[metric]),
        memory_gb=None if state == "crash" else _float(named.get("memory_gb", "")),
        status=state,
        description=next((named[c] for c in DESCRIBES if named.get(c)), ""),
        extra={c: v for c, v in named.items() if c not in FRAME},
    )


def _float(text: str) -> float | None:
    try:
        value = math.nan if "_" in text else float(text)
    except ValueError:  # `ERR`, `---`, nothing
        return None
    return value if math.isfinite(value) else None
