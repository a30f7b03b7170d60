"""Limits and spend. Pure: says why a run should drain, how much room is left, and when it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from swarm.config import RunConfig
from swarm.state import RunState, Target


def spent(config: RunConfig, state: RunState, now: datetime) -> str | None:
    """Say which limit the run has reached, or None."""
    limits = config.budget
    # An open experiment may yet be aborted, and then another one takes its place.
    still_open = sum(len(t.open) for t in state.targets.values())
    done = state.spend.experiments - still_open
    if limits.experiments is not None and done >= limits.experiments:
        return f"budget: {limits.experiments} experiments"
    if limits.time is not None and state.elapsed(now) >= limits.time:
        return f"budget: {limits.time:g} s of time"
    targets = state.targets.values()
    if limits.stale is not None and all(t.since_keep >= limits.stale for t in targets):
        return f"budget: {limits.stale} experiments without a keep"
    if limits.target is not None and all(_reached(t, limits.target) for t in targets):
        return f"budget: the target value {limits.target:g} is reached"
    return None


def _reached(target: Target, value: float) -> bool:
    mean = target.primary(target.best)
    sign = target.info.metric.sign
    return mean.n > 0 and sign * mean.mean >= sign * value


def room(config: RunConfig, state: RunState, under_way: int) -> int | None:
    """Give how many more proposals may be started; None is without limit.

    Args:
        config: the run's config.
        state: what has happened.
        under_way: proposals being made or prepared but not numbered yet.
    """
    limit = config.budget.experiments
    return None if limit is None else max(0, limit - state.spend.experiments - under_way)


def group_room(config: RunConfig, state: RunState, under_way: Iterable[str] = ()) -> dict[int, int]:
    """Give how many more proposals each group of agents that has a limit may start.

    Args:
        config: the run's config.
        state: what has happened.
        under_way: agents with a proposal that is being made or prepared but not numbered yet.
    """
    used = Counter(state.agents[name].info.group for name in under_way)
    for agent in state.agents.values():
        used[agent.info.group] += agent.experiments
    limits = {i: group.budget.experiments for i, group in enumerate(config.agents)}
    return {i: max(0, limit - used[i]) for i, limit in limits.items() if limit is not None}


def forecast(config: RunConfig, state: RunState, now: datetime) -> float | None:
    """Give the seconds until the first limit is reached at the present rate, None if unknown."""
    limits, elapsed = config.budget, state.elapsed(now)
    ends: list[float] = []
    if limits.time is not None:
        ends.append(limits.time - elapsed)
    done = sum(t.verdicts.total() - t.verdicts["aborted"] for t in state.targets.values())
    if limits.experiments is not None and done and elapsed > 0:
        ends.append((limits.experiments - done) * elapsed / done)
    return max(0.0, min(ends)) if ends else None
