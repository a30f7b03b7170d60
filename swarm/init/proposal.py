"""What could be optimised in a repository: goal, scope, guard, measure and metric, best first.

Pure: facts about the repository and the machine in, `Proposal`s out, each with its reasons. Asks
nobody, writes nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from swarm.init.drafts import program
from swarm.init.machine import Machine
from swarm.init.survey import GUARDS, Facts, Script, globs
from swarm.records import Goal

Kind = Literal["speed", "size", "accuracy", "tests", "quality"]


class Because(NamedTuple):
    """A command, and why it is that one."""

    command: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One target that a run could have."""

    kind: Kind
    title: str
    """What gets better, in a few words."""
    reason: str
    """Why this is proposed: what was found."""
    scope: tuple[str, ...]
    metric: str
    goal: Goal
    run: Because
    pattern: str | None = None
    unit: str | None = None
    aggregate: str | None = None
    keep_if_equal: str | None = None
    setup: Because | None = None
    guard: tuple[Because, ...] = ()
    read_only: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    program: str = ""
    timeout: str = "10m"
    gpus: int = 0
    python: str = "python3"
    """The interpreter of all commands that need one."""
    alone: bool = False
    """Measure one at a time: the metric is a time."""
    helpers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Files that the commands need, by path, and that are not there yet."""
    notes: tuple[str, ...] = ()
    """What else a person should know, and how to go on from here."""


def proposals(facts: Facts, machine: Machine, goal: str = "") -> tuple[Proposal, ...]:
    """Give what could be optimised, best first; `goal` is a person's wish in words."""
    found = [_completed(p, facts, machine) for p in _all(facts, machine)]
    wanted = wish(goal)
    if wanted:
        found.sort(key=lambda p: p.kind != wanted)  # stable: the order is kept within both halves
    if goal:
        found = [replace(p, program=p.program or goal.strip()) for p in found]
    return tuple(found)


_WISHES: tuple[tuple[Kind, str], ...] = (
    ("size", r"small|size|bytes|bundle|lean|short|length|memory|footprint"),
    ("speed", r"fast|speed|quick|slow|latency|time|throughput|perf"),
    ("accuracy", r"accura|loss|recall|precision|bpb|perplex|f1|auc|score|predict|relevan"),
    ("tests", r"tests?\b|failing|bug|fix|pass"),
    ("quality", r"quality|better|good|useful|readab|skill|prompt|answers?"),
)


def wish(goal: str) -> Kind | None:
    """Tell what kind of goal some words mean, None if that cannot be seen."""
    for kind, words in _WISHES:
        if re.search(rf"\b(?:{words})", goal, re.IGNORECASE):
            return kind
    return None


def _all(facts: Facts, machine: Machine) -> Iterator[Proposal]:
    if facts.autoresearch:
        yield _autoresearch(facts, machine)
    if facts.skills:
        yield from _skills(facts)
    for script in dict.fromkeys((*facts.benches, *facts.scorers)):
        if script.metrics and not (
            facts.autoresearch and script.path in ("train.py", "prepare.py")
        ):
            yield from _scorer(facts, machine, script)
    for script in facts.benches:
        if not script.metrics:
            yield from _timed(facts, machine, script)
    makers = {"python": _python, "node": _node, "rust": _rust, "go": _go}
    for language in facts.languages:
        yield from makers[language](facts, machine)


def _completed(proposal: Proposal, facts: Facts, machine: Machine) -> Proposal:
    """Add what all targets of this repository need: tests as guards, packages, the path."""
    guard = (*proposal.guard, *_guards(facts, machine)) if not proposal.guard else proposal.guard
    uses_python = any(machine.python.word in c.command for c in (proposal.run, *guard))
    env = dict(proposal.env)
    if uses_python and facts.packages:
        roots = dict.fromkeys(p.root or "." for p in facts.packages)
        env.setdefault("PYTHONPATH", ":".join(roots))
    if "rust" in facts.languages and machine.rustup_home:
        env["RUSTUP_HOME"] = machine.rustup_home
        proposal = replace(proposal, read_only=(*proposal.read_only, machine.rustup_home))
    made = replace(proposal, guard=guard, env=env, python=machine.python.word)
    if uses_python and machine.python.missing and made.setup is None:
        made = _with_packages(made, facts, machine)
    return made


def _guards(facts: Facts, machine: Machine) -> tuple[Because, ...]:
    """Give the commands that run the repository's own tests."""
    python = shlex.quote(machine.python.word)
    found: list[Because] = []
    if any(t.endswith(".py") for t in facts.tests):
        where = _ci_note(facts, "pytest")
        if facts.pytest:
            command = f"{python} -m pytest -q -p no:cacheprovider"
            folders = dict.fromkeys(
                t.partition("/")[0] if "/" in t else t for t in facts.tests if t.endswith(".py")
            )
            names = [f for f in folders if f != "conftest.py"]
            inside = [n for n in names if any(p.path == n for p in facts.packages)]
            if names and not inside:
                command += " " + " ".join(map(shlex.quote, names))
            found.append(Because(command, f"the tests that are here already{where}"))
        else:
            found.append(
                Because(f"{python} -m unittest", f"the tests that are here already{where}")
            )
    if facts.node is not None and "test" in facts.node.scripts and "npm" in machine.tools:
        if "no test specified" not in facts.node.scripts["test"]:
            found.append(Because("npm test --silent", "`test` of package.json"))
    elif facts.node is not None and any(t.endswith((".js", ".mjs")) for t in facts.tests):
        found.append(Because("node --test", "the tests that are here already"))
    if facts.crate is not None and "cargo" in machine.tools:
        found.append(
            Because(
                'cargo test --quiet --offline --target-dir "$TMPDIR/target"',
                "the crate's tests; built apart, as what is measured comes and goes",
            )
        )
    if facts.go_module and "go" in machine.tools:
        found.append(Because("go test ./...", "the module's tests"))
    return tuple(found)


def _ci_note(facts: Facts, word: str) -> str:
    said = next((c for c in facts.ci_commands if word in c), None)
    return f"; CI runs `{said}`" if said else ""


def _with_packages(proposal: Proposal, facts: Facts, machine: Machine) -> Proposal:
    """Have `setup` install what the interpreter here lacks, and use that one."""
    wanted = [f"-r {facts.requirements_file}"] if facts.requirements_file else []
    wanted += map(shlex.quote, facts.requirements)
    if facts.pytest:
        wanted.append("pytest")
    if not wanted:
        wanted += map(shlex.quote, machine.python.missing)
    setup = (
        "python3 -m venv .venv && echo '*' > .venv/.gitignore"
        f" && .venv/bin/python -m pip install --quiet {' '.join(wanted)}"
    )
    word, own = shlex.quote(machine.python.word), ".venv/bin/python"

    def use(because: Because) -> Because:
        return because._replace(command=because.command.replace(word, own))

    lacks = ", ".join(machine.python.missing)
    return replace(
        proposal,
        python=own,
        setup=Because(setup, f"no Python here can import {lacks}; the network is there in `setup`"),
        run=use(proposal.run),
        guard=tuple(map(use, proposal.guard)),
    )


# --- layouts ------------------------------------------------------------------------------------


def _autoresearch(facts: Facts, machine: Machine) -> Proposal:
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


def _skills(facts: Facts) -> Iterator[Proposal]:
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
            "counts what is loaded; the guards below keep headings, commands and links",
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
        "  metric: {name: cases, goal: maximize}    # instead of the two below",
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


def _scorer(facts: Facts, machine: Machine, script: Script) -> Iterator[Proposal]:
    known = [m for m in script.metrics if _LESS.search(m) or _MORE.search(m)]
    if not known:
        return
    metric = known[0]
    scope = _scope_beside(facts, script)
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


def _scope_beside(facts: Facts, script: Script) -> tuple[str, ...]:
    """Give all sources of the script's language but itself."""
    language = "python" if script.path.endswith(".py") else "node"
    scripts = {s.path for s in (*facts.benches, *facts.scorers)} | {"prepare.py"}
    sources = [f for f in facts.sources[language] if f not in scripts]
    return globs(sources, facts.files)


def _timed(facts: Facts, machine: Machine, script: Script) -> Iterator[Proposal]:
    scope = _scope_beside(facts, script)
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
        yield _by_the_clock(found, machine, _invoked(machine, script))


TIMER = f"{GUARDS}/seconds.py"
SUITE_TIMER = f"{GUARDS}/suite_seconds.py"


def _by_the_clock(proposal: Proposal, machine: Machine, command: str) -> Proposal:
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


# --- by language --------------------------------------------------------------------------------

_BENCHMARK = (
    "Better than this is a benchmark of what is slow for you: any command will do that prints a "
    "line `METRIC name=value`"
)


def _python(facts: Facts, machine: Machine) -> Iterator[Proposal]:
    scope = _scope_of("python", facts)
    tests = [t for t in facts.tests if t.endswith(".py")]
    if not scope:
        return
    word = shlex.quote(machine.python.word)
    speed = Proposal(
        kind="speed",
        title="make the test suite run faster",
        reason=f"{_count(len(tests), 'file')} of tests, and no benchmark: what they do is timed",
        scope=scope,
        metric="seconds",
        goal="minimize",
        unit="s",
        aggregate="min",
        alone=True,
        run=Because(
            f"{word} {SUITE_TIMER} {_test_folders(tests)}".rstrip(),
            "runs the tests five times in one process; the least counts",
        ),
        helpers={SUITE_TIMER: program("suite_seconds.py")},
        program=facts.program,
        notes=(_BENCHMARK,),
    )
    if tests and facts.pytest:
        yield speed
        yield Proposal(
            kind="tests",
            title="have more of the tests pass",
            reason="pytest counts them",
            scope=scope,
            metric="passed",
            goal="maximize",
            pattern=r"(\d+) passed",
            run=Because(
                f"{word} -m pytest -q -p no:cacheprovider {_test_folders(tests)} || test $? = 1",
                "status 1 is that some failed, which is what is counted",
            ),
            guard=(Because(_compiles(word, facts), "the code can be read"),),
            program=facts.program,
        )
    elif tests:
        yield _by_the_clock(replace(speed, helpers={}), machine, f"{word} -m unittest")
    yield _source_size("python", facts, scope)


def _compiles(word: str, facts: Facts) -> str:
    tops = dict.fromkeys(f.partition("/")[0] for f in facts.sources["python"])
    return f"{word} -m compileall -q {' '.join(map(shlex.quote, tops))}"


def _test_folders(tests: Iterable[str]) -> str:
    tops = dict.fromkeys(t.rpartition("/")[0] or t for t in tests)
    shortest = [t for t in tops if not any(t.startswith(f"{o}/") for o in tops)]
    return " ".join(map(shlex.quote, (t for t in shortest if t != "conftest.py")))


def _source_size(language: str, facts: Facts, scope: tuple[str, ...]) -> Proposal:
    files = _finding(facts.sources[language])
    return Proposal(
        kind="size",
        title="make the source smaller",
        reason="its size when packed is the same each time, and needs no benchmark",
        scope=scope,
        metric="bytes",
        goal="minimize",
        unit="B",
        run=Because(
            f'echo "METRIC bytes=$({files} | sort | xargs cat | gzip -9n | wc -c)"',
            "packed, so that long names and repetition cost little",
        ),
        program=facts.program,
        timeout="2m",
    )


def _finding(sources: Iterable[str]) -> str:
    """Give a command that lists the sources, those that an experiment adds as well."""
    names = tuple(sources)
    endings = dict.fromkeys(n.rpartition(".")[2] for n in names)
    tops = dict.fromkeys(n.partition("/")[0] for n in names)
    what = " -o ".join(f"-name '*.{ending}'" for ending in endings)
    return f"find {' '.join(map(shlex.quote, tops))} -type f \\( {what} \\)"


def _node(facts: Facts, machine: Machine) -> Iterator[Proposal]:
    scope = _scope_of("node", facts)
    package = facts.node
    if not scope or package is None:
        return
    size = _source_size("node", facts, scope)
    setup = None
    if package.needs_install:
        how = "npm ci" if "package-lock.json" in facts.files else "npm install"
        setup = Because(
            f"{how} --silent --no-audit --no-fund && echo '*' > node_modules/.gitignore",
            "fetches what package.json names; measurements have no network",
        )
    build = package.scripts.get("build")
    out = package.main.rpartition("/")[0].removeprefix("./")
    if build and out and not any(f.startswith(f"{out}/") for f in facts.files):
        size = replace(
            size,
            title=f"make the bundle in {out}/ smaller",
            reason=f"package.json builds it (`{build}`)",
            run=Because(
                f'npm run build --silent && echo "METRIC bytes=$(find {shlex.quote(out)} -type f'
                ' | sort | xargs cat | gzip -9n | wc -c)"',
                "what is shipped, packed",
            ),
        )
    yield replace(size, setup=setup)
    command = "npm test --silent" if "test" in package.scripts else "node --test"
    if "test" in package.scripts or facts.tests:
        speed = replace(
            size,
            kind="speed",
            title="make the tests run faster",
            reason="there is no benchmark: what the tests do is timed",
            metric="seconds",
            setup=setup,
            timeout="10m",
            notes=(_BENCHMARK,),
        )
        yield _by_the_clock(speed, machine, command)


def _rust(facts: Facts, machine: Machine) -> Iterator[Proposal]:
    scope = _scope_of("rust", facts)
    crate = facts.crate
    if not scope or crate is None:
        return
    what = crate.binary or f"lib{crate.name.replace('-', '_')}.rlib"
    setup = None
    if crate.dependencies:
        setup = Because(
            "mkdir -p target && CARGO_HOME=$PWD/target/cargo-home cargo fetch --quiet",
            "fetches what the crate depends on; measurements have no network",
        )
    yield Proposal(
        kind="size",
        title=f"make {what} smaller",
        reason="the size of a release build is the same each time",
        scope=scope,
        metric="bytes",
        goal="minimize",
        unit="B",
        setup=setup,
        env={"CARGO_HOME": "target/cargo-home"} if setup else {},
        run=Because(
            'cargo build --release --quiet --offline --target-dir "$TMPDIR/target"'
            f' && echo "METRIC bytes=$(wc -c < "$TMPDIR/target/release/{what}")"',
            "builds apart, from nothing, each time",
        ),
        program=facts.program,
        notes=(_BENCHMARK + "; `cargo bench` does not by itself",),
    )


def _go(facts: Facts, machine: Machine) -> Iterator[Proposal]:
    scope = _scope_of("go", facts)
    if not scope or not facts.go_module:
        return
    env = {"GOFLAGS": "-mod=mod", "GOPROXY": "off"}
    if "main.go" in facts.files:
        yield Proposal(
            kind="size",
            title="make the binary smaller",
            reason="the size of a build is the same each time",
            scope=scope,
            metric="bytes",
            goal="minimize",
            unit="B",
            env=env,
            run=Because(
                'GOCACHE="$TMPDIR/cache" go build -trimpath -o "$TMPDIR/out" .'
                ' && echo "METRIC bytes=$(wc -c < "$TMPDIR/out")"',
                "builds apart, from nothing, each time",
            ),
            program=facts.program,
        )
    speed = Proposal(
        kind="speed",
        title="make the tests run faster",
        reason="what the tests do is timed",
        scope=scope,
        metric="seconds",
        goal="minimize",
        env=env,
        run=Because("", ""),
        program=facts.program,
        notes=(_BENCHMARK,),
    )
    yield _by_the_clock(speed, machine, "go test -count=1 ./...")


def _scope_of(language: str, facts: Facts) -> tuple[str, ...]:
    scripts = {s.path for s in (*facts.benches, *facts.scorers)} | {"prepare.py"}
    return globs([f for f in facts.sources[language] if f not in scripts], facts.files)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
