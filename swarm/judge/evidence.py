"""What measurements add up to: samples, the spread they share, cases, records. Mutable, no policy.

`state` folds measurements into these, one at a time; the rules only read them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from swarm.records import Case

FOREIGN = 9.0
"""A commit whose own variance is this many times the others' has a spread of its own."""
ENOUGH = 4
"""Degrees of freedom below which the others' variance is known badly, so that more is asked."""


@dataclass
class Sample:
    """Mean and squared deviations of one metric, updated one value at a time (Welford)."""

    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    steps: float = 0.0
    """Half the squared differences between one value and the next: as much as `m2` if nothing
    drifts."""
    values: list[float] = field(default_factory=list[float], repr=False)
    """All values, in the order in which they came."""
    foreign: bool = False
    """Its scatter is far beyond that of the others, so it is left out of their spread."""

    def add(self, value: float) -> None:
        """Take a value in."""
        self.n += 1
        delta = value - self.mean
        self.mean += delta / self.n
        self.m2 += delta * (value - self.mean)
        self.steps += (value - self.values[-1]) ** 2 / 2 if self.values else 0.0
        self.values.append(value)

    def recent(self, window: int | Literal["all"]) -> Sample:
        """Give the sample of the last values alone."""
        if window == "all" or self.n <= window:
            return self
        last = Sample(foreign=self.foreign)
        for value in self.values[-window:]:
            last.add(value)
        return last

    @property
    def variance(self) -> float:
        """Variance of one value by this sample alone; 0 below two."""
        return max(0.0, self.m2) / (self.n - 1) if self.n > 1 else 0.0


@dataclass
class Spread:
    """Run-to-run spread of a metric, pooled over all commits that were measured at least twice.

    A commit that is far noisier than the others (by its own doing, or because it reports what it
    likes) has its own spread and does not blur the comparisons of the others.
    """

    squares: float = 0.0
    steps: float = 0.0
    """As `squares`, but from one run to the next, which a slow drift does not enter."""
    freedom: int = 0
    agreed: bool = True
    """No repeat ever differed, those that are not pooled and those of single cases included."""

    def take(self, sample: Sample, value: float, *, pinned: bool = False) -> None:
        """Add a value to a sample, and the sample's scatter to what is pooled.

        Args:
            sample: of one commit; from the second value on it tells something of the spread.
            value: the new value.
            pinned: pool it whatever its scatter, as that of the base is.
        """
        if sample.n > 1 and not sample.foreign:
            self._pool(sample, -1)
        sample.add(value)
        if sample.n < 2:
            return
        self.agreed = self.agreed and sample.m2 == 0.0
        sample.foreign = not pinned and self._is_foreign(sample)
        if not sample.foreign:
            self._pool(sample, +1)

    def _pool(self, sample: Sample, sign: int) -> None:
        self.freedom += sign * (sample.n - 1)
        self.squares = max(0.0, self.squares + sign * sample.m2) if self.freedom else 0.0
        self.steps = max(0.0, self.steps + sign * sample.steps) if self.freedom else 0.0

    def _is_foreign(self, sample: Sample) -> bool:
        if self.squares == 0.0:
            return self.freedom > 0 and sample.m2 > 0.0
        asked = FOREIGN * max(1.0, ENOUGH / self.freedom) ** 2
        return sample.variance > asked * self.squares / self.freedom

    @property
    def sigma(self) -> float | None:
        """The standard deviation of one measurement, None before any commit was repeated."""
        if self.freedom == 0:
            return None
        return math.sqrt(max(0.0, self.squares) / self.freedom)

    @property
    def deterministic(self) -> bool:
        """True while all repeats agreed exactly; one difference ends it."""
        return self.freedom > 0 and self.squares == 0.0 and self.agreed

    def se(self, sample: Sample, *, local: bool = False) -> float | None:
        """Standard error of a sample's mean, None while nothing is known."""
        if not self.freedom or not sample.n:
            return None
        return math.sqrt(self.squared_error(sample, local=local))

    def squared_error(self, sample: Sample, *, local: bool = False) -> float:
        """Squared standard error of a sample's mean, by its own scatter if it is foreign.

        `local` takes the spread from one run to the next.
        """
        if self.freedom == 0 or sample.n == 0:
            raise ValueError("nothing is known of the spread, or nothing was measured")
        own = sample.foreign and sample.n > 1
        pooled = (self.steps if local else self.squares) / self.freedom
        return (sample.variance if own else pooled) / sample.n


Noise = dict[str, Spread]
"""Metric -> its spread on one kind of machine."""


@dataclass
class Count:
    """How often one case was run on a commit, and passed."""

    passes: int = 0
    runs: int = 0

    @property
    def share(self) -> float:
        """The share of runs that passed."""
        return self.passes / self.runs if self.runs else 0.0

    @property
    def mixed(self) -> bool:
        """Tell whether it passed sometimes: it is flaky on this commit."""
        return 0 < self.passes < self.runs


@dataclass
class Record:
    """All measurements of one tree on one kind of machine."""

    primary: Sample = field(default_factory=Sample)
    """Of a suite: the share of passed cases in each run of the whole suite."""
    others: dict[str, Sample] = field(default_factory=dict[str, Sample])
    clock: Sample = field(default_factory=Sample)
    """Wall seconds of the whole command by swarm's own clock, whatever the harness reports."""
    cases: dict[str, Count] = field(default_factory=dict[str, Count])
    attempts: int = 0
    """Measurements that ran, failed ones included; the next one's index."""
    runs: int = 0
    """Measurements that were good, those of a part of the suite included."""
    unreported: int = 0
    """Cases that the last good measurement was to run and did not report."""
    whole_last: bool = True
    """The last good measurement was no part of a suite."""

    def sample(self, metric: str, primary: str) -> Sample | None:
        """Give the sample of a metric, None where it was never reported."""
        found = self.primary if metric == primary else self.others.get(metric)
        return found if found is not None and found.n else None

    def take_cases(self, found: dict[str, bool]) -> bool:
        """Count one run of some cases; True if one differs from an earlier run of this commit."""
        for name, passed in found.items():
            count = self.cases.setdefault(name, Count())
            count.runs += 1
            count.passes += passed
        return any(self.cases[name].mixed for name in found)


def complete(suite: tuple[str, ...], cases: tuple[Case, ...]) -> dict[str, bool]:
    """Give the outcome of each case that was to be run: one that was not reported has failed.

    What is not of the suite is left out: a candidate cannot add cases that pass.
    """
    reported = {case.id: case.passed for case in cases}
    return {name: reported.get(name, False) for name in suite}


def flaky(record: Record) -> Iterator[str]:
    """Give the cases with mixed results on one commit."""
    return (name for name, count in record.cases.items() if count.mixed)
