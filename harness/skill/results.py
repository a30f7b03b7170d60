"""What came of all runs: cases, metrics, and the words in which they are told. Pure.

Owns when a case passes, what is added up, what counts as an abort, and what a proposer is told of
it. Runs nothing.

An *abort* is a run that could not go on without a person: it was out of turns, the model refused,
or its answer ends by asking something although the case wants files and its checks fail.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from model import Usage
from outcome import OTHER, Cost, Outcome
from suite import Case, Check, Suite
from transcript import asks

EXCERPT = 240
SHOWN_FAILURES = 3
"""Of each question; the rest is more of the same."""
SHOWN_REASONS = 3


class Ruled(NamedTuple):
    """One check of one run, and what it found."""

    label: str
    holds: bool
    reason: str
    usage: Usage = Usage()
    score: float | None = None
    check: Check | None = None


class Graded(NamedTuple):
    """One run with all that was found of it."""

    outcome: Outcome
    checks: Sequence[Ruled] | None
    """None: not asked for."""
    questions: Mapping[str, Ruled]


class Result(NamedTuple):
    """One case as it is reported."""

    id: str
    case: Case
    question: str | None
    passed: bool
    cost: Cost
    reasons: Sequence[str]
    """Why it failed, of the first run that did."""
    answer: str


def results(suite: Suite, graded: Mapping[str, Sequence[Graded]]) -> list[Result]:
    """Make the cases of all runs, in the order of the suite."""
    found: list[Result] = []
    for case in suite.cases:
        runs = graded.get(case.id, ())
        if runs and runs[0].checks is not None:
            found.append(_result(case, None, runs, [list(run.checks or ()) for run in runs]))
        for question in suite.questions:
            if runs and question.name in runs[0].questions:
                ruled = [[run.questions[question.name]] for run in runs]
                found.append(_result(case, question.name, runs, ruled))
    return found


def _result(
    case: Case, question: str | None, runs: Sequence[Graded], ruled: Sequence[Sequence[Ruled]]
) -> Result:
    passes = [
        run.outcome.problem is None and all(r.holds for r in rules)
        for run, rules in zip(runs, ruled, strict=True)
    ]
    reasons: list[str] = []
    answer = ""
    if not all(passes):
        first = passes.index(False)
        answer = runs[first].outcome.answer
        problem = runs[first].outcome.problem
        failed = [rule for rule in ruled[first] if not rule.holds]
        reasons = (
            [f"the run: {problem}"] if problem else [_reason(rule, question) for rule in failed]
        )
        reasons += _stopped(runs[first].outcome)
    cost = Cost()
    for run in runs:
        cost = cost.plus(run.outcome.cost)
    name = case.id if question is None else f"{question}/{case.id}"
    passed = 2 * sum(passes) > len(passes)
    return Result(name, case, question, passed, cost, [] if passed else reasons, answer)


def _reason(rule: Ruled, question: str | None) -> str:
    return rule.reason if question else f"{rule.label}: {rule.reason}"


def _stopped(outcome: Outcome) -> list[str]:
    match outcome.stopped:
        case "max_turns":
            return [f"it was not done after {outcome.turns} turns"]
        case "max_tokens":
            return ["its last answer was cut off at `max_tokens`"]
        case "refusal":
            return ["the model refused"]
        case _:
            return []


# --- figures ----------------------------------------------------------------------------------


class Aborted(NamedTuple):
    """A run that could not go on, and why."""

    case: str
    why: str


def aborts(suite: Suite, graded: Mapping[str, Sequence[Graded]]) -> Iterator[Aborted]:
    """Find the runs that could not go on without a person."""
    for case in suite.cases:
        for run in graded.get(case.id, ()):
            outcome = run.outcome
            if outcome.stopped in ("max_turns", "refusal"):
                yield Aborted(case.id, *_stopped(outcome))
            elif (
                outcome.stopped == "end"
                and outcome.problem is None
                and case.wants_files
                and any(not rule.holds for rule in run.checks or ())
                and asks(outcome.answer)
            ):
                yield Aborted(case.id, "it asks a person instead of going on")


def steps_of(suite: Suite, graded: Mapping[str, Sequence[Graded]]) -> dict[str, Cost]:
    """Add up the steps of all runs, in the suite's order, what is outside of them last."""
    if not suite.steps:
        return {}
    found = {name: Cost() for name in (*suite.steps, OTHER)}
    for runs in graded.values():
        for run in runs:
            for name, cost in run.outcome.steps.items():
                found[name] = found.get(name, Cost()).plus(cost)
    return found


def metrics(
    suite: Suite, graded: Mapping[str, Sequence[Graded]], judged_usd: float | None
) -> dict[str, float]:
    """Give all figures but the cases."""
    outcomes = [run.outcome for runs in graded.values() for run in runs]
    whole = Cost()
    for outcome in outcomes:
        whole = whole.plus(outcome.cost)
    found: dict[str, float] = {
        "tokens": whole.tokens,
        "output_tokens": whole.output,
        "seconds": round(whole.seconds, 3),
        "length": suite.under.length,
        "tool_calls": whole.calls,
        "errors": sum(outcome.errors for outcome in outcomes),
        "self_corrections": sum(outcome.corrections for outcome in outcomes),
        "aborts": sum(1 for _ in aborts(suite, graded)),
    }
    if whole.usd is not None:
        found["usd"] = whole.usd
    usage = judged(graded)
    if suite.judged:
        found["judge_tokens"] = usage.input + usage.output
        if judged_usd is not None:
            found["judge_usd"] = judged_usd
    scores = [r.score for _, r in _rulings(graded) if r.score is not None]
    if scores:
        found["score"] = sum(scores) / len(scores)
    for name, cost in steps_of(suite, graded).items():
        found[f"tokens.{name}"] = cost.tokens
        found[f"seconds.{name}"] = round(cost.seconds, 3)
        found[f"tool_calls.{name}"] = cost.calls
        if cost.usd is not None and whole.usd is not None:
            found[f"usd.{name}"] = cost.usd
    return found


def judged(graded: Mapping[str, Sequence[Graded]]) -> Usage:
    """Add up what the judge has used."""
    usage = Usage()
    for _, rule in _rulings(graded):
        usage = usage.plus(rule.usage)
    return usage


def _rulings(graded: Mapping[str, Sequence[Graded]]) -> Iterator[tuple[str, Ruled]]:
    for name, runs in graded.items():
        for run in runs:
            yield from ((name, rule) for rule in (*(run.checks or ()), *run.questions.values()))


def as_case(result: Result) -> dict[str, object]:
    """Give a case as swarm reads it."""
    cost = result.cost
    found: dict[str, object] = {"id": result.id, "pass": result.passed}
    if result.question is not None:
        found["question"] = result.question
    found["seconds"] = round(cost.seconds, 3)
    return found if cost.usd is None else {**found, "usd": cost.usd}


# --- in words ---------------------------------------------------------------------------------


def feedback(suite: Suite, graded: Mapping[str, Sequence[Graded]], found: Sequence[Result]) -> str:
    """Say what failed and why, and what does not gate but is worth knowing."""
    failed = [result for result in found if not result.passed]
    parts = [f"{len(failed)} of {len(found)} cases fail"] if failed else []
    shown: set[str] = set()
    for result in (result for result in failed if result.question is None):
        parts += _told(result, shown)
    for question in dict.fromkeys(r.question for r in failed if r.question is not None):
        own = [result for result in found if result.question == question]
        bad = [result for result in own if not result.passed]
        parts.append(f"{question}: {len(bad)} of {len(own)} cases fail")
        for result in bad[:SHOWN_FAILURES]:
            parts += [f"  {line}" for line in _told(result, shown)]
        if len(bad) > SHOWN_FAILURES:
            rest = ", ".join(result.id for result in bad[SHOWN_FAILURES:])
            parts.append(f"  also: {excerpt(rest)}")
    parts += _steps_line(suite, graded)
    parts += _signals(suite, graded)
    return "\n".join(parts)


def _told(result: Result, shown: set[str]) -> list[str]:
    reasons = [excerpt(reason, 2 * EXCERPT) for reason in result.reasons]
    more = len(reasons) - SHOWN_REASONS
    lines = [f"{result.id}: {'; '.join(reasons[:SHOWN_REASONS])}"]
    if more > 0:
        lines[0] += f"; and {more} more"
    # Once for each case: other questions may well fail with the same text.
    if result.case.id not in shown and result.answer.strip():
        lines.append(f"  its answer: {excerpt(result.answer)}")
    shown.add(result.case.id)
    return lines


def _steps_line(suite: Suite, graded: Mapping[str, Sequence[Graded]]) -> list[str]:
    found = {
        name: cost for name, cost in steps_of(suite, graded).items() if cost.tokens or cost.calls
    }
    if not found:
        return []
    whole = sum(cost.tokens for cost in found.values()) or 1
    told = [
        f"{name} {cost.tokens / whole:.0%} of tokens, {cost.seconds:.1f} s, {cost.calls} calls"
        for name, cost in found.items()
    ]
    return [f"steps: {'; '.join(told)}"]


def _signals(suite: Suite, graded: Mapping[str, Sequence[Graded]]) -> list[str]:
    outcomes = [run.outcome for runs in graded.values() for run in runs]
    errors, corrected = (sum(o.errors for o in outcomes), sum(o.corrections for o in outcomes))
    parts: list[str] = []
    if errors:
        calls = sum(len(o.calls) for o in outcomes)
        parts.append(f"{errors} of {calls} tool calls failed, {corrected} self-corrections")
        parts += [f"most: {_most(outcomes)}"]
    gone = list(aborts(suite, graded))
    if gone:
        named = "; ".join(f"{abort.case}: {abort.why}" for abort in gone[:SHOWN_FAILURES])
        parts.append(f"{len(gone)} of {len(outcomes)} runs aborted ({named})")
    return [f"signals: {', '.join(parts)}"] if parts else []


def _most(outcomes: Sequence[Outcome]) -> str:
    counts: dict[str, int] = {}
    for outcome in outcomes:
        for call in outcome.calls:
            if not call.good:
                name = f"{call.name} {excerpt(call.subject, 60)}".strip()
                counts[name] = counts.get(name, 0) + 1
    name, count = max(counts.items(), key=lambda item: item[1])
    return f"`{name}` {count} times"


def excerpt(text: str, limit: int = EXCERPT) -> str:
    """Give the beginning of a text on one line, without what a terminal would obey."""
    flat = "".join(c if c.isprintable() else " " for c in " ".join(text[: 4 * limit].split()))
    return flat if len(flat) <= limit else f"{flat[:limit]}..."


def table(suite: Suite, graded: Mapping[str, Sequence[Graded]], found: Sequence[Result]) -> str:
    """Give what is printed: cases, groups, questions, steps."""
    lines = [f"{sum(result.passed for result in found)} of {len(found)} cases pass"]
    lines += [
        f"  {'pass' if result.passed else 'FAIL'}  {excerpt(result.id, 60)}"
        for result in found
        if result.question is None
    ]
    lines += _shares("group", [(result.case.group, result.passed) for result in found])
    lines += _shares("question", [(result.question, result.passed) for result in found])
    steps = steps_of(suite, graded)
    if steps:
        lines.append(f"  {'step':12} {'tokens':>9} {'usd':>9} {'seconds':>9} {'calls':>6}")
        for name, cost in steps.items():
            usd = "" if cost.usd is None else f"{cost.usd:.4f}"
            lines.append(
                f"  {name:12} {cost.tokens:>9} {usd:>9} {cost.seconds:>9.1f} {cost.calls:>6}"
            )
    return "\n".join(lines)


def _shares(title: str, named: Sequence[tuple[str | None, bool]]) -> Iterator[str]:
    for name in dict.fromkeys(name for name, _ in named if name is not None):
        own = [passed for other, passed in named if other == name]
        yield f"  {title} {name}: {sum(own)} of {len(own)}"
