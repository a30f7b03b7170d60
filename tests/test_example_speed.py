"""The example of the speed harness: a run whose ten proposals have known fates."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from targets import check_nobody_left, fold, git, launch_inline
from test_docs import TOP

from swarm import config as configs
from swarm.launch import Opened
from swarm.ledger import read
from swarm.proposers.scripted import apply_diff
from swarm.records import Measured

EXAMPLE = TOP / "harness" / "speed" / "example"
FATES = {
    "Take expressions apart once": "keep",
    "Escape whole texts": "keep",
    "Use a steadier clock": "discard",
    "Join pieces, and count through the tokens": "keep",
    "Find tokens with one expression": "keep",
    "Let the formatter group the digits": "guard_failed",
    "Find mistakes before anything is rendered": "discard",
    "Look names up in the outer scope instead of copying it": "keep",
    "Remember the pages that were rendered": "discard",
    "Remember pages by a short fingerprint": "crash",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The example and its configs in a repository, at the same places as in swarm's own."""
    top = tmp_path / "clone"
    skip = shutil.ignore_patterns("__pycache__", ".swarm")
    shutil.copytree(EXAMPLE, top / "harness" / "speed" / "example", ignore=skip)
    (top / "configs").mkdir()
    for name in ("speed.yaml", "speed-allocations.yaml"):
        shutil.copy(TOP / "configs" / name, top / "configs")
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "base")
    return top


@pytest.mark.skipif("sys.platform != 'linux'", reason="NO GLIBC HERE: nothing counts allocations")
def test_every_proposal_meets_its_fate_and_the_wins_add_up(clone: Path) -> None:
    """By allocations: their number is the same on a busy machine."""
    file = clone / "configs" / "speed-allocations.yaml"
    text = file.read_text()
    assert "--memory 3" in text
    file.write_text(text.replace("--memory 3", "--memory 1"))  # counting is what takes long
    git(clone, "commit", "-q", "-a", "-m", "quicker")
    opened, state = launch_inline(configs.load(file, ["judge.confirm=1"]))
    assert fold(opened).phase == "finished"
    found = {e.proposal.summary: e.verdict for e in state.experiments.values()}
    assert found == FATES
    (target,) = state.targets.values()
    assert len(target.promotions) == 5
    values = finals(opened)
    base, best = values[target.info.base], values[target.best]
    assert best["allocations"] < 0.4 * base["allocations"]
    assert best["cpu_relative"] < 0.6 * base["cpu_relative"], "less time, too"
    assert git(clone, "status", "--porcelain", "--ignored") == "!! .swarm/"
    logs = [path.read_text() for path in opened.rundir.logs.rglob("*.log")]
    assert sum("is wrong, says --check" in log for log in logs) == 1, "the one that crashed"
    check_nobody_left()


def finals(opened: Opened) -> dict[str, dict[str, float]]:
    """Give what base and best were, measured afresh at the end, by commit."""
    events = [event for event in read(opened.rundir.ledger) if isinstance(event, Measured)]
    ends = [event.measurement for event in events if event.purpose == "final"]
    return {end.commit: dict(end.values) for end in ends}


def test_the_config_by_time_measures_the_same_engine() -> None:
    by_time, by_count = (
        configs.load(TOP / "configs" / name) for name in ("speed.yaml", "speed-allocations.yaml")
    )
    assert by_time.targets[0].guard == by_count.targets[0].guard
    assert by_time.targets[0].scope == by_count.targets[0].scope
    assert by_time.agents == by_count.agents


def test_together_the_patches_leave_an_engine_that_is_right(clone: Path) -> None:
    """The guard, by hand: a patch that no longer fits is found here, with its name."""
    example = clone / "harness" / "speed" / "example"
    kept = [summary for summary, fate in FATES.items() if fate == "keep"]
    for patch in sorted((EXAMPLE / "patches").iterdir()):
        text = patch.read_text()
        assert text.splitlines()[0] in FATES
        if text.splitlines()[0] in kept:
            apply_diff(text, example)
    guard = [sys.executable, "-B", "-m", "unittest", "-q", "test_template"]
    done = subprocess.run(guard, cwd=example, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
