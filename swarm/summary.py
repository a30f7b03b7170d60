"""What a run has come to, in words: the closing summary, as text and as a short page.

The summary opens with the block that this family of tools prints, then says what that block
cannot: how sure the gain is, how small a gain could have been seen, what the merger did, what it
cost, and what the sandbox left open. Reads `RunState` and `findings` only, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from swarm import findings
from swarm.config import RunConfig
from swarm.entities import Experiment, Target, landed
from swarm.findings import SURE, Gain, Headline, Scatter, of_target, unmoved
from swarm.formats import results_tsv
from swarm.formats.text import (
    count,
    duration,
    first_line,
    markdown,
    number,
    one_line,
    sanitise,
    signed,
)
from swarm.records import VERDICTS
from swarm.rules import JudgeConfig
from swarm.state import RunState
from swarm.views import (
    compared,
    costs,
    for_costs,
    in_vain,
    merges,
    own_record,
    rule_of,
    sd,
    share,
    standing,
)

TOP = 5
"""Improvements and failures listed in a summary."""
SUMMARY = 100
"""Characters of an experiment's summary in a list."""


# --- the facts, one sentence each --------------------------------------------------------------


def _value(target: Target, value: float | None) -> str:
    unit = target.info.metric.unit
    return number(value) + (f" {one_line(unit, 20)}" if unit and value is not None else "")


def _improvement(target: Target, rule: JudgeConfig | None) -> str:
    """Say what the records claim, as the family's block does."""
    where = standing(target)
    if where.gain is None:
        return "not measured"
    if unmoved(target):
        return "none"
    percent = "" if where.gain_pct is None else f", {signed(where.gain_pct, 3)} %"
    return f"{signed(where.gain, 4)}{percent}" + "".join(
        f"; {cost.words()}" for cost in costs(target, rule)
    )


def fresh_line(target: Target, rule: JudgeConfig | None = None) -> str:
    """Say what the run has reached, as honestly as can be said now."""
    if unmoved(target):
        return "it could not be measured" if target.failed else "no improvement was found"
    result = target.result
    if result is None:
        where = standing(target)
        gain = f"{signed(where.gain, 4)} ± {number(where.gain_se, 2)}"
        return f"best − base = {gain} by the records, not yet measured afresh"
    gain = f"{signed(result.gain, 4)} ± {number(result.se, 2)}"
    doubt = "" if result.gain >= SURE * result.se else "; it cannot be told from no improvement"
    if for_costs(target, rule):
        doubt = "; what is on best was kept for its costs"
    return f"best − base = {gain} (n={result.n}+{result.n}, measured afresh, + is better){doubt}"


def gain_words(gain: Gain) -> str:
    """Give a gain with its standard error and the counts behind it."""
    counts = f"n={gain.base_n}+{gain.best_n}"
    return f"{signed(gain.gain, 4)} ± {number(gain.se, 2)} ({counts})"


def _gain_lines(target: Target, head: Headline, rule: JudgeConfig | None) -> Iterator[str]:
    """Say the gain three ways, and what speaks against believing it."""
    yield f"result: {fresh_line(target, rule)}"
    for cost in head.costs:
        sides = f"{number(cost.base_mean)} -> {number(cost.best_mean)}"
        counts = f"n={cost.base_n}+{cost.best_n}, by the records, less is better"
        yield f"cost {cost.name}: {sides} ({counts})"
    if head.fresh is not None and head.search is not None:
        yield f"search gain: {gain_words(head.search)} by the records, which chose the winners"
    if head.confirmed is not None:
        yield f"confirmed: {gain_words(head.confirmed)} by `final`, which decided nothing"
    elif head.final_failed is not None:
        yield f"confirmed: no, `final` failed {one_line(head.final_failed, 200)}"
    elif head.final is not None and head.search is not None:
        yield "confirmed: not yet; `final` is run at the end"
    for doubt in head.doubts:
        if (doubt.of, doubt.kind) != ("fresh", "unsure"):  # the result has said that
            yield f"warning: {doubt.words}"


def noise_words(scatter: Scatter) -> str:
    """Say how much one measurement varies, and what follows."""
    if scatter.deterministic:
        return "none, all repeats agreed exactly"
    return (
        f"one measurement varies by {number(scatter.sigma, 2)} (sd, {scatter.freedom} degrees "
        f"of freedom); smallest detectable gain ≈ {number(scatter.detectable, 2)} "
        f"with {scatter.runs}+{scatter.runs} runs"
    )


def _noise_lines(target: Target, rule: JudgeConfig) -> Iterator[str]:
    where, scatter = standing(target), findings.scatter(target, rule)
    if where.baseline.n == 0:
        yield "baseline: not measured"
        return
    mean = _value(target, where.baseline.mean)
    yield f"baseline: {mean} ± {number(sd(where.baseline), 2)} (sd, n={where.baseline.n})"
    if scatter is not None:
        yield f"noise: {noise_words(scatter)}"


def merge_line(state: RunState, target: Target) -> str:
    """Say what the merger made of the keeps."""
    done = merges(state, target)
    parts = [f"{done.merged} on best ({done.forward} fast-forward, {done.stacked} stacked)"]
    if not done.merged:
        parts = ["none on best"]
    parts += [f"{n} {outcome}" for outcome, n in done.refused.items()]
    if done.queued:
        parts.append(f"{done.queued} waiting")
    return "merges: " + ", ".join(parts)


def _verdict_line(target: Target) -> str:
    counts = [f"{target.verdicts[v]} {v}" for v in VERDICTS if target.verdicts[v]]
    return "verdicts: " + (", ".join(counts) or "none yet")


def spend_lines(state: RunState) -> Iterator[str]:
    """Say what the run has cost."""
    spend = state.spend
    wall = state.elapsed(state.last_at) if state.last_at else spend.seconds
    line = f"spend: {duration(wall)}, {spend.experiments} experiments, {spend.measurements} "
    line += "measurements"
    if spend.usd:
        line += f", ${spend.usd:.2f}"
    if spend.tokens:
        line += f", {count(spend.tokens)} tokens"
    if vain := in_vain(spend):
        line += f"; of it {', '.join(vain)}"
    yield line
    if state.slots and wall > 0:
        share = min(1.0, spend.busy_seconds / (wall * len(state.slots)))
        plural = "slot" if len(state.slots) == 1 else "slots"
        yield f"slots: {len(state.slots)} {plural}, busy {share:.0%} of the time"


def trust_lines(state: RunState) -> Iterator[str]:
    """Say what the figures rest on."""
    yield from sandbox_lines(state)
    for name, target in state.targets.items():
        whose = "" if len(state.targets) == 1 else f" of `{one_line(name, 60)}`"
        yield trust_line(target, whose)


def sandbox_lines(state: RunState) -> Iterator[str]:
    """Say what stood between candidates and the machine."""
    if state.launch is not None:
        open_ = ", ".join(state.launch.sandbox_open)
        yield f"sandbox: {state.launch.sandbox}; open to candidates: {open_ or 'nothing'}"


def trust_line(target: Target, whose: str = "") -> str:
    """Say who computes the metric."""
    by_score = "is computed by `score`, out of reach of the code under test"
    by_itself = "is self-reported by the code under test; nothing re-computes it"
    return f"trust: the metric{whose} {by_score if target.info.scored else by_itself}"


def _part_lines(state: RunState, target: Target) -> Iterator[str]:
    """Say what of the run was for this target, where it is one of several."""
    if len(state.targets) == 1:
        return
    if target.ended is not None:
        verb = "could not go on" if target.failed else "came to its end before the run"
        yield f"ended: it {verb}: {one_line(first_line(target.ended), 300)}"
    cost = f", ${target.usd:.2f}" if target.usd else ""
    cost += f", {count(target.tokens)} tokens" if target.tokens else ""
    part = share(state, target)
    had = "none" if part is None else f"{part:.0%}"
    yield f"share: {had} of the slots' time ({target.measurements} measurements{cost})"


def _facts(state: RunState, target: Target, config: RunConfig | None) -> list[str]:
    """Give swarm's own lines of a summary; what is true of the whole run only where it is one."""
    alone = len(state.targets) == 1
    return [
        *_gain_lines(target, findings.headline(target, config), config and rule_of(config, target)),
        *(_warnings(state) if alone else ()),
        *_noise_lines(target, rule_of(config, target)),
        _verdict_line(target),
        merge_line(state, target),
        *_part_lines(state, target),
        *(_spend(state) if alone else ()),
        *([trust_line(target)] if not alone else trust_lines(state)),
    ]


def _run_facts(state: RunState) -> list[str]:
    """Give what is true of the whole run, where it has several targets."""
    gains = [f"{name}: {fresh_line(target)}" for name, target in state.targets.items()]
    return [*gains, *_warnings(state), *_spend(state), *sandbox_lines(state)]


def _warnings(state: RunState) -> list[str]:
    return [f"warning: {one_line(words, 300)}" for words in findings.warnings(state)]


def _spend(state: RunState) -> list[str]:
    used = (f"{one_line(name, 60)}: {use.words()}" for name, use in compared(state).items())
    return [*spend_lines(state), *used]


def _how_it_ended(state: RunState) -> str:
    reason = one_line(state.reason, 200)
    told = f" ({reason})" if reason not in ("", state.phase) else ""
    return f"run `{state.run}`: {state.phase}{told}"


# --- which experiments to name -----------------------------------------------------------------


def _improvements(state: RunState, target: Target) -> list[Experiment]:
    """Give the keeps worth naming: those on `best` first, the largest gain first."""
    keeps = [e for e in of_target(state, target) if e.verdict == "keep"]
    return sorted(keeps, key=lambda e: (landed(e.merged) is None, -(e.gain or 0.0)))[:TOP]


def _failed_ideas(state: RunState, target: Target) -> list[Experiment]:
    """Give the latest experiments that came to nothing and were measured or broke."""
    verdicts = ("discard", "crash", "timeout", "guard_failed", "constraint_failed")
    return [e for e in of_target(state, target) if e.verdict in verdicts][-TOP:]


def _improvement_line(state: RunState, target: Target, experiment: Experiment) -> str:
    commit = landed(experiment.merged) or experiment.proposal.commit or ""
    sample = own_record(state, experiment).primary
    gain = f"{signed(experiment.gain, 3)} on its incumbent"
    fate = "" if landed(experiment.merged) else f", {experiment.merged or 'not merged'}"
    value = _value(target, sample.mean if sample.n else None)
    what = one_line(experiment.proposal.summary, SUMMARY) or "(no summary)"
    return (
        f"{commit[:7]} — {what} — {value} ({gain}, #{experiment.number} {experiment.agent}{fate})"
    )


def _counts(state: RunState, target: Target) -> dict[str, int]:
    """Count verdicts in the family's words; aborted experiments are none."""
    counts = {"keep": 0, "discard": 0, "crash": 0}
    for verdict, n in target.verdicts.items():
        if verdict != "aborted":
            counts[results_tsv.status(verdict)] += n
    return counts


# --- the summary -------------------------------------------------------------------------------


def summary_text(state: RunState, config: RunConfig | None = None) -> str:
    """Give the closing summary, as it is printed.

    Args:
        state: what the ledger tells.
        config: for the judge's thresholds; without it, its defaults.
    """
    blocks = [
        "\n".join([*_block(state, target, config), "", *_facts(state, target, config)])
        for target in state.targets.values()
    ]
    if len(blocks) > 1:
        blocks.append("\n".join(["=== The whole run ===", *_run_facts(state)]))
    return sanitise("\n\n".join([*blocks, _how_it_ended(state)])) + "\n"


def _block(state: RunState, target: Target, config: RunConfig | None) -> Iterator[str]:
    """The block that this family of tools prints, word for word."""
    rule = config and rule_of(config, target)
    where, counts = standing(target), _counts(state, target)
    yield "=== Autoresearch Summary ==="
    yield f"Branch: {state.branch(target.info.name, 'best')}"
    yield f"Experiments run: {sum(counts.values())}"
    yield f"Kept: {counts['keep']}"
    yield f"Discarded: {counts['discard']}"
    yield f"Crashed: {counts['crash']}"
    yield f"Baseline metric: {_value(target, where.baseline.mean if where.baseline.n else None)}"
    best = _value(target, where.best.mean if where.best.n else None)
    yield f"Best metric: {best} (improvement: {_improvement(target, rule)})"
    yield ""
    yield "Top improvements:"
    named = _improvements(state, target)
    for place, experiment in enumerate(named, 1):
        yield f"{place}. {_improvement_line(state, target, experiment)}"
    if not named:
        yield "none"
    failed = _failed_ideas(state, target)
    if failed:
        yield ""
        yield "Failed ideas (for reference):"
    for experiment in failed:
        what = one_line(experiment.proposal.summary, SUMMARY) or "(no summary)"
        yield f"- {what} — {experiment.verdict}: {one_line(experiment.reason, SUMMARY)}"


def summary_markdown(
    state: RunState, config: RunConfig | None = None, only: str | None = None
) -> str:
    """Give the summary as a page: the result first, then the facts, then what was tried.

    Args:
        state: what the ledger tells.
        config: for the judge's thresholds; without it, its defaults.
        only: the one target that is wanted, by name; the page lies among its files then.
    """
    parts = [f"# Run `{state.run}`", markdown(_how_it_ended(state).split(": ", 1)[1])]
    for name, target in state.targets.items():
        if only in (None, name):
            folder = f"{target.info.part}/" if target.info.part and only is None else ""
            parts += _target_page(state, target, config, f"{folder}progress.png")
    if len(state.targets) > 1 and only is None:
        parts += ["## The whole run", "\n".join(f"- {markdown(w)}" for w in _run_facts(state))]
    return sanitise("\n\n".join(parts)) + "\n"


def _target_page(
    state: RunState, target: Target, config: RunConfig | None, picture: str
) -> Iterator[str]:
    metric, where = target.info.metric, standing(target)
    yield f"## {markdown(target.info.name)}: {metric.goal} {markdown(metric.name)}"
    yield f"**{markdown(_sentence(fresh_line(target, config and rule_of(config, target))))}**"
    best = _value(target, where.best.mean if where.best.n else None)
    base = _value(target, where.baseline.mean if where.baseline.n else None)
    branch = f"branch `{state.branch(target.info.name, 'best')}`, commit `{target.best}`"
    yield f"Best: {best} on {branch}. Baseline: {base}."
    yield f"![progress]({picture})"
    yield "\n".join(f"- {markdown(line)}" for line in _facts(state, target, config)[1:])
    keeps = sorted(
        (e for e in of_target(state, target) if e.verdict == "keep"), key=lambda e: e.number
    )
    if keeps:
        yield "### Kept"
        yield "\n".join(_table(state, target, keeps))
    failed = _failed_ideas(state, target)
    if failed:
        yield "### Failed ideas (the latest)"
        yield "\n".join(
            f"- #{e.number} {markdown(one_line(e.proposal.summary, SUMMARY))}: "
            f"{e.verdict}, {markdown(one_line(e.reason, SUMMARY))}"
            for e in failed
        )


def _table(state: RunState, target: Target, keeps: list[Experiment]) -> Iterator[str]:
    yield f"| # | agent | {markdown(target.info.metric.name)} | n | gain | change | merged |"
    yield "|---:|---|---:|---:|---:|---|---|"
    for e in keeps:
        sample = own_record(state, e).primary
        sha = landed(e.merged)
        merged = f"`{sha[:7]}`" if sha else e.merged or ""
        what = markdown(one_line(e.proposal.summary, SUMMARY))
        yield (
            f"| {e.number} | {e.agent} | {number(sample.mean if sample.n else None)} | {sample.n} "
            f"| {signed(e.gain, 3)} | {what} | {merged} |"
        )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
