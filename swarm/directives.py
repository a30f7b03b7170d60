"""What kind of change an agent is asked for in its next round. Pure: state and seed in.

Owns when an agent is sent another way. Costs the same at experiment 3,000 as at experiment 3.
"""

from __future__ import annotations

import hashlib

from swarm.briefing import Directive
from swarm.config import RunConfig
from swarm.entities import Agent, Target
from swarm.groups import Role
from swarm.novelty import summary_key
from swarm.records import Attempt
from swarm.state import RunState

PIVOT_AFTER = 5
"""Experiments of an agent in a row without a keep, after which it begins afresh; and again."""
PLATEAU_LEAST, PLATEAU_PER_AGENT = 10, 3
"""A target that has seen so many experiments without a keep is on a plateau."""
RETRY_AFTER = 3
"""Promotions of `best` after which a failed idea may be tried again."""
RETRY_ONE_IN = 6
"""How often an idea is tried again when nothing calls for it."""
LOOKBACK = 200
"""How many entries of the attempt log are searched for one."""
MIX: tuple[Role, ...] = (
    "explore",
    "refine",
    "explore",
    "refine",
    "combine",
    "explore",
    "refine",
    "simplify",
)
"""What agents are asked for in turn; agents begin at different places."""


def directive(state: RunState, agent: str, name: str, config: RunConfig, seed: int) -> Directive:
    """Give the directive of an agent's next proposal.

    Args:
        state: what has happened.
        agent: whose proposal it is.
        name: the target that it is for.
        config: for the group's role and the judge's thresholds.
        seed: that of the proposal; all choices come from it.
    """
    me = state.agents[agent]
    target, streak = state.targets[name], me.loops[name].streak
    pivot = streak > 0 and streak % PIVOT_AFTER == 0
    plateau = target.since_keep >= _patience(state, target)
    retry = None
    if pivot or _draw(seed, "retry") % RETRY_ONE_IN == 0:
        retry = _retry(state, target, config, seed)
    return Directive(
        role=_role(state, me, target, config, seed, plateau=plateau),
        pivot=pivot,
        plateau=plateau,
        streak=streak,
        retry=retry,
    )


def _draw(seed: int, what: str) -> int:
    """Give a number that depends on nothing but a proposal's seed and what it is for."""
    return int.from_bytes(hashlib.sha256(f"{seed} {what}".encode()).digest()[:4], "big")


def _patience(state: RunState, target: Target) -> int:
    name = target.info.name
    agents = sum(name in a.info.targets and not a.gone for a in state.agents.values())
    return max(PLATEAU_LEAST, PLATEAU_PER_AGENT * agents)


def _role(
    state: RunState, me: Agent, target: Target, config: RunConfig, seed: int, *, plateau: bool
) -> Role:
    """Give the group's role; else structure on a plateau; else one of the mix."""
    group = me.info.group
    fixed = config.agents[group].role if group < len(config.agents) else None
    if fixed is not None:
        return fixed
    if plateau:
        return "restructure"
    role = MIX[(_place(state, me) + me.experiments + _draw(seed, "role") % 2) % len(MIX)]
    keeps = target.verdicts["keep"]
    if (role == "combine" and keeps < 2) or (role == "refine" and keeps < 1):
        return "explore"
    return role


def _place(state: RunState, me: Agent) -> int:
    return next(i for i, name in enumerate(state.agents) if name == me.info.name)


def _retry(state: RunState, target: Target, config: RunConfig, seed: int) -> int | None:
    """Pick an idea that nearly helped long ago, or fixed a case that fails to this day, and was
    not tried on a later best.
    """
    level = len(target.promotions)
    recent = target.attempts[-LOOKBACK:]
    newest: dict[str, int] = {}
    for attempt in recent:
        key = summary_key(attempt.summary)
        newest[key] = max(newest.get(key, 0), attempt.level)
    # By points a change may be kept for its cost, at no gain or a negative one.
    kept = (a.gain for a in recent if a.verdict == "keep" and a.gain is not None)
    small = min((gain for gain in kept if gain > 0), default=0.0)
    failing = _failing(target)
    numbers = sorted(
        a.number
        for a in recent
        if a.verdict == "discard"
        and level - a.level >= RETRY_AFTER
        and newest[summary_key(a.summary)] == a.level
        and (_nearly(state, a, config, small) or not failing.isdisjoint(a.fixed))
    )
    return numbers[_draw(seed, "which") % len(numbers)] if numbers else None


def _failing(target: Target) -> set[str]:
    """Give the cases that never pass on best."""
    machine = target.machine(target.best)
    cases = {} if machine is None else target.record(target.best, machine).cases
    return {name for name, count in cases.items() if not count.passes}


def _nearly(state: RunState, attempt: Attempt, config: RunConfig, small: float) -> bool:
    """Tell whether a discard was no clear loss: it might be a win on another base.

    Where there is no noise to measure it by, a loss is small if it is below the `small`est gain
    that was kept.
    """
    z = state.experiments[attempt.number].z
    if z is None:
        return attempt.gain is not None and attempt.gain >= -small
    return -1 <= z < config.rule(state.experiments[attempt.number].target).keep_above
