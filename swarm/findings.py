"""What a run has found, as data: the gains three ways, what was kept, what became of each case.

Owns when a gain is believed, and which experiments and cases are worth naming. The report is
written from it, as a page and as JSON. Pure: reads `RunState`, decides nothing, formats nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Literal

from swarm import views
from swarm.config import RunConfig, TargetConfig
from swarm.entities import Experiment, Phase, Target, landed
from swarm.formats.text import number, one_line, signed
from swarm.grounds import remarks
from swarm.judge import Count, detectable
from swarm.quantities import margin
from swarm.records import VERDICTS, FreshResult, Goal, Noun, Verdict
from swarm.rules import JudgeConfig
from swarm.state import RunState

SURE = 2.0
"""Standard errors from which a gain is told apart from nothing."""
HALF = 0.5
"""Share of the search gain that a fresh or a confirmed one must reach to be taken for the same."""
MOST = 60
"""Kept experiments that a report names; of what was refused, a third."""


class Gain(Noun):
    """A difference between best and base; positive is better."""

    gain: float
    se: float | None
    base_mean: float
    best_mean: float
    base_n: int
    best_n: int


class Doubt(Noun):
    """What speaks against believing a gain."""

    of: Literal["fresh", "confirmed"]
    kind: Literal["unsure", "loss", "shrunk"]
    words: str


class CostChange(Noun):
    """A cost of the points, on base and on best, by the records; a positive gain is less of it."""

    name: str
    gain: float
    se: float | None
    base_mean: float
    best_mean: float
    base_n: int
    best_n: int


class Headline(Noun):
    """The gain of a target, measured three ways."""

    search: Gain | None
    """By the records, which chose the winners."""
    fresh: Gain | None
    """Measured afresh at the end."""
    confirmed: Gain | None
    """By the target's `final` command."""
    final: str | None
    """That command."""
    final_failed: str | None
    """Why it has not confirmed anything, though it was run."""
    costs: tuple[CostChange, ...]
    """Those that give points; none while best is the base."""
    for_costs: bool
    """All that is on best was kept for costs: that the metric has not gained is no doubt."""
    doubts: tuple[Doubt, ...]


class Scatter(Noun):
    """How much one measurement varies, and the smallest gain that can be kept."""

    sigma: float
    freedom: int
    deterministic: bool
    detectable: float
    runs: int


class CaseHistory(Noun):
    """One case of a suite: passes and runs of base and of best, and who changed it."""

    id: str
    base: tuple[int, int]
    best: tuple[int, int]
    fixed_by: tuple[int, ...]
    broken_by: tuple[int, ...]
    flaky: bool
    """Mixed results on one commit, whichever."""


class Suite(Noun):
    """What became of the cases; named are those that changed, are flaky or fail on best."""

    total: int
    named: tuple[CaseHistory, ...]
    quiet: int
    """Passed all the time."""


class Kept(Noun):
    """An experiment that was kept, with its record now."""

    number: int
    agent: str
    commit: str
    summary: str
    files: tuple[str, ...]
    lines_added: int
    lines_removed: int
    reason: str
    gain: float | None
    """When it was judged."""
    mean: float | None
    se: float | None
    n: int
    merged: str | None
    fixed: tuple[str, ...]
    broken: tuple[str, ...]
    feedback: str
    remarks: tuple[str, ...]
    """What a person should look at."""


class Refused(Noun):
    """An experiment that there was no fair comparison for."""

    number: int
    agent: str
    verdict: Verdict
    summary: str
    reason: str


class TargetFindings(Noun):
    """What was found for one target."""

    name: str
    metric: str
    goal: Goal
    unit: str | None
    base: str
    best: str
    branch: str
    ended: str | None
    """Why it came to its end before the run."""
    failed: bool
    share: float | None
    """Its part of the slots' time."""
    headline: Headline
    scatter: Scatter | None
    verdicts: dict[str, int]
    refused: tuple[Refused, ...]
    """The latest, newest first."""
    kept: tuple[Kept, ...]
    """Those on best first, in the order in which they reached it."""
    kept_unnamed: int
    suite: Suite | None
    constraints: tuple[str, ...]
    must_pass: tuple[str, ...]
    points: str | None
    rule: tuple[str, ...]
    """What else of the judge is set, beyond its defaults."""


class Findings(Noun):
    """What a run has found so far."""

    run: str
    state: Phase
    reason: str
    hint: str | None
    live: bool
    seed: int
    version: str | None
    config_sha256: str | None
    warnings: tuple[str, ...]
    targets: tuple[TargetFindings, ...]


def find(
    state: RunState,
    config: RunConfig | None = None,
    *,
    live: bool = False,
    digest: str | None = None,
    only: str | None = None,
) -> Findings:
    """Gather what a run has found.

    Args:
        state: what the ledger tells.
        config: for the rule, the constraints and `final`; without it, the default rule.
        live: whether a process carries the run out now.
        digest: sha256 of the run's config file.
        only: the one target that is wanted, by name.
    """
    stands = views.phase(state, live=live)
    reason, hint = views.why(state, stands)
    return Findings(
        run=state.run,
        state=stands,
        reason=reason,
        hint=hint,
        live=live,
        seed=state.seed,
        version=state.launch.version if state.launch else None,
        config_sha256=digest,
        warnings=warnings(state),
        targets=tuple(
            _target(state, target, config)
            for name, target in state.targets.items()
            if only in (None, name)
        ),
    )


def warnings(state: RunState) -> tuple[str, ...]:
    """Give what a run was warned of; when it is over, its budget is no warning any more."""
    over = state.phase in views.ENDED
    return tuple(state.drifts if over else state.warnings.values())


def _target(state: RunState, target: Target, config: RunConfig | None) -> TargetFindings:
    info, rule = target.info, views.rule_of(config, target)
    mine = _config_of(target, config)
    keeps = _keeps(state, target)
    return TargetFindings(
        name=info.name,
        metric=info.metric.name,
        goal=info.metric.goal,
        unit=info.metric.unit,
        base=info.base,
        best=target.best,
        branch=state.branch(info.name, "best"),
        ended=target.ended,
        failed=target.failed,
        share=views.share(state, target),
        headline=headline(target, config),
        scatter=scatter(target, rule),
        verdicts={v: target.verdicts[v] for v in VERDICTS},
        refused=tuple(_refused(state, target))[: -(MOST // 3) - 1 : -1],
        kept=tuple(_kept(state, target, e, rule) for e in keeps[:MOST]),
        kept_unnamed=max(0, len(keeps) - MOST),
        suite=_suite(state, target),
        constraints=tuple(_constraints(mine)),
        must_pass=rule.must_pass,
        points=_points(rule),
        rule=tuple(_rule(rule)),
    )


def _config_of(target: Target, config: RunConfig | None) -> TargetConfig | None:
    targets = config.targets if config else ()
    return next((t for t in targets if t.name == target.info.name), None)


# --- the gain, three ways ----------------------------------------------------------------------


def unmoved(target: Target) -> bool:
    """Tell whether best is still the base."""
    return target.tree_of[target.best] == target.info.base_tree


def _measured(result: FreshResult, target: Target, values: dict[str, list[float]]) -> Gain:
    """Give a gain measured at the end; `values` are what it was made from, by commit."""
    return Gain(
        gain=result.gain,
        se=result.se,
        base_mean=result.base_mean,
        best_mean=result.best_mean,
        base_n=len(values.get(target.info.base, ())) or result.n,
        best_n=len(values.get(target.best, ())) or result.n,
    )


def headline(target: Target, config: RunConfig | None) -> Headline:
    """Give the gain of a target three ways, and the doubts that follow from comparing them."""
    mine, result = _config_of(target, config), target.result
    rule = views.rule_of(config, target) if config else None
    for_costs = views.for_costs(target, rule)
    search, fresh, confirmed = _search(target), None, None
    if result is not None:
        fresh = _measured(result, target, target.finals)
        if result.confirmed is not None:
            confirmed = _measured(result.confirmed, target, target.sealed)
    failed = _final_failed(target)
    command = mine.final if mine else None
    if command is None and (target.sealed or target.sealed_failed):
        command = "(its command is not known)"
    return Headline(
        search=search,
        fresh=fresh,
        confirmed=confirmed,
        final=command if command is None or isinstance(command, str) else shlex.join(command),
        final_failed=failed,
        costs=() if unmoved(target) else tuple(_costs(target, rule)),
        for_costs=for_costs,
        doubts=tuple(
            doubt
            for doubt in _doubts(search, fresh, confirmed)
            if doubt.kind == "loss" or not for_costs
        ),
    )


def _search(target: Target) -> Gain | None:
    where = views.standing(target)
    if where.gain is None or unmoved(target):
        return None
    return Gain(
        gain=where.gain,
        se=where.gain_se,
        base_mean=where.baseline.mean,
        best_mean=where.best.mean,
        base_n=where.baseline.n,
        best_n=where.best.n,
    )


def _costs(target: Target, rule: JudgeConfig | None) -> Iterator[CostChange]:
    for cost in views.costs(target, rule):
        yield CostChange(
            name=cost.name,
            gain=cost.base.mean - cost.best.mean + 0.0,
            se=cost.se,
            base_mean=cost.base.mean,
            best_mean=cost.best.mean,
            base_n=cost.base.n,
            best_n=cost.best.n,
        )


def _final_failed(target: Target) -> str | None:
    """Say on which side `final` failed, and why, the last time."""
    sides = (("base", target.info.base), ("best", target.best))
    told = [
        f"on {side}: {target.sealed_failed[commit]}"
        for side, commit in sides
        if commit in target.sealed_failed
    ]
    return "; ".join(told) or None


def _doubts(search: Gain | None, fresh: Gain | None, confirmed: Gain | None) -> Iterator[Doubt]:
    """Say what speaks against believing a gain."""
    lucky = "the measurements that chose the winners were lucky"
    fitted = "the search may have fitted what it was measured on"
    told: list[tuple[Literal["fresh", "confirmed"], Gain | None, str]] = [
        ("fresh", fresh, lucky),
        ("confirmed", confirmed, fitted),
    ]
    for of, found, why in told:
        if found is None:
            continue
        size = f"{signed(found.gain, 4)} ± {number(found.se, 2)}"
        said = f"the {'fresh result' if of == 'fresh' else 'confirmed gain'}, {size},"
        if found.gain == 0 or (found.se is not None and abs(found.gain) < SURE * found.se):
            words = f"{said} is not told apart from zero: less than {SURE:g} standard errors"
            yield Doubt(of=of, kind="unsure", words=words)
        elif found.gain < 0:
            yield Doubt(of=of, kind="loss", words=f"{said} is a loss: best is worse than base")
        if search and found.gain < HALF * search.gain:
            words = f"{said} is less than half of the search gain, {signed(search.gain, 4)}: {why}"
            yield Doubt(of=of, kind="shrunk", words=words)


def scatter(target: Target, rule: JudgeConfig) -> Scatter | None:
    """Say how much one measurement of a target varies, None before any commit was repeated."""
    where = views.standing(target)
    sigma = where.spread.sigma
    if sigma is None:
        return None
    return Scatter(
        sigma=sigma,
        freedom=where.spread.freedom,
        deterministic=where.spread.deterministic,
        detectable=detectable(sigma, rule, where.baseline.mean),
        runs=rule.runs,
    )


# --- which experiments to name -----------------------------------------------------------------


def of_target(state: RunState, target: Target) -> list[Experiment]:
    """Give the experiments of a target, in the order of their numbers."""
    return [e for e in state.experiments.values() if e.target == target.info.name]


def _keeps(state: RunState, target: Target) -> list[Experiment]:
    order = {promoted.number: i for i, promoted in enumerate(target.promotions)}
    keeps = [e for e in of_target(state, target) if e.verdict == "keep"]
    return sorted(keeps, key=lambda e: (order.get(e.number, len(order)), e.number))


def _kept(state: RunState, target: Target, experiment: Experiment, rule: JudgeConfig) -> Kept:
    proposal = experiment.proposal
    sample = views.own_record(state, experiment).primary
    spread = target.spread(experiment.machine or "")
    return Kept(
        number=experiment.number,
        agent=experiment.agent,
        commit=landed(experiment.merged) or proposal.commit or "",
        summary=proposal.summary,
        files=proposal.files,
        lines_added=proposal.lines_added,
        lines_removed=proposal.lines_removed,
        reason=experiment.reason,
        gain=experiment.gain,
        mean=sample.mean if sample.n else None,
        se=spread.se(sample),
        n=sample.n,
        merged=experiment.merged,
        fixed=experiment.fixed,
        broken=experiment.broken,
        feedback=experiment.feedback,
        remarks=tuple(remarks(target, experiment, rule)),
    )


def _refused(state: RunState, target: Target) -> Iterator[Refused]:
    for e in of_target(state, target):
        if e.verdict not in (None, "keep", "discard"):
            yield Refused(
                number=e.number,
                agent=e.agent,
                verdict=e.verdict,
                summary=e.proposal.summary,
                reason=e.reason,
            )


# --- suites ------------------------------------------------------------------------------------


def _suite(state: RunState, target: Target) -> Suite | None:
    if not target.suite:
        return None
    machine = views.standing(target).machine or ""
    base, best = (target.record(c, machine).cases for c in (target.info.base, target.best))
    experiments = of_target(state, target)
    flaky = {
        name for record in target.records.values() for name, c in record.cases.items() if c.mixed
    }
    named = [
        CaseHistory(
            id=name,
            base=_counts(base.get(name)),
            best=_counts(best.get(name)),
            fixed_by=tuple(e.number for e in experiments if name in e.fixed),
            broken_by=tuple(e.number for e in experiments if name in e.broken),
            flaky=name in flaky,
        )
        for name in target.suite
    ]
    named = [c for c in named if c.flaky or c.fixed_by or c.broken_by or c.best[0] < c.best[1]]
    return Suite(total=len(target.suite), named=tuple(named), quiet=len(target.suite) - len(named))


def _counts(count: Count | None) -> tuple[int, int]:
    return (0, 0) if count is None else (count.passes, count.runs)


# --- the config's demands ----------------------------------------------------------------------


def _constraints(mine: TargetConfig | None) -> Iterator[str]:
    for c in mine.constraints if mine else ():
        parts = [f"at most {number(c.max)}"] if c.max is not None else []
        parts += [f"at least {number(c.min)}"] if c.min is not None else []
        if c.max_regression is not None:
            parts.append(f"at most {100 * c.max_regression:g} % worse than the base")
        yield f"{one_line(c.metric, 60)}: {', '.join(parts)}"


def _points(rule: JudgeConfig) -> str | None:
    if rule.points is None:
        return None
    parts = ["each passed case" if isinstance(p, str) else f"less {p.name}" for p in rule.points.of]
    how = (
        "added up"
        if rule.points.trade == "literal"
        else "in this order, each only when all before it are equal"
    )
    return f"one for {', one for '.join(parts)}; {how}"


def _rule(rule: JudgeConfig) -> Iterator[str]:
    """Say what was set of the rule besides, as a config says it."""
    if rule.preset != "default":
        yield f"preset: {rule.preset}"
    if rule.bounds is not None:
        low, high = rule.bounds
        sides = [f"at least {number(low)}"] if low is not None else []
        sides += [f"at most {number(high)}"] if high is not None else []
        if sides:
            yield f"bounds: {' and '.join(sides)}; a value beyond is invalid"
    if rule.max_gain is not None:
        size = _margin(rule.max_gain)
        yield f"max_gain: {size}; a gain beyond is looked at twice, not refused if it comes again"
    if margin(rule.min_delta, 1.0):
        yield f"min_delta: {_margin(rule.min_delta)}; a smaller gain is not kept"
    if rule.keep_if_equal != "never":
        yield f"keep_if_equal: {rule.keep_if_equal}; what is equal and has fewer lines is kept"
    if rule.window != "all":
        yield f"window: {rule.window}; only the last {rule.window} runs of an incumbent count"


def _margin(size: float | str) -> str:
    return size if isinstance(size, str) else number(size)
