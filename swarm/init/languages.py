"""Targets by language, where nothing measures yet: tests, builds, the size of sources. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace

from swarm.formats.text import counted
from swarm.init.drafts import program
from swarm.init.machine import Machine
from swarm.init.measures import SUITE_TIMER, by_the_clock
from swarm.init.proposal import Because, Proposal
from swarm.init.survey import Facts, globs

_BENCHMARK = (
    "Better than this is a benchmark of what is slow for you: any command will do that prints a "
    "line `METRIC name=value`"
)


def python(facts: Facts, machine: Machine) -> Iterator[Proposal]:
    scope = _scope_of("python", facts)
    tests = [t for t in facts.tests if t.endswith(".py")]
    if not scope:
        return
    word = shlex.quote(machine.python.word)
    speed = Proposal(
        kind="speed",
        title="make the test suite run faster",
        reason=f"{counted(len(tests), 'file')} of tests, and no benchmark: what they do is timed",
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
        yield by_the_clock(replace(speed, helpers={}), machine, f"{word} -m unittest")
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


def node(facts: Facts, machine: Machine) -> Iterator[Proposal]:
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
        yield by_the_clock(speed, machine, command)


def rust(facts: Facts, machine: Machine) -> Iterator[Proposal]:
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


def go(facts: Facts, machine: Machine) -> Iterator[Proposal]:
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
    yield by_the_clock(speed, machine, "go test -count=1 ./...")


def _scope_of(language: str, facts: Facts) -> tuple[str, ...]:
    scripts = {s.path for s in (*facts.benches, *facts.scorers)} | {"prepare.py"}
    return globs([f for f in facts.sources[language] if f not in scripts], facts.files)
