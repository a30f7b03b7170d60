"""The example of pages: a run whose proposals have known fates."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import chromium
import pytest
from targets import check_nobody_left, git, launch_inline
from test_docs import TOP

from swarm import config as configs
from swarm.entities import means
from swarm.proposers.scripted import apply_diff
from swarm.state import RunState

EXAMPLE = TOP / "harness" / "page" / "example"
PATCHES = sorted((EXAMPLE / "patches").iterdir())
FATES = {
    "Show the page before the scripts are there": "keep",
    "Write the style sheet in another order": "discard",
    "Leave the picture out": "constraint_failed",
    "Let everybody read it: contrast, a language, words for the picture": "keep",
    "Keep the picture's place free": "keep",
    "Show Lighthouse's phone another page": "constraint_failed",
}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example and its config in a repository, at the same places as in swarm's own."""
    monkeypatch.setenv("PATH", str(chromium.OWN.parent / ".bin"), prepend=":")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    top = tmp_path / "clone"
    skip = shutil.ignore_patterns("__pycache__", ".swarm", "dist", "node_modules", "reference")
    shutil.copytree(EXAMPLE, top / "harness" / "page" / "example", ignore=skip)
    (top / "configs").mkdir()
    shutil.copy(TOP / "configs" / "page.yaml", top / "configs")
    git(top, "init", "-q", "-b", "main")
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "base")
    return top


def changed(file: Path, *pairs: tuple[str, str]) -> None:
    """Replace what must be there."""
    text = file.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text)


def played(clone: Path, *keys: str) -> RunState:
    keys = ("judge.baseline=2", "judge.confirm=1", *keys)
    _, state = launch_inline(configs.load(clone / "configs" / "page.yaml", keys))
    assert state.phase == "finished"
    assert git(clone, "status", "--porcelain", "--ignored") == "!! .swarm/"
    check_nobody_left()
    return state


def fates(state: RunState) -> dict[str, str | None]:
    return {e.proposal.summary: e.verdict for e in state.experiments.values()}


@pytest.mark.timeout(900)  # half a minute, and several on a machine with much other work
@chromium.needed
def test_a_page_becomes_readable_and_looks_as_it_did(clone: Path) -> None:
    """By what is quickly measured, in two slots: three of the patches, and only the phone."""
    example = clone / "harness" / "page" / "example"
    for patch in PATCHES:
        if patch.name in ("01-defer.diff", "05-size.diff", "06-two-faces.diff"):
            (example / "patches" / patch.name).unlink()
    apply_diff(PATCHES[0].read_text(), example)
    # The second agent's, while the first one tries the two that come to nothing.
    (example / "patches" / "04-read.diff").rename(example / "patches" / "025-read.diff")
    alone = 'assert not list(HERE.glob("reference/*")), "a build sees the references"'
    changed(
        example / "build.py",
        ("range(1900, 2100)", "range(1985, 1987)"),
        ("def main():\n", f"def main():\n    {alone}\n"),
    )
    changed(
        clone / "configs" / "page.yaml",
        ("--reference reference", "--reference reference --sizes 412x823"),
        ("    - {metric: bytes, max_regression: 1%}\n", ""),
        ("    - {metric: performance, max_regression: 10%, goal: maximize}\n", ""),
        ("--runs 3", "--runs 1 --wait 250 --only accessibility"),
        ("--weights fcp=1,cls=1,accessibility=1,seo=1", ""),
    )
    git(clone, "add", "-A")
    git(clone, "commit", "-q", "-m", "quicker")
    state = played(clone, "target.slot.count=2", "agents.0.count=2")
    found = fates(state)
    assert len(found) == 3
    assert found == {summary: FATES[summary] for summary in found}
    (pale,) = (e for e in state.experiments.values() if e.verdict == "constraint_failed")
    assert "pixels_changed" in pale.reason
    (target,) = state.targets.values()
    assert all(means(target, e)["text_changed"] == 0 for e in state.experiments.values())
    base, best = target.primary(target.info.base), target.primary(target.best)
    assert (base.mean, best.mean) == (71, 100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@chromium.needed
def test_every_proposal_meets_its_fate_and_the_wins_add_up(clone: Path) -> None:
    state = played(clone)
    assert fates(state) == FATES
    (target,) = state.targets.values()
    assert len(target.promotions) == 3
    assert target.primary(target.best).mean > target.primary(target.info.base).mean + 30


def test_the_patches_follow_one_from_the_other(clone: Path) -> None:
    """What is kept stays, by hand: a patch that no longer fits is found here, with its name."""
    example = clone / "harness" / "page" / "example"
    for patch in PATCHES:
        before = {path: path.read_text() for path in example.rglob("*.*") if path.is_file()}
        apply_diff(patch.read_text(), example)
        if FATES[patch.read_text().splitlines()[0]] != "keep":
            for path, text in before.items():
                path.write_text(text)
    text = (example / "src" / "index.html").read_text()
    assert all(won in text for won in ("<script defer", 'lang="en"', 'width="640"', "tower.png"))
