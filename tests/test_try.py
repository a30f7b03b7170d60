"""`swarm try`: the command lines that people have, as they have them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from targets import git, launch_inline, make_repo
from test_cli import Call, Caller, call  # noqa: F401  a fixture

from swarm import config as configs
from swarm.doors.objective import direction, metric_name
from swarm.doors.scopes import measured_by
from swarm.doors.surroundings import missing, programs
from swarm.doors.wish import Wish, agents_of, goal_of
from swarm.errors import PreconditionError, UsageError
from swarm.records import Goal
from swarm.state import RunState

TRAIN = "LR = 0.5\nprint('step 1 | loss 2.0', end='\\r')\nprint('---')\n"
TRAIN += (
    "print(f'val_bpb:          {1 + (LR - 0.1) ** 2:.6f}')\nprint('peak_vram_mb:     45060.2')\n"
)
TESTS = "import pytest\nfrom src.a import f\n\n\n@pytest.mark.parametrize('k', range(6))\n"
TESTS += "def test_f(k):\n    assert f(k) >= 4 * k - 2\n"
BUILD = (
    "const n = require('./web/n.js')\nconsole.log('Total size: ' + (n * 10.3).toFixed(1) + ' kB')\n"
)
BUILD += "console.log('Total: ' + n * 10 + '.')\n"
FILES = {
    "train.py": TRAIN,
    "src/__init__.py": "",
    "src/a.py": "import os\nimport sys\nLIMIT = 3\n\n\ndef f(x):\n    return x * LIMIT\n",
    "tests/test_a.py": TESTS,
    "tests/conftest.py": "",
    "benchmark.py": "from src.a import LIMIT\nprint('epoch 1 accuracy: 0.1')\n"
    "print(f'accuracy: {1 / (1 + abs(LIMIT - 7)):.3f}')\n",
    "pyproject.toml": "[project]\nname = 'x'\nversion = '0'\n"
    "[tool.pytest.ini_options]\npythonpath = ['.']\n[tool.ruff.lint]\nselect = ['F']\n",
    "package.json": '{"name": "x", "scripts": {"build": "node build.js"}}\n',
    "build.js": BUILD,
    "web/n.js": "module.exports = 40\n",
    ".gitignore": "__pycache__\n.pytest_cache\n.ruff_cache\nrun.log\n",
}
UV = """#!/bin/sh
# What `uv sync` and `uv run` do, without a network: an environment is made once, and then used.
case "$1" in
sync) [ -z "$UV_NO_SYNC" ] && mkdir -p .venv && echo '*' > .venv/.gitignore && touch .venv/made ;;
run) shift; [ -n "$UV_NO_SYNC" ] && [ -e .venv/made ] && exec python3 "$@"; exit 9 ;;
esac
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with the programs of this environment, and a stand-in for uv."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "uv").write_text(UV)
    (folder / "uv").chmod(0o755)
    own = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{folder}:{own}:/usr/local/bin:/usr/bin:/bin")
    return folder


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "work", FILES)


FEW = ("budget.experiments=1", "judge.baseline=2", "judge.confirm=1", "target.slot.count=1")


def tried(wish: Wish, *sets: str) -> tuple[RunState, tuple[str, ...]]:
    """Launch it in this process, for one experiment."""
    entered = wish.enter((*FEW, *sets))
    return launch_inline(entered.config)[1], entered.notes


needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not here")


@pytest.mark.parametrize(
    ("objective", "measure", "scope", "goal", "name", "value"),
    [
        (
            "improve val_bpb",
            "uv run train.py > run.log 2>&1 && grep '^val_bpb:' run.log",
            "train.py",
            *("minimize", "val_bpb", 1.16),
        ),
        (
            "reduce test failures",
            "pytest --tb=no -q 2>&1 | tail -1",
            "src/",
            *("minimize", "test_failures", 3.0),
        ),
        pytest.param(
            "reduce bundle size",
            r"npm run build 2>&1 | grep -oP 'Total: \K[\d.]+'",
            "web",
            *("minimize", "bundle_size", 400.0),
            marks=needs_npm,
        ),
        (
            "fix all lint errors",
            "ruff check src/ 2>&1 | tail -1",
            "src/",
            *("minimize", "lint_errors", 2.0),
        ),
        (
            "improve accuracy",
            "python benchmark.py 2>&1 | grep accuracy",
            "src/a.py",
            *("maximize", "accuracy", 0.2),
        ),
        pytest.param(
            "shrink the build",
            "npm run build 2>&1 | grep 'Total size'",
            "web/*.js",
            *("minimize", "build", 412.0),
            marks=needs_npm,
        ),
    ],
    ids=["uv", "pytest", "npm-grep-o", "ruff", "benchmark", "npm-total-size"],
)
def test_the_six_as_people_write_them(
    tools: Path,
    repo: Path,
    objective: str,
    measure: str,
    scope: str,
    goal: Goal,
    name: str,
    value: float,
) -> None:
    state, _ = tried(Wish(objective, measure, scope, folder=repo))
    target = state.targets["main"]
    assert (target.info.metric.name, target.info.metric.goal) == (name, goal)
    assert target.primary(target.info.base).values[:2] == [value, value]
    assert state.phase == "finished"
    assert len(state.experiments) == 1


def test_more_of_pytest_is_better_where_the_objective_says_so(tools: Path, repo: Path) -> None:
    measure = "pytest --tb=no -q 2>&1 | tail -1"
    state, _ = tried(Wish("increase passing tests", measure, "src/", folder=repo))
    target = state.targets["main"]
    assert target.primary(target.info.base).mean == 3


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ("echo all is well", "the last line has no number: 'all is well'"),
        ("echo 1 of 3", "the last line has 2 numbers (1, 3), and one is wanted: '1 of 3'"),
        ("true", "it printed nothing"),
        ("echo prose | grep accuracy", "exit status 1"),
    ],
)
def test_prose_is_refused_with_the_line_and_the_remedy(
    call: Caller,  # noqa: F811
    tools: Path,
    repo: Path,
    measure: str,
    said: str,
) -> None:
    got = call("try", "improve accuracy", measure, "src/a.py", "--inline", cwd=repo)
    assert got.code == 3
    assert said in got.err
    hint = got.err.split("hint: ")[1]
    assert (
        "prints the number" if "grep" not in measure else "what stands before the `grep`"
    ) in hint
    assert not list((repo / ".swarm" / "runs").iterdir())


def test_a_dry_run_says_what_was_made_of_it_and_save_writes_the_same(
    call: Caller,  # noqa: F811
    tools: Path,
    repo: Path,
    tmp_path: Path,
) -> None:
    saved = tmp_path / "saved.yaml"
    words = ("try", "improve accuracy", "python benchmark.py | grep 'acc'", "src, web/*.js", "90s")
    more = ("--set", "budget.experiments=7", "--save", str(saved), "--dry-run")
    got = call(*words, *more, cwd=repo)
    assert got.code == 0, got.err
    for line in (
        "metric   maximize accuracy, from the last line that is printed",
        "measure  python benchmark.py | grep 'acc'   (at most 1m 30s)",
        "scope    src, web/*.js",
        "end      after 20 experiments in a row without a keep",
        "agents   mutate, which changes constants and statements and asks no model",
    ):
        assert f"swarm: {line}" in got.err
    assert "nothing was started" in got.err
    config = configs.restore(got.out)
    again = configs.load(saved)
    assert configs.changed_keys(config, again) == []
    assert (again.name, again.budget.experiments) == ("improve-accuracy", 7)
    assert again.target.repo == repo
    assert call(*words, *more, cwd=repo).err.splitlines()[-2].startswith("swarm: --save: ")
    assert not (repo / ".swarm").exists()


def test_what_cannot_be_told_is_asked_for(tools: Path, repo: Path) -> None:
    def error(*words: str, **more: str) -> str:
        with pytest.raises((UsageError, PreconditionError)) as caught:
            Wish(*words, folder=repo, **more).enter()  # type: ignore[arg-type]
        return str(caught.value)

    assert "add --goal minimize or --goal maximize" in error("improve it", "echo 1", "src/a.py")
    said = error("improve accuracy", "echo 1", "srcs/")
    assert "no tracked file is called 'srcs/'" in said
    said = error("improve accuracy", "echo 1", "the module in src")
    assert "candidates: src/__init__.py, src/a.py" in said
    assert "a duration such as 90s" in error("improve accuracy", "echo 1", "src", "soon")
    assert "there is no measure" in error("improve accuracy", " ", "src")
    assert "the objective is empty" in error("", "echo 1", "src")
    assert "there is no scope" in error("improve accuracy", "echo 1", " , ")
    assert "a metric's name has no blanks" in error(
        "improve x", "echo 1", "src", goal="minimize", metric="a b"
    )
    (tools / "uv").unlink()
    said = error("improve val_bpb", "uv run train.py | tail -1", "train.py")
    assert "`uv` is not on PATH" in said
    assert "install uv" in said


def test_the_words_of_a_resume_are_those_of_the_try(
    call: Caller,  # noqa: F811
    tools: Path,
    repo: Path,
) -> None:
    words = ("try", "do it", "python benchmark.py", "src", "9s", "--goal", "higher", "--name", "t")
    sets = [word for given in FEW for word in ("--set", given)]
    got = call(*words, *sets, "--agent", "mutate", "--inline", cwd=repo)
    assert got.code == 0, got.err
    wish = Wish("do it", "python benchmark.py", "src", "9s", "maximize")
    assert wish.words == ("swarm", *words[:5], "--goal", "maximize")
    again = call(*words, *sets, "--inline", cwd=repo)
    assert (again.code, again.err.count("finished")) == (0, 0)


def test_a_scope_that_holds_what_measures_is_told(tools: Path, repo: Path) -> None:
    def warned(measure: str, scope: str) -> str:
        notes = Wish("improve accuracy", measure, scope, folder=repo).enter().notes
        return "".join(note for note in notes if note.startswith("warning"))

    said = warned("pytest -q | tail -1", ".")
    assert "tests/test_a.py" in said
    assert "pyproject.toml" in said
    assert "conftest.py" not in said  # a directory does not name it, so it cannot change
    assert "benchmark.py" in warned("python benchmark.py | grep accuracy", "*.py")
    assert warned("python benchmark.py | grep accuracy", "src/") == ""
    # A file that is named itself is what is to change.
    assert warned("python train.py | grep val_bpb", "train.py") == ""


def test_scopes_as_people_write_them(tools: Path, repo: Path) -> None:
    def scope(words: str) -> tuple[str, ...]:
        wish = Wish("improve accuracy", "python benchmark.py", words, folder=repo)
        return wish.enter().config.target.scope

    assert scope("./src/") == ("src/",)
    assert scope("src") == ("src",)
    assert scope(str(repo / "src" / "a.py")) == ("src/a.py",)
    assert scope("src/a.py,web/*.js , train.py") == ("src/a.py", "web/*.js", "train.py")
    assert scope("src/a.py web/n.js") == ("src/a.py", "web/n.js")
    assert scope("{src/a,train}.py") == ("src/a.py", "train.py")
    assert scope("**/*.py") == ("**/*.py",)


def test_what_a_command_needs_is_set_up(tools: Path, repo: Path) -> None:
    wish = Wish("improve val_bpb", "uv run train.py | grep val_bpb", "train.py", folder=repo)
    target = wish.enter().config.target
    assert target.setup == "env -u UV_NO_SYNC uv sync"
    assert target.env == {"UV_NO_SYNC": "1"}
    (repo / "package.json").write_text('{"devDependencies": {"vite": "1"}}')
    (repo / "package-lock.json").write_text("{}")
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", "lock")
    wish = Wish("reduce size", "node build.js | tail -1", "web", folder=repo)
    assert wish.enter().config.target.setup == "npm ci"
    assert wish.enter(["target.setup=null"]).config.target.setup is None


@pytest.mark.parametrize(
    ("objective", "goal"),
    [
        ("lower val_bpb", "minimize"),
        ("Reduce the bundle size", "minimize"),
        ("Reducing memory usage", "minimize"),
        ("speed up the parser", "minimize"),
        ("make the tests faster", "minimize"),
        ("cut p99 latency in half", "minimize"),
        ("fix failing tests", "minimize"),
        ("improve latency", "minimize"),
        ("improve val_bpb by increasing depth", "minimize"),
        ("optimise error rate", "minimize"),
        ("get val_loss under 3", "minimize"),
        ("bring the number below 5", "minimize"),
        ("increase test coverage", "maximize"),
        ("Raise throughput", "maximize"),
        ("maximise F1", "maximize"),
        ("improve accuracy while reducing size", "maximize"),
        ("improve the pass rate", "maximize"),
        ("boost requests per second", "maximize"),
        ("get it above 90", "maximize"),
        ("improve it", None),
        ("optimize the model", None),
        ("improve performance", None),
        ("speed up throughput", None),  # operations per second, or seconds?
        ("", None),
    ],
)
def test_the_goal_of_an_objective(objective: str, goal: Goal | None) -> None:
    found = direction(objective)
    assert (found.goal if found else None) == goal


def test_names_of_metrics() -> None:
    assert metric_name("improve val_bpb now", "grep '^val_bpb:' run.log") == "val_bpb"
    assert metric_name("make the test suite faster", "pytest -q | tail -1") == "seconds"
    assert metric_name("reduce the bundle's size", "x") == "bundles_size"
    assert metric_name("improve it", "x") == "value"


def test_programs_of_a_command() -> None:
    assert programs("FOO=1 uv run x.py > run.log 2>&1 && grep '^a|b:' run.log") == ["uv", "grep"]
    assert programs("cd web && (npm run build 2>&1 | tail -1); true") == [
        "cd",
        "npm",
        "tail",
        "true",
    ]
    assert programs("if make; then ./bench; fi") == ["make", "./bench"]
    assert programs(("python", "-c", "a | b")) == ["python"]
    assert programs("it's broken") == []
    assert missing(["cd x && nosuchprogram | cat", "$TOOL x", "./own.sh"]) == ["nosuchprogram"]


def test_who_proposes() -> None:
    assert "kind: headless, cli: claude" in agents_of("claude")
    assert 'kind: messages, model: "qwen3-coder:30b"' in agents_of("qwen3-coder:30b")
    assert agents_of("mutate") == "agents=[{count: 2, proposer: mutate}]"
    with pytest.raises(UsageError, match="neither mutate nor claude"):
        agents_of("my agent")
    assert (goal_of(None), goal_of("lower")) == (None, "minimize")
    with pytest.raises(UsageError, match="minimize or maximize"):
        goal_of("down")


def test_what_measures() -> None:
    files = ["src/a.py", "src/a.test.ts", "test/x.js", "package.json", "bench.sh"]
    assert measured_by("npm test", ["."], files) == ["src/a.test.ts", "test/x.js", "package.json"]
    assert measured_by("sh ./bench.sh", ["*"], files) == ["bench.sh"]
    assert measured_by("sh ./bench.sh", ["bench.sh", "src"], files) == []
