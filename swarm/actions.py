"""What the plan can say, and what it is made from: actions, the crew, the view.

Nouns only. The coordinator carries actions out; nothing here decides or touches anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from swarm.config import RunConfig, TargetConfig
from swarm.entities import Target
from swarm.records import (
    Decided,
    Draining,
    Dropped,
    Ended,
    Exhausted,
    FreshResult,
    NotMerged,
    Parked,
    Purpose,
    SlotInfo,
    Synced,
    Warned,
)
from swarm.rules import JudgeConfig
from swarm.state import RunState


@dataclass(frozen=True)
class Emit:
    """Write an event; nothing else has to happen."""

    event: Decided | Draining | Dropped | Ended | Exhausted | NotMerged | Parked | Synced | Warned


@dataclass(frozen=True)
class Number:
    """Make an agent's prepared proposal an experiment, rebased first if its base has moved."""

    agent: str
    target: str


@dataclass(frozen=True)
class Stack:
    """Lay a winner on `best`."""

    target: str
    number: int


@dataclass(frozen=True)
class Promote:
    """Move `best` to a winner (fast-forward) or to the accepted stack."""

    target: str
    number: int
    stacked: bool


@dataclass(frozen=True)
class Measure:
    """Measure a commit on a slot."""

    slot: str
    target: str
    commit: str
    tree: str
    index: int
    machine: str
    purpose: Purpose
    experiment: int | None = None
    cases: tuple[str, ...] | None = None
    """The cases of a suite to be run; None for all."""


@dataclass(frozen=True)
class Propose:
    """Have an agent make a proposal on a base."""

    agent: str
    target: str
    base: str
    port: int | None = None
    repair: int | None = None
    """The experiment of the agent's own that crashed and is to be mended."""


@dataclass(frozen=True)
class Finish:
    """The run is over."""

    reason: str
    results: dict[str, FreshResult]


@dataclass(frozen=True)
class Leave:
    """The run was interrupted and nothing is in flight any more."""

    reason: str


@dataclass(frozen=True)
class Fail:
    """The run cannot go on. `on_base` names the target whose base cannot be measured."""

    error: str
    hint: str
    on_base: str | None = None
    results: dict[str, FreshResult] = field(default_factory=dict[str, FreshResult])
    """Of targets that have come to their end before."""


Action = Emit | Number | Stack | Promote | Measure | Propose | Finish | Leave | Fail


@dataclass
class Crew:
    """Who is there and who is busy. Volatile: nothing here survives the coordinator."""

    slots: dict[str, SlotInfo]
    measuring: dict[str, Measure] = field(default_factory=dict[str, Measure])
    proposing: dict[str, Propose] = field(default_factory=dict[str, Propose])
    offered: set[int] = field(default_factory=set[int])
    """Ports that were handed to an agent in this launch; a port is offered once."""
    away: set[str] = field(default_factory=set[str])
    """Agents that are not up yet, or not again."""
    interrupted: str | None = None
    """Set by a signal: finish what is being measured, start nothing, leave."""

    def machines(self) -> list[str]:
        """The kinds of machine among the slots."""
        return list(dict.fromkeys(s.machine for s in self.slots.values()))


class View(NamedTuple):
    """What a decision is made from."""

    state: RunState
    crew: Crew
    config: RunConfig
    now: datetime

    def target_config(self, target: Target) -> TargetConfig:
        """Give a target's part of the config."""
        return self.config.named(target.info.name)

    def rule(self, target: Target) -> JudgeConfig:
        """Give the judge of a target."""
        return self.config.rule(target.info.name)
