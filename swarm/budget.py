"""Limits and spend. Pure: says why a run should drain, how much room is left, and when it ends.

What is in flight counts: a proposal that is being made is reckoned at what those of its group have
cost so far, so that money and tokens are not overspent by a whole wave of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from swarm.config import BudgetConfig, RunConfig, TargetBudget
from swarm.entities import Agent, Target
from swarm.errors import BudgetRefusedError
from swarm.formats.text import count, duration
from swarm.groups import AgentBudget, AgentGroup, HeadlessProposer
from swarm.prices import (
    ANTHROPIC,
    ANTHROPIC_URL,
    price_at,
    price_of,
    reports_tokens,
    reports_usd,
)
from swarm.state import RunState

NEARLY = 0.8
"""The share of a limit from which its user is warned."""

LimitName = Literal["experiments", "time", "usd", "tokens"]


class Use(NamedTuple):
    """A limit that fills up, and how much of it is used."""

    name: LimitName
    used: float
    limit: float

    @property
    def share(self) -> float:
        """How much of it is used; 1 is all of it."""
        return self.used / self.limit

    def reached(self) -> str | None:
        """Name the limit if it is reached."""
        if self.used < self.limit:
            return None
        return f"{self.limit:g} s of time" if self.name == "time" else self.words(self.limit)

    def words(self, amount: float) -> str:
        """Give an amount of it in words."""
        match self.name:
            case "usd":
                return f"${amount:.2f}"
            case "time":
                return duration(amount)
            case "tokens":
                return f"{count(round(amount))} tokens"
            case "experiments":
                return f"{amount:.0f} experiments"

    def of(self) -> str:
        """Say how much of how much is used."""
        used = self.words(self.used)
        if self.name in ("experiments", "tokens"):
            used = used.partition(" ")[0]
        return f"{used} of {self.words(self.limit)}"


class Spent(NamedTuple):
    """What a run or a group has used of what can be limited."""

    experiments: int
    """Decided ones: an open experiment may yet be aborted, and then another takes its place."""
    time: float
    usd: float
    tokens: int


def uses(config: RunConfig, state: RunState, now: datetime) -> list[Use]:
    """Give the run's limits that fill up."""
    spend = state.spend
    still_open = sum(len(t.open) for t in state.targets.values())
    done = spend.experiments - still_open
    return _uses(config.budget, Spent(done, state.elapsed(now), spend.usd, spend.tokens))


def _group_uses(limits: AgentBudget, agents: list[Agent], elapsed: float) -> list[Use]:
    done = sum(a.experiments - len(a.open) for a in agents)
    usd, tokens = sum(a.usd for a in agents), sum(a.tokens for a in agents)
    return _uses(limits, Spent(done, elapsed, usd, tokens))


def _uses(limits: BudgetConfig | AgentBudget | TargetBudget, spent: Spent) -> list[Use]:
    found: list[tuple[LimitName, float, float | None]] = [
        ("experiments", spent.experiments, limits.experiments),
        ("time", spent.time, limits.time),
        ("usd", spent.usd, limits.usd),
        ("tokens", spent.tokens, limits.tokens),
    ]
    return [Use(name, used, limit) for name, used, limit in found if limit is not None]


# --- reached -----------------------------------------------------------------------------------


def spent(config: RunConfig, state: RunState, now: datetime) -> str | None:
    """Say which limit the run has reached, or None."""
    reason = _full(uses(config, state, now))
    return None if reason is None else f"budget: {reason}"


def _full(used: list[Use]) -> str | None:
    """Name the first limit that is filled up."""
    return next((reason for use in used if (reason := use.reached()) is not None), None)


def _settled(
    stale: int | None, since_keep: int, value: float | None, targets: list[Target]
) -> str | None:
    """Say that nothing was kept for as long as is allowed, or that all have come to a value."""
    if stale is not None and since_keep >= stale:
        return f"{stale} experiments without a keep"
    if value is not None and targets and all(_has_come_to(t, value) for t in targets):
        return f"the target value {value:g} is reached"
    return None


def target_spent(config: RunConfig, state: RunState, target: Target, now: datetime) -> str | None:
    """Say which limit a target has reached, its own or one of the run's, or None."""
    if target.ended is not None:
        return None
    own, whole = config.named(target.info.name).budget, config.budget
    stale = min((n for n in (own.stale, whole.stale) if n is not None), default=None)
    value = own.target if own.target is not None else whole.target
    settled = _settled(stale, target.since_keep, value, [target])
    return settled or _full(target_uses(config, state, target, now))


def target_uses(config: RunConfig, state: RunState, target: Target, now: datetime) -> list[Use]:
    """Give a target's own limits that fill up."""
    done = target.begun - len(target.open)
    limits = config.named(target.info.name).budget
    return _uses(limits, Spent(done, state.elapsed(now), target.usd, target.tokens))


def groups_spent(config: RunConfig, state: RunState, now: datetime) -> str:
    """Say which limit each group of agents has reached, for a run in which none may go on."""
    found = (
        (i, _group_reached(config.agents[i], state, agents, now))
        for i, agents in _members(config, state).items()
    )
    return "budget: " + ", ".join(f"agents.{i}: {why}" for i, why in found if why is not None)


def _has_come_to(target: Target, value: float) -> bool:
    mean = target.primary(target.best)
    sign = target.info.metric.sign
    return mean.n > 0 and sign * mean.mean >= sign * value


def _group_reached(
    group: AgentGroup, state: RunState, agents: list[Agent], now: datetime | None
) -> str | None:
    limits = group.budget
    if (reason := _full(_group_uses(limits, agents, _elapsed(state, now)))) is not None:
        return reason
    served = dict.fromkeys(t for a in agents for t in a.info.targets)
    targets = [state.targets[t] for t in served]
    # Where nothing is tried any more, nothing can be kept either.
    going = [t for t in targets if t.ended is None and _is_tried(t, agents)]
    since = 0 if limits.stale is None else _since_keep(limits.stale, agents, going)
    return _settled(limits.stale, since, limits.target, targets)


def _is_tried(target: Target, agents: list[Agent]) -> bool:
    name = target.info.name
    return any(name in a.info.targets and a.loops[name].exhausted is None for a in agents)


def _elapsed(state: RunState, now: datetime | None) -> float:
    at = now or state.last_at
    return 0.0 if at is None else state.elapsed(at)


def _since_keep(limit: int, agents: list[Agent], targets: list[Target]) -> int:
    """Count the experiments of a group since its last keep, as far as `limit`; the fewest of any
    of its targets.

    Their agents' own counts together are as many or more, so mostly nothing has to be looked up.
    """
    names = {a.info.name for a in agents}
    return min((_since_keep_on(t, limit, agents, names) for t in targets), default=0)


def _since_keep_on(target: Target, limit: int, agents: list[Agent], names: set[str]) -> int:
    name, found = target.info.name, 0
    if sum(a.loops[name].streak for a in agents if name in a.loops) < limit:
        return 0
    for attempt in reversed(target.attempts):
        if attempt.agent not in names or attempt.verdict in (None, "aborted"):
            continue
        if attempt.verdict == "keep" or found >= limit:
            break
        found += 1
    return found


# --- room --------------------------------------------------------------------------------------


def room(
    config: RunConfig, state: RunState, under_way: int, at_work: Iterable[str] = ()
) -> int | None:
    """Give how many more proposals may be started; None is without limit.

    Args:
        config: the run's config.
        state: what has happened.
        under_way: proposals being made or prepared but not numbered yet.
        at_work: agents whose proposers are at work now, on a proposal or on mending a crash.
    """
    limits, spend = config.budget, state.spend
    groups = _members(config, state)
    costs = {i: _mean_cost(agents) for i, agents in groups.items()}
    flying = [costs[g] for n in at_work if (g := state.agents[n].info.group) in costs]
    found = [
        _affordable(
            limits.usd, spend.usd, [c.usd for c in flying], [c.usd for c in costs.values()]
        ),
        _affordable(
            limits.tokens,
            spend.tokens,
            [c.tokens for c in flying],
            [c.tokens for c in costs.values()],
        ),
    ]
    if limits.experiments is not None:
        found.append(max(0, limits.experiments - spend.experiments - under_way))
    return min((n for n in found if n is not None), default=None)


def target_room(config: RunConfig, state: RunState, ahead: Mapping[str, int]) -> dict[str, int]:
    """Give how many more proposals may begin for each target that has a limit of its own.

    Args:
        config: the run's config.
        state: what has happened.
        ahead: proposals for each that are being made or prepared but not numbered yet.
    """
    rooms: dict[str, int] = {}
    for name, target in state.targets.items():
        waits, made = ahead.get(name, 0), max(1, target.begun)
        used = Cost(target.usd, target.tokens)
        cost = Cost(used.usd / made, used.tokens / made)
        flying, begun = waits + len(target.open), target.begun + waits
        left = _left(config.named(name).budget, used, cost, flying, begun)
        if left is not None:
            rooms[name] = left
    return rooms


def _left(
    limits: AgentBudget | TargetBudget, used: Cost, cost: Cost, flying: int, begun: int
) -> int | None:
    """Give how many more proposals of one cost may begin; None is without limit.

    Args:
        limits: what may be used.
        used: what was used so far.
        cost: of one proposal.
        flying: how many are on their way and not paid for yet.
        begun: how many there are in all.
    """
    found = [
        _affordable(limits.usd, used.usd, [cost.usd] * flying, [cost.usd]),
        _affordable(limits.tokens, used.tokens, [cost.tokens] * flying, [cost.tokens]),
    ]
    if limits.experiments is not None:
        found.append(max(0, limits.experiments - begun))
    return min((n for n in found if n is not None), default=None)


def group_room(
    config: RunConfig,
    state: RunState,
    under_way: Iterable[str] = (),
    at_work: Iterable[str] = (),
    now: datetime | None = None,
) -> dict[int, int]:
    """Give how many more proposals each group of agents that has a limit may start.

    A group that has reached any of its limits has room for none.

    Args:
        config: the run's config.
        state: what has happened.
        under_way: agents with a proposal that is being made or prepared but not numbered yet.
        at_work: agents whose proposers are at work now, on a proposal or on mending a crash.
        now: for the limits of time; by default, when the last event came.
    """
    begun = Counter(state.agents[name].info.group for name in under_way)
    flying = Counter(state.agents[name].info.group for name in at_work)
    rooms: dict[int, int] = {}
    for i, agents in _members(config, state).items():
        group = config.agents[i]
        if _group_reached(group, state, agents, now) is not None:
            rooms[i] = 0
        elif (left := _group_room(group.budget, agents, begun[i], flying[i])) is not None:
            rooms[i] = left
    return rooms


def _group_room(
    limits: AgentBudget, agents: list[Agent], under_way: int, at_work: int
) -> int | None:
    used = Cost(sum(a.usd for a in agents), sum(a.tokens for a in agents))
    begun = sum(a.experiments for a in agents) + under_way
    return _left(limits, used, _mean_cost(agents), at_work, begun)


class Cost(NamedTuple):
    """What proposals take: those so far together, or one of them on the average."""

    usd: float = 0.0
    tokens: float = 0.0


def _mean_cost(agents: list[Agent]) -> Cost:
    made = sum(a.proposals for a in agents)
    if not made:
        return Cost()
    return Cost(sum(a.usd for a in agents) / made, sum(a.tokens for a in agents) / made)


def _affordable(
    limit: float | None, used: float, flying: list[float], costs: list[float]
) -> int | None:
    """Give how many proposals can begin before the limit is expected to be reached.

    The dearest of `costs` is taken: who asks again later, when it is known who began, gets more.
    """
    if limit is None:
        return None
    left = limit - used - sum(flying)
    if left <= 0:
        return 0
    dearest = max(costs, default=0.0)
    return math.ceil(left / dearest) if dearest > 0 and left / dearest < 1e9 else None


def _members(config: RunConfig, state: RunState) -> dict[int, list[Agent]]:
    """Give the agents of each group of the config."""
    groups: dict[int, list[Agent]] = {i: [] for i in range(len(config.agents))}
    for agent in state.agents.values():
        if agent.info.group in groups:
            groups[agent.info.group].append(agent)
    return groups


# --- warnings ----------------------------------------------------------------------------------


def warning(config: RunConfig, state: RunState, now: datetime) -> list[tuple[str, str]]:
    """Give the limits that are nearly used up and were not warned about, each with the words."""
    near = nearly(config, state, now)
    return [(name, words) for name, words in near if name not in state.warnings]


def nearly(config: RunConfig, state: RunState, now: datetime) -> list[tuple[str, str]]:
    """Give every limit that is nearly used up, with the words for it.

    A run that has reached a limit ends and says why; a group that has says it here.
    """
    found = [
        (use.name, f"{_percent(use)} of the budget is used: {use.of()}")
        for use in uses(config, state, now)
        if NEARLY <= use.share < 1
    ]
    for name, target in state.targets.items() if len(state.targets) > 1 else ():
        for use in target_uses(config, state, target, now):
            if NEARLY <= use.share < 1 and target.ended is None:
                words = f"{_percent(use)} of the budget of target {name} is used: {use.of()}"
                found.append((f"targets.{name}.{use.name}", words))
    for i, agents in _members(config, state).items():
        group = config.agents[i]
        for use in _group_uses(group.budget, agents, state.elapsed(now)):
            if use.share >= NEARLY:
                whose = f"agents.{i} ({group.proposer.label})"
                words = f"{_percent(use)} of the budget of {whose} is used: {use.of()}"
                found.append((f"agents.{i}.{use.name}", words))
    return found


def _percent(use: Use) -> str:
    return f"{math.floor(100 * use.share + 1e-9)} %"


# --- forecast ----------------------------------------------------------------------------------


class Forecast(NamedTuple):
    """When a run reaches its first limit, if it goes on as it has."""

    seconds: float
    """From now."""
    usd: float | None
    """What it will have cost by then; None if nothing costs anything."""
    limit: LimitName

    def words(self) -> str:
        """Say it: `ends in 3h 6m, about $212`."""
        cost = "" if self.usd is None else f", about ${self.usd:.{2 if self.usd < 10 else 0}f}"
        return f"ends in {duration(self.seconds)}{cost}"


def forecast(config: RunConfig, state: RunState, now: datetime) -> Forecast | None:
    """Give when the first of the run's limits is reached at the present rate, None if unknown."""
    elapsed, usd = state.elapsed(now), state.spend.usd
    ends: list[tuple[float, LimitName]] = []
    for use in uses(config, state, now):
        left = use.limit - use.used
        if use.name == "time":
            ends.append((max(0.0, left), use.name))
        elif use.used > 0 and elapsed > 0:
            ends.append((max(0.0, left * elapsed / use.used), use.name))
    if not ends:
        return None
    seconds, limit = min(ends)
    rate = usd / elapsed if elapsed > 0 else 0.0
    return Forecast(seconds, usd + rate * seconds if usd else None, limit)


# --- refused -----------------------------------------------------------------------------------


def check(config: RunConfig, keys: Mapping[str, str]) -> None:
    """See that the budget can be honoured.

    Raises:
        BudgetRefusedError: it limits USD or tokens, and of some proposer they are never known.
    """
    troubles = [
        *_without_price(config, keys),
        *_without_tokens(config),
        *_measuring_without_price(config, keys),
    ]
    if troubles:
        messages = [message for message, _ in troubles]
        hints = dict.fromkeys(hint for _, hint in troubles)
        raise BudgetRefusedError("; ".join(messages), hint="; ".join(hints))


def _without_price(config: RunConfig, keys: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for i, group in enumerate(config.agents):
        limit, proposer = _limited(config, i, "usd"), group.proposer
        if limit is None or _has_price(group, keys):
            continue
        prices = "`prices: {proposal: ...}` (USD for each proposal)"
        if reports_tokens(proposer):
            prices = f"`prices: {{input: ..., output: ...}}` (USD for a million tokens) or {prices}"
        yield (
            f"agents.{i}: what {_called(group)} costs is not known, so `{limit}` cannot be kept to",
            f"give the proposer {prices}, or drop `{limit}`",
        )


def _measuring_without_price(
    config: RunConfig, keys: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Look at the models that the harness may ask, as far as the config names them."""
    for target, place in config.places():
        provider = target.provider
        limit = "budget.usd" if target.budget.usd is None else f"{place}.budget.usd"
        limited = config.budget.usd is not None or target.budget.usd is not None
        if provider is None or provider.prices is not None or not limited:
            continue
        url = provider.base_url or keys.get(ANTHROPIC_URL) or ANTHROPIC
        named = [m for m in provider.models if not any(c in m for c in "*?[")]
        unknown = [m for m in named if price_at(m, url) is None]
        if unknown:
            yield (
                f"{place}.provider: what `{unknown[0]}` costs is not known, so `{limit}` cannot "
                "be kept to",
                "give the provider `prices: {input: ..., output: ...}` (USD for a million tokens)",
            )


def _has_price(group: AgentGroup, keys: Mapping[str, str]) -> bool:
    proposer = group.proposer
    if isinstance(proposer, HeadlessProposer) and not reports_tokens(proposer):
        return proposer.prices is not None and proposer.prices.proposal is not None
    return reports_usd(proposer) or price_of(proposer, keys) is not None


def _without_tokens(config: RunConfig) -> Iterator[tuple[str, str]]:
    for i, group in enumerate(config.agents):
        limit = _limited(config, i, "tokens")
        if limit is not None and not reports_tokens(group.proposer):
            yield (
                f"agents.{i}: {_called(group)} does not tell how many tokens it takes, so "
                f"`{limit}` cannot be kept to",
                f"drop `{limit}`; `experiments` and `time` can be kept to, and `usd` with prices",
            )


def _called(group: AgentGroup) -> str:
    proposer = group.proposer
    if not isinstance(proposer, HeadlessProposer) or proposer.model is not None:
        return f"`{proposer.label}`"
    if isinstance(proposer.cli, tuple):
        return f"the program `{proposer.cli[0]}`"
    return f"`{proposer.label}` (no model is named)"


def _limited(config: RunConfig, index: int, name: Literal["usd", "tokens"]) -> str | None:
    """Give the limit that a group is under, as its key, the group's own first."""
    if getattr(config.agents[index].budget, name) is not None:
        return f"agents.{index}.budget.{name}"
    for target, place in config.places():
        if config.agents[index].serves(target.name) and getattr(target.budget, name) is not None:
            return f"{place}.budget.{name}"
    return None if getattr(config.budget, name) is None else f"budget.{name}"
