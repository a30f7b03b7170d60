"""What a repository is: languages, tests, benchmarks, and the layouts that swarm knows.

Pure: names of files and a way to read them in, `Facts` out. Runs nothing, decides nothing: what
could be optimised is in `proposal`.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from posixpath import basename, dirname
from typing import Any, NamedTuple, cast

import yaml

from swarm.init.python_code import Code, create_statements, printed_metrics, read_code

Read = Callable[[str], str]
"""Gives the text of a file, "" for what is none."""

GUARDS = "swarm_guards"
"""Where drafted guard tests lie."""
MOST_READ = 600
"""Python files that are read; a repository of more is known well enough by so many."""
_LANGUAGES = {
    "python": (".py",),
    "node": (".js", ".mjs", ".cjs", ".ts", ".tsx", ".jsx"),
    "rust": (".rs",),
    "go": (".go",),
}
_TEST = re.compile(
    r"(^|/)(tests?|__tests__|spec|testing)/|(^|/)(test_[^/]*|[^/]*_test|conftest)\.py$"
    r"|\.(test|spec)\.[cm]?[jt]sx?$|_test\.go$"
)
_BENCH = re.compile(r"(^|/)(benchmarks?|benches|bench|perf)/|(^|/)_?(bench|perf)[^/]*\.\w+$")
_SCORER = re.compile(
    r"(^|/)(eval|evaluate|evaluation|score|scorer|measure|metric|metrics|validate|train|bench)"
    r"[^/]*\.py$"
)
_NOT_SOURCE = re.compile(
    r"(^|/)(docs?|examples?|scripts?|tools|node_modules|vendor|dist|build|target|migrations"
    rf"|third_party|{GUARDS}|\.[^/]+)/|(^|/)(setup|conftest|noxfile|tasks|manage|fabfile)\.py$"
    r"|\.(config|min|d)\.[cm]?[jt]s$|(^|/)swarm\.yaml$"
)
_TEST_COMMAND = re.compile(
    r"^(?:python3? -m |poetry run |uv run |pipenv run |hatch run )?"
    r"(pytest|tox|nox|unittest|npm (?:run )?test|npm t|yarn test|pnpm test|cargo test|go test"
    r"|make (?:test|check)|just test|ctest)\b"
)
_SPLIT = re.compile(r"(^|[_\-./])(train(?:ing)?)(?=[_\-./]|$)", re.IGNORECASE)
_HELD_OUT = ("test", "testing", "val", "valid", "validation", "dev", "eval", "holdout")
_DATA = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")


class Script(NamedTuple):
    """A program of the repository that measures something, or could be timed."""

    path: str
    metrics: tuple[str, ...]
    """What it prints that swarm can read."""


class Search(NamedTuple):
    """A module with functions that look something up by what a person has typed."""

    path: str
    code: Code


class Package(NamedTuple):
    """A Python package or module that others import."""

    name: str
    path: str
    """Its directory or file."""
    root: str
    """What has to be on the path to import it, "" for the repository's own directory."""
    modules: Mapping[str, Code]
    """By path."""


class NodePackage(NamedTuple):
    """What `package.json` says."""

    name: str
    main: str
    scripts: Mapping[str, str]
    needs_install: bool
    """Whether it depends on any package, if only to be built and tested."""


class Crate(NamedTuple):
    """What `Cargo.toml` says."""

    name: str
    binary: str
    """The binary that it builds, "" if it is a library only."""
    dependencies: tuple[str, ...]


class Split(NamedTuple):
    """Data to train on and data held out, as a pair of files."""

    train: str
    held_out: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that is known of a repository."""

    files: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    """The most frequent first."""
    sources: Mapping[str, tuple[str, ...]]
    """Source files by language: no tests, benchmarks, docs or tools."""
    tests: tuple[str, ...] = ()
    benches: tuple[Script, ...] = ()
    scorers: tuple[Script, ...] = ()
    """Scripts that print a metric."""
    ci: tuple[str, ...] = ()
    ci_commands: tuple[str, ...] = ()
    """Commands of CI that run tests."""
    make_targets: tuple[str, ...] = ()
    dockerfiles: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    """SKILL.md files."""
    instructions: tuple[str, ...] = ()
    """What coding agents are told here: CLAUDE.md, AGENTS.md, `.claude/`."""
    notebooks: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    """Suites and checklists of cases."""
    improve: tuple[str, ...] = ()
    """Configs of other tools for the same purpose."""
    program: str = ""
    """`program.md`, where there is one."""
    autoresearch: str = ""
    """Of the autoresearch layout (`prepare.py` is fixed, `train.py` may change) the file that is
    run and prints `val_bpb`."""
    packages: tuple[Package, ...] = ()
    node: NodePackage | None = None
    crate: Crate | None = None
    go_module: str = ""
    imports: tuple[str, ...] = ()
    """What all Python code imports from elsewhere."""
    requirements: tuple[str, ...] = ()
    """What `pyproject.toml` says is needed at run time."""
    requirements_file: str = ""
    pytest: bool = False
    searches: tuple[Search, ...] = ()
    tables: tuple[str, ...] = ()
    """SQL that makes tables, of all sources."""
    splits: tuple[Split, ...] = ()

    @property
    def language(self) -> str:
        """The language of most sources, "" if there is none."""
        return self.languages[0] if self.languages else ""


def survey(files: Iterable[str], read: Read) -> Facts:
    """Look at a repository.

    Args:
        files: of the base commit, relative to the target's directory.
        read: gives the text of one.
    """
    names = tuple(sorted(f for f in files if not f.startswith((f"{GUARDS}/", ".swarm/"))))
    tests = tuple(f for f in names if _TEST.search(f))
    sources = {
        language: tuple(
            f
            for f in names
            if f.endswith(endings)
            and not (_TEST.search(f) or _BENCH.search(f) or _NOT_SOURCE.search(f))
        )
        for language, endings in _LANGUAGES.items()
    }
    python = [f for f in names if f.endswith(".py")][:MOST_READ]
    texts = {f: read(f) for f in python}
    code = {f: read_code(text) for f, text in texts.items()}
    ci = tuple(f for f in names if re.match(r"\.github/workflows/.*\.ya?ml$|\.gitlab-ci\.yml$", f))
    own = _own_modules(names)
    project = _toml(read("pyproject.toml")) if "pyproject.toml" in names else {}
    return Facts(
        files=names,
        languages=_ranked(sources),
        sources=sources,
        tests=tests,
        benches=tuple(_scripts(names, texts, _BENCH)),
        scorers=tuple(s for s in _scripts(names, texts, _SCORER) if s.metrics),
        ci=ci,
        ci_commands=tuple(_ci_commands(map(read, ci))),
        make_targets=tuple(re.findall(r"^([\w-]+):(?!=)", read("Makefile"), re.M))
        if "Makefile" in names
        else (),
        dockerfiles=tuple(f for f in names if re.search(r"(^|/)(Dockerfile|.*\.dockerfile)$", f)),
        skills=tuple(f for f in names if basename(f) == "SKILL.md"),
        instructions=tuple(
            f for f in names if f in ("CLAUDE.md", "AGENTS.md") or f.startswith(".claude/")
        ),
        notebooks=tuple(f for f in names if f.endswith(".ipynb")),
        suites=tuple(f for f in names if re.search(r"(^|/)(suite|checklist)\.ya?ml$", f)),
        improve=tuple(f for f in names if _is_improve(f)),
        program="program.md" if "program.md" in names else "",
        autoresearch=_autoresearch(texts),
        packages=tuple(_packages(sources["python"], code)),
        node=_node(read("package.json")) if "package.json" in names else None,
        crate=_crate(names, _toml(read("Cargo.toml"))) if "Cargo.toml" in names else None,
        go_module=_go(read("go.mod")) if "go.mod" in names else "",
        imports=tuple(dict.fromkeys(i for c in code.values() for i in c.imports if i not in own)),
        requirements=tuple(_dependencies(project)),
        requirements_file=next((f for f in names if f == "requirements.txt"), ""),
        pytest=_uses_pytest(tests, texts, project, names),
        searches=tuple(Search(f, code[f]) for f in sources["python"] if _searches(code.get(f))),
        tables=tuple(_tables(names, code, read)),
        splits=tuple(_splits(names)),
    )


def globs(sources: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Give few patterns that cover some source files, and none of the others of their kind."""
    wanted, others = set(sources), set(names)
    found: dict[str, None] = {}
    for path in sorted(wanted, key=lambda p: (p.count("/"), p)):
        if any(_covers(pattern, path) for pattern in found):
            continue
        ending = "." + path.rpartition(".")[2]
        foreign = {n for n in others if n.endswith(ending)} - wanted
        top = path.partition("/")[0]
        for pattern in (f"{top}/**/*{ending}", f"{dirname(path)}/*{ending}"):
            if "/" in path and not any(_covers(pattern, other) for other in foreign):
                found[pattern] = None
                break
        else:
            found[path] = None
    return tuple(found)


def _covers(pattern: str, path: str) -> bool:
    head, deep, tail = pattern.partition("**/")
    if deep:
        return path.startswith(head) and path.endswith(tail.lstrip("*"))
    folder, _, name = pattern.rpartition("/")
    if not name.startswith("*"):
        return path == pattern
    return dirname(path) == folder and path.endswith(name.lstrip("*"))


# --- by language --------------------------------------------------------------------------------


def _ranked(sources: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    counted = Counter({language: len(found) for language, found in sources.items() if found})
    return tuple(language for language, _ in counted.most_common())


def _own_modules(names: Iterable[str]) -> set[str]:
    """Name what can be imported from the repository itself."""
    found: set[str] = set()
    for name in names:
        if name.endswith(".py"):
            parts = name.removesuffix(".py").split("/")
            found |= set(parts)
    return found


def _packages(sources: Iterable[str], code: Mapping[str, Code]) -> Iterable[Package]:
    by_top: dict[tuple[str, str, str], dict[str, Code]] = {}
    every = set(sources)
    for path in every:
        parts = path.split("/")
        root = parts.pop(0) if parts[0] in ("src", "lib") and len(parts) > 1 else ""
        name = parts[0].removesuffix(".py")
        place = "/".join(p for p in (root, parts[0]) if p)
        if name.isidentifier() and path in code:
            by_top.setdefault((name, place, root), {})[path] = code[path]
    # Packages before loose modules, the largest first.
    order = sorted(by_top.items(), key=lambda e: (e[0][1].endswith(".py"), -len(e[1]), e[0]))
    for (name, place, root), modules in order:
        yield Package(name, place, root, dict(sorted(modules.items())))


def is_private(path: str) -> bool:
    """Tell whether a Python module is for its package alone."""
    name = basename(path)
    return name.startswith("_") and name != "__init__.py"


def module_name(package: Package, path: str) -> str:
    """Give the name by which a module of a package is imported."""
    inner = path.removeprefix(f"{package.root}/") if package.root else path
    return inner.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _uses_pytest(
    tests: Iterable[str], texts: Mapping[str, str], project: Mapping[str, Any], names: Iterable[str]
) -> bool:
    marked = "pytest" in project.get("tool", {}) or any(
        n in ("pytest.ini", "conftest.py", "tests/conftest.py") for n in names
    )
    python = [t for t in tests if t.endswith(".py")]
    plain = any(
        re.search(r"^def test_|^import pytest|^from pytest", texts.get(t, ""), re.M) for t in python
    )
    return bool(python) and (marked or plain)


def _dependencies(project: Mapping[str, Any]) -> list[str]:
    found: object = project.get("project", {}).get("dependencies", [])
    return [str(d) for d in cast("list[object]", found)] if isinstance(found, list) else []


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _node(text: str) -> NodePackage | None:
    try:
        said: object = json.loads(text)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    data = cast("dict[str, Any]", said)
    scripts: object = data.get("scripts")
    known = cast("dict[str, object]", scripts) if isinstance(scripts, dict) else {}
    return NodePackage(
        str(data.get("name") or "package"),
        str(data.get("main") or ""),
        {name: str(command) for name, command in known.items()},
        bool(data.get("dependencies") or data.get("devDependencies")),
    )


def _crate(names: tuple[str, ...], data: Mapping[str, Any]) -> Crate | None:
    package = data.get("package")
    if not isinstance(package, dict):
        return None
    name = str(cast("dict[str, Any]", package).get("name", ""))
    bins: object = data.get("bin")
    listed = cast("list[dict[str, Any]]", bins) if isinstance(bins, list) else []
    binary = str(listed[0].get("name", "")) if listed else name if "src/main.rs" in names else ""
    return Crate(name, binary, tuple(cast("dict[str, Any]", data.get("dependencies") or {})))


def _go(text: str) -> str:
    found = re.search(r"^module\s+(\S+)", text, re.M)
    return found[1] if found else ""


# --- what measures ------------------------------------------------------------------------------


def _scripts(
    names: Iterable[str], texts: Mapping[str, str], which: re.Pattern[str]
) -> Iterable[Script]:
    for name in names:
        if not which.search(name) or _TEST.search(name) or basename(name) == "__init__.py":
            continue
        if name.endswith(".py"):
            yield Script(name, printed_metrics(texts.get(name, "")))
        elif name.endswith((".js", ".mjs", ".cjs")):
            yield Script(name, ())


def _ci_commands(texts: Iterable[str]) -> Iterable[str]:
    found: dict[str, None] = {}
    for text in texts:
        try:
            data: object = yaml.safe_load(text)
        except yaml.YAMLError:
            continue
        for command in _runs(data):
            lines = (line.strip() for line in command.splitlines())
            found |= dict.fromkeys(line for line in lines if _TEST_COMMAND.match(line))
    return found


def _runs(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        for key, inner in cast("dict[object, object]", value).items():
            if key == "run" and isinstance(inner, str):
                yield inner
            elif key == "script" and isinstance(inner, list):
                yield from (str(line) for line in cast("list[object]", inner))
            else:
                yield from _runs(inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _runs(inner)


# --- layouts ------------------------------------------------------------------------------------


def _autoresearch(texts: Mapping[str, str]) -> str:
    if "prepare.py" in texts and "train.py" in texts:
        return next((f for f in ("train.py", "prepare.py") if "val_bpb" in texts[f]), "")
    return ""


def _is_improve(name: str) -> bool:
    return basename(name) == "improve.md" or name in (
        *(".auto/prompt.md", ".auto/measure.sh", "autoresearch.md", "autoresearch.sh"),
    )


# --- searches and data --------------------------------------------------------------------------


def _searches(code: Code | None) -> bool:
    return code is not None and bool(code.searches)


def _tables(names: Iterable[str], code: Mapping[str, Code], read: Read) -> Iterable[str]:
    found = dict.fromkeys(t for c in code.values() for t in c.tables)
    for name in names:
        if name.endswith(".sql"):
            found |= dict.fromkeys(create_statements(read(name)))
    return found


def _splits(names: tuple[str, ...]) -> Iterable[Split]:
    """Pair `train.csv` with `test.csv`, and files below `train/` with the same below `test/`."""
    every = set(names)
    for name in names:
        if not name.endswith(_DATA) or not (found := _SPLIT.search(name)):
            continue
        for word in _HELD_OUT:
            other = name[: found.start(2)] + word + name[found.end(2) :]
            if other in every:
                yield Split(name, other)
