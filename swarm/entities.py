"""The parts of a run's state: experiments, agents, targets, and what they cost. Mutable, no policy.

Only `state` changes them, one event at a time; `plan` and all views read them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from swarm.judge import Noise, Record, Sample, Spread, complete
from swarm.novelty import Tried
from swarm.records import (
    CASES,
    VERDICTS,
    AgentInfo,
    Attempt,
    FreshResult,
    Measured,
    Measurement,
    MergeOutcome,
    Promoted,
    Proposal,
    Returned,
    Stacked,
    TargetInfo,
    Twin,
    Verdict,
)

MEMORY = 50
"""Measurements of each target after which what its slots did counts for about a third."""

FINAL_INDEX = 1_000_000
"""Measurements at the end of a run use indices from here on, so that their seeds are fresh."""

THIN = 3
"""A keep is topped up until its record holds this many measurements."""

LARGEST = 1e100
"""Values are taken as no larger: their squares and sums must stay finite, whoever reports them."""

Phase = Literal["running", "paused", "draining", "finished", "failed", "interrupted"]
RecordKey = tuple[str, str]
"""Tree and kind of machine."""


@dataclass
class Experiment:
    """One experiment, from its number to its verdict and its way to `best`."""

    number: int
    target: str
    agent: str
    proposal: Proposal
    at: datetime | None = None
    level: int = 0
    """How many promotions `best` had seen when it was proposed."""
    crashed: list[str] = field(default_factory=list[str])
    """The commits that crashed and were mended by the present one."""
    repairs: int = 0
    """How often it went back to its proposer."""
    gave_up: bool = False
    """Its proposer would not mend it."""
    returned: Twin | None = None
    """What its proposer had repeated before it made this."""
    feedback: str = ""
    """What the harness had to say last."""
    machine: str | None = None
    controls: int = 0
    """Measurements of the incumbent made for this comparison."""
    aborts: int = 0
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    usd: float = 0.0
    tokens: int = 0
    failed: Measurement | None = None
    logs: list[str] = field(default_factory=list[str])
    verdict: Verdict | None = None
    reason: str = ""
    z: float | None = None
    gain: float | None = None
    fixed: tuple[str, ...] = ()
    """Cases that it passes and its incumbent fails, mostly."""
    broken: tuple[str, ...] = ()
    """Cases that it fails and its incumbent passes, mostly."""
    merged: str | None = None
    """None, "queued", the sha on `best`, or a `MergeOutcome`."""
    merge_reason: str = ""
    """Why the merger refused it, or could not lay it on `best`."""
    conflict_onto: str | None = None
    """The `best` on which it did not apply; it is tried once more on the next."""
    ported_by: int | None = None

    @property
    def base(self) -> str:
        """The incumbent that it is compared with."""
        return self.proposal.base


@dataclass
class Loop:
    """One agent's loop on one target: a branch, and an incumbent on it."""

    incumbent: str
    open: set[int] = field(default_factory=set[int])
    queued: set[int] = field(default_factory=set[int])
    """Own keeps that wait for the merger."""
    prepared: Proposal | None = None
    experiments: int = 0
    streak: int = 0
    """Experiments in a row without a keep."""
    invalid_streak: int = 0
    returned: Returned | None = None
    """Its last proposal repeats another; the agent is to be told so."""
    instead_of: Twin | None = None
    """What the prepared proposal was made instead of a repeat of."""
    exhausted: str | None = None
    """Why the agent has nothing left to try here."""

    @property
    def outstanding(self) -> int:
        """Proposals that are not decided yet."""
        return len(self.open) + (self.prepared is not None)


@dataclass
class Agent:
    """One proposer, and its loops."""

    info: AgentInfo
    loops: dict[str, Loop] = field(default_factory=dict[str, Loop])
    """By target; those that its group no longer works on are left as they are."""
    proposals: int = 0
    """Proposals ever made, prepared and dropped ones included; the next one's seed."""
    experiments: int = 0
    keeps: int = 0
    invalid: int = 0
    gain: float = 0.0
    """Sum of the gains of its experiments that reached `best`, by their own comparisons."""
    waiting_until: datetime | None = None
    waiting_reason: str = ""
    usd: float = 0.0
    tokens: int = 0
    parked: str | None = None
    hint: str | None = None
    """What helps a parked one."""
    gone: bool = False
    """No longer in the config of the present launch."""

    @property
    def open(self) -> list[int]:
        """Its experiments that are not decided yet."""
        return sorted(n for loop in self.loops.values() for n in loop.open)

    @property
    def prepared(self) -> bool:
        """Whether it has a proposal that waits for its turn."""
        return any(loop.prepared is not None for loop in self.loops.values())

    @property
    def outstanding(self) -> int:
        """Proposals that are not decided yet."""
        return sum(loop.outstanding for loop in self.loops.values())


@dataclass
class Target:
    """What is optimised, and how far it has come."""

    info: TargetInfo
    best: str
    records: dict[RecordKey, Record] = field(default_factory=dict[RecordKey, Record])
    spreads: dict[str, Spread] = field(default_factory=dict[str, Spread])
    """Kind of machine -> spread of the primary metric."""
    other_spreads: dict[str, Noise] = field(default_factory=dict[str, Noise])
    """Kind of machine -> spreads of the other metrics."""
    suite: tuple[str, ...] = ()
    """Ids of the cases, as the base's first good measurement reported them."""
    tree_of: dict[str, str] = field(default_factory=dict[str, str])
    number_of: dict[str, int] = field(default_factory=dict[str, int])
    """Tree -> the first experiment that had it; 0 is the base."""
    open: dict[int, Experiment] = field(default_factory=dict[int, Experiment])
    queue: list[int] = field(default_factory=list[int])
    stack: Stacked | None = None
    stack_controls: Counter[str] = field(default_factory=Counter[str])
    """Kind of machine -> fresh measurements of `best` made for this comparison."""
    stack_failed: Measurement | None = None
    stack_aborts: int = 0
    failed_on_base: list[Measurement] = field(default_factory=list[Measurement])
    verdicts: Counter[Verdict] = field(default_factory=Counter[Verdict])
    compared: dict[str, int] = field(default_factory=dict[str, int])
    """Tree of an incumbent -> candidates measured against it since its last control."""
    unconfirmed: dict[str, str] = field(default_factory=dict[str, str])
    """Tree -> commit of keeps whose record is still thin."""
    tried: Tried = field(default_factory=Tried)
    """What was changed, and what was said of it, by which experiment."""
    earlier: tuple[Attempt, ...] = ()
    """Experiments of the run that this one was started from."""
    ports: list[int] = field(default_factory=list[int])
    """Experiments whose idea waits for an agent that carries it over."""
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    """Append-only: an experiment appears when it is proposed and again when it is decided."""
    finals: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    sealed: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Commit -> values of the target's `final` command."""
    sealed_failed: dict[str, str] = field(default_factory=dict[str, str])
    """Commit -> why `final` gave no value, the last time."""
    finals_tried: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """Commit -> indices of its final measurements; an aborted one is made again."""
    result: FreshResult | None = None
    ended: str | None = None
    """Why nothing new is begun here, while the run goes on elsewhere."""
    failed: bool = False
    """Whether it ended because it could not go on."""
    usd: float = 0.0
    """For proposing and measuring."""
    tokens: int = 0
    busy_seconds: float = 0.0
    """Time that slots were held for it."""
    lately: float = 0.0
    """The same, with less weight the longer it is ago."""
    aborts: list[str] = field(default_factory=list[str])
    """Why its last measurements were aborted, since one was not."""
    measurements: int = 0
    since_keep: int = 0
    promotions: list[Promoted] = field(default_factory=list[Promoted])

    @property
    def begun(self) -> int:
        """Experiments that are open or decided, aborted ones not counted."""
        return len(self.open) + sum(self.verdicts.values()) - self.verdicts["aborted"]

    def tree(self, commit: str) -> str:
        """Give the tree of a commit that the ledger has mentioned."""
        return self.tree_of[commit]

    def record(self, commit: str, machine: str) -> Record:
        """Give the record of a commit on a kind of machine; empty if it was never measured."""
        return self.records.get((self.tree_of[commit], machine)) or Record()

    def measured(self, commit: str) -> bool:
        """Tell whether a measurement of a commit was good, on any kind of machine."""
        return any(self.record(commit, machine).runs for machine in self.spreads)

    def spread(self, machine: str) -> Spread:
        """Give the pooled spread on a kind of machine."""
        return self.spreads.get(machine) or Spread()

    def noise(self, machine: str) -> Noise:
        """Give the spreads of all metrics on a kind of machine."""
        return {**self.other_spreads.get(machine, {}), self.info.metric.name: self.spread(machine)}

    def value(self, result: Measurement) -> float | None:
        """Give the primary metric of a good measurement; None of a part of a suite.

        A share of cases is one of the whole suite, whatever the candidate reports.
        """
        name = self.info.metric.name
        if name != CASES:
            found = result.values.get(name)
            return None if found is None else bounded(found)
        if result.asked is not None or not self.suite:
            return None
        outcome = complete(self.suite, result.cases)
        return sum(outcome.values()) / len(outcome)

    def take(self, result: Measurement, record: Record) -> None:
        """Take a good measurement into the record of its commit."""
        pinned = result.tree == self.info.base_tree
        if pinned and not self.suite:
            self.suite = tuple(case.id for case in result.cases)
        record.runs += 1
        record.whole_last = result.asked is None
        spread = self.spreads.setdefault(result.machine, Spread())
        asked = set(self.suite if result.asked is None else result.asked)
        part = tuple(name for name in self.suite if name in asked)
        reported = {case.id for case in result.cases}
        record.unreported = sum(name not in reported for name in part)
        differs = record.take_cases(complete(part, result.cases))
        if differs and self.info.metric.name == CASES:
            spread.agreed = False
        if result.asked is not None:
            return  # what a part of the suite costs is not what all of it costs
        record.clock.add(bounded(result.seconds))
        if (value := self.value(result)) is not None:
            spread.take(record.primary, value, pinned=pinned)
        others = self.other_spreads.setdefault(result.machine, {})
        for name, cost in measures(result).items():
            if name != self.info.metric.name:
                sample = record.others.setdefault(name, Sample())
                others.setdefault(name, Spread()).take(sample, cost, pinned=pinned)

    def machine(self, commit: str) -> str | None:
        """Give the kind of machine that measured a commit most."""
        tree = self.tree_of[commit]
        kinds = [m for m in self.spreads if (tree, m) in self.records]
        return max(kinds, key=lambda m: self.records[tree, m].primary.n, default=None)

    def primary(self, commit: str) -> Sample:
        """Give the primary metric of a commit on the kind of machine that measured it most."""
        kind = self.machine(commit)
        return Sample() if kind is None else self.record(commit, kind).primary

    def se(self, commit: str) -> float | None:
        """Standard error of a commit's mean."""
        kind = self.machine(commit)
        return None if kind is None else self.spreads[kind].se(self.record(commit, kind).primary)


@dataclass
class Spend:
    """What a run has used so far. In-flight work is counted by `plan`, not here."""

    experiments: int = 0
    seconds: float = 0.0
    """Wall time of earlier launches; the current one adds the time since `launched_at`."""
    usd: float = 0.0
    tokens: int = 0
    measurements: int = 0
    busy_seconds: float = 0.0
    dropped: int = 0
    """Proposals that were paid for, prepared, and dropped."""
    returned: int = 0
    """Proposals that were paid for and went back as repeats."""


def landed(merged: str | None) -> str | None:
    """Give the sha under which a keep is on `best`, None if it is not there."""
    return None if merged in (None, "queued", *get_args(MergeOutcome)) else merged


def measures(result: Measurement) -> dict[str, float]:
    """Give the values of a measurement with what swarm itself took from outside."""
    outside = {"seconds": result.seconds, "peak_memory_mb": result.peak_memory_mb}
    return {name: bounded(value) for name, value in {**outside, **result.values}.items()}


def bounded(value: float) -> float:
    return max(-LARGEST, min(LARGEST, value))


def note(experiment: Experiment, event: Measured, aborted: bool) -> None:
    result = event.measurement
    experiment.usd += result.usd
    experiment.tokens += result.tokens
    if event.purpose == "control":
        experiment.controls += not aborted
        return
    if result.log:
        experiment.logs.append(result.log)
    experiment.aborts += aborted
    if aborted:
        return
    experiment.machine = experiment.machine or result.machine
    experiment.feedback = result.feedback or experiment.feedback
    experiment.seconds += result.seconds
    experiment.peak_memory_mb = max(experiment.peak_memory_mb, result.peak_memory_mb)
    if result.failure is not None:
        experiment.failed = result


RATIONALE_LIMIT, FEEDBACK_LIMIT, TAIL_LIMIT = 1000, 2000, 2000
"""Characters of each that a briefing may see."""


def attempt_of(experiment: Experiment, values: dict[str, float] | None = None) -> Attempt:
    """Give an experiment as proposers see it; `values` are the means of what was measured."""
    proposal, failure = experiment.proposal, experiment.failed and experiment.failed.failure
    return Attempt(
        number=experiment.number,
        agent=experiment.agent,
        base=proposal.base,
        tree=proposal.tree,
        summary=proposal.summary,
        verdict=experiment.verdict,
        gain=experiment.gain,
        edit=proposal.edit,
        rationale=proposal.rationale[:RATIONALE_LIMIT],
        reason=experiment.reason,
        diff=proposal.diff,
        feedback=experiment.feedback[:FEEDBACK_LIMIT],
        tail=failure.tail[-TAIL_LIMIT:] if failure else "",
        values=values or {},
        level=experiment.level,
        fixed=experiment.fixed,
        broken=experiment.broken,
    )


def means(target: Target, experiment: Experiment) -> dict[str, float]:
    """Give what was measured of an experiment, the primary metric first."""
    proposal = experiment.proposal
    if proposal.commit is None or experiment.machine is None:
        return {}
    record = target.record(proposal.commit, experiment.machine)
    found = {target.info.metric.name: record.primary, **record.others}
    return {name: sample.mean for name, sample in found.items() if sample.n}


def verdict_counts(target: Target) -> dict[str, int]:
    """Give every verdict with its count, zeros included, and the total."""
    return {"total": sum(target.verdicts.values()), **{v: target.verdicts[v] for v in VERDICTS}}
