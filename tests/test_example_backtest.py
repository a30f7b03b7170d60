"""The example of the backtest harness: a run whose seven proposals have known fates."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from landlock import walled
from targets import check_nobody_left, fold, git, launch_inline
from test_docs import TOP

from swarm import config as configs
from swarm.findings import headline
from swarm.sandbox import probe
from swarm.state import RunState

EXAMPLE = TOP / "harness" / "backtest" / "example"
FATES = {
    "Who plays at home has an advantage": "keep",
    "Let a match move the ratings further": "keep",
    "Trust the ratings twice as much": "discard",
    "Halve all distances between two seasons": "keep",
    "Look whether the result is there already": "invalid",
    "Answer for the next match, too": "invalid",
    "Hardly ever foresee a draw": "discard",
}

pytestmark = walled


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The example and its config in a repository, at the same places as in swarm's own."""
    top = tmp_path / "clone"
    skip = shutil.ignore_patterns("__pycache__", ".swarm")
    shutil.copytree(EXAMPLE, top / "harness" / "backtest" / "example", ignore=skip)
    (top / "configs").mkdir()
    shutil.copy(TOP / "configs" / "backtest.yaml", top / "configs")
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "base")
    return top


def launched(clone: Path, *sets: str) -> RunState:
    config = configs.load(clone / "configs" / "backtest.yaml", ["judge.confirm=1", *sets])
    opened, state = launch_inline(config)
    assert fold(opened).phase == "finished"
    assert git(clone, "status", "--porcelain", "--ignored") == "!! .swarm/"
    check_nobody_left()
    return state


def test_every_proposal_meets_its_fate_and_the_wins_hold_later(clone: Path) -> None:
    state = launched(clone)
    found = {e.proposal.summary: e.verdict for e in state.experiments.values()}
    fates = dict(FATES)
    if probe("auto").name != "bubblewrap":  # elsewhere an export has no place that can be guessed
        fates["Look whether the result is there already"] = "discard"
    assert found == fates
    reasons = {e.proposal.summary: e.reason or "" for e in state.experiments.values()}
    if probe("auto").name == "bubblewrap":
        looked = reasons["Look whether the result is there already"]
        assert "ended over outcomes.jsonl, which no candidate may read" in looked
    assert "before it was asked" in reasons["Answer for the next match, too"]
    (target,) = state.targets.values()
    assert len(target.promotions) == 3
    base, best = target.sealed[target.info.base], target.sealed[target.best]
    assert best[0] < base[0] - 0.05, "the season that no proposal was judged by"


def test_what_was_learnt_by_heart_is_found_out_at_the_end(clone: Path) -> None:
    example = "../harness/backtest/example"
    proposer = f"agents=[{{count: 1, proposer: {{kind: scripted, patches: {example}/by-heart}}}}]"
    state = launched(clone, proposer, "budget.experiments=1")
    assert [e.verdict for e in state.experiments.values()] == ["keep"]
    (target,) = state.targets.values()
    of = headline(target, None)
    assert of.search is not None
    assert of.search.best_mean < 0.01
    assert of.confirmed is not None
    assert of.confirmed.gain == 0
    assert {(doubt.of, doubt.kind) for doubt in of.doubts} >= {("confirmed", "shrunk")}


def test_the_matches_are_those_that_the_script_makes(clone: Path) -> None:
    example = clone / "harness" / "backtest" / "example"
    names = ("events.jsonl", "outcomes.jsonl", "past/events.jsonl", "past/outcomes.jsonl")
    kept = {name: (example / name).read_bytes() for name in names}
    for name in names:
        (example / name).unlink()
    subprocess.run([sys.executable, "league.py"], cwd=example, check=True)
    assert {name: (example / name).read_bytes() for name in names} == kept
