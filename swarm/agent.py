"""One agent's hands: sync the worktree, brief, propose, check, commit. Decides nothing.

An agent holds no state that matters: its history comes with the jobs, its worktree is rebuilt
from the mirror. What a proposer leaves on disk is checked as tree objects before it is a commit.
"""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from swarm.briefing import Briefing, Crash, Directive, Idea, Repeat, Suite
from swarm.errors import SwarmError
from swarm.formats.text import printable, sanitise
from swarm.keys import blot
from swarm.node import Node, scratch_root
from swarm.novelty import only_seeds
from swarm.proposers import (
    Draft,
    ExhaustedError,
    LockedOutError,
    NoProposalError,
    Proposer,
    UnavailableError,
    Workspace,
)
from swarm.records import DIFF_LIMIT, AgentInfo, Attempt, MetricSpec, Proposal, Usage
from swarm.removal import remove_tree
from swarm.repo import Identity, Rejected, Snapshot, Worktree
from swarm.scope import Scope

log = logging.getLogger("swarm")

FEW_LINES = 20
SEEDS_ONLY = "it changes nothing but seeds: what it gains may be luck with them"


@dataclass(frozen=True)
class ProposeJob:
    """One proposal to be made."""

    agent: str
    target: str
    base: str
    seed: int
    ordinal: int
    """How many proposals of this agent the ledger has paid for."""
    program: str
    incumbent_mean: float | None
    incumbent_se: float | None
    noise: float | None
    attempts_from: int
    """How many entries of the target's attempt log this agent must already have."""
    attempts: tuple[Attempt, ...]
    """The entries since then; of an experiment that changed in between, at least the last."""
    attempts_upto: int
    """How many entries it has with these."""
    earlier: tuple[Attempt, ...] = ()
    """Those of an earlier run; sent with the first entries."""
    detectable: float | None = None
    counts: tuple[str, ...] = ()
    level: int = 0
    suite: Suite | None = None
    directive: Directive = field(default_factory=Directive)
    others: tuple[str, ...] = ()
    port: Idea | None = None
    repeat: Repeat | None = None
    crash: Crash | None = None
    start: str | None = None
    """The commit to put into the worktree, where it is not `base`: the one that crashed."""
    pack: bytes | None = None
    """Objects that the agent's node lacks."""


@dataclass(frozen=True)
class ProposeDone:
    """A proposal that was made; `proposal.invalid` says so if there is nothing to measure."""

    agent: str
    proposal: Proposal
    pack: bytes | None = None
    exhausted: bool = False
    wait_s: float | None = None
    """The provider asks to be left alone for so long; the proposal holds reason and usage."""
    locked_out: str | None = None
    """What helps when the provider will not serve this agent at all."""


@dataclass(frozen=True)
class Ready:
    """An agent is up; `unpaid` are the proposals that died with the one before it."""

    agent: str
    unpaid: tuple[tuple[int, Usage], ...] = ()
    """Ordinal and usage of each."""


@dataclass(frozen=True)
class Terms:
    """What does not change for an agent in the course of a launch."""

    metric: MetricSpec
    scope: tuple[str, ...]
    limits: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that must not appear in anything it makes."""


class Journal:
    """What an agent's proposals have cost, on the disk as soon as it is known.

    The ledger hears of a proposal when it is done. What was spent on one that is never done is
    found here by the agent's successor.
    """

    def __init__(self, node: Node, agent: str) -> None:
        self._dir, self._agent = node.root / "usage", agent

    def unpaid(self) -> tuple[tuple[int, Usage], ...]:
        """Give ordinal and usage of all that is noted."""
        found: list[tuple[int, Usage]] = []
        for path in sorted(self._dir.glob(f"{self._agent}-*.json")):
            with suppress(OSError, ValueError):
                ordinal = int(path.stem.rpartition("-")[2])
                found.append((ordinal, Usage.model_validate_json(path.read_bytes())))
        return tuple(found)

    def noted(self, ordinal: int) -> Usage:
        """Give what is noted of a proposal."""
        return dict(self.unpaid()).get(ordinal, Usage())

    def note(self, ordinal: int, usage: Usage) -> None:
        """Replace what is noted of a proposal."""
        self._dir.mkdir(parents=True, exist_ok=True)
        path = self._dir / f"{self._agent}-{ordinal}.json"
        draft = path.with_suffix(".new")
        with open(draft, "w", encoding="utf-8") as file:
            file.write(usage.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def settle(self, ordinal: int) -> None:
        """Forget the proposals before `ordinal`: the ledger has them."""
        for path in self._dir.glob(f"{self._agent}-*.json"):
            with suppress(OSError, ValueError):
                if int(path.stem.rpartition("-")[2]) < ordinal:
                    path.unlink()


class Hands:
    """An agent on its node."""

    def __init__(self, node: Node, info: AgentInfo, proposer: Proposer, terms: Terms) -> None:
        self._node, self._info, self._proposer, self._terms = node, info, proposer, terms
        self._scope = Scope(terms.scope, within=node.scope)
        self._journal = Journal(node, info.name)
        self._tree: Worktree | None = None
        self._at: str | None = None
        """The commit at which the worktree is known to stand, clean."""
        self._attempts: dict[int, Attempt] = {}
        self._earlier: tuple[Attempt, ...] = ()
        self._trees: dict[str, int] = {}
        self._heard = 0

    def propose(self, job: ProposeJob) -> ProposeDone:
        """Make one proposal. Never raises for what the proposer did."""
        started = time.monotonic()
        self._journal.settle(job.ordinal)
        self._listen(job)
        worktree = self._sync(job)
        try:
            done = self._propose(worktree, job)
        finally:
            self._at = None
            worktree.reset(job.base)
            self._at = job.base
        seconds = time.monotonic() - started
        usage = done.proposal.usage.model_copy(update={"seconds": seconds})
        proposal = done.proposal.model_copy(update={"usage": usage})
        return replace(done, proposal=self._blotted(proposal))

    def _propose(self, worktree: Worktree, job: ProposeJob) -> ProposeDone:
        name = self._info.name
        try:
            draft = self._ask(self._workspace(worktree, job), job)
            return self._check_and_commit(worktree, job, draft)
        except ExhaustedError as error:
            return ProposeDone(name, _invalid(job, error.reason, error.usage), exhausted=True)
        except UnavailableError as error:
            invalid = _invalid(job, error.reason, error.usage)
            return ProposeDone(name, invalid, wait_s=error.wait_s)
        except LockedOutError as error:
            invalid = _invalid(job, error.reason, error.usage)
            return ProposeDone(name, invalid, locked_out=error.hint)
        except NoProposalError as error:
            return ProposeDone(name, _invalid(job, error.reason, error.usage))

    def _blotted(self, proposal: Proposal) -> Proposal:
        """Take keys out of what a proposer said: programs and providers may repeat them."""
        secrets = self._terms.secrets
        if not secrets:
            return proposal
        texts = ("summary", "rationale", "invalid", "diff")
        update: dict[str, object] = {
            name: blot(text, secrets) for name in texts if (text := getattr(proposal, name))
        }
        if proposal.edit is not None:
            update["edit"] = json.loads(blot(json.dumps(proposal.edit), secrets))
        return proposal.model_copy(update=update)

    def _ask(self, workspace: Workspace, job: ProposeJob) -> Draft:
        """Ask the proposer. Its own faults are its failure, and the next seed may avoid them."""
        try:
            return self._proposer.propose(workspace, self._brief(job))
        except (NoProposalError, SwarmError, OSError, MemoryError):
            raise
        except Exception as error:
            trace = blot(traceback.format_exc(), self._terms.secrets)
            log.error("the proposer of %s failed\n%s", self._info.name, trace)
            words = blot(str(error), self._terms.secrets)
            reason = f"the proposer failed: {type(error).__name__}: {words}"
            raise NoProposalError(reason[:500], self._journal.noted(job.ordinal)) from error

    def _listen(self, job: ProposeJob) -> None:
        """Take in what has happened since the last job; numbers only grow, so order holds."""
        if job.attempts_from == 0:
            self._attempts, self._trees = {}, {self._node.target.base_tree: 0}
            self._earlier = job.earlier
        elif job.attempts_from != self._heard:
            raise SwarmError(f"agent {self._info.name} lacks a part of the run's history")
        self._heard = job.attempts_upto
        for attempt in job.attempts:
            self._attempts[attempt.number] = attempt
            if attempt.tree is not None:
                self._trees.setdefault(attempt.tree, attempt.number)

    def _sync(self, job: ProposeJob) -> Worktree:
        mirror, name = self._node.mirror, self._info.name
        start = job.start or job.base
        if job.pack is not None:
            mirror.unpack(job.pack)
        if self._tree is None:
            who = Identity(f"swarm {name}", f"{name}@swarm.invalid")
            # One for each target: they may be of different repositories.
            place = self._node.root / "worktrees" / self._node.target.name / name
            self._tree = mirror.worktree(f"{name}.{self._node.target.name}", place, start, who)
        elif self._at != start:
            self._tree.reset(start)
        return self._tree

    def _workspace(self, worktree: Worktree, job: ProposeJob) -> Workspace:
        prefix = self._node.target.prefix

        def measured() -> int | None:
            secrets = self._terms.secrets
            found = worktree.snapshot(job.base, prefix, self._scope, secrets=secrets)
            # What would be refused, an empty change above all, is as good as tried.
            return 0 if isinstance(found, Rejected) else self._trees.get(found.tree)

        scratch: Path | None = None
        if self._info.thinks:
            scratch = self._node.root / "proposers" / self._info.name
            remove_tree(scratch)
            scratch.mkdir(mode=0o700, parents=True)
        return Workspace(
            Path(worktree.path) / prefix,
            self._scope,
            worktree.files(job.start or job.base, prefix, self._scope),
            measured,
            hidden=self._node.hidden,
            rung=self._node.site.rung,
            shielded=(*self._node.site.shielded, str(scratch_root())),
            scratch=scratch,
            spent=partial(self._journal.note, job.ordinal),
        )

    def _brief(self, job: ProposeJob) -> Briefing:
        return Briefing(
            run=self._node.site.run,
            agent=self._info.name,
            metric=self._terms.metric,
            scope=self._scope.patterns,
            program=job.program,
            limits=self._terms.limits,
            counts=job.counts,
            seed=job.seed,
            incumbent=job.base,
            incumbent_mean=job.incumbent_mean,
            incumbent_se=job.incumbent_se,
            noise=job.noise,
            detectable=job.detectable,
            level=job.level,
            suite=job.suite,
            directive=job.directive,
            attempts=tuple(self._attempts.values()),
            earlier=self._earlier,
            others=job.others,
            port=job.port,
            crash=job.crash,
            repeat=job.repeat,
        )

    def _check_and_commit(self, worktree: Worktree, job: ProposeJob, draft: Draft) -> ProposeDone:
        target = self._node.target
        found = worktree.snapshot(
            job.base,
            target.prefix,
            self._scope,
            max_files=target.max_files,
            max_lines=target.max_lines,
            secrets=self._terms.secrets,
        )
        summary = _one_line(draft.summary)
        if isinstance(found, Rejected):
            invalid = _invalid(job, found.reason, draft.usage)
            return ProposeDone(self._info.name, invalid.model_copy(update={"summary": summary}))
        small = found.added == found.removed <= FEW_LINES
        diff = worktree.diff(job.base, found.tree) if self._info.thinks or small else ""
        message = blot(f"{summary}\n\n{draft.rationale}", self._terms.secrets).strip() + "\n"
        commit = worktree.commit(found.tree, job.base, message, datetime.now(UTC))
        proposal = _proposal(job, draft, found, commit, summary)
        if diff and self._info.thinks:
            proposal = proposal.model_copy(update={"diff": _cut(diff)})
        if small and only_seeds(diff):
            proposal = proposal.model_copy(update={"flags": (SEEDS_ONLY,)})
        return ProposeDone(self._info.name, proposal, worktree.pack(commit, [job.base]))


def _cut(diff: str) -> str:
    if len(diff) <= DIFF_LIMIT:
        return diff
    return diff[:DIFF_LIMIT] + f"\n[... {len(diff) - DIFF_LIMIT} more characters]\n"


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
    line = next(iter(sanitise(text).strip().splitlines()), "")
    return printable(line).strip()[:200]
