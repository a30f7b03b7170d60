"""A target that a run could have: goal, scope, guard, measure and metric, with the reasons.

Pure data. Which targets a repository has is in `targets`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from swarm.records import Goal

Kind = Literal["speed", "size", "accuracy", "tests", "quality"]


class Because(NamedTuple):
    """A command, and why it is that one."""

    command: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One target that a run could have."""

    kind: Kind
    title: str
    """What gets better, in a few words."""
    reason: str
    """Why this is proposed: what was found."""
    scope: tuple[str, ...]
    metric: str
    goal: Goal
    run: Because
    pattern: str | None = None
    unit: str | None = None
    aggregate: str | None = None
    keep_if_equal: str | None = None
    setup: Because | None = None
    guard: tuple[Because, ...] = ()
    read_only: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    program: str = ""
    timeout: str = "10m"
    gpus: int = 0
    python: str = "python3"
    """The interpreter of all commands that need one."""
    alone: bool = False
    """Measure one at a time: the metric is a time."""
    helpers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Files that the commands need, by path, and that are not there yet."""
    notes: tuple[str, ...] = ()
    """What else a person should know, and how to go on from here."""


_WISHES: tuple[tuple[Kind, str], ...] = (
    ("size", r"small|size|bytes|bundle|lean|short|length|memory|footprint"),
    ("speed", r"fast|speed|quick|slow|latency|time|throughput|perf"),
    ("accuracy", r"accura|loss|recall|precision|bpb|perplex|f1|auc|score|predict|relevan"),
    ("tests", r"tests?\b|failing|bug|fix|pass"),
    ("quality", r"quality|better|good|useful|readab|skill|prompt|answers?"),
)


def wish(goal: str) -> Kind | None:
    """Tell what kind of goal some words mean, None if that cannot be seen."""
    for kind, words in _WISHES:
        if re.search(rf"\b(?:{words})", goal, re.IGNORECASE):
            return kind
    return None
