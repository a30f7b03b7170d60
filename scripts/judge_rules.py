"""The rules that are compared: what others do, and ours, by the code of `swarm.judge` itself.

`Ours` and `OurSuite` hold only the schedule of a run with one slot: `swarm.looks` and
`swarm.measuring` in little. `bench_judge.py --plan` drives those instead, and must agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, variance

from judge_worlds import ScalarBench, Shares, SuiteBench

from swarm.entities import THIN
from swarm.judge import Noise, Record, Ruling, Spread, beyond_doubt, compare
from swarm.records import CASES, MetricSpec
from swarm.rules import JudgeConfig

SCORE = MetricSpec(name="score", goal="maximize")
SUITE = MetricSpec(name=CASES, goal="maximize")


class Oracle:
    """Knows the truth, and pays for a measurement nevertheless."""

    def begin(self, bench: ScalarBench, truth: float) -> None:
        self.base = self.record = truth

    def accepts(self, bench: ScalarBench, truth: float, best: float) -> bool:
        bench.measure(truth)
        self.record = max(truth, best)
        return truth > best

    def records(self) -> tuple[float, float]:
        return self.base, self.record


@dataclass
class MeanOf:
    """The mean of k runs above the best mean so far; `again`: what is kept is measured afresh."""

    k: int = 1
    again: bool = False
    base: float = 0.0
    record: float = 0.0

    def _mean(self, bench: ScalarBench, truth: float) -> float:
        return fmean(bench.measure(truth) for _ in range(self.k))

    def begin(self, bench: ScalarBench, truth: float) -> None:
        self.base = self.record = self._mean(bench, truth)

    def accepts(self, bench: ScalarBench, truth: float, best: float) -> bool:
        value = self._mean(bench, truth)
        if value <= self.record:
            return False
        self.record = self._mean(bench, truth) if self.again else value
        return True

    def records(self) -> tuple[float, float]:
        return self.base, self.record


T_05 = {2: 2.920, 3: 2.353, 4: 2.132, 5: 2.015, 6: 1.943, 7: 1.895, 8: 1.860}
"""Degrees of freedom -> the t that chance exceeds once in 20 times."""


@dataclass
class Welch:
    """k runs each, once and for all; kept at p < 0.05."""

    k: int = 5
    first: list[float] = field(default_factory=list[float])
    best: list[float] = field(default_factory=list[float])

    def begin(self, bench: ScalarBench, truth: float) -> None:
        self.first = self.best = [bench.measure(truth) for _ in range(self.k)]

    def accepts(self, bench: ScalarBench, truth: float, best: float) -> bool:
        ours = [bench.measure(truth) for _ in range(self.k)]
        a, b = variance(ours) / self.k, variance(self.best) / self.k
        freedom = (a + b) ** 2 / ((a * a + b * b) / (self.k - 1))
        if fmean(ours) - fmean(self.best) <= T_05[int(freedom)] * math.sqrt(a + b):
            return False
        self.best = ours
        return True

    def records(self) -> tuple[float, float]:
        return fmean(self.first), fmean(self.best)


@dataclass
class PairedT:
    """Five pairs, fresh for each candidate; kept at p < 0.05."""

    base: float = 0.0
    record: float = 0.0

    def begin(self, bench: ScalarBench, truth: float) -> None:
        self.base = self.record = fmean(bench.measure(truth) for _ in range(5))

    def accepts(self, bench: ScalarBench, truth: float, best: float) -> bool:
        pairs = [(bench.measure(truth, i), bench.measure(best, i)) for i in range(5)]
        apart = [ours - theirs for ours, theirs in pairs]
        if fmean(apart) <= T_05[4] * math.sqrt(variance(apart) / 5):
            return False
        self.record = fmean(ours for ours, _ in pairs)
        return True

    def records(self) -> tuple[float, float]:
        return self.base, self.record


class Ours:
    """The rule of `swarm.judge`, on the schedule of a run with one slot."""

    def __init__(self, rule: JudgeConfig) -> None:
        self.rule, self.spread, self.compared = rule, Spread(), 0
        self.base = self.best = Record()

    def begin(self, bench: ScalarBench, truth: float) -> None:
        for _ in range(self.rule.baseline):
            self._measure(bench, self.best, truth)

    def accepts(self, bench: ScalarBench, truth: float, best: float) -> bool:
        self._control_if_due(bench, best)
        candidate = Record()
        self._measure(bench, candidate, truth)
        self.compared += 1
        if self._duel(bench, candidate, truth, best).step != "keep":
            return False
        self.best, self.compared = candidate, 0
        self._top_up(bench, truth)
        return True

    def _duel(self, bench: ScalarBench, candidate: Record, truth: float, best: float) -> Ruling:
        controls = 0
        while True:
            ruling = self._compare(candidate)
            paired = 0 if beyond_doubt(ruling, self.rule) else candidate.runs - 1
            if controls >= paired and ruling.step != "measure":
                return ruling
            if self._control_if_due(bench, best):
                continue
            if controls < paired:
                self._control(bench, best)
                controls += 1
            else:
                self._measure(bench, candidate, truth)

    def records(self) -> tuple[float, float]:
        return self.base.primary.mean, self.best.primary.mean

    def _top_up(self, bench: ScalarBench, truth: float) -> None:
        # What was kept after more runs than that is measured once more too, as in a run.
        for _ in range(max(1, THIN - self.best.primary.n)):
            if bench.spent < bench.world.budget:
                self._measure(bench, self.best, truth)

    def _compare(self, candidate: Record) -> Ruling:
        return compare(candidate, self.best, {SCORE.name: self.spread}, SCORE, self.rule)

    def _control_if_due(self, bench: ScalarBench, truth: float) -> bool:
        due = self.compared >= self.rule.control_every
        if due:
            self._control(bench, truth)
        return due

    def _control(self, bench: ScalarBench, truth: float) -> None:
        self._measure(bench, self.best, truth)
        self.compared = 0

    def _measure(self, bench: ScalarBench, record: Record, truth: float) -> None:
        value = bench.measure(truth, record.runs)
        record.runs += 1
        self.spread.take(record.primary, value, pinned=record is self.base)


# --- suites ------------------------------------------------------------------------------------


def rate(found: Mapping[str, bool]) -> float:
    """Give the share of cases that pass, in points."""
    return 100 * sum(found.values()) / len(found)


class SuiteRates:
    """A machine whose measurement is the pass rate: what the rules for one number see."""

    def __init__(self, bench: SuiteBench) -> None:
        self.bench, self.world = bench, bench.world

    @property
    def spent(self) -> float:
        return self.bench.spent

    def measure(self, truth: Shares, run: int = -1) -> float:
        return rate(self.bench.measure(truth))


class ByRate:
    """A rule for one number, on the pass rate of whole suites."""

    def __init__(self, rule: Ours | MeanOf) -> None:
        self.rule = rule

    def begin(self, bench: SuiteBench, truth: Shares) -> None:
        self.rule.begin(SuiteRates(bench), truth)  # pyright: ignore[reportArgumentType]

    def accepts(self, bench: SuiteBench, truth: Shares, best: Shares) -> bool:
        return self.rule.accepts(SuiteRates(bench), truth, best)  # pyright: ignore

    def records(self) -> tuple[float, float]:
        return self.rule.records()


class McNemar:
    """One run of the suite each, exact test of the cases that differ; kept at p < 0.05."""

    def begin(self, bench: SuiteBench, truth: Shares) -> None:
        self.first = self.best = bench.measure(truth)

    def accepts(self, bench: SuiteBench, truth: Shares, best: Shares) -> bool:
        ours = bench.measure(truth)
        won = sum(ours[i] > self.best[i] for i in ours)
        differ = won + sum(ours[i] < self.best[i] for i in ours)
        p = sum(math.comb(differ, k) for k in range(won, differ + 1)) / 2**differ
        if p >= 0.05:
            return False
        self.best = ours
        return True

    def records(self) -> tuple[float, float]:
        return rate(self.first), rate(self.best)


@dataclass
class PooledZ:
    """Three runs of the suite each, two proportions that know no cases; kept at p < 0.05."""

    k: int = 3
    first: float = 0.0
    best: float = 0.0

    def _passes(self, bench: SuiteBench, truth: Shares) -> float:
        return sum(sum(bench.measure(truth).values()) for _ in range(self.k))

    def begin(self, bench: SuiteBench, truth: Shares) -> None:
        self.cases = self.k * len(truth)
        self.first = self.best = self._passes(bench, truth)

    def accepts(self, bench: SuiteBench, truth: Shares, best: Shares) -> bool:
        ours = self._passes(bench, truth)
        share = (ours + self.best) / (2 * self.cases)
        se = math.sqrt(2 * share * (1 - share) * self.cases)
        if ours - self.best < 1.645 * se:
            return False
        self.best = ours
        return True

    def records(self) -> tuple[float, float]:
        return 100 * self.first / self.cases, 100 * self.best / self.cases


class OurSuite:
    """The rule of `swarm.judge` for cases, on the schedule of a run with two slots."""

    def __init__(self, rule: JudgeConfig) -> None:
        self.rule, self.compared = rule, 0
        self.noise: Noise = {CASES: Spread()}
        self.base = self.best = Record()

    def begin(self, bench: SuiteBench, truth: Shares) -> None:
        for _ in range(self.rule.baseline):
            self._measure(bench, self.best, truth)

    def accepts(self, bench: SuiteBench, truth: Shares, best: Shares) -> bool:
        self._control_if_due(bench, best)
        candidate = Record()
        self._measure(bench, candidate, truth)
        self.compared += 1
        while (ruling := self._compare(candidate)).step == "measure":
            if self._control_if_due(bench, best):
                continue
            self._measure(bench, candidate, truth, ruling.cases)
            if not beyond_doubt(ruling, self.rule):
                self._measure(bench, self.best, best, ruling.cases)
                self.compared = 0
        if ruling.step != "keep":
            return False
        self.best, self.compared = candidate, 0
        for _ in range(max(1, THIN - self.best.primary.n)):
            if bench.spent < bench.world.budget:
                self._measure(bench, self.best, truth)
        return True

    def records(self) -> tuple[float, float]:
        return 100 * self.base.primary.mean, 100 * self.best.primary.mean

    def _compare(self, candidate: Record) -> Ruling:
        return compare(candidate, self.best, self.noise, SUITE, self.rule)

    def _control_if_due(self, bench: SuiteBench, truth: Shares) -> bool:
        due = self.compared >= self.rule.control_every
        if due:
            self._measure(bench, self.best, truth)
            self.compared = 0
        return due

    def _measure(
        self,
        bench: SuiteBench,
        record: Record,
        truth: Shares,
        part: tuple[str, ...] | None = None,
    ) -> None:
        found = bench.measure(truth, part)
        spread = self.noise[CASES]
        record.runs += 1
        record.whole_last = part is None
        if record.take_cases(found):
            spread.agreed = False
        if part is None:
            spread.take(record.primary, rate(found) / 100, pinned=record is self.base)
