"""The seam where changes come from: a briefing and a worktree in, an edited worktree out.

A proposer edits files below `workspace.root`, nothing else; it neither commits nor measures, and
it is never told how it will be judged beyond the briefing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from swarm.briefing import Briefing
from swarm.config import MutateProposer, ScriptedProposer
from swarm.records import Usage
from swarm.scope import Scope


@dataclass(frozen=True)
class Workspace:
    """The worktree as a proposer sees it."""

    root: Path
    """The target's own directory inside the worktree; scope is relative to it."""
    scope: Scope
    files: tuple[str, ...]
    """The tracked files in scope, relative to `root`, sorted."""
    measured: Callable[[], int | None]
    """Number of the experiment whose tree equals the worktree as it now stands (0 is the base),
    or None when nobody has tried it. Costs a few milliseconds."""


@dataclass(frozen=True)
class Draft:
    """What a proposer says of the edit that it made."""

    summary: str
    """One line, readable in a log: `lr 0.001 -> 0.0021 in train.py`."""
    rationale: str = ""
    usage: Usage = field(default_factory=Usage)
    edit: dict[str, Any] | None = None
    """JSON that comes back in `Attempt.edit`; lets a proposer learn from the run's history."""
    port_of: int | None = None


class NoProposalError(Exception):
    """The proposer could not make a change; the message becomes the reason of an `invalid`."""

    def __init__(self, reason: str, usage: Usage | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.usage = usage or Usage()


class ExhaustedError(NoProposalError):
    """The proposer has nothing left to try, now or later: its agent is parked."""


class Proposer(Protocol):
    """One agent's source of changes. Called by one thread at a time."""

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        """Edit the workspace and say what was done.

        Raises:
            NoProposalError: no change was made. The worktree may be dirty; the caller resets it.
        """
        ...


def make(
    config: MutateProposer | ScriptedProposer, *, agent: str, index: int, count: int
) -> Proposer:
    """Build the proposer of agent `index` of the `count` agents of its group."""
    # Imported here: each kind brings its own libraries, and a run needs few of them.
    match config:
        case MutateProposer():
            from swarm.proposers.mutate import Mutate

            return Mutate(agent)
        case ScriptedProposer():
            from swarm.proposers.scripted import Scripted

            return Scripted(config.patches, index, count, config.loop)
