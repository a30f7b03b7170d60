"""Invented worlds in which rules are tried: what proposals are worth, and how measurements lie.

A world proposes, measures and counts; a rule only says whether it keeps. One campaign goes on until
its measurements are spent. `scalar_rules` and `suite_rules` hold the rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, NamedTuple, Protocol

Shape = Literal["gauss", "t3", "lognormal"]
STEADY = 0.98
"""How often a case passes that is not flaky; else it fails as often."""
FLAKY = 0.5
FAILING = 0.25
MEAN_JITTER = 1 / math.sqrt(math.e - 1)
"""Mean of lognormal jitter of unit standard deviation."""
TAU = 40.0
"""Measurements in which a drifting machine forgets where it was."""


class SpentError(Exception):
    """All measurements of a campaign have been made."""


class Scalar(NamedTuple):
    """A world with one number, in per cent. More is better."""

    sigma: float = 1.0
    good: float = 0.05
    neutral: float = 0.60
    """The rest is harmful."""
    budget: float = 400
    shape: Shape = "gauss"
    drift: float = 0.0
    """Standard deviation of what the machine itself adds, an AR(1) process."""
    shared: float = 0.0
    """Share of the variance that measurement i of any two commits has in common: the seed's."""


class Suite(NamedTuple):
    """A world of yes/no cases. A quarter of those that are not flaky fail at first.

    judging.md does not say how its suites begin: that, and what a fix does, were chosen so that the
    first and the third of its rows come out alike.
    """

    cases: int = 40
    flaky: float = 0.25
    good: float = 0.05
    """Share of proposals that fix 1 to 3 cases, failing or flaky."""
    neutral: float = 0.60
    """The rest breaks 1 to 4, passing or flaky."""
    budget: float = 300


@dataclass
class Count:
    """What came of one campaign."""

    kept: int = 0
    false: int = 0
    """Kept without being better."""
    harmful: int = 0
    """Kept and worse."""
    good: int = 0
    missed: int = 0
    """Better and not kept."""
    proposals: int = 0
    spent: float = 0.0
    true: float = 0.0
    """What `best` is worth more than the base."""
    over: float = 0.0
    """What the record of `best` says more than that it is worth."""
    claimed: float = 0.0
    """Record of `best` minus record of the base."""
    fresh: float = 0.0
    """The same by five fresh measurements of each, as swarm reports it; not of suites."""

    def decided(self, effect: float, kept: bool) -> None:
        """Count one decision on a proposal of a true effect."""
        self.proposals += 1
        self.good += effect > 0
        self.missed += effect > 0 and not kept
        self.kept += kept
        self.false += kept and effect <= 0
        self.harmful += kept and effect < 0


class Rule(Protocol):
    """Whether a candidate is kept. Remembers what it wants of its incumbent."""

    def begin(self, bench: Any, truth: Any, /) -> None:
        """Measure the base."""
        ...

    def accepts(self, bench: Any, truth: Any, best: Any, /) -> bool:
        """Measure and decide; a candidate that is accepted is the incumbent from now on."""
        ...

    def records(self) -> tuple[float, float]:
        """Give what it takes base and `best` to be worth."""
        ...


@dataclass
class ScalarBench:
    """One machine that measures one number."""

    world: Scalar
    random: Random
    """Of the noise."""
    ideas: Random
    """Of the proposals, so that they do not depend on how often anything is measured."""
    spent: float = 0.0
    moved: float = 0.0
    seeds: dict[int, float] = field(default_factory=dict[int, float])

    def measure(self, truth: float, run: int = -1) -> float:
        """Measure a commit that is worth `truth`; `run` is the index of its seed."""
        if self.spent >= self.world.budget:
            raise SpentError
        self.spent += 1
        return self.look(truth, run)

    def look(self, truth: float, run: int = -1) -> float:
        """Measure at no price."""
        world, gauss = self.world, self.random.gauss
        if world.drift:
            stays = math.exp(-1 / TAU)
            fresh = math.sqrt(1 - stays * stays) * world.drift
            self.moved = stays * self.moved + gauss(0.0, fresh)
        noise = self._noise()
        if world.shared and run >= 0:
            common = self.seeds.setdefault(run, gauss(0.0, 1.0))
            noise = math.sqrt(world.shared) * common + math.sqrt(1 - world.shared) * noise
        return truth + self.moved + world.sigma * noise

    def afresh(self, best: float) -> float:
        """Give the difference of `best` and base by five measurements each, at no price."""
        pairs = [(self.look(0.0), self.look(best)) for _ in range(5)]
        return sum(after - before for before, after in pairs) / len(pairs)

    def _noise(self) -> float:
        """Give noise of unit standard deviation."""
        gauss = self.random.gauss
        match self.world.shape:
            case "gauss":
                return gauss(0.0, 1.0)
            case "t3":
                chi = self.random.gammavariate(1.5, 2.0)
                return gauss(0.0, 1.0) / math.sqrt(chi)
            case "lognormal":  # a timing is only ever too long
                return -math.exp(gauss(-0.5, 1.0)) * MEAN_JITTER

    def effect(self) -> float:
        """Draw what the next proposal is worth."""
        kind = self.ideas.random()
        if kind < self.world.good:
            return self.ideas.uniform(0.5, 2.0)
        return 0.0 if kind < self.world.good + self.world.neutral else -self.ideas.uniform(0.1, 5)


def scalar_bench(world: Scalar, seed: str) -> ScalarBench:
    """Set a world up; the same seed gives the same proposals, and the same noise in order."""
    return ScalarBench(world, Random(seed), Random(f"{seed} ideas"))


def scalar_campaign(world: Scalar, rule: Rule, seed: str) -> Count:
    """Let a rule decide on proposals until the measurements are spent."""
    bench, count, best = scalar_bench(world, seed), Count(), 0.0
    try:
        rule.begin(bench, 0.0)
        while True:
            effect = bench.effect()
            kept = rule.accepts(bench, best + effect, best)
            count.decided(effect, kept)
            best += effect if kept else 0.0
    except SpentError:
        pass
    base, record = rule.records()
    finish(count, bench, best, base, record)
    return count


def finish(count: Count, bench: ScalarBench, best: float, base: float, record: float) -> None:
    """Note what a campaign has come to, and what it takes base and `best` to be worth."""
    # One-sided noise has a mean of its own, which is no lie about a gain.
    own = bench.world.sigma * MEAN_JITTER if bench.world.shape == "lognormal" else 0.0
    count.true, count.over, count.claimed = best, record - best + own, record - base
    count.spent, count.fresh = bench.spent, bench.afresh(best)


Shares = tuple[float, ...]
"""How likely each case passes."""


@dataclass
class SuiteBench:
    """One machine that runs a suite, or a part of it."""

    world: Suite
    random: Random
    spent: float = 0.0

    def measure(self, truth: Shares, part: tuple[str, ...] | None = None) -> dict[str, bool]:
        """Run some cases; each costs its share of the suite."""
        if self.spent >= self.world.budget:
            raise SpentError
        chosen = range(len(truth)) if part is None else [int(name) for name in part]
        self.spent += len(chosen) / len(truth)
        return {str(i): self.random.random() < truth[i] for i in chosen}

    def base(self) -> Shares:
        """Give the suite as the base passes it."""
        flaky = round(self.world.cases * self.world.flaky)
        steady = self.world.cases - flaky
        failing = round(steady * FAILING)
        at = [FLAKY] * flaky + [1 - STEADY] * failing + [STEADY] * (steady - failing)
        return tuple(at)

    def proposal(self, best: Shares) -> Shares:
        """Draw the next proposal: it fixes cases, breaks some, or does nothing."""
        kind, world = self.random.random(), self.world
        if world.good <= kind < world.good + world.neutral:
            return best
        fixes = kind < world.good
        new = STEADY if fixes else 1 - STEADY
        among = [i for i, p in enumerate(best) if p != new]
        most = self.random.randint(1, 3 if fixes else 4)
        hit = set(self.random.sample(among, min(most, len(among))))
        return tuple(new if i in hit else p for i, p in enumerate(best))


def suite_campaign(world: Suite, rule: Rule, seed: str) -> Count:
    """Let a rule decide on proposals until the runs are spent; gains are points."""
    bench, count = SuiteBench(world, Random(seed)), Count()
    base = best = bench.base()
    points = 100 / world.cases
    try:
        rule.begin(bench, base)
        while True:
            new = bench.proposal(best)
            effect = sum(new) - sum(best)
            kept = rule.accepts(bench, new, best)
            count.decided(effect, kept)
            best = new if kept else best
    except SpentError:
        pass
    before, record = rule.records()
    count.true, count.spent = points * (sum(best) - sum(base)), bench.spent
    count.over, count.claimed = record - points * sum(best), record - before
    return count
