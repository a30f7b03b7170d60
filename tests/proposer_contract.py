"""What every proposer must do, whatever it is made of. Subclass `ProposerContract` in its tests.

A subclass says how to build the proposer (`make`) and, if the default does not suit it, which
files the worktree holds. Nothing here measures how good the changes are.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.briefing import Briefing, Idea
from swarm.proposers import Draft, NoProposalError, Proposer, Workspace
from swarm.records import Attempt, MetricSpec
from swarm.scope import Scope

FILES = {
    "train.py": "LEARNING_RATE = 0.001\nDROPOUT = 0.2  # share\nFUSED = True\n",
    "conf/model.yaml": "optimizer:\n  lr: 0.01\n  name: adam\n",
    "README.md": "Not in scope: 5 things.\n",
}
METRIC = MetricSpec(name="loss", goal="minimize")


def brief(seed: int = 1, attempts: tuple[Attempt, ...] = (), **changes: object) -> Briefing:
    """Make a briefing with what a test does not care about filled in."""
    told: dict[str, object] = {
        "run": "r",
        "agent": "a1",
        "metric": METRIC,
        "scope": ("train.py", "conf/"),
        "program": "Make the loss smaller.",
        "seed": seed,
        "incumbent": "c0",
        "incumbent_mean": 2.0,
        "incumbent_se": 0.01,
        "noise": 0.01,
        "attempts": attempts,
    }
    return Briefing.model_validate(told | changes)


def plant(root: Path, files: dict[str, str]) -> Path:
    """Write files below `root`, byte for byte."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode())
    return root


def snapshot(root: Path) -> dict[str, bytes]:
    """Give every file below `root` with its content."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def workspace(
    root: Path, patterns: tuple[str, ...] = ("train.py", "conf/"), seen: list[object] | None = None
) -> Workspace:
    """Open the planted files as a worktree; `seen` holds the snapshots that count as measured."""
    scope = Scope(patterns)
    trees = [snapshot(root), *(seen or [])]

    def measured() -> int | None:
        now = snapshot(root)
        return trees.index(now) if now in trees else None

    files = tuple(sorted(name for name in snapshot(root) if name in scope))
    return Workspace(root, scope, files, measured)


class ProposerContract:
    """The conformance suite."""

    files = FILES
    deterministic = True
    """Whether the same briefing and worktree give the same change."""

    def make(self, tmp_path: Path) -> Proposer:
        """Build a fresh proposer; `tmp_path` is for what it needs on disk."""
        raise NotImplementedError

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Plant the worktree."""
        return plant(tmp_path / "worktree", self.files)

    def test_edits_the_worktree_within_scope(self, root: Path, tmp_path: Path) -> None:
        before = snapshot(root)
        space = workspace(root)
        draft = self.make(tmp_path).propose(space, brief())
        after = snapshot(root)
        changed = {n for n in before | after if before.get(n) != after.get(n)}
        assert changed
        assert all(name in space.scope for name in changed)
        assert space.measured() is None
        assert isinstance(draft, Draft)

    def test_says_what_it_did_in_one_line(self, root: Path, tmp_path: Path) -> None:
        draft = self.make(tmp_path).propose(workspace(root), brief())
        assert draft.summary.strip()
        assert draft.summary.isprintable()  # no line break, no control sequence
        assert json.loads(json.dumps(draft.edit)) == draft.edit
        assert draft.usage.usd >= 0
        assert draft.usage.seconds >= 0

    def test_gives_the_same_change_to_the_same_briefing(self, root: Path, tmp_path: Path) -> None:
        if not self.deterministic:
            pytest.skip("not a deterministic proposer")
        first = self.make(tmp_path).propose(workspace(root), brief(seed=7))
        result = snapshot(root)
        for name in result:
            (root / name).unlink()
        plant(root, self.files)
        second = self.make(tmp_path).propose(workspace(root), brief(seed=7))
        assert snapshot(root) == result
        assert first.summary == second.summary

    def test_survives_history_of_other_proposers(self, root: Path, tmp_path: Path) -> None:
        strange = (None, {}, {"site": 3}, {"site": "x:y", "from": [1], "to": {"a": None}})
        attempts = tuple(
            Attempt(
                number=n,
                agent="other",
                base="c0",
                tree=f"t{n}",
                summary="something\x1b[31m",
                verdict=verdict,
                gain=gain,
                edit=edit,
            )
            for n, (edit, verdict, gain) in enumerate(
                zip(
                    strange * 2,
                    ("keep", "crash", None, "discard", "invalid", "duplicate", "aborted", "keep"),
                    (0.1, None, None, 0.0, None, None, None, -1e9),
                    strict=True,
                ),
                start=1,
            )
        )
        assert self.make(tmp_path).propose(workspace(root), brief(attempts=attempts)).summary

    def test_accepts_an_idea_to_port(self, root: Path, tmp_path: Path) -> None:
        idea = Idea(number=4, summary="x", rationale="", diff="nonsense", edit={"site": "no:such"})
        draft = self.make(tmp_path).propose(workspace(root), brief(port=idea))
        assert draft.port_of in (None, 4)

    def test_refuses_only_with_its_own_error(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        reason = ""
        try:
            self.make(tmp_path).propose(workspace(empty, ("nothing/",)), brief())
        except NoProposalError as error:
            reason = error.reason
        assert reason or snapshot(empty)  # a proposer may create files
