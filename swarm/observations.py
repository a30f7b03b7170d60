"""What `swarm check` has seen of a target, and the figures in it. Pure; knows no process.

`check` observes, `diagnosis` says what is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal, NamedTuple

from swarm import judge
from swarm.config import RunConfig
from swarm.entities import Target, measures
from swarm.errors import SwarmError
from swarm.judge import Count, Record, Spread
from swarm.quantities import margin
from swarm.records import CASES, Measurement, TargetInfo
from swarm.rules import JudgeConfig

NIGHT_S = 8 * 3600.0
NOISY_COST, EXACT_COST = 1.4, 1.0
"""Measurements an experiment takes on average: of a noisy target some are looked at again."""
TELLING_S = 0.5
"""Seconds below which a difference of times may be that of starting a process."""
CLOSE = 3.0
"""Standard errors within which a changed scope counts as having changed nothing."""


class Take(NamedTuple):
    """One measurement of the base, and how it was made."""

    measurement: Measurement
    alone: bool
    """Nothing else was measured at the time."""
    busy_seconds: float = 0.0
    """Time the slot was held: export, guard, run, cleanup."""


class Copy(NamedTuple):
    """A package of the scope that Python finds outside of the export."""

    name: str
    place: str


Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that was found. An `error` spoils a run, a `warning` may, a `note` is to be known.

    `hint` says what to do.
    """

    kind: str
    level: Level
    message: str
    hint: str


@dataclass(frozen=True)
class Observations:
    """All that was looked at."""

    info: TargetInfo | None = None
    """None when the repository cannot be used."""
    refusals: tuple[SwarmError, ...] = ()
    """What a launch would refuse."""
    slots: int = 0
    memory_mb: float = 0.0
    """Of the machine."""
    takes: tuple[Take, ...] = ()
    """Measurements of the base, in the order in which they ended."""
    nonsense: tuple[Measurement, ...] = ()
    """The same with every file in scope replaced by a line of nonsense; guards left out."""
    copies: tuple[Copy, ...] = ()
    absent: tuple[str, ...] = ()
    """Paths that a log names as not found, and that the working tree has and the base lacks."""
    unseen: tuple[str, ...] = ()
    """Paths that a log names as not found or forbidden, and that lie outside the sandbox."""
    offline: bool = False
    """A log says that the network could not be reached, and the sandbox has none."""
    sandbox: str | None = None
    """The rung in force."""
    sandbox_warning: str | None = None
    """What it leaves open, and what helps."""
    final: Measurement | None = None
    """A measurement with the target's `final` command after it."""

    @property
    def good(self) -> list[Take]:
        """The measurements that gave a value."""
        return [t for t in self.takes if t.measurement.failure is None]

    def fold(self) -> Target:
        """Take the good measurements together as a run would."""
        assert self.info is not None
        target = Target(self.info, best=self.info.base)
        target.tree_of[self.info.base] = self.info.base_tree
        for taken in self.good:
            result = taken.measurement
            record = target.records.setdefault((result.tree, result.machine), Record())
            target.take(result, record)
        return target


@dataclass(frozen=True)
class Figures:
    """The baseline in numbers, and what follows for a run."""

    values: tuple[float, ...]
    mean: float
    sigma: float | None
    """Spread of one measurement; None of a single one."""
    exact: bool
    """All values agree, and a run would take the target for deterministic."""
    detectable: float | None
    """The smallest gain that is kept after `judge.runs` measurements of both sides.

    Of a suite it is about that, as a share of the cases: they are judged one by one.
    """
    seconds: float
    peak_memory_mb: float
    usd: float | None
    """For each measurement; None where it is not reported. So with tokens."""
    tokens: float | None
    per_experiment: float
    """Measurements an experiment takes."""
    per_night: float
    """Experiments that the slots measure in `NIGHT_S`."""
    cases: int = 0
    """Of a suite. Where the metric is another one, none."""
    flaky: tuple[str, ...] = ()
    """The cases of it that pass only sometimes at the base."""


def figures(seen: Observations, config: RunConfig) -> Figures | None:
    """Work the figures out; None when there is no value."""
    if seen.info is None or not seen.good:
        return None
    target, good = seen.fold(), seen.good
    machine = good[0].measurement.machine
    sample, spread = target.primary(seen.info.base), target.spread(machine)
    exact = is_exact(target, machine, config)
    cost = EXACT_COST if exact else NOISY_COST
    crowd = [t for t in good if not t.alone] or good
    # Controls of the incumbent are measured beside the experiments.
    each = median(t.busy_seconds for t in crowd) * (cost + 1 / config.rule().control_every)
    sigma, rule = spread.sigma, config.rule()
    cases = target.record(seen.info.base, machine).cases if target.info.metric.name == CASES else {}
    detectable = None if sigma is None else judge.detectable(sigma, rule, sample.mean)
    if cases and sigma is not None and not spread.deterministic:
        least = margin(rule.min_delta, sample.mean)
        detectable = least + detectable_cases(cases.values(), rule) / len(cases)
    return Figures(
        values=tuple(sample.values),
        mean=sample.mean,
        sigma=sigma,
        exact=exact,
        detectable=detectable,
        seconds=fmean(t.measurement.seconds for t in good),
        peak_memory_mb=max(t.measurement.peak_memory_mb for t in good),
        usd=_cost(good, "usd"),
        tokens=_cost(good, "tokens"),
        per_experiment=cost,
        per_night=NIGHT_S * seen.slots / each if each else 0.0,
        cases=len(cases),
        flaky=tuple(name for name, count in cases.items() if count.mixed),
    )


def detectable_cases(cases: Iterable[Count], rule: JudgeConfig) -> float:
    """Say about how many cases more must pass for a keep, by `runs` runs of both sides.

    So many that always failed and now always pass have, on average, a stratified z of `keep_above`:
    with the others' noise unchanged, z is g R/2 / sqrt(g R^2/4 / (2R - 1) + v R/2), for g cases, R
    runs and v, the flaky cases' variance. `min_delta` is not in it.
    """
    runs, asked = rule.runs, rule.keep_above**2
    noise = sum(
        c.passes * (c.runs - c.passes) / (c.runs * (c.runs - 1)) for c in cases if c.runs > 1
    )
    own = asked / (2 * runs - 1)
    return (own + math.sqrt(own**2 + 8 * asked * noise / runs)) / 2


def is_exact(target: Target, machine: str, config: RunConfig) -> bool:
    """Tell whether all that is compared was the same in every measurement."""
    noise, points = target.noise(machine), config.rule().points
    costs = [] if points is None else [p.name for p in points.of if not isinstance(p, str)]
    names = (target.info.metric.name, *costs)
    return all(noise.get(name, Spread()).deterministic for name in names)


def _cost(good: list[Take], name: str) -> float | None:
    """Give the mean of what measurements say they cost, by a metric or case by case."""
    found: list[float] = []
    for taken in good:
        values = measures(taken.measurement)
        cases = [c.usd for c in taken.measurement.cases if c.usd is not None]
        if name in values:
            found.append(values[name])
        elif name == "usd" and cases:
            found.append(sum(cases))
    return fmean(found) if found else None


def unmoved(seen: Observations, config: RunConfig) -> bool:
    """Tell whether the metric is the same after every file in scope was replaced by nonsense."""
    found = figures(seen, config)
    if found is None or found.sigma is None or not seen.nonsense:
        return False
    if any(m.failure is not None for m in seen.nonsense):
        return False
    target = seen.fold()
    values = [v for m in seen.nonsense if (v := target.value(m)) is not None]
    if len(values) < len(seen.nonsense):
        return False
    apart = abs(fmean(values) - found.mean)
    error = found.sigma * (1 / len(values) + 1 / len(found.values)) ** 0.5
    return apart == 0.0 if error == 0.0 else apart < CLOSE * error


def crowded(seen: Observations) -> bool:
    """Tell whether all slots at work at once need more memory than the machine has."""
    peak = max((t.measurement.peak_memory_mb for t in seen.takes), default=0.0)
    return seen.memory_mb > 0 and peak * seen.slots > seen.memory_mb


_NOT_FOUND = re.compile(
    r"no such file|not found|(?:cannot|can't|could not|couldn't|failed to|unable to) "
    r"(?:open|find|stat|access|read|load)|no module named|enoent|does not exist"
    r"|permission denied|read-only file system",
    re.IGNORECASE,
)
_NAMES = re.compile(r"'([^'\n]+)'|\"([^\"\n]+)\"|`([^`\n]+)`|([^\s'\"`:;,()\[\]<>]+)")
_MODULE = re.compile(r"[Nn]o module named '?([\w.]+)")


_OFFLINE = re.compile(
    r"name resolution|could not resolve|name or service not known|network is unreachable"
    r"|no address associated|EAI_AGAIN|ENETUNREACH|nodename nor servname",
    re.IGNORECASE,
)


def tells_of_no_network(log: str) -> bool:
    """Tell whether a log says that the network could not be reached."""
    return _OFFLINE.search(log) is not None


def named_as_missing(log: str) -> list[str]:
    """Give the words of a log that may be paths of files that were not found."""
    found: dict[str, None] = {}
    for line in log.splitlines():
        if not _NOT_FOUND.search(line):
            continue
        for module in _MODULE.findall(line):
            whole, top = module.replace(".", "/"), module.partition(".")[0]
            for name in (whole, top):
                found |= dict.fromkeys(
                    f"{d}{name}{end}" for d in ("", "src/") for end in (".py", "")
                )
        for groups in _NAMES.findall(line[:1000]):
            found[next(g for g in groups if g)] = None
    return list(found)
