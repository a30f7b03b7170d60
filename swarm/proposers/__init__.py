"""The seam where changes come from: a briefing and a worktree in, an edited worktree out.

A proposer edits files below `workspace.root`, nothing else; it neither commits nor measures, and
it is never told how it will be judged beyond the briefing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from swarm.briefing import Briefing
from swarm.groups import (
    HeadlessProposer,
    MessagesProposer,
    MutateProposer,
    ProposerConfig,
    ScriptedProposer,
)
from swarm.records import Usage
from swarm.sandbox import PROCESS, Rung
from swarm.scope import Scope


def _forget(usage: Usage) -> None:
    pass


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
    hidden: Scope = field(default_factory=partial(Scope, ()))
    """Files that a proposer must not read."""
    rung: Rung = PROCESS
    """How a program that makes the change is kept from the machine."""
    shielded: tuple[str, ...] = ()
    """Directories of which such a program sees nothing but its worktree."""
    scratch: Path | None = None
    """A private directory for the proposer's own files, empty at every proposal; None: make one."""
    spent: Callable[[Usage], None] = _forget
    """To be told the usage of this proposal so far whenever it has grown, and before the next
    request: what was paid for is on the disk even if this process is killed."""


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


class UnavailableError(NoProposalError):
    """The provider is overloaded, or asks to be left alone: try again in `wait_s` seconds."""

    def __init__(self, reason: str, wait_s: float, usage: Usage | None = None) -> None:
        super().__init__(reason, usage)
        self.wait_s = wait_s


class LockedOutError(NoProposalError):
    """The provider or program will not serve this group: a wrong key, an unknown model."""

    def __init__(self, reason: str, hint: str, usage: Usage | None = None) -> None:
        super().__init__(reason, usage)
        self.hint = hint


class Proposer(Protocol):
    """One agent's source of changes. Called by one thread at a time."""

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        """Edit the workspace and say what was done.

        Raises:
            NoProposalError: no change was made. The worktree may be dirty; the caller resets it.
        """
        ...


def make(
    config: ProposerConfig, *, agent: str, index: int, count: int, keys: Mapping[str, str]
) -> Proposer:
    """Build the proposer of agent `index` of the `count` agents of its group.

    `keys` holds the environment variables that `keys.wanted` names for it, where they are set.
    """
    # Imported here: each kind brings its own libraries, and a run needs few of them.
    match config:
        case MutateProposer():
            from swarm.proposers.mutate import Mutate

            return Mutate(agent, config.examples)
        case ScriptedProposer():
            from swarm.proposers.scripted import Scripted

            return Scripted(config.patches, index, count, config.loop)
        case MessagesProposer():
            from swarm.proposers.messages import Messages

            return Messages(config, agent, keys)
        case HeadlessProposer():
            from swarm.proposers.headless import Headless

            return Headless(config, agent, keys)
