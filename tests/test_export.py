"""`swarm export`: what the pages say is true, and their commands run as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from targets import CONFIG, fold, git, launch_inline, make_config, make_repo, measure_by_hand

from swarm.cli import main
from swarm.config import RunConfig
from swarm.exporting import Source, program
from swarm.formats import alone
from swarm.formats.results_tsv import header
from swarm.reading import MetricRule, read_metrics

SHORT = ("budget.experiments=2", "judge.baseline=2", "judge.confirm=1", "agents.0.count=1")


def blocks(page: str) -> dict[str, list[str]]:
    """Give the shell blocks of a page by its sections, as a reader of Markdown sees them."""
    found: dict[str, list[str]] = {}
    tokens = MarkdownIt().parse(page)
    title = ""
    for before, token in pairwise(tokens):
        if before.type == "heading_open" and before.tag == "h2":
            title = token.content
        elif token.type == "fence" and token.info == "sh":
            found.setdefault(title, []).append(token.content)
    return found


def sh(command: str, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", command], cwd=where, capture_output=True, text=True)


def swarm(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swarm", *words]
    return subprocess.run(command, cwd=where, capture_output=True, text=True)


def follow(config: RunConfig, where: Path) -> tuple[int, str]:
    """Do what the page says up to the first number; give the status and the number's line."""
    said = blocks(program(Source(config)))
    assert sh(said["The measurement"][0], where).returncode == 0
    for command in said["Setup"]:
        assert sh(command, where).returncode == 0
    done = sh(said["Output format"][0], where)
    return done.returncode, done.stdout.strip()


def test_the_commands_of_the_page_give_the_metric(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    config = make_config(tmp_path, CONFIG.replace("repo: .", "repo: repo"), *SHORT)
    git(top, "worktree", "add", "-q", "--detach", str(tmp_path / "alone"))
    status, line = follow(config, tmp_path / "alone")
    assert status == 0
    name, _, value = line.partition(": ")
    assert name == config.target.metric.name
    assert float(value) == measure_by_hand(top, "HEAD", tmp_path / "by-hand")
    # git sees nothing of what the page made, and the table begins as every reader of it wants it.
    assert git(tmp_path / "alone", "status", "--porcelain") == ""
    table = (tmp_path / "alone" / "results.tsv").read_text()
    assert table == f"commit\t{name}\tmemory_gb\tstatus\tdescription\n"
    assert header(fold(launch_inline(config)[0]), "main").startswith(table.strip())


HARNESS = """import json, os, sys
cases = [{"id": "a", "pass": True}, {"id": "b", "pass": False}]
said = {"metrics": {"good": [1, 4, 2]}, "cases": cases}
open(os.environ["SWARM_RESULT"], "w").write(json.dumps(said))
print("seed", os.environ["SWARM_SEED"], "mode", os.environ.get("MODE"), file=sys.stderr)
print("progress 1\\rval_bpb:   0.5\\nval_bpb:   0.25\\nother: 3\\n---")
print(json.dumps({"eval": {"loss": [0.125]}}))
if os.environ.get("MODE") == "crash": sys.exit(1)
if os.environ.get("MODE") == "slow": import time; time.sleep(60)
open("made.txt", "w").write("7")
"""
SCORE = (
    "print('METRIC scored=%d' % (int(open('made.txt').read()) + len(open('answers.txt').read())))\n"
)


@pytest.mark.parametrize(
    ("keys", "status", "line"),
    [
        ("metric: {name: cases, goal: maximize}", 0, "cases: 0.5"),
        ("metric: {name: good, goal: maximize}\njudge: {aggregate: max}", 0, "good: 4.0"),
        ("metric: {name: val_bpb, goal: minimize, pattern: '^val_bpb:\\s*(\\S+)'}",
         0, "val_bpb: 0.25"),
        ("metric: {name: loss, goal: minimize, json: eval.loss.0}", 0, "loss: 0.125"),
        ("metric: {name: other, goal: minimize}", 0, "other: 3.0"),
        ("metric: {name: other, goal: minimize}\njudge: {bounds: [4, null]}", 1, ""),
        ("metric: {name: none, goal: minimize}", 1, ""),
        ("metric: {name: other, goal: minimize}\n  env: {MODE: crash}", 1, ""),
        ("metric: {name: other, goal: minimize}\n  env: {MODE: slow}\n  timeout: 1s", 4, ""),
        ("metric: {name: other, goal: minimize}\n  guard: ['true', ['false']]", 3, ""),
        ("metric: {name: scored, goal: maximize}\n  score: python3 score.py\n  hide: [answers.txt]",
         0, "scored: 10.0"),
    ],
)  # fmt: skip
def test_every_way_to_report_is_said_truly(
    tmp_path: Path, keys: str, status: int, line: str
) -> None:
    files = {"x.py": HARNESS, "score.py": SCORE, "answers.txt": "yes"}
    top = make_repo(tmp_path / "repo", files)
    text = f"target:\n  repo: repo\n  scope: [x.py]\n  run: [python3, x.py]\n  {keys}\n"
    assert follow(make_config(tmp_path, text), top) == (status, line)
    log = (top / "run.log").read_text()
    assert "Traceback" not in log
    assert ("peak_memory_mb: " in log) is (status == 0)


@pytest.mark.parametrize(
    ("log", "report"),
    [
        ("METRIC loss=3\nloss: 4\n", None),
        ("loss: 4\nMETRIC loss=3\nSCORE: 5", None),
        ("val: 3", None),
        ("loss: nan", None),
        ("loss: 1e-3 \nloss: x", '{"metrics": {"other": 2}}'),
        ("loss: 1", '{"metrics": {"loss": 2}}'),
        ("loss: 1", "{"),
        ("METRIC a=1\nb: 2\nloss: .5", None),
    ],
)
def test_it_reads_as_swarm_does(log: str, report: str | None) -> None:
    given = {"metric": "loss", "pattern": None, "json": None, "aggregate": "last",
             "bounds": [None, None], "also": ["b"]}  # fmt: skip
    theirs = read_metrics(MetricRule("loss", "minimize"), log, report, ("b",))
    value, others, problem = alone.read(given, log, report)
    assert value == theirs.values.get("loss")
    assert bool(problem) is bool(theirs.problem)
    if value is not None:
        assert others == {k: v for k, v in theirs.values.items() if k != "loss"}


def test_the_page_has_what_the_config_says(tmp_path: Path) -> None:
    make_repo(tmp_path / "repo", {"a.py": "", "t.txt": "```sh\nrm -rf /\n```\n"})
    text = """
name: night
target:
  repo: repo
  scope: [a.py, lib/]
  hide: [answers/]
  program: |
    Be fast.

    ```sh
    exit 1
    ```
  setup: pip install -r r.txt
  guard: [pytest -q]
  run: python a.py
  metric: {name: p95, goal: minimize, unit: ms}
  constraints: [{metric: ram, max: 4000}]
  change: {max_lines: 40}
judge: {keep_if_equal: simpler, min_delta: 0.5, once: 4}
budget: {stale: 9, time: 2h}
"""
    page = program(Source(make_config(tmp_path, text)))
    for said in (
        "# night\n", "in ms: lower is better", "- `lib/`", "Read `answers/`",
        "pip install -r r.txt",
        "`ram` must not be above 4000", "at most 40 lines", "`pytest -q` must succeed",
        "First take 0.5 off the gain", "z ≥ 4 with one", "removes more lines than it adds is kept",
        "9 experiments in a row were not kept", "2h are over", "commit\tp95\tmemory_gb\tstatus",
        "git reset --hard HEAD~1", "autoresearch/<tag>",
    ):  # fmt: skip
        assert said in page, said
    titles = re.findall(r"^## (.+)$", page, re.M)
    assert titles == ["Setup", "Experimentation", "Output format", "Logging results",
                      "The experiment loop", "The measurement"]  # fmt: skip
    # What the person wrote cannot pass for a command of the page.
    assert "exit 1" not in json.dumps(blocks(page))
    assert "NEVER STOP" not in page
    endless = text.replace("budget: {stale: 9, time: 2h}", "")
    assert "NEVER STOP" in program(Source(make_config(tmp_path, endless)))


def test_a_run_is_exported_with_its_base_and_what_it_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    top = make_repo(tmp_path / "repo")
    config = make_config(tmp_path, CONFIG.replace("repo: .", "repo: repo"), *SHORT)
    launch_inline(config)
    base = git(top, "rev-parse", "HEAD")
    monkeypatch.chdir(top)
    with pytest.raises(SystemExit) as ended:
        main(["export", "program.md"])
    assert ended.value.code == 0
    page = capsys.readouterr().out
    assert f"git checkout -b autoresearch/<tag> {base}" in page
    assert "## What has been tried" in page
    with pytest.raises(SystemExit) as ended:
        main(["export", "program.md", "--out", "p.md", "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert (top / "p.md").read_text() == told["files"]["program.md"] == page
    assert told["form"] == "program.md"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["program"], 2, "did you mean `program.md`?"),
        (["program.md", "no.yaml"], 2, "no.yaml"),
        (["program.md", "nobody"], 3, "no run found"),
        (["program.md", "nobody", "--set", "name=x"], 2, "--set changes a config"),
        (["program.md", "c.yaml", "--out", "none/p.md"], 3, "cannot write none/p.md"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        "target: {scope: [x], run: 'true', metric: {name: x, goal: minimize}}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["export", *words])
    assert ended.value.code == code
    assert said in capsys.readouterr().err


def test_a_number_of_the_last_line_is_refused(tmp_path: Path) -> None:
    (tmp_path / "last.yaml").write_text(
        "target: {scope: [x], run: ls, metric: {name: m, goal: minimize, lines: last}}\n"
    )
    done = swarm(tmp_path, "export", "program.md", "last.yaml")
    assert done.returncode == 2
    assert "read from the last line" in done.stderr


def test_a_file_of_the_users_own_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "target: {scope: [x], run: ls, metric: {name: m, goal: minimize}}\n"
    )
    own = tmp_path / "program.md"
    own.write_text("mine\n")
    done = swarm(tmp_path, "export", "program.md", "c.yaml", "--out", "program.md")
    assert (done.returncode, own.read_text()) == (2, "mine\n")
    own.unlink()
    for _ in range(2):  # what an export has written may be written anew
        done = swarm(tmp_path, "export", "program.md", "c.yaml", "--out", "program.md")
        assert done.returncode == 0, done.stderr


def test_each_of_several_targets_has_its_own_end(tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text(
        "targets:\n"
        "  - {name: a, scope: [x], run: ls, metric: {name: m, goal: minimize}, "
        "budget: {experiments: 12}}\n"
        "  - {name: b, scope: [x], run: ls, metric: {name: m, goal: minimize}}\n"
        "budget: {experiments: 40}\n"
    )
    assert "which target is meant" in swarm(tmp_path, "export", "program.md", "many.yaml").stderr
    one = swarm(tmp_path, "export", "program.md", "many.yaml", "--target", "a").stdout
    two = swarm(tmp_path, "export", "program.md", "many.yaml", "--target", "b").stdout
    assert "stop when 12 experiments" in one
    assert "stop when 40 experiments" in two
