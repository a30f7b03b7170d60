from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proposer_contract import FILES, ProposerContract, brief, plant, snapshot, workspace

from swarm.proposers import ExhaustedError, NoProposalError
from swarm.proposers.scripted import PatchError, Scripted, apply_diff
from swarm.records import Attempt

DIFF = """Halve the learning rate

diff --git a/train.py b/train.py
--- a/train.py
+++ b/train.py
@@ -1,3 +1,3 @@
-LEARNING_RATE = 0.001
+LEARNING_RATE = 0.0005
 DROPOUT = 0.2  # share
 FUSED = True
"""


def attempts(*agents: str) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(number=n, agent=a, base="c", tree=None, summary="", verdict=None)
        for n, a in enumerate(agents, start=1)
    )


class TestContract(ProposerContract):
    def make(self, tmp_path: Path) -> Scripted:
        patch = tmp_path / "one.diff"
        patch.write_text(DIFF)
        return Scripted([patch])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return plant(tmp_path / "worktree", FILES)


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    folder = tmp_path / "patches"
    folder.mkdir()
    for index in range(5):
        script = {"summary": f"patch {index}", "files": {"train.py": f"X = {index}\n"}}
        (folder / f"{index}.json").write_text(json.dumps(script))
    (folder / "notes.txt").write_text("not a patch")
    return folder


def test_a_diff_is_applied_and_named_by_its_leading_line(root: Path, tmp_path: Path) -> None:
    patch = tmp_path / "p.diff"
    patch.write_text(DIFF)
    draft = Scripted([patch]).propose(workspace(root), brief())
    assert draft.summary == "Halve the learning rate"
    assert (root / "train.py").read_text().startswith("LEARNING_RATE = 0.0005\nDROPOUT")


def test_a_diff_without_words_is_named_by_its_file(root: Path, tmp_path: Path) -> None:
    patch = tmp_path / "halve.patch"
    patch.write_text(DIFF.partition("\n\n")[2])
    assert Scripted([patch]).propose(workspace(root), brief()).summary == "halve.patch"


def test_the_history_says_which_patch_is_next(root: Path, patches: Path) -> None:
    for done in range(5):
        told = brief(attempts=attempts(*["a2", "a1"] * done, "a2"))
        # A new object each time: nothing is remembered, so a resumed run goes on where it was.
        assert Scripted([patches]).propose(workspace(root), told).summary == f"patch {done}"
    told = brief(attempts=attempts(*["a1"] * 5))
    with pytest.raises(ExhaustedError, match="all 5 patches"):
        Scripted([patches]).propose(workspace(root), told)
    assert Scripted([patches], loop=True).propose(workspace(root), told).summary == "patch 0"


def test_agents_of_a_group_share_the_patches_out(root: Path, patches: Path) -> None:
    taken: list[str] = []
    for index in range(2):
        agent = f"a{index + 1}"
        proposer = Scripted((patches,), index, 2, False)
        for done in range(3):
            told = brief(agent=agent, attempts=attempts(*[agent] * done))
            try:
                taken.append(proposer.propose(workspace(root), told).summary)
            except ExhaustedError:
                assert (index, done) == (1, 2)
    assert sorted(taken) == [f"patch {n}" for n in range(5)]


def test_more_agents_than_patches(root: Path, patches: Path) -> None:
    with pytest.raises(ExhaustedError):
        Scripted([patches], 7, 9, True).propose(workspace(root), brief())


def test_a_patch_that_does_not_apply_is_passed_over(root: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "b.diff", tmp_path / "a.diff"
    bad.write_text(DIFF.replace("DROPOUT = 0.2", "DROPOUT = 0.3"))
    good.write_text(DIFF)
    proposer = Scripted([bad, good])
    before = snapshot(root)
    with pytest.raises(NoProposalError, match=r"a\.diff does not apply: .*train\.py:1"):
        proposer.propose(workspace(root), brief())
    assert snapshot(root) == before
    proposer.propose(workspace(root), brief(attempts=attempts("a1")))
    assert "0.0005" in (root / "train.py").read_text()


def test_a_json_patch_writes_deletes_costs_and_fails(root: Path, tmp_path: Path) -> None:
    script = {
        "summary": "s",
        "rationale": "r",
        "files": {"new/deep.py": "X = 1\r\n", "train.py": None},
        "usd": 0.5,
        "sleep": 0.05,
    }
    (tmp_path / "1.json").write_text(json.dumps(script))
    (tmp_path / "2.json").write_text(json.dumps({"fail": "no idea left", "usd": 0.25}))
    (tmp_path / "3.json").write_text(json.dumps({"sumary": "a slip"}))
    proposer = Scripted([tmp_path / f"{n}.json" for n in (1, 2, 3)])
    draft = proposer.propose(workspace(root), brief())
    assert (draft.summary, draft.rationale, draft.usage.usd) == ("s", "r", 0.5)
    assert draft.usage.seconds >= 0.05
    assert not (root / "train.py").exists()
    assert (root / "new/deep.py").read_bytes() == b"X = 1\r\n"
    with pytest.raises(NoProposalError, match="no idea left") as caught:
        proposer.propose(workspace(root), brief(attempts=attempts("a1")))
    assert caught.value.usage.usd == 0.25
    with pytest.raises(NoProposalError, match="sumary"):
        proposer.propose(workspace(root), brief(attempts=attempts("a1", "a1")))


@pytest.mark.parametrize("name", ["../out.py", "/etc/x", "a/../../x", ".git/config", "link/x.py"])
def test_nothing_outside_the_target_is_touched(root: Path, tmp_path: Path, name: str) -> None:
    (root / "link").symlink_to(tmp_path)
    script = tmp_path / "p.json"
    script.write_text(json.dumps({"files": {name: "x"}}))
    before = snapshot(tmp_path)
    with pytest.raises(NoProposalError, match="path"):
        Scripted([script]).propose(workspace(root), brief())
    with pytest.raises(PatchError, match="path"):
        apply_diff(f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\n", root)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("diff", "reason"),
    [
        ("no diff at all", "no diff"),
        (DIFF.replace("@@ -1,3", "@@ -2,3"), "not those"),
        (DIFF.replace(" FUSED = True\n", ""), "cut off"),
        (DIFF.replace("-1,3 +1,3", "-1,3 +1,2"), "add up"),
        (DIFF.replace("train.py", "absent.py"), "does not exist"),
        ("diff --git a/x b/x\nBinary files a/x and b/x differ\n", "binary"),
        ("--- /dev/null\n+++ b/train.py\n@@ -0,0 +1 @@\n+x\n", "exists already"),
        ("--- a/train.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-LEARNING_RATE = 0.001\n", "more lines"),
    ],
)
def test_what_does_not_fit_exactly_is_refused_whole(root: Path, diff: str, reason: str) -> None:
    before = snapshot(root)
    fine = "--- a/README.md\n+++ b/README.md\n@@ -1 +1 @@\n-Not in scope: 5 things.\n+Z\n"
    with pytest.raises(PatchError, match=reason):
        apply_diff(diff, root)
    if "no diff" not in reason:
        with pytest.raises(PatchError):
            apply_diff(fine + diff, root)
    assert snapshot(root) == before


LINES = st.lists(st.sampled_from(["a\n", "b\n", "\n", "d\r\n", "- x\n", "+ y\n"]), max_size=30)
TEXTS = st.builds(lambda ls, end: ("".join(ls) + end).encode(), LINES, st.sampled_from(["", "z"]))
NAMES = st.sampled_from(["a", "b c", "d/e", "ü", "f"])


@settings(max_examples=12, deadline=None)
@given(
    before=st.dictionaries(NAMES, TEXTS, max_size=3),
    after=st.dictionaries(NAMES, TEXTS, max_size=3),
)
def test_diffs_of_git_are_reproduced_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    repo = tmp_path_factory.mktemp("repo")

    def git(*argv: str) -> str:
        done = subprocess.run(["git", *argv], cwd=repo, capture_output=True, check=True)
        return done.stdout.decode()

    def store(files: dict[str, bytes]) -> str:
        plant(repo, {name: content.decode() for name, content in files.items()})
        git("add", "--all", ".")
        tree = git("write-tree").strip()
        for name in files:
            (repo / name).unlink()
        return tree

    git("init", "--quiet")
    trees = [store(before), store(after)]
    diff = git("-c", "core.quotePath=false", "diff", "-M", *trees)
    target = plant(tmp_path_factory.mktemp("target"), {n: b.decode() for n, b in before.items()})
    if diff:
        apply_diff(diff, target)
    assert snapshot(target) == after
