"""What is wrong with a target, from what was seen of it, and what helps. Pure.

Owns the kinds of findings, their levels and their words. Runs nothing and reads no file.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from statistics import fmean, median, stdev

from swarm import exposure, judge
from swarm.config import RunConfig
from swarm.entities import Target
from swarm.errors import HarnessError, SwarmError
from swarm.formats.text import duration, number, one_line
from swarm.judge import Record
from swarm.observations import (
    TELLING_S,
    Figures,
    Finding,
    Level,
    Observations,
    Take,
    crowded,
    figures,
    unmoved,
)
from swarm.patterns import CORRECT_IT
from swarm.quantities import margin
from swarm.records import CASES

LEVELS: tuple[Level, ...] = ("error", "warning", "note")

MANY_OUTPUTS = 5
"""Outputs from which a question that gets the same answer for all tells nothing."""
SHOWN = 5
"""Names of flaky cases that are told."""
BROAD = 0.05
"""Share of the mean above which a gain that can be told from noise is a large one."""
SLOWER = 1.25
COLD = 2.0
NEAR = 0.5
"""Share of `timeout` that a measurement of the base may take."""
SIGMAS = 3.0
"""Spreads of one measurement that `judge.max_gain` must leave to chance."""
MANY_FLAKY = 0.25
"""Share of flaky cases from which few gains are kept by a strict rule."""
AGREEING = 4
"""Equal values from which one that differs is no accident."""


def diagnose(seen: Observations, config: RunConfig) -> list[Finding]:
    """Say all that was found, the worst first."""
    found = [_refusal(error) for error in seen.refusals]
    if seen.takes:
        case = _Case(seen, config)
        found += [finding for look in LOOKS for finding in look(case)]
    found += _standing(config)
    return sorted(found, key=lambda f: LEVELS.index(f.level))


@dataclass(frozen=True)
class _Case:
    """What all looks share."""

    seen: Observations
    config: RunConfig

    @cached_property
    def target(self) -> Target:
        return self.seen.fold()

    @cached_property
    def figures(self) -> Figures | None:
        return figures(self.seen, self.config)

    @cached_property
    def machine(self) -> str:
        return self.seen.takes[0].measurement.machine

    @cached_property
    def record(self) -> Record:
        assert self.seen.info is not None
        return self.target.record(self.seen.info.base, self.machine)

    @property
    def metric(self) -> str:
        return self.config.target.metric.name

    def values(self, takes: list[Take]) -> list[float]:
        found = (self.target.value(t.measurement) for t in takes)
        return [v for v in found if v is not None]


def _refusal(error: SwarmError) -> Finding:
    kind = "setup" if isinstance(error, HarnessError) else error.kind
    return Finding(kind, "error", error.message, error.hint or "see docs/config.md")


def _standing(config: RunConfig) -> Iterator[Finding]:
    """Say what is so whatever was measured."""
    yield from exposure.standing(config)
    if config.cluster.address != "local":
        yield Finding(
            "elsewhere",
            "note",
            f"all this is about this machine; the run is to join {config.cluster.address}",
            "run `swarm check` on a machine of that cluster, too",
        )


# --- the base cannot be measured ----------------------------------------------------------------


def _failures(case: _Case) -> Iterator[Finding]:
    """Say how the base fails. A launch gives up at its second failure."""
    takes = case.seen.takes
    failed = [t for t in takes if t.measurement.failure is not None]
    if not failed:
        return
    failure = failed[0].measurement.failure
    assert failure is not None
    times = f"{len(failed)} of {len(takes)} measurements" if len(takes) > 1 else "its measurement"
    timeout = case.config.target.timeout
    if failure.kind == "timeout":
        good = [t.measurement.seconds for t in case.seen.good]
        wanted = max(2 * timeout, 3 * max(good, default=0.0))
        yield Finding(
            "timeout",
            "error",
            f"the base does not end within `timeout` ({duration(timeout)}) in {times}",
            "run it by hand and set `timeout` to three times what it takes, at least "
            f"{math.ceil(wanted)}s; or make one measurement shorter",
        )
        return
    kind = "guard_fails" if failure.kind == "guard_failed" else "base_fails"
    level: Level = "error" if len(failed) > 1 or takes.index(failed[0]) == 0 else "warning"
    tail = f"\n--- end of its output ---\n{failure.tail}" if failure.tail else ""
    what = "a guard refuses the base" if kind == "guard_fails" else "the base fails"
    unread = failure.kind == "invalid" and case.config.target.metric.pattern is not None
    yield Finding(
        kind,
        level,
        f"{what} in {times}: {failure.reason}{tail}",
        CORRECT_IT
        if unread
        else "run the command by hand in a fresh clone of the base, without your shell's variables"
        if level == "error"
        else "find out why it fails only sometimes: a launch ends at its second failure",
    )


def _absent(case: _Case) -> Iterator[Finding]:
    if not case.seen.absent:
        return
    broken = any(t.measurement.failure is not None for t in case.seen.takes)
    names = ", ".join(f"`{one_line(path)}`" for path in case.seen.absent)
    yield Finding(
        "missing_file",
        "error" if broken else "warning",
        f"not found in the export: {names}; your working tree has it, the base commit does not",
        "commit it, have `setup` make it (and git ignore it), or name it in `target.read_only`",
    )


# --- the metric says nothing of the scope -------------------------------------------------------


def _scope(case: _Case) -> Iterator[Finding]:
    """Look at what nonsense in scope did to the metric."""
    figures = case.figures
    if figures is None or not unmoved(case.seen, case.config):
        return
    if case.metric == CASES and figures.mean == 0.0:
        return  # where nothing passes, nonsense cannot be worse
    copies = case.seen.copies
    value = number(fmean(case.values([Take(m, True) for m in case.seen.nonsense])))
    same = f"exactly the same {case.metric}" if figures.exact else f"the same {case.metric}"
    message = (
        f"the metric does not depend on the scope: with every file in scope replaced by nonsense "
        f"the harness still succeeds, with {same} ({value})"
    )
    hint = (
        "an installed copy may be measured instead of the export, or `scope` names files that "
        "`run` does not use"
    )
    if copies:
        found = ", ".join(f"`{c.name}` from {c.place}" for c in copies)
        message += f"; Python finds {found}, outside of the export"
        hint = (
            "an installed copy is measured (`pip install -e` points to your working tree, too): "
            "uninstall it, or put the export first with `env: {PYTHONPATH: .}`, `src` for a src "
            "layout: a relative path is the export's"
        )
    yield Finding("scope_ignored", "warning", message, hint)
    if figures.exact and not copies:
        n = len(figures.values) + len(case.seen.nonsense)
        yield Finding(
            "constant",
            "warning",
            f"all {n} measurements, that of the nonsense too, gave exactly {value}",
            "see whether `metric` reads the number of this very measurement (`swarm check` shows "
            "what it takes): a file that was committed, or a pattern that matches fixed words, "
            "never changes",
        )


# --- suites -------------------------------------------------------------------------------------


def _suite(case: _Case) -> Iterator[Finding]:
    counts = case.record.cases
    if case.metric != CASES or not counts or case.figures is None:
        return
    n, runs, costs = len(counts), case.record.runs, _costs(case.config)
    if all(c.passes == c.runs for c in counts.values()):
        left = f"only less of {' and '.join(costs)}" if costs else "nothing"
        yield Finding(
            "no_headroom",
            "note" if costs else "warning",
            f"all {n} cases pass at the base, in each of {runs} runs: there is {left} to gain",
            "add cases that fail now and should pass" + (", if there are any" if costs else ""),
        )
    if not any(c.passes for c in counts.values()):
        yield Finding(
            "no_headroom",
            "warning",
            f"none of {n} cases passes at the base, in any of {runs} runs: no change will be seen "
            "that does not solve a whole case",
            "add easier cases, and see whether the harness can pass at all",
        )


def _costs(config: RunConfig) -> list[str]:
    points = config.rule().points
    return [] if points is None else [p.name for p in points.of if not isinstance(p, str)]


def _flaky(case: _Case) -> Iterator[Finding]:
    if case.figures is None or not case.figures.flaky:
        return
    flaky, n, rule = case.figures.flaky, case.figures.cases, case.config.rule()
    counts = case.record.cases
    shown = [f"{c} ({counts[c].passes} of {counts[c].runs})" for c in flaky[:SHOWN]]
    more = f" and {len(flaky) - SHOWN} more" if len(flaky) > SHOWN else ""
    are = "is" if len(flaky) == 1 else "are"
    hint = "repeat inside a case, so that the majority decides (`repeats` of a checklist)"
    if rule.preset == "suite":
        hint += f"; the preset `suite` is patient with them: up to {rule.runs} runs"
    elif rule.preset != "llm-judged":
        hint += "; `judge: {preset: suite}` is patient with them"
    if len(flaky) >= MANY_FLAKY * n and rule.preset != "llm-judged":
        hint += "; with so many `judge: {preset: llm-judged}` keeps more, and more of it by luck"
    yield Finding(
        "flaky",
        "note",
        f"{len(flaky)} of {n} cases {are} flaky at the base: {', '.join(shown)}{more}",
        hint,
    )


def _must_pass(case: _Case) -> Iterator[Finding]:
    wanted, counts = case.config.rule().must_pass, case.record.cases
    if case.figures is None:
        return
    for name in wanted:
        count = counts.get(name)
        if count is None:
            near = difflib.get_close_matches(name, counts, n=1)
            few = f"there are {', '.join(list(counts)[:5])}" if counts else "it reports no cases"
            yield Finding(
                "must_pass_unknown",
                "error",
                f"`judge.must_pass` names case {name!r}, and the harness reports no such case",
                f"did you mean {near[0]!r}?" if near else few,
            )
        elif count.passes < count.runs:
            yield Finding(
                "must_pass_flaky",
                "warning",
                f"case {name!r} must pass, and the base passes it {count.passes} of {count.runs} "
                "times: it guards nothing",
                "make the case reliable, or take it out of `judge.must_pass`",
            )


def _questions(case: _Case) -> Iterator[Finding]:
    """Find the questions of a checklist that get the same answer for all outputs."""
    runs = [t.measurement.cases for t in case.seen.good]
    spread = case.target.spread(case.machine)
    if spread.agreed:  # a harness that says the same again has looked at the same outputs
        runs = runs[:1]
    answers: dict[str, list[bool]] = {}
    for cases in runs:
        for answered in cases:
            if answered.question is not None:
                answers.setdefault(answered.question, []).append(answered.passed)
    for question, given in answers.items():
        if len(given) < MANY_OUTPUTS or len(set(given)) > 1:
            continue
        word = "yes" if given[0] else "no"
        same = f"does not discriminate: the answer is {word} for all {len(given)} outputs"
        if not given[0]:
            same += "; fine if that is what the search is to change, else reword it"
        # What always fails is the room that there is; what always passes can only be lost.
        yield Finding(
            "question_same",
            "error" if given[0] else "warning",
            f"the question {one_line(question, 100)!r} {same}",
            "ask what some outputs do and others do not; what all must do is a guard"
            if given[0]
            else "read some outputs: is it in reach, and is `no` the right answer for them?",
        )


# --- noise --------------------------------------------------------------------------------------


def _noise(case: _Case) -> Iterator[Finding]:
    figures, rule = case.figures, case.config.rule()
    if figures is None:
        return
    own = case.config.target.budget.target
    goal = own if own is not None else case.config.budget.target
    gap = None
    if goal is not None:
        gap = case.config.target.metric.spec.sign * (goal - figures.mean)
        if gap <= 0:
            yield Finding(
                "target_reached",
                "warning",
                f"the base has {case.metric} {number(figures.mean)}, which is budget.target "
                f"({number(goal)}) already: a run would end at once",
                "set `budget.target` beyond the base, or leave it out",
            )
            gap = None
    if figures.detectable is None or figures.exact:
        return
    least = margin(rule.min_delta, figures.mean)
    seen = figures.detectable - least
    seen_words = f"only a gain of {number(seen, 3)} stands out from the noise"
    small: list[str] = []
    if least and seen > least:
        small.append(f"`judge.min_delta` asks for {number(least, 3)}")
    if gap is not None and figures.detectable > gap:
        small.append(f"`budget.target` is {number(gap, 3)} away")
    broad = seen > BROAD * abs(figures.mean) and case.metric != CASES
    if not least and gap is None and broad:
        share = f", {seen / abs(figures.mean):.0%} of the mean" if figures.mean else ""
        small.append(f"that is much{share}")
    if small:
        both = f"{rule.runs} + {rule.runs} measurements"
        yield Finding(
            "noise",
            "warning",
            f"more noise than gain: with {both} {seen_words}, and {' and '.join(small)}",
            _quieter(case),
        )
    if rule.max_gain is not None and figures.sigma is not None:
        most, chance = margin(rule.max_gain, figures.mean), SIGMAS * figures.sigma
        if most < chance:
            yield Finding(
                "max_gain",
                "warning",
                f"`judge.max_gain` is {number(most, 3)}, less than {SIGMAS:g} σ of the base "
                f"({number(chance, 3)}): honest noise would be quarantined as too good",
                f"set it above {number(chance, 3)}, far above the gains you hope for",
            )


def _quieter(case: _Case) -> str:
    """Say what makes one measurement tell more, and is not done yet."""
    if case.metric == CASES:
        return "put more into one measurement: more cases, more repeats inside each"
    more = "put more into one measurement: more seeds, a longer run"
    match case.config.rule().aggregate:
        case "last":
            least = "for timings repeat inside and take the least (`judge: {aggregate: min}`)"
            return f"{more}; {least}"
        case other:
            return f"{more}, more values for `{other}`"


def _contention(case: _Case) -> Iterator[Finding]:
    """Compare what was measured alone with what was measured at once."""
    alone = [t for t in case.seen.good if t.alone]
    crowd = [t for t in case.seen.good if not t.alone]
    if not alone or not crowd or case.seen.slots < 2:
        return
    least = min(t.measurement.seconds for t in alone)
    usual = median(t.measurement.seconds for t in crowd)
    said: list[str] = []
    if usual > SLOWER * least and usual - least > TELLING_S:
        times = f"{number(least, 3)} s alone and {number(usual, 3)} s"
        said.append(f"a measurement takes {times} with all {case.seen.slots} slots at work")
    ours, theirs = case.values(alone), case.values(crowd)
    if ours and _differ(ours, theirs):
        means = f"{number(fmean(ours))} alone and {number(fmean(theirs))} beside others"
        said.append(f"{case.metric} is {means}, which is more than chance")
    windowed = case.config.rule().window != "all" or case.metric == CASES
    if said:
        yield Finding(
            "contention",
            "warning",
            "the slots are in each other's way: " + "; ".join(said),
            "fewer slots (`slot: {count: N}`), or more for each (`slot: {cpus: N}`)"
            + ("" if windowed else "; where the metric is a time, `judge: {window: 5}` as well"),
        )


def _differ(alone: list[float], crowd: list[float]) -> bool:
    """Tell whether the means differ by what three standard deviations are in a large sample."""
    apart = abs(fmean(alone) - fmean(crowd))
    if len(crowd) < 2 or apart == 0.0:
        return False
    sigma, freedom = stdev(crowd), len(crowd) - 1
    if sigma == 0.0:
        return len(crowd) >= AGREEING
    asked = next(islice(_STUDENT, freedom - 1, None), 3.0 + 10.0 / freedom)
    return apart > asked * sigma * math.sqrt(1 / len(alone) + 1 / len(crowd))


_STUDENT = (235.8, 19.21, 9.22, 6.62, 5.51, 4.90, 4.53, 4.28, 4.09, 3.96)
"""Student's t at three sigmas' chance (0.27 %, both sides), for 1, 2, ... degrees of freedom: the
spread of a few measurements is itself badly known."""


# --- time, memory, limits -----------------------------------------------------------------------


def _time(case: _Case) -> Iterator[Finding]:
    good = [t.measurement.seconds for t in case.seen.good]
    if not good:
        return
    timeout, slowest = case.config.target.timeout, max(good)
    if slowest > NEAR * timeout:
        yield Finding(
            "timeout_near",
            "warning",
            f"the slowest measurement took {number(slowest, 3)} s, more than half of `timeout` "
            f"({duration(timeout)}): a change that is a little slower would be cut off",
            f"set `timeout` to {math.ceil(3 * slowest)}s",
        )
    first, others = case.seen.takes[0].measurement, good[1:]
    if first.failure is None and others:
        usual = median(others)
        if first.seconds > COLD * usual and first.seconds - usual > TELLING_S:
            yield Finding(
                "warm_up",
                "warning",
                f"the first measurement took {number(first.seconds, 3)} s and the others "
                f"{number(usual, 3)} s: something is built or cached on the first use",
                "do it in `setup`, or run once untimed inside each measurement; the first of every "
                "machine and every candidate may pay for it",
            )


def _memory(case: _Case) -> Iterator[Finding]:
    if crowded(case.seen):
        peak = max(t.measurement.peak_memory_mb for t in case.seen.takes)
        slots, there = case.seen.slots, case.seen.memory_mb
        fit = max(1, int(there / peak))
        yield Finding(
            "memory",
            "warning",
            f"a measurement takes up to {number(peak, 4)} MiB, and {slots} slots together would "
            f"need more than the machine's {number(there, 4)} MiB; so they were measured one "
            "after the other",
            f"`slot: {{count: {fit}}}` fits",
        )


def _limits(case: _Case) -> Iterator[Finding]:
    config, record = case.config, case.record
    if case.figures is None:
        return
    low, high = config.rule().bounds or (None, None)
    beyond = [
        v
        for v in case.figures.values
        if (low is not None and v < low) or (high is not None and v > high)
    ]
    if beyond:
        shown = ", ".join("null" if b is None else f"{b:g}" for b in (low, high))
        yield Finding(
            "bounds",
            "error",
            f"the base itself has {case.metric} {number(beyond[0])}, outside of `judge.bounds` "
            f"[{shown}]: it would count as invalid",
            "widen `judge.bounds`, or correct what the harness reports",
        )
    noise, spec = case.target.noise(case.machine), config.target.metric.spec
    for c in config.target.constraints:
        found = judge.breach(c.limit, record, record, noise, spec, config.rule())
        if found is None:
            continue
        reported = record.sample(c.metric, case.metric) is not None
        yield Finding(
            "constraint",
            "warning" if reported else "error",
            f"the base itself breaks a constraint: {found.words}",
            "a change is kept only if it mends that as well; relax the constraint, or start from "
            "a base that keeps it"
            if reported
            else (
                f"correct its `pattern` {c.pattern!r}, which finds nothing in the output"
                if c.pattern is not None
                else _meant(case, c.metric)
            )
            + "; without it every candidate is refused",
        )


def _points(case: _Case) -> Iterator[Finding]:
    for name in _costs(case.config):
        if case.figures is None or case.record.sample(name, case.metric) is not None:
            continue
        yield Finding(
            "points_unknown",
            "error",
            f"`judge.points` is to improve {name!r}, and the base never reports it: no change can "
            "earn that point",
            _meant(case, name),
        )


def _meant(case: _Case, name: str) -> str:
    """Say which of the metrics that are reported may be meant."""
    reported = sorted(set(case.record.others) - {case.metric})
    near = difflib.get_close_matches(name, reported, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"have the harness report it, or take one of {', '.join(reported[:8])}"


def _final(case: _Case) -> Iterator[Finding]:
    """Say that `final` failed, and never what it printed."""
    tried = case.seen.final
    if tried is None:
        return
    failure = tried.failure or (tried.sealed and tried.sealed.failure)
    if failure is None:
        return
    if tried.failure is not None:
        what = "could not be tried, because `run` before it failed"
    elif failure.kind == "invalid":
        what = f"gives no number for {case.metric}"
    else:
        what = f"fails: {failure.reason}"
    yield Finding(
        "final_fails",
        "error",
        f"`final` {what}; a run would end without a confirmed gain",
        "run it by hand, after `run` and in the same directory; its output is not shown here, so "
        "that it stays sealed",
    )


def _walls(case: _Case) -> Iterator[Finding]:
    yield from exposure.observed(case.seen)


LOOKS: tuple[Callable[[_Case], Iterator[Finding]], ...] = (
    _failures,
    _walls,
    _absent,
    _scope,
    _suite,
    _flaky,
    _must_pass,
    _questions,
    _noise,
    _contention,
    _time,
    _memory,
    _limits,
    _points,
    _final,
)
