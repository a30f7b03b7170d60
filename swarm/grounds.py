"""Why an experiment has its verdict: the figures beside the ledger's words, as they are now.

The verdict and its reason are the ledger's and never change; records grow after a verdict, so the
figures here may be others than those it was made by, and say so. Pure; decides nothing: what it
compares, it compares by asking `judge`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from swarm.config import ConstraintConfig, RunConfig
from swarm.entities import Experiment, Target
from swarm.formats.text import number, one_line, signed
from swarm.judge import (
    Count,
    Record,
    Ruling,
    Sample,
    case_changes,
    compare,
    cost_duel,
    failing,
    suite,
)
from swarm.looks import is_simpler
from swarm.quantities import margin
from swarm.records import CASES, Noun
from swarm.rules import JudgeConfig
from swarm.state import RunState

FEW = 5
"""Cases of a kind that are told with their counts."""
CASE = 60
"""Characters of a case's id."""


class Thresholds(Noun):
    """The rule by which candidates are judged."""

    drop_below: float
    keep_above: float
    once: float
    runs: int
    least: float
    """`min_delta` in the metric's unit: z counts the gain beyond it."""


class Side(Noun):
    """One side of a comparison, by its record now."""

    commit: str
    mean: float
    n: int
    of: int
    """All runs of the commit; only the last `n` count where `judge.window` says so."""
    se: float | None


class CasePair(Noun):
    """One case on both sides, each as passes and runs."""

    id: str
    candidate: tuple[int, int]
    incumbent: tuple[int, int]


class Cases(Noun):
    """What became of a suite's cases."""

    compared: int
    fixed: tuple[CasePair, ...]
    broken: tuple[CasePair, ...]
    flaky: tuple[CasePair, ...]
    """Mixed results on one of the two commits."""


class Bound(Noun):
    """A limit of a constraint, and where the candidate stands."""

    metric: str
    kind: str
    """`max`, `min` or `max_regression`."""
    limit: float
    """In the metric's unit."""
    value: float | None
    n: int
    margin: float | None
    """Room left; negative beyond the limit."""


class MustPass(Noun):
    """A case of `must_pass`, as passes and runs of the candidate and of the base."""

    case: str
    candidate: tuple[int, int]
    base: tuple[int, int]
    broken: bool
    """By the records now: the base always passed it, and the candidate failed more than once or in
    its only run."""


class PointsPart(Noun):
    """One part of the points, by the means of both sides."""

    part: str
    candidate: float | None
    incumbent: float | None
    z: float | None


class Grounds(Noun):
    """All figures that a verdict rests on."""

    rule: Thresholds
    candidate: Side | None
    incumbent: Side | None
    gain: float | None
    """Now; positive is better."""
    se: float | None
    """Of the gain; None for a suite, which is weighed up case by case."""
    z: float | None
    grown: bool
    """The records have grown since the verdict, so gain and z are not those of the ledger."""
    cases: Cases | None
    limits: tuple[Bound, ...]
    must_pass: tuple[MustPass, ...]
    points: tuple[PointsPart, ...]
    words: tuple[str, ...]


class _Found(NamedTuple):
    """The two records of a comparison, and what the judge says of them now."""

    target: Target
    experiment: Experiment
    rule: JudgeConfig
    candidate: Record
    incumbent: Record
    now: Ruling | None

    @property
    def theirs(self) -> Sample:
        """What counts of the incumbent's metric; cases are all compared, whatever the window."""
        window = "all" if self.target.info.metric.name == CASES else self.rule.window
        return self.incumbent.primary.recent(window)

    def error(self, sample: Sample) -> float | None:
        """Give the standard error of a mean, as the judge takes it."""
        spread = self.target.spread(self.experiment.machine or "")
        return spread.se(sample, local=self.rule.window != "all")


def grounds(state: RunState, number: int, config: RunConfig | None = None) -> Grounds:
    """Give what an experiment's verdict rests on.

    Args:
        state: what the ledger tells.
        number: of an experiment that there is.
        config: for the rule and the constraints; without it, the default rule and none.
    """
    found = _find(state, number, config)
    experiment, rule = found.experiment, found.rule
    ours, theirs = found.candidate.primary, found.theirs
    least = margin(rule.min_delta, theirs.mean)
    thresholds = Thresholds(
        drop_below=rule.drop_below,
        keep_above=rule.keep_above,
        once=rule.once,
        runs=rule.runs,
        least=least,
    )
    limits, must_pass = tuple(_limits(found, config)), tuple(_must_pass(found))
    cases = _cases(found)
    grown = _grown(found)
    words = [
        *remarks(found.target, experiment, rule),
        *_on_verdict(found, thresholds, limits, must_pass),
        *_on_limits(limits),
        *_on_must_pass(must_pass),
        *_on_cases(cases, unmoved=not any(m.broken for m in must_pass)),
        *_on_merger(experiment),
        *([_grown_words(found, found.now)] if grown and found.now else ()),
    ]
    return Grounds(
        rule=thresholds,
        candidate=_side(found, experiment.proposal.commit, ours, ours.n),
        incumbent=_side(found, experiment.base, theirs, found.incumbent.primary.n),
        gain=found.now and found.now.gain,
        se=_se(found),
        z=found.now and found.now.z,
        grown=grown,
        cases=cases,
        limits=limits,
        must_pass=must_pass,
        points=tuple(_points(found)),
        words=tuple(words),
    )


# --- figures -----------------------------------------------------------------------------------


def _find(state: RunState, number: int, config: RunConfig | None) -> _Found:
    experiment = state.experiments[number]
    target = state.targets[experiment.target]
    rule = config.rule(target.info.name) if config else JudgeConfig()
    machine, commit = experiment.machine, experiment.proposal.commit
    if machine is None or commit is None:
        return _Found(target, experiment, rule, Record(), Record(), None)
    candidate, incumbent = target.record(commit, machine), target.record(experiment.base, machine)
    now = None
    both = candidate.primary.n and incumbent.primary.n
    paired = target.info.metric.name != CASES or suite.pair(candidate, incumbent)
    if both and paired and target.spread(machine).sigma is not None:
        now = compare(
            candidate,
            incumbent,
            target.noise(machine),
            target.info.metric,
            rule,
            simpler=is_simpler(experiment),
        )
    return _Found(target, experiment, rule, candidate, incumbent, now)


def _side(found: _Found, commit: str | None, sample: Sample, of: int) -> Side | None:
    if commit is None or not sample.n:
        return None
    return Side(commit=commit, mean=sample.mean, n=sample.n, of=of, se=found.error(sample))


def _se(found: _Found) -> float | None:
    ours, theirs = found.error(found.candidate.primary), found.error(found.theirs)
    if found.target.info.metric.name == CASES or ours is None or theirs is None:
        return None
    return math.hypot(ours, theirs)


def _grown(found: _Found) -> bool:
    """Tell whether the verdict was made by other figures than those of now."""
    then, now = found.experiment, found.now
    if then.verdict not in ("keep", "discard") or then.gain is None or now is None:
        return False

    def same(a: float | None, b: float | None) -> bool:
        return a == b if a is None or b is None else math.isclose(a, b, abs_tol=1e-9)

    return not (same(then.gain, now.gain) and same(then.z, now.z))


def _cases(found: _Found) -> Cases | None:
    pairs = suite.pair(found.candidate, found.incumbent)
    if not pairs:
        return None
    fixed, broken = case_changes(found.candidate, found.incumbent)
    if found.experiment.verdict is not None:
        fixed, broken = found.experiment.fixed, found.experiment.broken
    mixed = (name for name, p in pairs.items() if p.candidate.mixed or p.incumbent.mixed)

    def told(names: Iterable[str]) -> tuple[CasePair, ...]:
        return tuple(
            CasePair(
                id=name,
                candidate=_counts(pairs[name].candidate),
                incumbent=_counts(pairs[name].incumbent),
            )
            for name in names
            if name in pairs
        )

    return Cases(compared=len(pairs), fixed=told(fixed), broken=told(broken), flaky=told(mixed))


def _counts(count: Count) -> tuple[int, int]:
    return count.passes, count.runs


def _limits(found: _Found, config: RunConfig | None) -> Iterator[Bound]:
    target, machine = found.target, found.experiment.machine
    if config is None or machine is None:
        return
    base = target.record(target.info.base, machine)
    for mine in (t for t in config.targets if t.name == target.info.name):
        for constraint in mine.constraints:
            yield from _bounds(constraint, found, base)


def _bounds(constraint: ConstraintConfig, found: _Found, base: Record) -> Iterator[Bound]:
    name, metric = constraint.metric, found.target.info.metric
    sample = found.candidate.sample(name, metric.name) or Sample()
    start = base.sample(name, metric.name)
    worse = constraint.limit.worse(metric)
    limits: list[tuple[str, float | None, int]] = [
        ("max", constraint.max, 1),
        ("min", constraint.min, -1),
    ]
    if constraint.max_regression is not None and start is not None:
        limit = start.mean + worse * constraint.max_regression * abs(start.mean)
        limits.append(("max_regression", limit, worse))
    for kind, limit, side in limits:
        if limit is not None:
            yield Bound(
                metric=name,
                kind=kind,
                limit=limit,
                value=sample.mean if sample.n else None,
                n=sample.n,
                margin=side * (limit - sample.mean) if sample.n else None,
            )


def _must_pass(found: _Found) -> Iterator[MustPass]:
    if found.experiment.machine is None:
        return
    base = found.target.record(found.target.info.base, found.experiment.machine)
    for name in found.rule.must_pass:
        ours, theirs = found.candidate.cases.get(name), base.cases.get(name)
        if ours is not None and theirs is not None:
            yield MustPass(
                case=name,
                candidate=_counts(ours),
                base=_counts(theirs),
                broken=failing((name,), found.candidate, base) is not None,
            )


def _points(found: _Found) -> Iterator[PointsPart]:
    points, now = found.rule.points, found.now
    for part in points.of if points else ():
        if isinstance(part, str):
            name, z = part, now and now.z
            ours, theirs = found.candidate.primary, found.theirs
        else:
            name = part.name
            ours = found.candidate.others.get(name, Sample())
            theirs = found.incumbent.others.get(name, Sample()).recent(found.rule.window)
            z = _cost_z(found, name, ours, theirs)
        yield PointsPart(
            part=name,
            candidate=ours.mean if ours.n else None,
            incumbent=theirs.mean if theirs.n else None,
            z=z,
        )


def _cost_z(found: _Found, name: str, ours: Sample, theirs: Sample) -> float | None:
    spread = found.target.noise(found.experiment.machine or "").get(name)
    if spread is None or not spread.freedom or not ours.n or not theirs.n:
        return None
    return cost_duel(ours, theirs, spread, found.rule).z


COLD, TELLING_S = 3.0, 0.5
"""A first run this many times slower than the others, by this much at least, is remarked on."""


def remarks(target: Target, experiment: Experiment, rule: JudgeConfig) -> list[str]:
    """Give what a person should look at before believing a keep."""
    if experiment.verdict != "keep":
        return []
    found = [beyond_max_gain(target, experiment, rule), slow_first(target, experiment)]
    return [*experiment.proposal.flags, *(remark for remark in found if remark is not None)]


def slow_first(target: Target, experiment: Experiment) -> str | None:
    """Remark on a candidate whose first run was much slower than all later ones."""
    commit, machine = experiment.proposal.commit, experiment.machine
    if commit is None or machine is None:
        return None
    first, *later = target.record(commit, machine).clock.values or [0.0]
    usual = max(later, default=first)
    if first <= COLD * usual or first - usual < TELLING_S:
        return None
    return (
        f"its first run took {number(first)} s, no later one more than {number(usual)} s: "
        "it may reuse what it had worked out before"
    )


def beyond_max_gain(target: Target, experiment: Experiment, rule: JudgeConfig) -> str | None:
    """Remark on a keep that gained more than is believed at first; a person should look at it."""
    if experiment.verdict != "keep" or experiment.gain is None or rule.max_gain is None:
        return None
    theirs = target.record(experiment.base, experiment.machine or "").primary.recent(rule.window)
    most = margin(rule.max_gain, theirs.mean)
    if experiment.gain <= most:
        return None
    ours = target.record(experiment.proposal.commit or experiment.base, experiment.machine or "")
    values, sign = ours.primary.values, target.info.metric.sign
    again = sum(sign * (value - theirs.mean) > most for value in values)
    runs = "every run" if again == len(values) else f"{again} of {len(values)} runs"
    return f"beyond max_gain ({number(most)}), came again in {runs}: look at its diff"


# --- words -------------------------------------------------------------------------------------

_NO_NUMBER = {
    "crash": "the harness ended without a number; a failure is never scored",
    "timeout": "it was ended after `target.timeout` without a number; a failure is never scored",
    "guard_failed": "`target.guard` must exit with 0 before anything is measured, and did not",
    "duplicate": "this very change has been proposed before; it is not measured again",
    "aborted": "the machinery died, which says nothing of the change; it is not counted",
}
_MERGER = {
    "queued": "it waits for the merger",
    "conflict": "it did not reach best: it changes the same lines as what is there",
    "redundant": "it did not reach best: on top of it, it adds less than half of what was expected",
    "antagonistic": "it did not reach best: on top of it, it makes things worse",
}


def _on_verdict(
    found: _Found,
    rule: Thresholds,
    limits: tuple[Bound, ...],
    must_pass: tuple[MustPass, ...],
) -> Iterator[str]:
    experiment = found.experiment
    match experiment.verdict:
        case None:
            yield from _in_flight(found, rule)
        case "keep" | "discard":
            yield from _by_rule(found, rule)
        case "constraint_failed":
            over = any(b.margin is None or b.margin < 0 for b in limits)
            over = over or any(m.broken for m in must_pass)
            yield "limits come before the metric: beyond one, nothing is kept, however good it is"
            if (limits or must_pass) and not over:
                yield "by its record now it is within all limits"
        case "invalid":
            yield from _not_believed(found)
        case _:
            yield _NO_NUMBER[experiment.verdict]


def _rule_words(rule: Thresholds) -> str:
    words = (
        f"the rule: below z = {rule.drop_below:g} discard, from {rule.keep_above:g} on "
        f"keep, after two runs at least, in between measure again, up to {rule.runs} runs"
    )
    return words + (f"; z counts the gain beyond {rule.least:g}" if rule.least else "")


def _in_flight(found: _Found, rule: Thresholds) -> Iterator[str]:
    now = found.now
    if now is not None and now.z is not None:
        yield f"z = {now.z:+.2f} so far; it is not decided yet"
    else:
        yield "it is not decided yet"
    yield _rule_words(rule)


def _by_rule(found: _Found, rule: Thresholds) -> Iterator[str]:
    if found.rule.points is not None:
        how = "are added up" if found.rule.points.trade == "literal" else "come one after another"
        yield f"it is judged by points; the parts {how}"
        for part in _points(found):
            z = "" if part.z is None else f", z = {part.z:+.2f}"
            sides = f"{number(part.candidate)} against {number(part.incumbent)}"
            yield f"{one_line(part.part, CASE)}: {sides}{z}"
    elif found.experiment.z is None:
        yield _exact(found.experiment, rule)
        return
    else:
        yield _where(found, found.experiment.z, rule)
    yield _rule_words(rule)


_EQUAL = "it measures as equal and has fewer lines, so it is kept"


def _exact(experiment: Experiment, rule: Thresholds) -> str:
    agreed = "all repeats had agreed exactly when it was judged"
    if experiment.verdict != "keep":
        return f"{agreed}, so what was not better was discarded at once"
    if experiment.gain is not None and experiment.gain <= rule.least:
        return f"{agreed}; {_EQUAL}"
    return f"{agreed}, so any gain was real; a second run has confirmed it"


def _where(found: _Found, z: float, rule: Thresholds) -> str:
    """Say where z of the verdict falls among the thresholds, and what follows."""
    low, high, said = rule.drop_below, rule.keep_above, f"z = {z:+.2f}"
    if found.experiment.verdict == "keep":
        if found.target.info.metric.name == CASES and z >= high:
            return f"{said} reaches {high:g}, also after one more run of the whole suite: kept"
        if z >= high:
            return f"{said} reaches {high:g}: told apart from the incumbent, so kept"
        return f"{said}: not told apart from the incumbent; {_EQUAL}"
    if z < low:
        worse = "worse than its incumbent" if z <= -low else "no visible gain"
        return f"{said} is below {low:g}: {worse}, so discarded"
    if z < high:
        return (
            f"{said} lies between {low:g} and {high:g} after all {rule.runs} runs: "
            "not told apart, so discarded"
        )
    return f"{said} reaches {high:g}, but not after the runs that a keep needs: discarded"


def _not_believed(found: _Found) -> Iterator[str]:
    values = found.candidate.primary.values
    if not values:
        yield "there is no number that could be compared"
        return
    yield "measured: " + ", ".join(number(v) for v in values[:10])
    if found.rule.max_gain is not None:
        yield (
            f"a gain beyond judge.max_gain ({found.rule.max_gain}) is held in quarantine and "
            "measured again; it did not come again, so it is not believed"
        )


def _on_limits(limits: Iterable[Bound]) -> Iterator[str]:
    for bound in limits:
        name = one_line(bound.metric, CASE)
        limit = f"{bound.kind} {number(bound.limit)}"
        if bound.value is None or bound.margin is None:
            yield f"{name}: not reported; {limit}"
            continue
        room = "beyond it" if bound.margin < 0 else "left"
        value = f"{number(bound.value)} (mean of {bound.n})" if bound.n > 1 else number(bound.value)
        yield f"{name}: {value}; {limit}, {number(abs(bound.margin), 4)} {room}"


def _on_must_pass(must_pass: tuple[MustPass, ...]) -> Iterator[str]:
    failed = [m for m in must_pass if m.candidate[0] < m.candidate[1]]
    shown = sorted(failed, key=lambda m: not m.broken)[:FEW]
    for one in shown:
        sides = f"{_share(one.candidate)}, the base {_share(one.base)}"
        # What the base itself fails at times is asked of nobody.
        excused = "" if one.base[0] == one.base[1] else ", so it is not asked for"
        end = ": broken" if one.broken else excused
        yield f"must_pass: {one_line(one.case, CASE)} {sides}{end}"
    if more := len(failed) - len(shown):
        yield f"must_pass: {more} more failed at times"
    if held := len(must_pass) - len(failed):
        yield f"must_pass: passed in every run, {held} of {len(must_pass)}"


def _on_cases(cases: Cases | None, *, unmoved: bool) -> Iterator[str]:
    if cases is None:
        return
    kinds = (("fixed", cases.fixed), ("broken", cases.broken), ("flaky", cases.flaky))
    for word, pairs in kinds:
        if pairs:
            shown = "; ".join(
                f"{one_line(p.id, CASE)} {_share(p.candidate)}, was {_share(p.incumbent)}"
                for p in pairs[:FEW]
            )
            more = f"; and {len(pairs) - FEW} more" if len(pairs) > FEW else ""
            yield f"{word}: {shown}{more}"
    if unmoved and not any(pairs for _, pairs in kinds):
        yield f"none of {cases.compared} cases was fixed or broken, and none is flaky"


def _share(counts: tuple[int, int]) -> str:
    return f"{counts[0]}/{counts[1]}"


def _on_merger(experiment: Experiment) -> Iterator[str]:
    if experiment.merged in _MERGER:
        why = one_line(experiment.merge_reason, 200)
        yield _MERGER[experiment.merged] + (f" ({why})" if why else "")


def _grown_words(found: _Found, now: Ruling) -> str:
    z = "" if now.z is None else f", z {now.z:+.2f}"
    runs, last = "all runs so far", found.theirs.n
    if last < found.incumbent.primary.n:
        runs = f"all its runs and the last {last} of the incumbent"
    return f"since then more was measured: by {runs}, gain {signed(now.gain, 4)}{z}"
