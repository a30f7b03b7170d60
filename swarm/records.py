"""Every noun that crosses a process or reaches the disk: frozen, validated, versioned.

Owns the shape of the ledger's events. Knows no file, no git and no policy: what a verdict is
decided by lives in `judge`, what happens next in `plan`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter

LEDGER_VERSION = 1

DIFF_LIMIT = 8000
"""Characters of a diff that records keep."""

Verdict = Literal[
    "keep",
    "discard",
    "crash",
    "timeout",
    "invalid",
    "duplicate",
    "guard_failed",
    "constraint_failed",
    "aborted",
]
VERDICTS: tuple[Verdict, ...] = (
    "keep",
    "discard",
    "crash",
    "timeout",
    "invalid",
    "duplicate",
    "guard_failed",
    "constraint_failed",
    "aborted",
)
FailureKind = Literal["crash", "timeout", "invalid", "guard_failed", "aborted"]
Goal = Literal["minimize", "maximize"]
Purpose = Literal["baseline", "candidate", "control", "confirm", "stack", "final"]
"""Why a measurement was made. `control` re-measures an incumbent, `confirm` a fresh keep."""
CASES = "cases"
"""Name of the metric that is the share of cases that pass."""
MergeOutcome = Literal["conflict", "redundant", "antagonistic"]


class Noun(BaseModel):
    """Base of all records: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# --- nouns -------------------------------------------------------------------------------------


class MetricSpec(Noun):
    """What is optimised: `name`, its `goal` and its `unit` (free text, shown beside values)."""

    name: str
    goal: Goal
    unit: str | None = None

    @property
    def sign(self) -> int:
        """+1 where more is better, -1 where less is better."""
        return 1 if self.goal == "maximize" else -1


class Usage(Noun):
    """What proposing cost."""

    usd: float = 0.0
    input_tokens: int = 0
    """Read, and not from the cache."""
    cached_tokens: int = 0
    """Read from the cache."""
    output_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """All tokens, read, cached and written."""
        return self.input_tokens + self.cached_tokens + self.output_tokens

    @property
    def paid(self) -> bool:
        """Tell whether it cost money or tokens."""
        return self.usd > 0 or self.tokens > 0

    def __add__(self, other: Usage) -> Usage:
        """Add up what two proposals, or two requests, cost."""
        return Usage(
            usd=self.usd + other.usd,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            seconds=self.seconds + other.seconds,
        )


class Failure(Noun):
    """Why a measurement gives no value. `tail` is the end of its log."""

    kind: FailureKind
    reason: str
    tail: str = ""


class Case(Noun):
    """One yes/no case of a suite, as one measurement found it."""

    id: str
    passed: bool
    seconds: float | None = None
    usd: float | None = None
    question: str | None = None
    """The question of a checklist that it answers, of one output."""


class Sealed(Noun):
    """What the target's `final` command said, at the end of a run."""

    values: dict[str, FiniteFloat] = Field(default_factory=dict)
    failure: Failure | None = None


class Measurement(Noun):
    """One execution of the harness on one commit."""

    commit: str
    tree: str
    index: int
    """Which measurement of this commit it is, from 0; it determines the seed."""
    machine: str
    """Kind of machine; records of different kinds are never compared."""
    values: dict[str, FiniteFloat] = Field(default_factory=dict)
    failure: Failure | None = None
    seconds: float = 0.0
    """Wall time of `run`, taken from outside."""
    peak_memory_mb: float = 0.0
    """Largest resident memory of all processes of the measurement together, MiB."""
    usd: float = 0.0
    tokens: int = 0
    feedback: str = ""
    cases: tuple[Case, ...] = ()
    asked: tuple[str, ...] | None = None
    """The ids of the cases it was to run; None is the whole suite."""
    sealed: Sealed | None = None
    """Only at the end of a run, of a target with `final`."""
    log: str = ""
    """Path of the log below the run directory."""


class Twin(Noun):
    """An earlier experiment that a proposal repeats, and what the two have in common."""

    same: Literal["tree", "change", "summary"]
    number: int | None = None
    """0 is the base itself; None is a change that another agent has prepared."""


class Proposal(Noun):
    """What a proposer made of a briefing. `commit` is None when there is nothing to measure."""

    base: str
    commit: str | None = None
    tree: str | None = None
    summary: str = ""
    rationale: str = ""
    usage: Usage = Usage()
    edit: dict[str, Any] | None = None
    """The proposer's own machine-readable account of the change, handed back to it in briefings."""
    invalid: str | None = None
    """Why the proposal cannot be measured, or None."""
    port_of: int | None = None
    """The experiment whose idea this carries to a new base."""
    files: tuple[str, ...] = ()
    lines_added: int = 0
    lines_removed: int = 0
    diff: str = ""
    """The change as a unified diff, cut at `DIFF_LIMIT` characters; git has all of it."""
    flags: tuple[str, ...] = ()
    """What is odd about the change, for a person to look at."""
    twin: Twin | None = None
    """Set when it repeats another even after its proposer was told so: a `duplicate`."""


class Attempt(Noun):
    """An experiment as a proposer sees it in a briefing."""

    number: int
    agent: str
    base: str
    tree: str | None = None
    summary: str
    verdict: Verdict | None = None
    """None while it is in flight."""
    gain: float | None = None
    """Candidate mean minus incumbent mean, signed so that positive is better."""
    edit: dict[str, Any] | None = None
    rationale: str = ""
    reason: str = ""
    """Why the verdict is what it is."""
    diff: str = ""
    feedback: str = ""
    """What the harness had to say of it."""
    tail: str = ""
    """The end of the log, if it failed."""
    values: dict[str, FiniteFloat] = Field(default_factory=dict)
    """Means of all metrics of its record."""
    level: int = 0
    """How many promotions `best` had seen when it was proposed."""
    fixed: tuple[str, ...] = ()
    """Cases that it passes and its incumbent fails, mostly."""
    broken: tuple[str, ...] = ()
    """Cases that it fails and its incumbent passes, mostly."""


class ProcessStamp(Noun):
    """A process as it can be found again: a pid alone may have been given to another."""

    role: str
    host: str
    pid: int
    started: float
    """Start time in seconds since the epoch, as the system reports it."""


class SlotInfo(Noun):
    """One place to measure."""

    name: str
    node: str
    machine: str
    gpus: float = 0
    cpus: float = 1


class TargetInfo(Noun):
    """A target as the ledger knows it."""

    name: str
    metric: MetricSpec
    repo: str
    """Top level of the user's repository."""
    base: str
    base_tree: str
    part: str = ""
    """Its part of the run's branches and files: its name where the config lists `targets`."""
    scored: bool = False
    """Whether a trusted `score` computes the metric; else the code under test reports it."""


class AgentInfo(Noun):
    """An agent as the ledger knows it."""

    name: str
    targets: tuple[str, ...]
    """Those that it works on."""
    proposer: str
    group: int = 0
    """Index of its group in the config's `agents`."""
    thinks: bool = False
    """Whether it can be told something: a duplicate, a crash."""


class FreshResult(Noun):
    """The difference between best and base, measured fresh at the end of a run."""

    gain: float
    """Signed: positive is better."""
    se: float
    """By these measurements alone, never pooled with the records."""
    n: int
    base_mean: float
    best_mean: float
    confirmed: FreshResult | None = None
    """The same difference in the values of the target's `final` command."""


# --- events: the ledger's lines ----------------------------------------------------------------


class Event(Noun):
    """Base of all events. `seq` and `at` are given by the ledger when it is written."""

    v: int = LEDGER_VERSION
    seq: int = -1
    at: datetime | None = None


class RunStarted(Event):
    """The first line: what is optimised and by whom."""

    kind: Literal["run_started"] = "run_started"
    run: str
    targets: tuple[TargetInfo, ...]
    agents: tuple[AgentInfo, ...]
    seed: int = 0


class Launched(Event):
    """A coordinator took the run over. Every start and every resume writes one."""

    kind: Literal["launched"] = "launched"
    process: ProcessStamp
    runtime: str
    slots: tuple[SlotInfo, ...]
    agents: tuple[AgentInfo, ...]
    sandbox: str
    """The rung in force."""
    sandbox_open: tuple[str, ...] = ()
    """What this rung does not isolate."""
    version: str


class Started(Event):
    """A process of the run was started; a resume ends it if it is still there."""

    kind: Literal["started"] = "started"
    process: ProcessStamp


class Measured(Event):
    """One measurement, good or failed."""

    kind: Literal["measured"] = "measured"
    target: str
    purpose: Purpose
    experiment: int | None = None
    slot: str = ""
    busy_seconds: float = 0.0
    """Time the slot was held: export, guard, run, cleanup."""
    measurement: Measurement


class Prepared(Event):
    """A proposal made ahead, while the agent's last experiment is still open. Not numbered."""

    kind: Literal["prepared"] = "prepared"
    agent: str
    target: str
    proposal: Proposal


class Dropped(Event):
    """A prepared proposal that no longer fits its incumbent; it is redone, unnumbered."""

    kind: Literal["dropped"] = "dropped"
    agent: str
    target: str
    reason: str


class Returned(Event):
    """A proposal that repeats another; its proposer is told, once. Not numbered."""

    kind: Literal["returned"] = "returned"
    agent: str
    target: str
    proposal: Proposal
    twin: Twin


class Spent(Event):
    """A proposal that came to nothing and is no experiment, but was paid for."""

    kind: Literal["spent"] = "spent"
    agent: str
    target: str | None = None
    """None where it was cut off, and nobody can tell for which."""
    usage: Usage
    reason: str


class Waiting(Event):
    """The provider asks an agent to wait until a time; it cost `usage` to learn that."""

    kind: Literal["waiting"] = "waiting"
    agent: str
    target: str
    until: datetime
    reason: str
    usage: Usage = Usage()


DRIFT = "drift"
"""What `Warned` calls a machine on which the same commit measures differently later; with several
targets, their names follow."""


class Warned(Event):
    """A budget is nearly used up, or the machine drifts: said once."""

    kind: Literal["warned"] = "warned"
    limit: str
    """The budget's key, or `drift`."""
    message: str


class WarmStarted(Event):
    """What an earlier run has tried, for this one to learn from."""

    kind: Literal["warm_started"] = "warm_started"
    target: str
    run: str
    attempts: tuple[Attempt, ...]


class Repaired(Event):
    """The proposer's answer to a crash: a new change under the old number, or none."""

    kind: Literal["repaired"] = "repaired"
    number: int
    proposal: Proposal
    """With `invalid` set when it gave up."""


class Proposed(Event):
    """An experiment begins here, and here it gets its number."""

    kind: Literal["proposed"] = "proposed"
    number: int
    target: str
    agent: str
    proposal: Proposal


class Decided(Event):
    """The verdict on an experiment."""

    kind: Literal["decided"] = "decided"
    number: int
    verdict: Verdict
    reason: str
    z: float | None = None
    """None when the spread is zero or nothing was compared."""
    gain: float | None = None
    """Candidate mean minus incumbent mean, signed so that positive is better."""
    incumbent_n: int = 0
    fixed: tuple[str, ...] = ()
    """Cases that it passes and its incumbent fails, mostly."""
    broken: tuple[str, ...] = ()
    """Cases that it fails and its incumbent passes, mostly."""


class Stacked(Event):
    """The merger laid an experiment on `best`; the stack is to be measured."""

    kind: Literal["stacked"] = "stacked"
    target: str
    number: int
    onto: str
    commit: str
    tree: str
    predicted: float
    """The shrunken gain of the experiment, signed so that positive is better."""


class Promoted(Event):
    """`best` advances from `old` to `new`."""

    kind: Literal["promoted"] = "promoted"
    target: str
    number: int
    old: str
    new: str
    tree: str
    stacked: bool
    """False for a fast-forward: the tree is the one that was measured."""


class NotMerged(Event):
    """A kept experiment did not reach `best`."""

    kind: Literal["not_merged"] = "not_merged"
    target: str
    number: int
    outcome: MergeOutcome
    reason: str
    onto: str
    final: bool = True
    """False for a first conflict: it is tried once more on the next best."""


class Synced(Event):
    """An agent's incumbent on a target moved to a commit (of `best`)."""

    kind: Literal["synced"] = "synced"
    agent: str
    target: str
    commit: str
    tree: str


class Parked(Event):
    """An agent stopped proposing because its proposer keeps failing."""

    kind: Literal["parked"] = "parked"
    agent: str
    reason: str
    hint: str | None = None
    """What helps, where that is known."""


class Exhausted(Event):
    """An agent has nothing left to try on a target, until `best` moves there."""

    kind: Literal["exhausted"] = "exhausted"
    agent: str
    target: str
    reason: str


class Ended(Event):
    """A target of several has come to its end before the run; a launch may open it again."""

    kind: Literal["ended"] = "ended"
    target: str
    reason: str
    failed: bool = False
    """Whether it could not go on: its base cannot be measured, say."""


class Paused(Event):
    """No new work is started until `resumed`."""

    kind: Literal["paused"] = "paused"


class Resumed(Event):
    """Work goes on after `paused`."""

    kind: Literal["resumed"] = "resumed"


class Draining(Event):
    """No new proposals; what is in flight is finished. A drain by `interrupt` can be resumed."""

    kind: Literal["draining"] = "draining"
    reason: str
    interrupt: bool = False


class Interrupted(Event):
    """The coordinator left in good order before the run was finished."""

    kind: Literal["interrupted"] = "interrupted"
    reason: str


class Finished(Event):
    """The run is over. `results` holds the fresh re-measurement of each target that improved."""

    kind: Literal["finished"] = "finished"
    reason: str
    results: dict[str, FreshResult] = Field(default_factory=dict)


class Failed(Event):
    """The run cannot go on by itself; a launch resumes it."""

    kind: Literal["failed"] = "failed"
    error: str
    hint: str | None = None
    results: dict[str, FreshResult] = Field(default_factory=dict)
    """Of targets that had come to their end before."""


AnyEvent = Annotated[
    RunStarted
    | Launched
    | Started
    | Measured
    | Prepared
    | Dropped
    | Returned
    | Spent
    | Waiting
    | Warned
    | WarmStarted
    | Repaired
    | Proposed
    | Decided
    | Stacked
    | Promoted
    | NotMerged
    | Synced
    | Parked
    | Exhausted
    | Ended
    | Paused
    | Resumed
    | Draining
    | Interrupted
    | Finished
    | Failed,
    Field(discriminator="kind"),
]

EVENT: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)
"""Reads one event from a JSON object or line."""
