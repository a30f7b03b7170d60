"""One agent's hands: sync the worktree, brief, propose, check, commit. Decides nothing.

An agent holds no state that matters: its history comes with the jobs, its worktree is rebuilt
from the mirror. What a proposer leaves on disk is checked as tree objects before it is a commit.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from swarm.briefing import Briefing, Idea
from swarm.errors import SwarmError
from swarm.node import Node
from swarm.proposers import Draft, ExhaustedError, NoProposalError, Proposer, Workspace
from swarm.records import AgentInfo, Attempt, MetricSpec, Proposal, Usage
from swarm.repo import Identity, Rejected, Snapshot, Worktree
from swarm.scope import Scope

log = logging.getLogger("swarm")


@dataclass(frozen=True)
class ProposeJob:
    """One proposal to be made."""

    agent: str
    base: str
    seed: int
    program: str
    incumbent_mean: float | None
    incumbent_se: float | None
    noise: float | None
    attempts_from: int
    """How many entries of the target's attempt log this agent must already have."""
    attempts: tuple[Attempt, ...]
    """The entries since then."""
    port: Idea | None = None
    pack: bytes | None = None
    """Objects that the agent's node lacks."""


@dataclass(frozen=True)
class ProposeDone:
    """A proposal that was made; `proposal.invalid` says so if there is nothing to measure."""

    agent: str
    proposal: Proposal
    pack: bytes | None = None
    exhausted: bool = False


class Hands:
    """An agent on its node."""

    def __init__(
        self,
        node: Node,
        info: AgentInfo,
        proposer: Proposer,
        metric: MetricSpec,
        scope: tuple[str, ...],
    ) -> None:
        self._node, self._info, self._proposer, self._metric = node, info, proposer, metric
        self._scope = Scope(scope, within=node.scope)
        self._tree: Worktree | None = None
        self._at: str | None = None
        """The commit at which the worktree is known to stand, clean."""
        self._attempts: dict[int, Attempt] = {}
        self._trees: dict[str, int] = {}
        self._heard = 0

    def propose(self, job: ProposeJob) -> ProposeDone:
        """Make one proposal. Never raises for what the proposer did."""
        started = time.monotonic()
        self._listen(job)
        worktree = self._sync(job)
        workspace = self._workspace(worktree, job)
        try:
            draft = self._ask(workspace, self._brief(job))
            done = self._check_and_commit(worktree, job, draft)
        except ExhaustedError as error:
            return ProposeDone(self._info.name, _invalid(job, error.reason), exhausted=True)
        except NoProposalError as error:
            done = ProposeDone(self._info.name, _invalid(job, error.reason, error.usage))
        finally:
            self._at = None
            worktree.reset(job.base)
            self._at = job.base
        seconds = time.monotonic() - started
        usage = done.proposal.usage.model_copy(update={"seconds": seconds})
        return replace(done, proposal=done.proposal.model_copy(update={"usage": usage}))

    def _ask(self, workspace: Workspace, briefing: Briefing) -> Draft:
        """Ask the proposer. Its own faults are its failure, and the next seed may avoid them."""
        try:
            return self._proposer.propose(workspace, briefing)
        except (NoProposalError, SwarmError, OSError, MemoryError):
            raise
        except Exception as error:
            log.exception("the proposer of %s failed", self._info.name)
            reason = f"the proposer failed: {type(error).__name__}: {error}"
            raise NoProposalError(reason[:500]) from error

    def _listen(self, job: ProposeJob) -> None:
        """Take in what has happened since the last job; numbers only grow, so order holds."""
        if job.attempts_from == 0:
            self._attempts, self._trees = {}, {self._node.target.base_tree: 0}
        elif job.attempts_from != self._heard:
            raise SwarmError(f"agent {self._info.name} lacks a part of the run's history")
        self._heard = job.attempts_from + len(job.attempts)
        for attempt in job.attempts:
            self._attempts[attempt.number] = attempt
            if attempt.tree is not None:
                self._trees.setdefault(attempt.tree, attempt.number)

    def _sync(self, job: ProposeJob) -> Worktree:
        mirror, name = self._node.mirror, self._info.name
        if job.pack is not None:
            mirror.unpack(job.pack)
        if self._tree is None:
            who = Identity(f"swarm {name}", f"{name}@swarm.invalid")
            place = self._node.root / "worktrees" / name
            self._tree = mirror.worktree(name, place, job.base, who)
        elif self._at != job.base:
            self._tree.reset(job.base)
        return self._tree

    def _workspace(self, worktree: Worktree, job: ProposeJob) -> Workspace:
        prefix = self._node.target.prefix

        def measured() -> int | None:
            found = worktree.snapshot(job.base, prefix, self._scope)
            # What would be refused, an empty change above all, is as good as tried.
            return 0 if isinstance(found, Rejected) else self._trees.get(found.tree)

        files = worktree.files(job.base, prefix, self._scope)
        return Workspace(Path(worktree.path) / prefix, self._scope, files, measured)

    def _brief(self, job: ProposeJob) -> Briefing:
        return Briefing(
            run=self._node.site.run,
            agent=self._info.name,
            metric=self._metric,
            scope=self._scope.patterns,
            program=job.program,
            seed=job.seed,
            incumbent=job.base,
            incumbent_mean=job.incumbent_mean,
            incumbent_se=job.incumbent_se,
            noise=job.noise,
            attempts=tuple(self._attempts.values()),
            port=job.port,
        )

    def _check_and_commit(self, worktree: Worktree, job: ProposeJob, draft: Draft) -> ProposeDone:
        target = self._node.target
        found = worktree.snapshot(
            job.base,
            target.prefix,
            self._scope,
            max_files=target.max_files,
            max_lines=target.max_lines,
        )
        summary = _one_line(draft.summary)
        if isinstance(found, Rejected):
            invalid = _invalid(job, found.reason, draft.usage)
            return ProposeDone(self._info.name, invalid.model_copy(update={"summary": summary}))
        message = f"{summary}\n\n{draft.rationale}".strip() + "\n"
        commit = worktree.commit(found.tree, job.base, message, datetime.now(UTC))
        proposal = _proposal(job, draft, found, commit, summary)
        return ProposeDone(self._info.name, proposal, worktree.pack(commit, [job.base]))


def _proposal(
    job: ProposeJob, draft: Draft, found: Snapshot, commit: str, summary: str
) -> Proposal:
    return Proposal(
        base=job.base,
        commit=commit,
        tree=found.tree,
        summary=summary or f"change {', '.join(found.files)}",
        rationale=draft.rationale,
        usage=draft.usage,
        edit=draft.edit,
        port_of=draft.port_of,
        files=found.files,
        lines_added=found.added,
        lines_removed=found.removed,
    )


def _invalid(job: ProposeJob, reason: str, usage: Usage | None = None) -> Proposal:
    return Proposal(base=job.base, invalid=reason, summary=reason, usage=usage or Usage())


def _one_line(text: str) -> str:
    """Give the first line without control characters; it becomes a commit's subject."""
    line = next(iter(text.strip().splitlines()), "")
    return "".join(c if c.isprintable() else " " for c in line).strip()[:200]
