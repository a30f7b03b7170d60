"""Front doors, with files as the users of the other tools have them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from messages_server import MessagesServer, Reply, texts
from targets import git, launch_inline, make_patches, make_repo
from test_cli import Caller, call  # noqa: F401  a fixture
from test_try import UV

from swarm.config import RunConfig
from swarm.doors import enter
from swarm.errors import ConfigError, PreconditionError
from swarm.yaml_marks import to_yaml

FEW = ("budget.experiments=2", "judge.baseline=2", "judge.confirm=1", "target.slot.count=1")


@pytest.fixture(autouse=True)
def _programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with the programs of this environment and a stand-in for uv; a home without data."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "uv").write_text(UV)
    (folder / "uv").chmod(0o755)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{folder}:{own}:/usr/local/bin:/usr/bin:/bin")


def refused(path: Path, *sets: str) -> str:
    with pytest.raises((ConfigError, PreconditionError)) as caught:
        enter(path, sets)
    return str(caught.value)


# --- improve.md ---------------------------------------------------------------------------------

IMPROVE = r"""# autoimprove: Parser Speed

## Change
scope: src/          # the hot path
exclude: src/tables.py

## Check
test: python check.py
test-files: check.py
run: python bench.py
score: ns/op\s+([\d.]+)
goal: lower
guard: error rate: ([\d.]+) < 0.05
timeout: 3m

## Stop
budget: 4h
rounds: 2
stale: 10

## Instructions
Be bold.
"""
BENCH = """\
from src.parser import STEP
print("BenchmarkParse")
print(f"mean ns/op   {100 + abs(STEP - 8)}.5")
print(f"error rate: {0.01 if STEP < 30 else 0.2}")
"""
PARSER = {
    "src/__init__.py": "",
    "src/parser.py": "STEP = 16\n",
    "src/tables.py": "SIZE = 4\n",
    "bench.py": BENCH,
    "check.py": "import src.parser\n",
}


@pytest.fixture
def parser(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "parser", PARSER)


def write(folder: Path, text: str, name: str = "improve.md") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_an_improve_md_becomes_a_run(parser: Path) -> None:
    config = enter(write(parser, IMPROVE)).config
    target = config.target
    assert config.name == "parser-speed"
    assert target.scope == ("src/",)
    assert target.exclude == ("src/tables.py", "check.py", "improve.md", ".autoimprove/")
    assert "src/parser.py" in target.area
    assert "src/tables.py" not in target.area
    assert target.guard == ("python check.py",)
    assert target.metric.pattern == r"ns/op\s+([\d.]+)"
    assert (target.metric.goal, target.metric.lines) == ("minimize", "last")
    assert (target.timeout, config.budget.time) == (180.0, 4 * 3600.0)
    assert (config.budget.experiments, config.budget.stale) == (2, 10)
    assert "Be bold." in target.program
    [limit] = target.constraints
    assert (limit.metric, limit.pattern) == ("error_rate", r"error rate: ([\d.]+)")
    assert config.judge.keep_if_equal == "never"
    lost = enter(write(parser, IMPROVE.replace("test-files: check", "test-files: tests/check")))
    assert any("no tracked file: tests/check.py" in note for note in lost.notes)
    assert "Do not change: tests/check.py" in lost.config.target.program
    equal = enter(write(parser, IMPROVE.replace("goal:", "keep_if_equal: true\ngoal:")))
    assert equal.config.judge.keep_if_equal == "simpler"


def test_it_runs_and_its_guard_is_a_limit(parser: Path) -> None:
    _, state = launch_inline(enter(write(parser, IMPROVE), FEW).config)
    target = state.targets["main"]
    assert target.primary(target.info.base).mean == 108.5
    machine = target.machine(target.info.base)
    assert machine is not None
    assert set(target.record(target.info.base, machine).others) >= {"error_rate"}
    assert state.phase == "finished"
    assert len(state.experiments) == 2
    changed = {f for e in state.experiments.values() for f in e.proposal.files}
    assert changed <= {"src/parser.py"}


def test_what_is_excluded_cannot_be_changed_and_a_broken_guard_discards(
    parser: Path, tmp_path: Path
) -> None:
    patches = [
        {"summary": "tables", "files": {"src/tables.py": "SIZE = 5\n"}},
        {"summary": "check", "files": {"check.py": "pass\n"}},
        {"summary": "errors", "files": {"src/parser.py": "STEP = 31\n"}},
        {"summary": "good", "files": {"src/parser.py": "STEP = 8\n"}},
    ]
    folder = make_patches(tmp_path / "patches", patches)
    agents = f"agents=[{{proposer: {{kind: scripted, patches: '{folder}'}}}}]"
    path = write(parser, IMPROVE.replace("goal: lower", "goal: higher"))
    sets = (agents, "budget.experiments=4", *FEW[1:])
    _, state = launch_inline(enter(path, sets).config)
    verdicts = {e.proposal.summary: e.verdict for e in state.experiments.values()}
    assert verdicts == {
        "tables": "invalid",
        "check": "invalid",
        "errors": "constraint_failed",
        "good": "discard",
    }


def test_a_guard_that_finds_nothing_on_the_base_ends_the_run(
    call: Caller,  # noqa: F811
    parser: Path,
) -> None:
    write(parser, IMPROVE.replace("error rate:", "rate of errors:"))
    got = call("launch", "improve.md", "--inline", cwd=parser)
    assert got.code == 3
    assert "names metrics that the harness does not report: rate_of_errors" in got.err


def test_a_score_that_finds_nothing_is_shown_beside_the_output(
    call: Caller,  # noqa: F811
    parser: Path,
) -> None:
    bench = "print('BenchmarkSum-8   1000000   123 ns/op')\n"
    (parser / "bench.py").write_text(bench)
    git(parser, "commit", "-qam", "go")
    write(parser, IMPROVE.replace(r"ns/op\s+", r"ns/op:\s+"))
    shown = (
        "  pattern  ns/op:\\s+([\\d.]+)\n"
        "  output   BenchmarkSum-8   1000000   123 ns/op\n"
        "  try      ([\\d.]+) ns/op\n"
    )
    got = call("launch", "improve.md", "--inline", cwd=parser)
    assert got.code == 3
    assert "swarm: improve.md:11: target `main`: the base cannot be measured" in got.err
    assert shown in got.err
    assert "correct `score` on line 11 of improve.md" in got.err
    checked = call("check", "improve.md", "--json", cwd=parser)
    assert checked.code == 3
    [finding] = [f for f in json.loads(checked.out)["findings"] if f["kind"] == "base_fails"]
    assert shown in finding["message"]
    assert "correct `metric.pattern` (`score` of an improve.md)" in finding["hint"]


@pytest.mark.parametrize(
    ("score", "run", "value"),
    [
        ("", "echo noise; echo 'SCORE: 4'", 4.0),
        ("score: SCORE: {value}", "echo 'SCORE: 4'; echo 'tests: 7'", 4.0),
        ("", "echo 'Total size: 412 kB'", 412.0),
        ("score: .runs[0].p95", """printf '{\\n"runs": [\\n{"p95": 7}\\n]\\n}\\n'""", 7.0),
        (r"score: took (\d+)(ms|s)", "echo 'it took 12ms'", 12.0),
    ],
)
def test_every_form_of_a_score_is_measured(
    parser: Path, score: str, run: str, value: float
) -> None:
    text = f"## Change\nscope: src/parser.py\n## Check\nrun: {run}\n{score}\ngoal: lower\n"
    sets = ("budget.experiments=1", *FEW[1:])
    _, state = launch_inline(enter(write(parser, text), sets).config)
    target = state.targets["main"]
    assert target.primary(target.info.base).mean == value


def test_the_configs_mistakes_have_lines_of_the_file(parser: Path) -> None:
    said = refused(write(parser, IMPROVE.replace("timeout: 3m", "timeout: 3 weeks")))
    assert "improve.md:14:10: `timeout`: a duration" in said
    said = refused(write(parser, IMPROVE + "\n"), "target.scope=../x")
    assert "in `--set target.scope=../x`" in said
    said = refused(write(parser, IMPROVE.replace("scope: src/ ", "scope: source/ ")))
    assert "improve.md:4:8: `scope`: no tracked file is called 'source/'" in said
    said = refused(write(parser, IMPROVE.replace("run: python", "run: pyhton")))
    assert "`pyhton` is not on PATH" in said
    agent = "## Agent\nprovider: antropic\n\n## Instructions"
    said = refused(write(parser, IMPROVE.replace("## Instructions", agent)))
    assert "improve.md:22:11: `provider`" in said
    assert "did you mean `anthropic`?" in said
    said = refused(
        write(parser, IMPROVE.replace("## Instructions", agent.replace("antr", "anthr")))
    )
    assert "needs a `model`" in said


def test_its_agents(parser: Path) -> None:
    def proposer(lines: str) -> dict[str, object]:
        text = IMPROVE.replace("## Instructions", f"## Agent\n{lines}\n## Instructions")
        [group] = enter(write(parser, text)).config.agents
        return group.proposer.model_dump(exclude_defaults=True)

    assert proposer("model: claude-opus-5-5") == {"kind": "messages", "model": "claude-opus-5-5"}
    assert proposer("provider: claude") == {"kind": "headless", "cli": "claude"}
    assert proposer("provider: codex\nmodel: gpt")["model"] == "gpt"
    assert proposer("provider: ollama\nmodel: q")["base_url"] == "http://localhost:11434"
    entered = enter(write(parser, IMPROVE))
    assert entered.config.agents[0].proposer.kind == "mutate"
    assert any("asks no model" in note for note in entered.notes)


WORDS = IMPROVE.replace("scope: src/ ", "scope: the parser, wherever it lives ")


def test_a_scope_in_words_lists_candidates_without_a_model(parser: Path) -> None:
    said = refused(write(parser, WORDS))
    assert "improve.md:4:8: `scope`: no tracked file is called 'the parser, wherever" in said
    assert "candidates: src/parser.py" in said
    assert "name files or globs" in said
    assert "a model below `## Agent`" in said


def with_model(server: MessagesServer) -> tuple[str, ...]:
    proposer = f"{{kind: messages, model: test-1, base_url: '{server.url}', stream: false}}"
    return (f"agents=[{{count: 1, proposer: {proposer}}}]",)


def test_a_scope_in_words_is_resolved_by_the_model(parser: Path) -> None:
    asked: list[str] = []

    def script(request: dict[str, object]) -> Reply:
        assert "tools" not in request
        asked.append(texts(request["messages"][0]["content"]))  # type: ignore[index]
        return Reply.saying('These:\n["src/parser.py", "src/invented.py", "/etc/passwd"]')

    path = write(parser, WORDS)
    with MessagesServer(script) as server:
        entered = enter(path, with_model(server))
        assert entered.config.target.scope == ("src/parser.py",)
        assert any("scope    src/parser.py   (test-1 takes" in note for note in entered.notes)
        assert "the parser, wherever it lives" in asked[0]
        assert "src/tables.py" in asked[0]
        # A run that has begun keeps its files, whatever the model would say now.
        from swarm.launch import open_run

        open_run(entered.config)
        again = enter(path, with_model(server))
        assert again.config.target.scope == ("src/parser.py",)
        assert len(asked) == 1
        assert open_run(again.config).resumed


@pytest.mark.parametrize("answer", ["I do not know", '["nothing/of/it.py"]', "[", '{"a": 1}'])
def test_a_model_that_names_no_file_is_as_good_as_none(parser: Path, answer: str) -> None:
    with MessagesServer(lambda _: Reply.saying(answer)) as server:
        assert "candidates: src/parser.py" in refused(write(parser, WORDS), *with_model(server))


def test_a_model_that_cannot_be_asked_is_told(parser: Path) -> None:
    with MessagesServer(lambda _: Reply.failing(401, "no such key")) as server:
        said = refused(write(parser, WORDS), *with_model(server))
    assert "the model could not be asked which files 'the parser, wherever it lives" in said
    assert "no such key" in said


# --- the autoresearch layout --------------------------------------------------------------------

PREPARE = """\
import os

TIME_BUDGET = 300
CACHE_DIR = os.path.join(os.path.expanduser("~"), ".cache", "autoresearch")


def best():
    with open(os.path.join(CACHE_DIR, "data", "best.txt")) as file:
        return float(file.read())


def evaluate_bpb(lr):
    return 1.0 + (lr - best()) ** 2
"""
TRAIN = """\
from prepare import TIME_BUDGET, evaluate_bpb

LR = 0.5
print("step 00001 | loss 2.0", end="\\r")
val_bpb = evaluate_bpb(LR)
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"peak_vram_mb:     {45060.2:.1f}")
"""
CHECKOUT = {
    "prepare.py": PREPARE,
    "train.py": TRAIN,
    "program.md": "# autoresearch\n\nLower val_bpb.\n",
    "pyproject.toml": "[project]\nname = 'autoresearch'\nversion = '0'\n",
    ".gitignore": "__pycache__\n.venv\nresults.tsv\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    data = tmp_path / "home" / ".cache" / "autoresearch" / "data"
    data.mkdir(parents=True)
    (data / "best.txt").write_text("0.1")
    return make_repo(tmp_path / "Autoresearch", CHECKOUT)


def test_an_untouched_checkout_is_launched(checkout: Path) -> None:
    entered = enter(checkout)
    config, target = entered.config, entered.config.target
    assert config.name == "autoresearch"
    assert target.scope == ("train.py",)
    assert target.program_file == checkout / "program.md"
    assert target.metric.pattern == r"^val_bpb:\s*([-\d.eE]+)"
    assert (target.metric.goal, target.timeout) == ("minimize", 600.0)
    assert config.judge.keep_if_equal == "simpler"
    assert target.read_only == (Path.home() / ".cache" / "autoresearch",)
    assert str(target.run).endswith(" && uv run train.py")
    assert target.setup == "env -u UV_NO_SYNC uv sync"
    assert (
        "layout   autoresearch: train.py changes, 300 s of training, 600 s at most" in entered.notes
    )
    assert git(checkout, "status", "--porcelain") == ""


def test_it_runs_with_the_data_of_the_users_cache(checkout: Path, call: Caller) -> None:  # noqa: F811
    sets = [word for given in FEW for word in ("--set", given)]
    got = call("launch", ".", "--inline", *sets, cwd=checkout)
    assert got.code == 0, got.err
    assert "Baseline metric: 1.16" in got.out
    data = Path.home() / ".cache" / "autoresearch" / "data" / "best.txt"
    assert data.read_text() == "0.1"
    assert git(checkout, "status", "--porcelain") == ""


def test_a_slot_has_a_gpu_where_there_are_some(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "train.py").write_text("import torch\n" + TRAIN)
    git(checkout, "commit", "-qam", "torch")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    config = enter(checkout).config
    assert config.target.slot.gpus == 1
    assert config.agents[0].count == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = enter(checkout).config
    assert (config.target.slot.gpus, config.target.slot.count) == (0, 1)


def test_what_the_layout_lacks_is_named(checkout: Path) -> None:
    data = Path.home() / ".cache" / "autoresearch"
    data.rename(data.with_name("elsewhere"))
    said = refused(checkout)
    assert f"there are no data: {data} does not exist" in said
    assert "uv run prepare.py" in said
    data.with_name("elsewhere").rename(data)
    os.environ["PATH"] = os.environ["PATH"].partition(":")[2]
    assert "`uv` is not on PATH" in refused(checkout)
    git(checkout, "rm", "-q", "--cached", "program.md")
    git(checkout, "commit", "-qm", "less")
    assert "git add program.md && git commit -m base" in refused(checkout)


def test_a_layout_that_only_looks_like_it(tmp_path: Path) -> None:
    other = make_repo(
        tmp_path / "other",
        {
            "prepare.py": "def load():\n    pass\n\n\ndef evaluate(model):\n    pass\n",
            "train.py": "import torch\n\nloss = 1\nprint(f'val_loss: {loss}')\n",
            "program.md": "x\n",
        },
    )
    said = refused(other)
    assert "train.py does not import prepare.py" in said
    assert "prepare.py:5: `evaluate` is there in place of `def evaluate_bpb`" in said
    assert "train.py:4: prints `val_loss:` where a line `val_bpb: ...` is wanted" in said
    assert "`swarm try OBJECTIVE MEASURE SCOPE`, or `swarm init`" in said


# --- pi's .auto/ --------------------------------------------------------------------------------

PROMPT = """\
# Autoresearch: sort speed

## Objective
Sort faster.

## Metrics
- **Primary**: total_ms (ms, lower is better) — the optimization target
- **Secondary**: compile_ms, memory_mb

## How to Run
`./.auto/measure.sh` — outputs `METRIC name=number` lines.

## Files in Scope
- `src/parser.py` — the parser: `STEP` is in it
- src/__init__.py: nothing much

## Off Limits
- `src/tables.py`
- Everything that is generated
"""
MEASURE = """#!/bin/bash
set -euo pipefail
python3 -c 'from src.parser import STEP
print("METRIC total_ms=1")
print("METRIC compile_ms=3")
print("METRIC __proto__=3")
print(f"METRIC total_ms={STEP}.5")'
"""
CONFIGS = [
    {"type": "config", "name": "old", "metricName": "old_ms", "bestDirection": "higher"},
    {"run": 1, "commit": "abcdef1", "metric": 3, "status": "keep"},
    {"type": "config", "metricName": "total_ms", "metricUnit": "ms", "bestDirection": "lower"},
]
AUTO = {
    **PARSER,
    ".auto/prompt.md": PROMPT,
    ".auto/measure.sh": MEASURE,
    ".auto/checks.sh": "python3 check.py\n",
    ".auto/log.jsonl": "".join(json.dumps(c) + "\n" for c in CONFIGS) + "{torn\n",
    ".auto/config.json": '{"maxIterations": 2}',
    # Of an older version: ignored beside `.auto/`.
    "autoresearch.md": "## Metrics\n- **Primary**: other\n## Files in Scope\n- bench.py\n",
    "autoresearch.sh": "exit 1\n",
}


def test_an_auto_folder_is_launched(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "sort speed", AUTO)
    config = enter(top).config
    target = config.target
    assert config.name == "sort-speed"
    assert target.run == "bash .auto/measure.sh"
    assert target.guard == ("bash .auto/checks.sh",)
    assert (target.metric.name, target.metric.goal, target.metric.unit) == (
        "total_ms",
        "minimize",
        "ms",
    )
    assert target.scope == ("src/parser.py", "src/__init__.py")
    assert target.exclude[:2] == ("src/tables.py", ".auto/")
    assert target.program_file == top / ".auto" / "prompt.md"
    assert config.budget.experiments == 2
    assert enter(top / ".auto").config == config
    _, state = launch_inline(enter(top, FEW[1:]).config)
    found = state.targets["main"]
    assert found.primary(found.info.base).mean == 16.5
    machine = found.machine(found.info.base)
    assert machine is not None
    others = found.record(found.info.base, machine).others
    assert "compile_ms" in others
    assert "__proto__" not in others
    assert len(state.experiments) == 2


def edited(tmp_path: Path, **files: str | None) -> Path:
    """Make the same with some files of `.auto/` changed, or left out."""
    contents = dict(AUTO)
    for name, text in files.items():
        path = f".auto/{name.replace('_', '.', 1)}"
        if text is None:
            contents.pop(path)
        else:
            contents[path] = text
    return make_repo(tmp_path / "auto", contents)


def metric_of(config: RunConfig) -> tuple[str, str, str | None]:
    metric = config.target.metric
    return metric.name, metric.goal, metric.unit


def test_any_file_in_auto_makes_the_old_ones_count_for_nothing(tmp_path: Path) -> None:
    files = {k: v for k, v in AUTO.items() if not k.startswith(".auto")}
    said = refused(make_repo(tmp_path / "mixed", {**files, ".auto/ideas.md": "none yet\n"}))
    assert "there is no .auto/prompt.md" in said


def test_the_prompt_names_the_metric_where_there_is_no_log(tmp_path: Path) -> None:
    top = edited(tmp_path, log_jsonl=None)
    assert metric_of(enter(top).config) == ("total_ms", "minimize", "ms")
    higher = PROMPT.replace("(ms, lower is better)", "(higher is better)")
    (top / ".auto/prompt.md").write_text(higher)
    assert metric_of(enter(top).config) == ("total_ms", "maximize", "ms")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"measure_sh": None}, "there is no .auto/measure.sh"),
        ({"prompt_md": None}, "there is no .auto/prompt.md"),
        ({"log_jsonl": None, "prompt_md": "## Files in Scope\n- a\n"}, "the metric is not named"),
        ({"prompt_md": "x\n"}, "`## Files in Scope` lists no file"),
        ({"prompt_md": "\n## Files in Scope\n- `src/no.py`\n"}, "prompt.md:2: no tracked file is"),
        ({"config_json": "{"}, "config.json:1: not JSON"),
        ({"config_json": "[]"}, "a JSON object is wanted"),
        ({"config_json": '{"workingDir": "sub"}'}, "`workingDir`"),
    ],
)
def test_what_an_auto_folder_lacks_is_named(
    tmp_path: Path, files: dict[str, str | None], said: str
) -> None:
    assert said in refused(edited(tmp_path, **files))


def test_scripts_that_are_not_committed_are_refused(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "auto", {**AUTO, ".gitignore": ".auto/\n"})
    said = refused(top)
    assert "not in the base commit, so that no measurement would have it" in said
    assert "git add -f .auto/measure.sh .auto/checks.sh" in said


def test_the_old_flat_files_count_where_there_is_no_auto_folder(tmp_path: Path) -> None:
    files = {**PARSER, "autoresearch.sh": MEASURE, "autoresearch.md": PROMPT}
    config = enter(make_repo(tmp_path / "old", files)).config
    assert config.target.run == "bash autoresearch.sh"
    assert metric_of(config) == ("total_ms", "minimize", "ms")


# --- directories --------------------------------------------------------------------------------


def test_a_directory_stands_for_what_is_in_it(
    checkout: Path,
    call: Caller,  # noqa: F811
) -> None:
    target = {"scope": ["train.py"], "run": "true", "metric": {"name": "x", "goal": "minimize"}}
    assert enter(checkout / "program.md").config.name == "autoresearch"
    write(checkout, "## Change\nscope: train.py\n## Check\nrun: true\ngoal: lower\n")
    assert enter(checkout).config.target.metric.name == "score"
    write(checkout, to_yaml({"target": target}), "swarm.yaml")
    assert enter(checkout).config.name == "swarm"
    got = call(
        "launch",
        ".",
        "--dry-run",
        "--agent",
        "claude-opus-5-5",
        cwd=checkout,
        ANTHROPIC_API_KEY="k" * 20,
    )
    assert got.code == 0, got.err
    [group] = json.loads(got.out)["agents"]
    assert (group["count"], group["proposer"]["model"]) == (2, "claude-opus-5-5")


def test_an_empty_directory_says_what_was_looked_for(
    tmp_path: Path,
    call: Caller,  # noqa: F811
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "train.py").write_text("")
    got = call("launch", "x", "--json", cwd=tmp_path)
    error = json.loads(got.out)["error"]
    assert (got.code, error["kind"]) == (2, "config")
    assert (
        "looked for swarm.yaml, improve.md, .auto/, or prepare.py, train.py and" in error["message"]
    )
    assert "of the last three there is train.py" in error["message"]
    assert "swarm init" in error["hint"]
    assert call("launch", "no.md", cwd=tmp_path).code == 2


def test_a_run_is_resumed_although_the_tree_is_dirty_by_now(parser: Path) -> None:
    from swarm.launch import open_run

    path = write(parser, IMPROVE)
    open_run(enter(path).config)
    (parser / "src" / "parser.py").write_text("STEP = 17\n")
    assert open_run(enter(path).config).resumed
