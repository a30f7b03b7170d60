"""How `best` grows in git: winners laid on it, promotions written, delivery to the user.

Makes objects in the hub and gives the events that speak of them; it moves no ref and writes no
ledger. Which winner, and whether a stack is good enough, is decided in `merger` and `plan`.
"""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path

from swarm import merger
from swarm.actions import Promote
from swarm.entities import Experiment, Target
from swarm.errors import GitError, PreconditionError
from swarm.lessons import changes
from swarm.records import CASES, NotMerged, Promoted, Proposal, Stacked
from swarm.repo import Conflict, Hub, Identity, locate
from swarm.rundir import RunDir
from swarm.state import RunState

log = logging.getLogger("swarm")

NAMED = 10
"""Most cases that a promotion's message names as fixed, and as broken."""
MERGER = Identity("swarm merger", "merger@swarm.invalid")


def rebase(hub: Hub, proposal: Proposal, onto: str, now: datetime) -> Proposal | None:
    """Carry a proposal over to another incumbent; None if it does not apply or adds nothing."""
    assert proposal.commit is not None
    tree = hub.stack(proposal.commit, proposal.base, onto)
    if isinstance(tree, Conflict) or tree == hub.tree(onto):
        return None
    message = f"{proposal.summary}\n\n{proposal.rationale}".strip() + "\n"
    commit = hub.commit(tree, [onto], message, MERGER, now)
    return proposal.model_copy(update={"base": onto, "commit": commit, "tree": tree})


def lay(hub: Hub, state: RunState, name: str, number: int, now: datetime) -> Stacked | NotMerged:
    """Lay a winner on `best`: a stack that is to be measured, or why there is none."""
    target, experiment = state.targets[name], state.experiments[number]
    proposal = experiment.proposal
    assert proposal.commit is not None
    tree = hub.stack(proposal.commit, proposal.base, target.best)
    if isinstance(tree, Conflict):
        closing = state.closing(target)
        return NotMerged(
            target=name,
            number=number,
            outcome="conflict",
            reason=f"conflict in {', '.join(tree.paths)}",
            onto=target.best,
            final=experiment.conflict_onto is not None or (closing and not target.open),
        )
    if tree == target.tree_of[target.best]:
        return NotMerged(
            target=name,
            number=number,
            outcome="redundant",
            reason="best already contains this change",
            onto=target.best,
        )
    message = f"stack experiment {number} on best\n"
    return Stacked(
        target=name,
        number=number,
        onto=target.best,
        commit=hub.commit(tree, [target.best], message, MERGER, now),
        tree=tree,
        predicted=merger.predicted(target, experiment),
    )


def promotion(hub: Hub, state: RunState, action: Promote, now: datetime) -> Promoted:
    """Write the commit that `best` moves to, rewritten so that the branch reads as a story."""
    target, experiment = state.targets[action.target], state.experiments[action.number]
    tree = target.stack.tree if action.stacked and target.stack else experiment.proposal.tree
    assert tree is not None
    message = _message(state.run, target, experiment, stacked=action.stacked)
    who = Identity(f"swarm {experiment.agent}", f"{experiment.agent}@swarm.invalid")
    return Promoted(
        target=action.target,
        number=action.number,
        old=target.best,
        new=hub.commit(tree, [target.best], message, who, now),
        tree=tree,
        stacked=action.stacked,
    )


def home(rundir: RunDir, state: RunState, target: Target) -> Path:
    """Give where the repository of a target is now."""
    first = next(iter(state.targets.values()))
    return rundir.repository(Path(target.info.repo), Path(first.info.repo))


def deliver(hub: Hub, state: RunState, rundir: RunDir) -> bool:
    """Give `best` to the user's repository; False if it refused, which must not stop the run."""
    delivered = True
    for target in state.targets.values():
        ref = f"refs/heads/{state.branch(target.info.name, 'best')}"
        if not target.promotions:
            continue
        try:
            hub.deliver(locate(home(rundir, state, target)).git_dir, ref)
        except (PreconditionError, GitError) as error:
            log.warning("cannot deliver %s: %s", ref, error)
            delivered = False
    return delivered


def _message(run: str, target: Target, experiment: Experiment, *, stacked: bool) -> str:
    """Write a promotion's message: the summary, the rationale, and what was measured."""
    metric, machine = target.info.metric, experiment.machine or ""
    commit = experiment.proposal.commit
    assert commit is not None
    trailers = [
        f"Swarm-Run: {run}",
        f"Swarm-Experiment: {experiment.number}",
        f"Swarm-Agent: {experiment.agent}",
        f"Swarm-Metric: {_measured_words(target, commit, experiment.base, machine)}",
    ]
    if moved := changes(experiment.fixed, experiment.broken, NAMED):
        trailers.append(f"Swarm-Cases: {moved}")
    if stacked and target.stack is not None:
        place = target.machine(target.stack.commit) or machine
        words = _measured_words(target, target.stack.commit, target.best, place)
        trailers.append(f"Swarm-Stack: {words}")
    proposal = experiment.proposal
    body = f"{proposal.rationale}\n\n" if proposal.rationale else ""
    what = proposal.summary or f"improve {metric.name}"
    return f"{what}\n\n{body}" + "\n".join(trailers) + "\n"


def _measured_words(target: Target, commit: str, against: str, machine: str) -> str:
    """Give `val_bpb 0.98 ± 0.002 (n=3) against 0.99 ± 0.001 (n=8)`.

    Of a suite with the count of cases: `cases 0.8 ± 0.02 (32 of 40, n=3) against ...`.
    """
    whole = len(target.suite) if target.info.metric.name == CASES else 0
    parts: list[str] = []
    for sha in (commit, against):
        sample = target.record(sha, machine).primary
        se = target.spread(machine).se(sample)
        passed = f"{sample.mean * whole:.4g} of {whole}, " if whole else ""
        error = 0.0 if se is None else se
        parts.append(f"{sample.mean:.6g} ± {error:.2g} ({passed}n={sample.n})")
    unit = f" {target.info.metric.unit}" if target.info.metric.unit else ""
    return f"{target.info.metric.name} {parts[0]} against {parts[1]}{unit}"
