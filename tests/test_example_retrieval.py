"""The examples of retrieval and discovery: runs whose proposals have known fates."""

from __future__ import annotations

import json
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
from swarm.state import RunState

HARNESS = TOP / "harness" / "retrieval"
AGAIN = "Look at four times as many hits"
SEARCH = [
    (AGAIN, "discard"),
    ("Be content with some of the words", "keep"),
    ("Double what is called like a word of the query", "discard"),
    ("Fuse by rank and not by score", "keep"),
    ("Double what is in a module or class that the query names", "discard"),
    ("Weigh the text more than the names", "keep"),
    (AGAIN, "keep"),
]
SHELF = [
    ("Show anything", "constraint_failed"),
    ("Let variety weigh as much as the score", "constraint_failed"),
    ("Let variety weigh a fifth", "keep"),
    ("Put what sells well first", "constraint_failed"),
]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The examples and their configs in a repository, at the same places as in swarm's own."""
    top = tmp_path / "clone"
    skip = shutil.ignore_patterns("__pycache__", ".swarm", "index")
    for name in ("example", "discovery"):
        shutil.copytree(HARNESS / name, top / "harness" / "retrieval" / name, ignore=skip)
    (top / "configs").mkdir()
    for name in ("retrieval.yaml", "discovery.yaml"):
        shutil.copy(TOP / "configs" / name, top / "configs")
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "base")
    # `python` must be one that has numpy, as where swarm's environment is active.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    return top


def launch(clone: Path, name: str) -> tuple[Opened, RunState]:
    file = clone / "configs" / name
    opened, state = launch_inline(configs.load(file, ["judge.confirm=1"]))
    assert fold(opened).phase == "finished"
    assert git(clone, "status", "--porcelain") == ""
    check_nobody_left()
    return opened, state


def fates(state: RunState) -> list[tuple[str, str | None]]:
    """Give summary and verdict of all experiments, in their order."""
    return [(e.proposal.summary, e.verdict) for _, e in sorted(state.experiments.items())]


def test_a_search_gets_better_and_what_failed_is_kept_when_it_is_tried_again(clone: Path) -> None:
    opened, state = launch(clone, "retrieval.yaml")
    assert fates(state) == SEARCH
    first, again = state.experiments[1], state.experiments[7]
    assert first.proposal.diff == again.proposal.diff, "the same change"
    (target,) = state.targets.values()
    assert (first.level, again.level, len(target.promotions)) == (0, 3, 4)
    ends = [e.measurement for e in read(opened.rundir.ledger) if isinstance(e, Measured)]
    values = {end.commit: dict(end.values) for end in ends}
    base, best = values[target.info.base], values[target.best]
    assert best["combined"] > base["combined"] + 0.1
    assert all(best[name] > base[name] for name in ("hit_rate", "mrr", "ndcg", "recall"))
    assert all(0 < found["latency_ms"] < 500 for found in (base, best))
    sealed = {end.commit: end.sealed.values["combined"] for end in ends if end.sealed is not None}
    assert sealed[target.best] > sealed[target.info.base] + 0.05, "also by what was held out"


def test_lists_get_more_varied_and_no_less_relevant(clone: Path) -> None:
    _, state = launch(clone, "discovery.yaml")
    assert fates(state) == SHELF
    (target,) = state.targets.values()
    assert len(target.promotions) == 1


def test_the_patches_fit_each_other(tmp_path: Path) -> None:
    """What is kept applies in its order, and every patch to what it is proposed on."""
    place = tmp_path / "example"
    shutil.copytree(HARNESS / "example", place, ignore=shutil.ignore_patterns("index"))
    for patch, (summary, fate) in zip(sorted((place / "patches").iterdir()), SEARCH, strict=True):
        text = patch.read_text()
        assert text.splitlines()[0] == summary
        before = {f: f.read_bytes() for f in (place / "search").iterdir() if f.is_file()}
        apply_diff(text, place)
        if fate == "discard":
            shutil.rmtree(place / "search")
            (place / "search").mkdir()
            for file, data in before.items():
                file.write_bytes(data)


@pytest.mark.parametrize("example", ["example", "discovery"])
def test_the_queries_are_those_of_the_golden_set(example: str) -> None:
    program = [sys.executable, str(HARNESS / "retrieval.py"), "check"]
    files = [str(HARNESS / example / name) for name in ("golden.jsonl", "queries.jsonl")]
    done = subprocess.run([*program, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_the_golden_set_names_is_in_the_corpus() -> None:
    """On this version of Python: an id that is in none is a slip of the pen."""
    code = "import build, json; print(json.dumps([c.id for c in build.corpus()]))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=HARNESS / "example", capture_output=True, text=True, check=True,
    )  # fmt: skip
    known = set(json.loads(done.stdout))
    assert len(known) > 4000
    lines = (HARNESS / "example" / "golden.jsonl").read_text().splitlines()
    named = {name for li in lines if not li.startswith("#") for name in json.loads(li)["relevant"]}
    assert named - known <= {"pathlib.Path.walk"}, "which came with Python 3.12"
