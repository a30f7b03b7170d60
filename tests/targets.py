"""Small real targets for tests: a git repository, something to measure, a config."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil

from swarm.config import RunConfig, parse
from swarm.coordinator import Coordinator
from swarm.launch import Opened, open_run
from swarm.ledger import read
from swarm.runtime import Inline
from swarm.state import RunState

MEASURE = """
import math, os, random, sys, time
values = {}
for name in sorted(os.listdir("parts")):
    exec(open(f"parts/{name}").read(), {}, values)
loss = 1.0 + sum(math.log(v / 2.0) ** 2 for v in values.values())
time.sleep(float(os.environ.get("SLEEP", "0")))
noise = float(os.environ.get("NOISE", "0"))
loss += random.Random(os.environ["SWARM_SEED"] + str(sorted(values.items()))).gauss(0, noise)
print(f"METRIC loss={loss!r}")
"""
"""Each constant's best value is 2, and they do not interact: all wins add up."""

PARTS = {
    "a.py": "ALPHA = 0.25\nANGLE = 9.0\n",
    "b.py": "BETA = 16.0\n",
    "c.py": "GAMMA = 0.1\n",
    "d.py": "DELTA = 7.0\n",
}

CONFIG = """
target:
  repo: .
  scope: [parts/]
  run: python3 -S -E measure.py
  metric: {name: loss, goal: minimize}
  timeout: 20s
  slot: {count: 2}
agents: [{count: 3, proposer: mutate}]
judge: {baseline: 3, confirm: 3}
budget: {experiments: 12}
"""


def git(top: Path, *args: str) -> str:
    """Run the user's git, as the user would."""
    who = ["-c", "user.name=user", "-c", "user.email=user@example.invalid"]
    done = subprocess.run(["git", *who, *args], cwd=top, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_repo(top: Path, files: dict[str, str] | None = None) -> Path:
    """Make a repository with one commit."""
    top.mkdir(parents=True, exist_ok=True)
    contents = files or {"measure.py": MEASURE, **{f"parts/{n}": t for n, t in PARTS.items()}}
    for name, text in contents.items():
        file = top / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "base")
    return top


def make_config(top: Path, text: str = CONFIG, *sets: str, name: str = "toy") -> RunConfig:
    """Load a config that lies beside the repository, so that the tree stays clean."""
    return parse(textwrap.dedent(text), top / f"{name}.yaml", sets)


def make_patches(folder: Path, patches: list[dict[str, Any]]) -> Path:
    """Write scripted patches; each is `{"summary": ..., "files": {...}}`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, patch in enumerate(patches):
        (folder / f"{i:03d}.json").write_text(json.dumps(patch))
    return folder


def launch_inline(config: RunConfig, name: str | None = None) -> tuple[Opened, RunState]:
    """Launch and run to the end in this process."""
    opened = open_run(config, name=name, wait_s=5)
    coordinator = Coordinator(opened.rundir, opened.config, Inline(), prefixes=opened.prefixes)
    return opened, coordinator.run()


def fold(opened: Opened) -> RunState:
    """Read the state back from the ledger."""
    return RunState(read(opened.rundir.ledger))


def measure_by_hand(top: Path, commit: str, folder: Path) -> float:
    """Check a commit out and run the harness on it, without swarm."""
    shutil.rmtree(folder, ignore_errors=True)
    git(top, "worktree", "add", "-q", "--detach", str(folder), commit)
    try:
        out = subprocess.run(
            ["python3", "-S", "-E", "measure.py"],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "SWARM_SEED": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    finally:
        git(top, "worktree", "remove", "--force", str(folder))
    return float(out.split("METRIC loss=")[1])


def processes_with(text: str) -> list[str]:
    """Find processes whose command line or environment mentions `text`, this one apart."""
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            said = words + " ".join(process.environ().values())
        except psutil.Error:
            continue
        if text in said and process.pid != os.getpid():
            found.append(f"{process.pid} {words[:200]}")
    return found


def check_nobody_left(text: str | None = None, within_s: float = 15) -> None:
    """Nothing of a run in this test's scratch may be alive, or nothing that mentions `text`."""
    mark, deadline = text or os.environ["SWARM_SCRATCH"], time.monotonic() + within_s
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
