"""A program.md as the target: the inner agent obeys it, and inner runs measure what that brings."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from messages_server import MessagesServer, Reply, turns
from targets import check_nobody_left

from swarm.config import load

TOP = Path(__file__).resolve().parent.parent
META = TOP / "harness" / "meta"
BRIEFING = "<program>\n{program}</program>\n\n## Kept so far\n{rows}\n"


def obey(folder: Path, program: str, params: str, *rows: str) -> str:
    """Have the inner agent make one change; give what it says."""
    folder.mkdir(exist_ok=True)
    (folder / "params.py").write_text(params)
    done = subprocess.run(
        [sys.executable, str(META / "obey.py")],
        cwd=folder,
        input=BRIEFING.format(program=program, rows="\n".join(rows)),
        capture_output=True,
        text=True,
        check=True,
    )
    name, old, new = re.fullmatch(r"(\w+) (\S+) -> (\S+)\n", done.stdout).groups()  # type: ignore[union-attr]
    after = params.replace(f"{name} = {old}", f"{name} = {new}")
    assert (folder / "params.py").read_text() == after != params
    return done.stdout.strip()


PARAMS = "a = 1\nb = 2\nc = 4\nwarm = True\n"


@pytest.mark.parametrize(
    ("program", "rows", "said"),
    [
        ("Multiply it by 3.\n", (), "a 1 -> 3"),
        ("Hello.\n", (), "a 1 -> 1.1"),
        ("Multiply it by 2. Lower a number first.\n", (), "a 1 -> 0.5"),
        ("Multiply it by 2. Start with `c`.\n", (), "c 4 -> 8"),
        ("Multiply it by 2. Leave `a` alone.\n", (), "b 2 -> 4"),
        ("Multiply it by 2.\n", ("#1 discard, gain -0.2: a 1 -> 2",), "b 2 -> 4"),
        ("Multiply it by 2. Go on in a direction that was kept.\n",
         ("#2 keep, gain +0.3: b 1 -> 2", "#1 discard, gain -0.2: a 1 -> 2"), "b 2 -> 4"),
        # Weak words bind less: may never does, should every second time.
        ("Multiply it by 2. You may start with `c`.\n", (), "a 1 -> 2"),
        ("Multiply it by 2. You should start with `c`.\n", (), "c 4 -> 8"),
        ("Multiply it by 2. You should start with `c`.\n",
         ("#1 discard, gain -0.2: b 2 -> 4",), "a 1 -> 2"),
        ("Multiply it by 2. You must start with `c`.\n",
         ("#1 discard, gain -0.2: b 2 -> 4",), "c 4 -> 8"),
    ],
)  # fmt: skip
def test_the_inner_agent_does_what_the_program_says(
    tmp_path: Path, program: str, rows: tuple[str, ...], said: str
) -> None:
    assert obey(tmp_path / "w", program, PARAMS, *rows) == said


def measure(
    folder: Path, program: str, experiments: int, *options: str, **way: str
) -> dict[str, Any]:
    """Measure a program with one short inner run; give the result file."""
    shutil.copytree(META, folder / "meta")
    shutil.copytree(TOP / "harness" / "toy", folder / "toy")
    inner = (
        (META / "inner.yaml").read_text().replace("experiments: 12", f"experiments: {experiments}")
    )
    (folder / "meta" / "inner.yaml").write_text(inner)
    (folder / "meta" / "program.md").write_text(program)
    env = {**os.environ, "SWARM_RESULT": str(folder / "result.json"), "PYTHONPATH": str(TOP), **way}
    done = subprocess.run(
        [sys.executable, "meta.py", "--seeds", "1", *options],
        cwd=folder / "meta",
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads((folder / "result.json").read_text())
    assert f"METRIC gain={told['metrics']['gain']!r}" in done.stdout
    return told


@pytest.mark.timeout(200)
def test_a_better_program_finds_more(tmp_path: Path) -> None:
    """Two real inner runs of two experiments each: small steps, then large ones."""
    gains: list[float] = []
    for factor in ("1.2", "2.4"):
        program = (META / "program.md").read_text().replace("1.2", factor)
        told = measure(tmp_path / factor, program, 2)
        gains.append(told["metrics"]["gain"])
        assert re.search(r"seed 1: \d+\.\d% of the way, \d of 2 experiments kept", told["feedback"])
        assert told["metrics"]["experiments"] == 2
    assert 0 <= gains[0] < gains[1] <= 1
    check_nobody_left()


def test_a_model_can_be_the_inner_agent(tmp_path: Path) -> None:
    def model(request: dict[str, Any]) -> Reply:
        told = json.dumps(request)
        assert "Multiply it by 7." in told  # the program is in its briefing
        old = re.search(r"gain = (\d[\d.]*)", told)
        assert old is not None
        if turns(request) == 0:
            edit = {"path": "params.py", "old": old.group(), "new": "gain = 3.0"}
            return Reply.calling("edit_file", **edit)
        return Reply.calling("submit", summary="gain to 3", rationale="it is best there")

    with MessagesServer(model) as server:
        program = "Multiply it by 7.\n"
        way = {"SWARM_MODEL_URL": server.url, "SWARM_MODEL_TOKEN": "secret"}
        told = measure(tmp_path, program, 1, "--model", "some-model", **way)
        assert server.usage.output > 0
    assert told["metrics"]["gain"] > 0
    assert told["metrics"]["inner_tokens"] > 0


def test_an_inner_run_that_fails_is_no_number(tmp_path: Path) -> None:
    shutil.copytree(META, tmp_path / "meta")
    shutil.copytree(TOP / "harness" / "toy", tmp_path / "toy")
    (tmp_path / "meta" / "inner.yaml").write_text("target: {scope: 3}\n")
    env = {**os.environ, "PYTHONPATH": str(TOP), "SWARM_RESULT": str(tmp_path / "r.json")}
    command = [sys.executable, "meta.py", "--seeds", "1"]
    done = subprocess.run(command, cwd=tmp_path / "meta", env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "seed 1: `" in done.stderr
    assert "ended with 2" in done.stderr
    assert "inner.yaml:1" in done.stderr
    assert not (tmp_path / "r.json").exists()
    assert "METRIC" not in done.stdout


def test_every_seed_has_a_start_of_its_own_that_the_toy_measures_so(tmp_path: Path) -> None:
    meta = runpy.run_path(str(META / "meta.py"))
    starts: set[float] = set()
    for seed in (1, 2, 101):
        floor, start = meta["make_toy"](tmp_path / str(seed), seed)
        out = subprocess.run(
            [sys.executable, "-S", "-E", "measure.py"],
            cwd=tmp_path / str(seed),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert float(out.partition("=")[2]) == pytest.approx(start)
        assert floor < start
        starts.add(start)
    assert len(starts) == 3


def test_the_ideas_fit_on_the_program_and_on_each_other(tmp_path: Path) -> None:
    config = load(TOP / "configs" / "meta.yaml")
    assert config.target.scope == ("program.md",)
    shutil.copyfile(META / "program.md", tmp_path / "program.md")
    before = (tmp_path / "program.md").read_text()
    for patch in config.agents[0].proposer.patches:  # type: ignore[union-attr]
        subprocess.run(["git", "apply", "--unidiff-zero", str(patch)], cwd=tmp_path, check=True)
    assert (tmp_path / "program.md").read_text() != before
