"""Targets by what measures already: the layouts that swarm knows, scripts, the clock. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

from swarm.init.drafts import program
from swarm.init.machine import Machine
from swarm.init.proposal import Because, Proposal
from swarm.init.survey import GUARDS, Facts, Script, globs
from swarm.records import Goal


def autoresearch(facts: Facts, machine: Machine) -> Proposal:
    uv = "uv" in machine.tools and "pyproject.toml" in facts.files
    word = "uv run" if uv else shlex.quote(machine.python.word)
    command = f"{word} {facts.autoresearch}"
    return Proposal(
        kind="accuracy",
        title="lower val_bpb of train.py",
        reason="prepare.py, train.py and val_bpb: the autoresearch layout",
        scope=("train.py",),
        metric="val_bpb",
        goal="minimize",
        pattern=r"^val_bpb:\s*(\S+)",
        unit="bpb",
        keep_if_equal="simpler",
        run=Because(command, "trains for its fixed budget (5 minutes, as a rule) and evaluates"),
        guard=(),
        program=facts.program or "Lower val_bpb of train.py within its fixed training budget.",
        read_only=machine.caches,
        timeout="10m",
        gpus=1 if machine.gpus else 0,
        notes=(
            "prepare.py owns data, tokenizer, budget and evaluation; out of scope it cannot change",
            "if the seed is set in train.py, have it read $SWARM_SEED, or noise cannot be seen",
        ),
    )


def skills(facts: Facts) -> Iterator[Proposal]:
    path = facts.skills[0]
    quoted = shlex.quote(path)
    yield Proposal(
        kind="size",
        title=f"say what {path} says in fewer characters",
        reason=f"{path} is read again at every use, and its length can be counted without a model",
        scope=(path,),
        metric="characters",
        goal="minimize",
        unit="chars",
        run=Because(
            f'echo "METRIC characters=$(wc -m < {quoted})"',
            "counts what is loaded; the guards keep headings, commands and links",
        ),
        program=(
            f"Make {path} shorter without losing anything that changes what its reader does. "
            "Keep the front matter, the headings, the commands and the links."
        ),
        timeout="1m",
        notes=_skill_notes(facts, path),
    )


def _skill_notes(facts: Facts, path: str) -> tuple[str, ...]:
    folder = path.rpartition("/")[0]
    suite = f"{folder}/suite.yaml" if folder else "suite.yaml"
    have = "a suite is here already" if suite in facts.files else "a suite to start from is drafted"
    return (
        f"{have}: {suite}. To have a model work by the skill and count the cases that pass:",
        f'  run: python3 "$SWARM_HARNESS/skill/skill.py" measure {shlex.quote(suite)}',
        "  metric: {name: cases, goal: maximize}    # instead of `run` and `metric` here",
        "  provider: {}                             # ANTHROPIC_API_KEY; costs money",
        "  timeout: 10m",
    )


# --- scripts that measure -----------------------------------------------------------------------

_LESS = re.compile(
    r"loss|error|bpb|perplexity|time|seconds|latency|_ms\b|_s\b|_us\b|_ns\b|\bms\b|p\d\d|bytes|size"
    r"|memory|cost|tokens|rmse|mae|mse|wer|cer|misses",
    re.IGNORECASE,
)
_MORE = re.compile(
    r"accuracy|acc\b|recall|precision|f1|auc|score|mrr|ndcg|bleu|rouge|throughput|ops|per_sec|rate"
    r"|passed|hits|r2|coverage",
    re.IGNORECASE,
)
_TIMES = re.compile(r"time|seconds|latency|ms$|_s$|p\d\d|ops|per_sec|throughput", re.IGNORECASE)


def scorer(facts: Facts, machine: Machine, script: Script) -> Iterator[Proposal]:
    known = [m for m in script.metrics if _LESS.search(m) or _MORE.search(m)]
    if not known:
        return
    metric = known[0]
    scope = scope_beside(facts, script)
    if not scope:
        return
    goal: Goal = "maximize" if _MORE.search(metric) and not _TIMES.search(metric) else "minimize"
    if re.search(r"ops|per_sec|throughput", metric, re.IGNORECASE):
        goal = "maximize"
    timed = _TIMES.search(metric) is not None
    better = "raise" if goal == "maximize" else "lower"
    others = ", ".join(m for m in script.metrics if m != metric)
    yield Proposal(
        kind="speed" if timed else "accuracy",
        title=f"{better} {metric} of {script.path}",
        reason=f"{script.path} prints {metric}",
        scope=scope,
        metric=metric,
        goal=goal,
        pattern=_pattern(metric),
        run=Because(_invoked(machine, script), f"prints {metric}, and it is out of scope"),
        alone=timed,
        program=facts.program,
        notes=(f"it prints as well: {others}",) if others else (),
    )


def _pattern(metric: str) -> str:
    return rf"^(?:METRIC )?{re.escape(metric)}[:=]?\s*(\S+)"


def _invoked(machine: Machine, script: Script) -> str:
    word = shlex.quote(machine.python.word) if script.path.endswith(".py") else "node"
    return f"{word} {shlex.quote(script.path)}"


def scope_beside(facts: Facts, script: Script) -> tuple[str, ...]:
    """Give all sources of the script's language but itself."""
    language = "python" if script.path.endswith(".py") else "node"
    scripts = {s.path for s in (*facts.benches, *facts.scorers)} | {"prepare.py"}
    sources = [f for f in facts.sources[language] if f not in scripts]
    return globs(sources, facts.files)


def timed(facts: Facts, machine: Machine, script: Script) -> Iterator[Proposal]:
    scope = scope_beside(facts, script)
    if scope:
        found = Proposal(
            kind="speed",
            title=f"make {script.path} run faster",
            reason=f"{script.path} is a benchmark; it prints no number that swarm knows to read",
            scope=scope,
            metric="seconds",
            goal="minimize",
            run=Because("", ""),
        )
        yield by_the_clock(found, machine, _invoked(machine, script))


TIMER = f"{GUARDS}/seconds.py"
SUITE_TIMER = f"{GUARDS}/suite_seconds.py"


def by_the_clock(proposal: Proposal, machine: Machine, command: str) -> Proposal:
    """Have a command timed from outside, as it is the candidate's own."""
    word = shlex.quote(machine.python.word)
    return replace(
        proposal,
        unit="s",
        aggregate="min",
        alone=True,
        run=Because(f"{word} {TIMER} {command}", "starts the command five times; the least counts"),
        helpers={TIMER: program("seconds.py")},
    )
