"""What a results file of the autoresearch family tells, whoever wrote it; and what follows from it.

One shape between all forms: a reader makes it, a writer takes it. Owns what is counted as data (a
crash has no value, whatever number stands in for it) and when a gain can be told. What stands in
the files of strangers is taken apart by `cells`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Literal, NamedTuple

from pydantic import FiniteFloat, field_validator

from swarm.errors import UsageError
from swarm.formats.text import one_line
from swarm.records import Attempt, Goal, MetricSpec, Noun, Verdict

Files = Mapping[str, str]
"""Texts by their path below one directory, with `/`."""
Status = Verdict | Literal["baseline"]
Outcome = Literal["keep", "discard", "crash"]
"""All that every tool of the family knows."""

NOT_RUN: frozenset[Status] = frozenset({"crash", "timeout"})
"""Their number is a sentinel, whatever it is."""
DESCRIPTION = 300
"""Characters of a description in the tables of others."""
LONGEST = 2000
"""Characters of any text of an entry: a history goes into a ledger as a whole."""


class Entry(Noun):
    """One row: the baseline, or an experiment."""

    number: int
    status: Status
    value: FiniteFloat | None = None
    """None where nothing was measured, crashes included."""
    commit: str | None = None
    """A sha, possibly short; None where there is none or it is gone."""
    agent: str = ""
    summary: str = ""
    rationale: str = ""
    reason: str = ""
    gain: FiniteFloat | None = None
    """Signed so that positive is better; None where only the values tell."""
    n: int = 1
    """Measurements behind the value."""
    seconds: FiniteFloat | None = None
    memory_gb: FiniteFloat | None = None
    at: datetime | None = None
    """When it was begun."""
    files: tuple[str, ...] = ()
    diff: str = ""
    superseded: bool = False
    """A later experiment took its place: it is not told to proposers."""

    @field_validator("agent", "summary", "rationale", "reason", mode="before")
    @classmethod
    def _cut(cls, text: str) -> str:
        return text[:LONGEST].encode("utf-8", "replace").decode()

    @property
    def unmeasured(self) -> bool:
        """Whether others would call it a crash: it, or the baseline, gave no value."""
        return self.outcome == "crash" or (self.status == "baseline" and self.value is None)

    @property
    def short(self) -> str:
        """The commit as others write it; dashes for none."""
        return (self.commit or "-" * 7)[:7]

    @property
    def outcome(self) -> Outcome:
        """Give the status in the three words that all tools know."""
        if self.status in NOT_RUN:
            return "crash"
        return "keep" if self.status in ("keep", "baseline") else "discard"

    @property
    def word(self) -> Outcome:
        """Give the status as others write it: where a baseline has no value, they know a crash."""
        return "crash" if self.unmeasured else self.outcome

    @property
    def said(self) -> str:
        """What it is, in one line without tabs; never empty."""
        if self.status == "baseline":
            return one_line(self.summary, DESCRIPTION) or "baseline"
        told = one_line(self.summary or self.reason, DESCRIPTION)
        return told or f"experiment {self.number}"


class History(Noun):
    """A list of experiments on one metric, in their order; each baseline begins anew."""

    name: str
    """Of the run, or of what it was read from."""
    source: str = ""
    """What it was read from; empty for a run of our own."""
    metric: MetricSpec
    entries: tuple[Entry, ...]
    platform: str = ""
    """What kind of machine it was measured on."""
    scope: tuple[str, ...] = ()
    run: str = ""
    """The command that measures, if known."""
    suite: int | None = None
    """Cases in the suite whose passing share is the metric."""
    breakdown: tuple[tuple[str, int, int], ...] = ()
    """Of the best: case, passes, runs."""
    phase: str = "finished"
    """How far the run has come, in the words of `status`."""
    notes: tuple[str, ...] = ()
    """What was odd about the file, and what was made of it."""

    @property
    def experiments(self) -> tuple[Entry, ...]:
        """All that is not a baseline."""
        return tuple(e for e in self.entries if e.status != "baseline")


class Asked(NamedTuple):
    """What the person says about a file that it may not say itself."""

    name: str
    metric: str | None = None
    goal: Goal | None = None

    def spec(self, metric: str, goal: Goal | None, unit: str | None = None) -> MetricSpec:
        """Settle the metric.

        Args:
            metric: the file's name for it.
            goal: what the file says, or None.
            unit: what the file says.

        Raises:
            UsageError: nobody says which way is better, or file and person disagree.
        """
        if goal is not None and self.goal not in (None, goal):
            raise UsageError(
                f"--goal says {self.goal}, and the file says {goal}", hint="leave --goal out"
            )
        settled = goal or self.goal
        if settled is None:
            name = one_line(metric, 60)
            raise UsageError(
                f"the file does not say whether a higher or a lower {name} is better",
                hint="give --goal minimize or --goal maximize",
            )
        name = self.metric or one_line(metric, 200) or "metric"
        return MetricSpec(name=name, goal=settled, unit=unit and one_line(unit, 40))


class Tally(NamedTuple):
    """What a history comes to."""

    experiments: int
    kept: int
    discarded: int
    crashed: int
    baseline: float | None
    best: float | None
    """The best value of all keeps since the last baseline, or that baseline's own."""


def tally(history: History) -> Tally:
    """Count a history, by the keeps only and never by what stands in for a crash."""
    outcomes = [e.outcome for e in history.experiments]
    baseline: float | None = None
    standing: list[float] = []
    for entry in history.entries:
        if entry.status == "baseline":
            baseline, standing = entry.value, []
        if entry.outcome == "keep" and entry.value is not None:
            standing.append(entry.value)
    better = max if history.metric.goal == "maximize" else min
    return Tally(
        len(outcomes),
        outcomes.count("keep"),
        outcomes.count("discard"),
        outcomes.count("crash"),
        baseline,
        better(standing) if standing else None,
    )


def compared(history: History) -> Iterator[tuple[Entry, Entry | None, float | None]]:
    """Give each entry with its incumbent and its gain; what was kept last is the incumbent.

    A gain that the file states goes before the difference to the incumbent. A keep that comes out
    worse than the last one was compared with another: then nobody can tell its gain.
    """
    incumbent: Entry | None = None
    for entry in history.entries:
        gain = entry.gain
        standing = None if incumbent is None else incumbent.value
        if entry.status == "baseline":
            incumbent = gain = None
        elif gain is None and entry.value is not None and standing is not None:
            gain = history.metric.sign * (entry.value - standing)
            if not math.isfinite(gain) or (entry.status == "keep" and gain < 0):
                gain = None
        yield entry, incumbent, gain
        if entry.outcome == "keep" and entry.value is not None:
            incumbent = entry


def attempts(history: History) -> tuple[Attempt, ...]:
    """Give a history as a run is told of an earlier one."""
    found: list[Attempt] = []
    for entry, incumbent, gain in compared(history):
        if entry.status == "baseline" or entry.superseded:
            continue
        found.append(
            Attempt(
                number=entry.number,
                agent=entry.agent,
                base=(incumbent.commit if incumbent else None) or "",
                summary=entry.summary,
                verdict=entry.status,
                gain=gain,
                rationale=entry.rationale,
                reason=entry.reason,
                diff=entry.diff,
                values={} if entry.value is None else {history.metric.name: entry.value},
            )
        )
    return tuple(found)


def numbered(entries: list[Entry]) -> tuple[Entry, ...]:
    """Keep the numbers if they rise; else count the experiments from 1."""
    rising = [e.number for e in entries if e.status != "baseline"]
    if all(a < b for a, b in pairwise(rising)):
        return tuple(entries)
    found: list[Entry] = []
    count = 0
    for entry in entries:
        count += entry.status != "baseline"
        found.append(entry.model_copy(update={"number": count * (entry.status != "baseline")}))
    return tuple(found)
