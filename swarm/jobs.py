"""What an agent is sent out with: a `ProposeJob` from the fold. Pure; ships no objects.

Owns which part of the run's state each briefing is made from. Decides nothing: who proposes on
what base is the plan's, what kind of change is asked for is `directives`'.
"""

from __future__ import annotations

from swarm import mustering, prose
from swarm.actions import Propose
from swarm.agent import ProposeJob
from swarm.briefing import CaseCount, Crash, Idea, Repeat, Suite
from swarm.config import RunConfig
from swarm.directives import directive
from swarm.entities import Target
from swarm.judge import detectable
from swarm.records import CASES, Attempt, MetricSpec
from swarm.rules import JudgeConfig, PointsConfig
from swarm.state import RunState

NAMED = 20
"""Most cases that must pass that are named."""


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
    loop, rule = agent.loops[action.target], config.rule(action.target)
    sample = target.primary(action.base)
    sigma = next((s.sigma for s in target.spreads.values() if s.sigma is not None), None)
    seed = mustering.proposal_seed(state.seed, action.agent, agent.proposals)
    crash = None if action.repair is None else _crash(state, action.repair)
    returned = loop.returned if action.repair is None else None
    return ProposeJob(
        agent=action.agent,
        target=action.target,
        base=action.base,
        seed=seed,
        ordinal=agent.proposals,
        program=mustering.program(config.named(action.target)),
        incumbent_mean=sample.mean if sample.n else None,
        incumbent_se=target.se(action.base),
        noise=sigma,
        detectable=None if sigma is None else detectable(sigma, rule, sample.mean),
        counts=what_counts(rule, target.info.metric),
        level=len(target.promotions),
        suite=_suite(target, action.base, rule),
        directive=directive(state, action.agent, action.target, config, seed),
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


def what_counts(rule: JudgeConfig, metric: MetricSpec) -> tuple[str, ...]:
    """Put into words what a change is kept for besides the plain metric, one sentence each."""
    found = [prose.SUITE] if metric.name == CASES else []
    if rule.points is not None:
        found += _points(rule.points)
    elif found:
        found.append(prose.BY_CASES)
    if rule.keep_if_equal == "simpler":
        found.append(prose.SIMPLER)
    if rule.must_pass:
        shown = ", ".join(f"`{name}`" for name in rule.must_pass[:NAMED])
        left = len(rule.must_pass) - NAMED
        more = f" and {left} more, marked below where they fail" if left > 0 else ""
        found.append(prose.MUST_PASS.format(cases=shown + more))
    return tuple(found)


def _points(points: PointsConfig) -> list[str]:
    literal = points.trade == "literal"
    words = prose.POINT if literal else prose.PART_OF
    parts = [
        words["cases"] if part == "cases" else words["cost"].format(name=part.name)
        for part in points.of
    ]
    said = prose.LITERAL if literal else prose.LEXICOGRAPHIC
    found = [said.format(parts=(", " if literal else ", then ").join(parts))]
    return [*found, prose.COST] if any(part != "cases" for part in points.of) else found


def _suite(target: Target, commit: str, rule: JudgeConfig) -> Suite | None:
    """Give how a commit stands with the cases, by the kind of machine that measured it most."""
    machine = target.machine(commit)
    cases = {} if machine is None else target.record(commit, machine).cases
    if not cases:
        return None
    counts = [CaseCount(id=i, passes=c.passes, runs=c.runs) for i, c in cases.items() if c.runs]
    return Suite(
        size=len(target.suite),
        failing=tuple(c for c in counts if c.passes == 0),
        flaky=tuple(c for c in counts if 0 < c.passes < c.runs),
        must_pass=frozenset(rule.must_pass),
    )


def _since(target: Target, sent: int) -> tuple[Attempt, ...]:
    """Give what an agent has not heard: of each experiment only how it stands now."""
    newest = {attempt.number: attempt for attempt in target.attempts[sent:]}
    return tuple(newest.values())


def _others(state: RunState, action: Propose) -> tuple[str, ...]:
    """Give what others have prepared and not begun yet."""
    return tuple(
        f"{name}: {prepared.summary}"
        for name, prepared in state.prepared(action.target)
        if name != action.agent
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
