"""A run in the shapes that `--json` prints, and the readings that all views share.

Owns what "gain", "what an agent is doing" and "the state of a run that nobody writes" mean to a
reader. Decides nothing and draws nothing; the shapes are an interface, so nothing is added lightly.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from swarm import budget
from swarm.config import RunConfig
from swarm.entities import Agent, Experiment, Phase, Spend, Target, verdict_counts
from swarm.errors import UsageError
from swarm.formats.text import count, counted, number, signed
from swarm.grounds import grounds
from swarm.judge import Record, Sample, Spread
from swarm.records import CASES, FreshResult
from swarm.rules import JudgeConfig
from swarm.state import RunState

OUTSIDE = ("seconds", "peak_memory_mb")
"""What swarm takes from outside stands in a record beside the harness's own metrics."""
RESUMABLE: frozenset[Phase] = frozenset({"failed", "interrupted"})
ENDED: frozenset[Phase] = frozenset({"finished", *RESUMABLE})


def rule_of(config: RunConfig | None, target: Target) -> JudgeConfig:
    """Give the judge of a target; its defaults where no config is known."""
    name = target.info.name
    known = config is not None and any(t.name == name for t in config.targets)
    return config.rule(name) if config is not None and known else JudgeConfig()


class Standing(NamedTuple):
    """Where a target is, read on the one kind of machine that can compare best with base."""

    machine: str | None
    baseline: Sample
    best: Sample
    spread: Spread
    gain: float | None
    """Best mean minus baseline mean, signed so that positive is better."""

    @property
    def gain_pct(self) -> float | None:
        """The gain as a percentage of the baseline's magnitude, None at zero."""
        if self.gain is None or self.baseline.mean == 0:
            return None
        return 100 * self.gain / abs(self.baseline.mean)

    @property
    def gain_se(self) -> float | None:
        """Standard error of the gain by the records."""
        sides = [self.spread.se(side) for side in (self.baseline, self.best)]
        return None if None in sides else math.hypot(*(se for se in sides if se is not None))


def standing(target: Target) -> Standing:
    """Read how far a target has come."""

    def sample(commit: str, machine: str) -> Sample:
        return target.record(commit, machine).primary

    base, best = target.info.base, target.best
    machine = max(
        target.spreads,
        key=lambda m: (min(sample(base, m).n, sample(best, m).n), sample(base, m).n),
        default=None,
    )
    if machine is None:
        return Standing(None, Sample(), Sample(), Spread(), None)
    before, after = sample(base, machine), sample(best, machine)
    gain = None
    if before.n and after.n:
        gain = target.info.metric.sign * (after.mean - before.mean) + 0.0
    return Standing(machine, before, after, target.spread(machine), gain)


class Cost(NamedTuple):
    """A cost that gives points, on base and on best, by the records; less is better."""

    name: str
    base: Sample
    best: Sample
    se: float | None
    """Of the difference."""

    def words(self) -> str:
        """Say it: `t: 119 -> 59`."""
        return f"{self.name}: {number(self.base.mean)} -> {number(self.best.mean)}"


def costs(target: Target, rule: JudgeConfig | None) -> tuple[Cost, ...]:
    """Give the costs of the points that both base and best have reported."""
    machine = standing(target).machine
    if rule is None or rule.points is None or machine is None:
        return ()
    base, best = (target.record(c, machine).others for c in (target.info.base, target.best))
    noise, found = target.noise(machine), list[Cost]()
    for name in (part.name for part in rule.points.of if part != "cases"):
        if name in base and name in best:
            spread = noise.get(name, Spread())
            sides = [spread.se(side) for side in (base[name], best[name])]
            known = [se for se in sides if se is not None]
            se = math.hypot(*known) if len(known) == 2 else None
            found.append(Cost(name, base[name], best[name], se))
    return tuple(found)


_LESS = re.compile(
    r"(?:^|; )([^;:]+): \S+ better than the incumbent"
    r"(?:: z = ([+-]\S+) from \d+ against \d+ runs|; no spread between runs)(?=; |$)"
)
"""What the judge says of a cost that is less."""


def bought(reason: str, rule: JudgeConfig | None = None) -> tuple[str, ...]:
    """Give the costs for which an experiment was kept, by the reason of its verdict."""
    found = [m for m in _LESS.finditer(reason) if m[1].strip() != CASES]
    if re.match(r"[+-]\S+ points: ", reason):  # they were added up: all that are proven count
        least = (rule or JudgeConfig()).keep_above
        return tuple(m[1] for m in found if m[2] is None or float(m[2]) >= least)
    # One after another: what decided is said last.
    return tuple(m[1] for m in found if m.end() == len(reason))


def for_costs(target: Target, rule: JudgeConfig | None = None) -> bool:
    """Tell whether all that reached `best` was kept for costs, so that the metric need not gain."""
    reasons = {attempt.number: attempt.reason for attempt in target.attempts}
    on_best = [reasons.get(promoted.number, "") for promoted in target.promotions]
    return bool(on_best) and all(bought(reason, rule) for reason in on_best)


def sd(sample: Sample) -> float | None:
    """Give the standard deviation of one commit's own measurements, None below two."""
    return math.sqrt(max(0.0, sample.m2) / (sample.n - 1)) if sample.n > 1 else None


def phase(state: RunState, *, live: bool) -> Phase:
    """Give the run's state: `interrupted` when it should go on but no process carries it out, and
    `running` when one does that again.
    """
    if live and state.phase in RESUMABLE:
        return "running"
    return state.phase if live or state.phase in ENDED else "interrupted"


def why(state: RunState, stands: Phase) -> tuple[str, str | None]:
    """Give why a run stands so, and what to do; why it ended before is over when it runs again."""
    return ("", None) if stands == "running" else (state.reason, state.hint)


def doing(
    state: RunState,
    agent: Agent,
    *,
    live: bool,
    now: datetime | None = None,
    used_up: Container[int] = (),
) -> str:
    """Give what an agent is doing, as far as the ledger tells.

    Args:
        state: what the ledger tells.
        agent: one of its agents.
        live: whether a process carries the run out now.
        now: by default the end of the ledger.
        used_up: the groups of agents that have reached a limit of theirs, see `used_up`.
    """
    if agent.parked is not None:
        return "parked"
    idle = not agent.open and not agent.prepared
    if idle and why_idle(state, agent) is not None and phase(state, live=live) not in ENDED:
        return "parked"
    stands = phase(state, live=live)
    if stands in ENDED:
        return "stopped"
    over = agent.info.group in used_up
    if waits(state, agent, now) is not None and not over:
        return "waiting"  # an experiment of it may be in flight all the same
    if agent.open:
        return "measuring"
    if agent.prepared:
        return "waiting"
    if over:
        return "out of budget"
    return "proposing" if stands == "running" else "waiting"


def why_idle(state: RunState, agent: Agent) -> str | None:
    """Say why an agent has nothing to try anywhere, None if it has."""
    if agent.parked is not None:
        return agent.parked
    loops = [(state.targets[t], agent.loops[t]) for t in agent.info.targets]
    if any(target.ended is None and loop.exhausted is None for target, loop in loops):
        return None
    reasons = (target.ended or loop.exhausted for target, loop in loops)
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


def used_up(config: RunConfig | None, state: RunState, now: datetime) -> frozenset[int]:
    """Give the groups of agents that may propose nothing more; none without a config."""
    rooms = {} if config is None else budget.group_room(config, state, now=now)
    return frozenset(group for group, room in rooms.items() if room == 0)


def waits(state: RunState, agent: Agent, now: datetime | None = None) -> float | None:
    """Give for how many seconds a provider has asked an agent to wait; None if it need not."""
    until, at = agent.waiting_until, now or state.last_at
    if until is None or at is None or until <= at:
        return None
    return (until - at).total_seconds()


def in_vain(spend: Spend) -> list[str]:
    """Say what was paid for and is no experiment."""
    counts = (
        (spend.dropped, "prepared and dropped"),
        (spend.returned, "returned as a repeat" if spend.returned == 1 else "returned as repeats"),
    )
    return [f"{counted(n, 'proposal')} {what}" for n, what in counts if n]


def own_record(state: RunState, experiment: Experiment) -> Record:
    """Give the record of an experiment's commit; empty if it was not measured for it."""
    target, proposal = state.targets[experiment.target], experiment.proposal
    if proposal.commit is None or experiment.machine is None:
        return Record()
    return target.record(proposal.commit, experiment.machine)


# --- status ------------------------------------------------------------------------------------


def status_json(
    state: RunState,
    *,
    live: bool,
    dir: Path,  # noqa: A002
    now: datetime,
    config: RunConfig | None = None,
) -> dict[str, Any]:
    """Give what `swarm status --json` prints.

    Args:
        state: what the ledger tells.
        live: whether a process carries the run out now.
        dir: the run directory.
        now: for the time spent by a launch that still runs.
        config: for the limits of groups, and for the forecast, which a run has while it goes on.
    """
    at = now if live or state.last_at is None else state.last_at
    launch, over = state.launch, used_up(config, state, at)
    return {
        "run": state.run,
        "dir": str(dir),
        "state": phase(state, live=live),
        "targets": [_target_json(state, t) for t in state.targets.values()],
        "agents": [
            {
                "name": name,
                "state": doing(state, agent, live=live, now=at, used_up=over),
                "proposer": agent.info.proposer,
                "experiments": agent.experiments,
                "keeps": agent.keeps,
                "usd": agent.usd,
                "invalid": agent.invalid,
                "gain": agent.gain,
                "tokens": agent.tokens,
                "waiting_until": agent.waiting_until and agent.waiting_until.isoformat(),
            }
            for name, agent in state.agents.items()
        ],
        "spend": {
            "experiments": state.spend.experiments,
            "measurements": state.spend.measurements,
            "seconds": state.elapsed(at),
            "busy_seconds": state.spend.busy_seconds,
            "usd": state.spend.usd,
            "tokens": state.spend.tokens,
            "dropped": state.spend.dropped,
            "returned": state.spend.returned,
        },
        "sandbox": {
            "rung": launch.sandbox if launch else None,
            "open": list(launch.sandbox_open) if launch else [],
        },
        "proposers": [_proposer_json(label, use) for label, use in proposers(state).items()],
        "forecast": _forecast_json(state, config, live=live, now=now),
    }


def _forecast_json(
    state: RunState, config: RunConfig | None, *, live: bool, now: datetime
) -> dict[str, Any] | None:
    left = None
    if config is not None and phase(state, live=live) == "running":
        left = budget.forecast(config, state, now)
    return None if left is None else left._asdict()


def share(state: RunState, target: Target) -> float | None:
    """Give the part of all the slots' time that a target has had, None before there is any."""
    whole = sum(t.busy_seconds for t in state.targets.values())
    return target.busy_seconds / whole if whole > 0 else None


def _target_json(state: RunState, target: Target) -> dict[str, Any]:
    metric, where, result = target.info.metric, standing(target), target.result
    baseline, best = where.baseline, where.best
    return {
        "name": target.info.name,
        "metric": metric.name,
        "goal": metric.goal,
        "baseline": {
            "mean": baseline.mean if baseline.n else None,
            "sd": sd(baseline),
            "n": baseline.n,
        },
        "best": {
            "commit": target.best,
            "mean": best.mean if best.n else None,
            "se": where.spread.se(best),
            "n": best.n,
            "gain": where.gain,
            "gain_pct": where.gain_pct,
        },
        "result": _difference(result),
        "confirmed": _difference(result and result.confirmed),
        "experiments": verdict_counts(target),
        "branch": state.branch(target.info.name, "best"),
        "ended": target.ended,
        "failed": target.failed,
        "share": share(state, target),
        "usd": target.usd,
        "tokens": target.tokens,
    }


def _difference(result: FreshResult | None) -> dict[str, float] | None:
    return None if result is None else {"gain": result.gain, "se": result.se}


# --- proposers ---------------------------------------------------------------------------------


@dataclass
class Use:
    """What came of all agents with one proposer, and what it cost."""

    agents: int = 0
    experiments: int = 0
    keeps: int = 0
    invalid: int = 0
    gain: float | None = 0.0
    """Sum of the gains of what reached `best`, by the experiments' own comparisons; None with
    several targets, whose metrics do not add up."""
    usd: float = 0.0
    tokens: int = 0

    @property
    def invalid_rate(self) -> float | None:
        """The share of invalid experiments, None without any."""
        return self.invalid / self.experiments if self.experiments else None

    @property
    def gain_per_usd(self) -> float | None:
        """What a dollar has brought; None where nothing was paid."""
        return self.gain / self.usd if self.usd > 0 and self.gain is not None else None

    @property
    def gain_per_experiment(self) -> float | None:
        """What an experiment has brought, None without any."""
        return self.gain / self.experiments if self.experiments and self.gain is not None else None

    def words(self) -> str:
        """Say it: counts, then what was won, then what it cost."""
        parts = [counted(self.experiments, "experiment"), counted(self.keeps, "keep")]
        if self.invalid:
            parts.append(f"{self.invalid_rate:.0%} invalid")
        if self.gain is not None:
            parts.append(f"gain {signed(self.gain, 3)}")
        if self.usd:
            each = "" if self.gain is None else f" ({number(self.gain_per_usd, 3)} per $)"
            parts.append(f"${self.usd:.2f}{each}")
        if self.tokens:
            parts.append(f"{count(self.tokens)} tokens")
        return ", ".join(parts)


def proposers(state: RunState) -> dict[str, Use]:
    """Add up the agents by the label of their proposer."""
    found: dict[str, Use] = {}
    for agent in state.agents.values():
        use = found.setdefault(agent.info.proposer, Use())
        use.agents += 1
        use.experiments += agent.experiments
        use.keeps += agent.keeps
        use.invalid += agent.invalid
        if use.gain is not None:
            use.gain = use.gain + agent.gain if len(state.targets) == 1 else None
        use.usd += agent.usd
        use.tokens += agent.tokens
    return found


def compared(state: RunState) -> dict[str, Use]:
    """Give the proposers if there is something to tell of them: more than one, or a cost."""
    found = proposers(state)
    return found if len(found) > 1 or any(u.usd > 0 for u in found.values()) else {}


def _proposer_json(label: str, use: Use) -> dict[str, Any]:
    return {
        "proposer": label,
        "agents": use.agents,
        "experiments": use.experiments,
        "keeps": use.keeps,
        "invalid": use.invalid,
        "invalid_rate": use.invalid_rate,
        "gain": use.gain,
        "usd": use.usd,
        "tokens": use.tokens,
        "gain_per_usd": use.gain_per_usd,
        "gain_per_experiment": use.gain_per_experiment,
    }


# --- experiments -------------------------------------------------------------------------------


def experiments_json(state: RunState) -> list[dict[str, Any]]:
    """Give what `swarm experiments --json` prints, in order of number."""
    return [_experiment(state, state.experiments[n]) for n in sorted(state.experiments)]


def _experiment(state: RunState, experiment: Experiment) -> dict[str, Any]:
    proposal, record = experiment.proposal, own_record(state, experiment)
    name = state.targets[experiment.target].info.metric.name
    values = {k: s.mean for k, s in record.others.items() if k not in OUTSIDE}
    if record.primary.n:
        values = {name: record.primary.mean, **values}
    return {
        "number": experiment.number,
        "target": experiment.target,
        "agent": experiment.agent,
        "base": proposal.base,
        "commit": proposal.commit,
        "summary": proposal.summary,
        "verdict": experiment.verdict,
        "values": values,
        "n": record.primary.n,
        "z": experiment.z,
        "seconds": experiment.seconds,
        "usd": experiment.usd,
        "tokens": experiment.tokens,
        "merged": experiment.merged,
    }


def experiment_json(
    state: RunState, number: int, config: RunConfig | None = None
) -> dict[str, Any]:
    """Give all there is to know about one experiment, for `swarm show`.

    Args:
        state: what the ledger tells.
        number: of the experiment.
        config: for the rule it was judged by; without it, the default rule.

    Raises:
        UsageError: there is no such experiment.
    """
    experiment = state.experiments.get(number)
    if experiment is None:
        known = f"there are 1 to {max(state.experiments)}" if state.experiments else "none yet"
        raise UsageError(f"run `{state.run}` has no experiment {number}", hint=known)
    target, proposal = state.targets[experiment.target], experiment.proposal
    record = own_record(state, experiment)
    why = grounds(state, number, config)
    candidate, incumbent = why.candidate, why.incumbent
    return {
        **_experiment(state, experiment),
        "at": experiment.at.isoformat() if experiment.at else None,
        "tree": proposal.tree,
        "rationale": proposal.rationale,
        "reason": experiment.reason or proposal.invalid or "",
        "gain": experiment.gain,
        "sd": sd(record.primary),
        "se": candidate and candidate.se,
        "incumbent": {
            "commit": experiment.base,
            "mean": incumbent and incumbent.mean,
            "n": incumbent.n if incumbent else 0,
        },
        "machine": experiment.machine,
        "controls": experiment.controls,
        "peak_memory_mb": experiment.peak_memory_mb,
        "files": list(proposal.files),
        "lines_added": proposal.lines_added,
        "lines_removed": proposal.lines_removed,
        "usage": proposal.usage.model_dump(),
        "returned": experiment.returned and experiment.returned.model_dump(),
        "repairs": experiment.repairs,
        "gave_up": experiment.gave_up,
        "edit": proposal.edit,
        "logs": list(experiment.logs),
        "failure": _failure(experiment),
        "port_of": proposal.port_of,
        "ported_by": experiment.ported_by,
        "stacked": _stacked(target, number),
        "feedback": experiment.feedback,
        "fixed": list(experiment.fixed),
        "broken": list(experiment.broken),
        "grounds": why.model_dump(mode="json"),
    }


def _failure(experiment: Experiment) -> dict[str, Any] | None:
    failed = experiment.failed
    if failed is None or failed.failure is None:
        return None
    return {**failed.failure.model_dump(), "log": failed.log}


def _stacked(target: Target, number: int) -> bool | None:
    """Tell how an experiment reached `best`: on a stack, or as it was; None if it did not."""
    return next((p.stacked for p in target.promotions if p.number == number), None)


# --- merging -----------------------------------------------------------------------------------


class Merges(NamedTuple):
    """What the merger made of the keeps of a target."""

    forward: int
    stacked: int
    refused: dict[str, int]
    """Outcome -> count."""
    queued: int

    @property
    def merged(self) -> int:
        """Experiments that reached `best`."""
        return self.forward + self.stacked


def merges(state: RunState, target: Target) -> Merges:
    """Count what became of the keeps of a target."""
    stacked = sum(p.stacked for p in target.promotions)
    mine = (e for e in state.experiments.values() if e.target == target.info.name)
    refused = Counter(
        e.merged for e in mine if e.merged in ("conflict", "redundant", "antagonistic")
    )
    return Merges(
        len(target.promotions) - stacked,
        stacked,
        {str(k): v for k, v in sorted(refused.items(), key=lambda item: str(item[0]))},
        len(target.queue),
    )
