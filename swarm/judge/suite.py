"""Keep or discard by the yes/no cases of a suite: paired by case, stratified (Cochran-Mantel-
Haenszel).

The first run is the whole suite. Later rounds re-run, on both sides, only the cases whose results
so far are mixed: the others cannot change the answer. Before a keep the candidate runs the whole
suite once more. Why: `docs/statistics.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from swarm.judge.evidence import Count, Record
from swarm.judge.scalar import EQUAL, Ruling, Step
from swarm.quantities import margin
from swarm.rules import JudgeConfig

AGAIN = "the whole suite is run once more before a keep"
SOME = 3
"""Runs on either side from which it is said of a flaky case that it was fixed or broken."""
EQUAL_RUNS = 5
"""Runs of the whole suite at most in which what is simpler has to show that it is equal."""
MOSTLY = 0.5
"""Difference of pass rates from which a case counts as fixed or broken."""


class Pair(NamedTuple):
    """One case on both sides."""

    candidate: Count
    incumbent: Count

    @property
    def mixed(self) -> bool:
        """Tell whether its results differ at all, within a side or between them."""
        runs = self.candidate.runs + self.incumbent.runs
        return 0 < self.candidate.passes + self.incumbent.passes < runs

    @property
    def steady(self) -> bool:
        """Tell whether neither side is flaky."""
        return not self.candidate.mixed and not self.incumbent.mixed

    @property
    def runs(self) -> tuple[int, int]:
        """How often either side was run."""
        return self.candidate.runs, self.incumbent.runs


Pairs = dict[str, Pair]


def pair(candidate: Record, incumbent: Record) -> Pairs:
    """Bring the cases of two records together; only what both sides have run can be compared."""
    return {
        name: Pair(candidate.cases[name], theirs)
        for name, theirs in incumbent.cases.items()
        if name in candidate.cases and theirs.runs and candidate.cases[name].runs
    }


def gained(pairs: Pairs) -> float:
    """Give how many cases more the candidate passes, on average; negative for fewer."""
    # Rounded, since shares such as 1/3 do not cancel out exactly.
    return round(sum(p.candidate.share - p.incumbent.share for p in pairs.values()), 9)


def z_cases(pairs: Pairs) -> float:
    """Give the stratified paired z; with one run on each side it is McNemar's.

    Cases that always pass or always fail, on both sides alike, drop out by themselves.
    """
    over, variance = 0.0, 0.0
    for ours, theirs in pairs.values():
        n, passes = ours.runs + theirs.runs, ours.passes + theirs.passes
        over += ours.passes - passes * ours.runs / n
        if n > 1:
            mixed = passes * (n - passes)
            variance += mixed * ours.runs * theirs.runs / (n * n * (n - 1))
    return over / math.sqrt(variance) if variance > 0.0 else 0.0


def active(pairs: Pairs) -> tuple[str, ...]:
    """Give the cases that can still change the answer."""
    return tuple(name for name, p in pairs.items() if p.mixed)


def lost(pairs: Pairs) -> list[str]:
    """Give the cases that the incumbent always passes and the candidate always fails."""
    return [
        name
        for name, (ours, theirs) in pairs.items()
        if ours.passes == 0 and theirs.passes == theirs.runs
    ]


def changed(pairs: Pairs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the cases that the candidate fixed, and those that it broke.

    A flaky one may pass or fail without any change: it takes some runs on both sides.
    """
    sure = {name: p for name, p in pairs.items() if p.steady or min(p.runs) >= SOME}
    by = {name: p.candidate.share - p.incumbent.share for name, p in sure.items()}
    fixed = tuple(name for name, d in by.items() if d > MOSTLY)
    return fixed, tuple(name for name, d in by.items() if d < -MOSTLY)


def duel(
    candidate: Record, incumbent: Record, rule: JudgeConfig, *, simpler: bool = False
) -> Ruling:
    """Compare two records of a suite; each must hold at least one run of the whole suite."""
    pairs = pair(candidate, incumbent)
    if not pairs:
        raise ValueError("a duel needs a run of the suite on each side")
    z, gain, n = z_cases(pairs), gained(pairs) / len(pairs), candidate.runs
    least = margin(rule.min_delta, incumbent.primary.mean)
    asked = z * (1 - least / gain) if gain > 0.0 else z
    words = _words(pairs, asked, n, incumbent.runs) + (
        f" (at least {least:g} asked)" if least else ""
    )

    def ruling(step: Step, more: str = "", cases: tuple[str, ...] | None = None) -> Ruling:
        return Ruling(step, asked, gain, f"{words}; {more}" if more else words, cases)

    equal = rule.keep_if_equal == "simpler" and simpler and z > -EQUAL and not lost(pairs)
    if asked < rule.drop_below or gain <= 0.0:
        if not equal:
            return ruling("discard")
        if n < max(2, min(rule.runs, EQUAL_RUNS)):
            return ruling("measure", "it is simpler, so it need only be equal")
        return ruling("keep", f"equal after {n} runs, and simpler")
    if asked >= rule.keep_above:
        if candidate.whole_last and n > 1:
            return ruling("keep", "also after one more run of the whole suite")
        return ruling("measure", AGAIN)
    if n >= rule.runs:
        return ruling("discard", f"undecided after {n} runs")
    return ruling("measure", "too close to call", active(pairs))


def _words(pairs: Pairs, z: float, n: int, n_inc: int) -> str:
    more = gained(pairs)
    size = f"{abs(more):.3g} of {len(pairs)} cases {'more' if more > 0 else 'fewer'} pass"
    if more == 0:
        size = f"as many of {len(pairs)} cases pass"
    fixed, broken = changed(pairs)
    told = [f"{word} {_some(names)}" for word, names in (("fixed", fixed), ("broke", broken))]
    each = "; ".join(words for words, names in zip(told, (fixed, broken), strict=True) if names)
    return f"{size}{f' ({each})' if each else ''}: z = {z + 0.0:+.2f} from {n} against {n_inc} runs"


def _some(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def squared_error(pairs: Pairs) -> float:
    """Give the squared standard error of `gained`, case by case and pooled over both sides."""
    return sum(_parts(pairs))


def _parts(pairs: Pairs) -> Iterator[float]:
    for ours, theirs in pairs.values():
        n, passes = ours.runs + theirs.runs, ours.passes + theirs.passes
        if n > 1:
            yield passes * (n - passes) / (n * (n - 1)) * (1 / ours.runs + 1 / theirs.runs)
