"""What an agent is sent out with: a `ProposeJob` from the fold. Pure; ships no objects.

Owns which part of the run's state each briefing is made from. Decides nothing: who proposes on
what base is the plan's, what kind of change is asked for is `directives`'.
"""

from __future__ import annotations

from swarm import mustering
from swarm.actions import Propose
from swarm.agent import ProposeJob
from swarm.briefing import Crash, Idea, Repeat
from swarm.config import RunConfig
from swarm.directives import directive
from swarm.entities import Target
from swarm.judge import detectable
from swarm.records import Attempt
from swarm.state import RunState


def job_of(
    state: RunState, config: RunConfig, action: Propose, *, sent: int, port: Idea | None
) -> ProposeJob:
    """Give the job that carries out an action.

    Args:
        state: what has happened.
        config: the run's config.
        action: who is to propose on what.
        sent: how many of the target's attempts the agent has already been told.
        port: the change to be carried over, if the action asks for one.
    """
    target, agent = state.targets[action.target], state.agents[action.agent]
    sample = target.primary(action.base)
    sigma = next((s.sigma for s in target.spreads.values() if s.sigma is not None), None)
    seed = mustering.proposal_seed(state.seed, action.agent, agent.proposals)
    crash = None if action.repair is None else _crash(state, action.repair)
    returned = agent.returned if action.repair is None else None
    return ProposeJob(
        agent=action.agent,
        base=action.base,
        seed=seed,
        ordinal=agent.proposals,
        program=mustering.program(config.targets[0]),
        incumbent_mean=sample.mean if sample.n else None,
        incumbent_se=target.se(action.base),
        noise=sigma,
        detectable=None if sigma is None else detectable(sigma, config.judge, sample.mean),
        level=len(target.promotions),
        directive=directive(state, action.agent, config, seed),
        attempts_from=sent,
        attempts=_since(target, sent),
        attempts_upto=len(target.attempts),
        earlier=target.earlier if sent == 0 else (),
        others=_others(state, action),
        port=port,
        repeat=returned and Repeat(twin=returned.twin, summary=returned.proposal.summary),
        crash=crash,
        start=None if action.repair is None else state.experiments[action.repair].proposal.commit,
    )


def _since(target: Target, sent: int) -> tuple[Attempt, ...]:
    """Give what an agent has not heard: of each experiment only how it stands now."""
    newest = {attempt.number: attempt for attempt in target.attempts[sent:]}
    return tuple(newest.values())


def _others(state: RunState, action: Propose) -> tuple[str, ...]:
    """Give what others have prepared and not begun yet."""
    return tuple(
        f"{name}: {agent.prepared.summary}"
        for name, agent in state.agents.items()
        if name != action.agent
        and agent.prepared is not None
        and agent.info.target == action.target
    )


def _crash(state: RunState, number: int) -> Crash:
    experiment = state.experiments[number]
    assert experiment.failed is not None
    assert experiment.failed.failure is not None
    proposal, failure = experiment.proposal, experiment.failed.failure
    return Crash(
        number=number,
        summary=proposal.summary,
        rationale=proposal.rationale,
        diff=proposal.diff,
        reason=failure.reason,
        tail=failure.tail,
    )
