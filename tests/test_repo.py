"""Real git in temporary directories, one of them with a path that nobody would choose."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from swarm.errors import GitError, PreconditionError, RepositoryError
from swarm.repo import (
    NO_OBJECT,
    Conflict,
    Hub,
    Identity,
    Mirror,
    Rejected,
    Snapshot,
    Source,
    Worktree,
    apply,
    create_hub,
    create_run_ignore,
    git_version,
    inspect,
    is_ancestor,
    read_file,
    tracked_files,
)
from swarm.repo import process as repo_process
from swarm.scope import Scope

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
A1 = Identity("swarm a1", "a1@swarm.invalid")
BEST = "refs/heads/swarm/r/best"


def git(cwd: Path, *args: str, env: dict[str, str] | None = None) -> str:
    """Run git as the user does."""
    done = subprocess.run(
        ["git", "-c", "user.name=u", "-c", "user.email=u@example.org", *args],
        cwd=cwd,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", **(env or {})},
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write(top: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)


def make_repo(top: Path, files: dict[str, str]) -> Path:
    top.mkdir(parents=True)
    git(top, "init", "-q", "-b", "main")
    write(top, files)
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "base")
    return top


def picture(top: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a directory: mode, modification time, content."""
    found: dict[str, tuple[int, int, bytes]] = {}
    for folder, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = Path(folder, name)
            info = path.lstat()
            if path.is_symlink():
                content = os.fsencode(os.readlink(path))
            else:
                content = path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(top))] = (info.st_mode, info.st_mtime_ns, content)
    return found


@dataclass
class Rig:
    """A user's repository with all that a run hangs on it."""

    top: Path
    source: Source
    hub: Hub
    mirror: Mirror
    tree: Worktree

    def propose(self, files: dict[str, str], *, base: str | None = None) -> str:
        """Commit an edit of an agent and bring it to the hub."""
        base = base or self.source.base
        self.tree.reset(base)
        write(self.tree.path, files)
        found = self.tree.snapshot(base, "", Scope(["**"]))
        assert isinstance(found, Snapshot), found
        commit = self.tree.commit(found.tree, base, "edit\n", AT)
        self.hub.unpack(self.tree.pack(commit, [base]))
        return commit

    def check(self, *patterns: str, **limits: int) -> Snapshot | Rejected:
        return self.tree.snapshot(self.source.base, self.source.prefix, Scope(patterns), **limits)


def make_rig(room: Path, files: dict[str, str], *, prefix: str = "") -> Rig:
    top = make_repo(room / "repo", files)
    source = inspect(top / prefix)
    create_hub({"": source}, room / "hub.git", "r")
    hub = Hub(room / "hub.git", "r")
    mirror = Mirror.create(room / "mirror.git", hub.bundle([source.base]))
    tree = mirror.worktree("a1", room / "trees" / "a1", source.base, A1)
    return Rig(top, source, hub, mirror, tree)


FILES = {
    "train.py": "".join(f"line {i}\n" for i in range(30)),
    "lib/model.py": "model = 1\n",
    "lib/data.py": "data = 1\n",
    ".gitignore": "*.log\n",
}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return make_rig(tmp_path / "a b", FILES)


# --- the user's repository ---------------------------------------------------------------------


def test_inspect_and_hub_leave_the_users_repository_as_it_was(tmp_path: Path) -> None:
    top = make_repo(tmp_path / 'it\'s a "repo", naïve: 1', FILES)
    git(top, "branch", "other")
    git(top, "tag", "v1")
    (top / "untracked.txt").write_text("mine")
    os.utime(top / "train.py", ns=(1, 1))  # stat-dirty: a careless git would refresh the index
    before = picture(top)
    source = inspect(top)
    create_hub({"": source}, tmp_path / "out" / "hub.git", "r")
    create_hub({"": source}, tmp_path / "out" / "hub.git", "r")
    assert picture(top) == before
    assert (source.top, source.prefix, source.snapshot) == (top, "", False)
    hub = Hub(tmp_path / "out" / "hub.git", "r")
    assert hub.refs() == {"refs/swarm/r/base": source.base}
    assert hub.tree(source.base) == source.base_tree
    assert os.listdir(tmp_path / "out") == ["hub.git"]
    assert not (hub.path / "objects/info/alternates").exists()
    shutil.rmtree(top)
    assert git(hub.path, "fsck", "--full") == ""


def test_snapshot_takes_what_is_on_disk_and_writes_nothing(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "we ird", FILES)
    write(top, {"staged.py": "staged\n"})
    git(top, "add", "staged.py")
    write(top, {"train.py": "edited\n", "new.py": "new\n", "x.log": "ignored\n"})
    (top / "lib/data.py").unlink()
    create_run_ignore(top / ".swarm")
    before = picture(top)
    with pytest.raises(RepositoryError, match=r"uncommitted changes: .*train\.py") as caught:
        inspect(top)
    assert "dirty: snapshot" in (caught.value.hint or "")
    source = inspect(top, dirty="snapshot")
    create_hub({"": source}, tmp_path / "hub.git", "r")
    assert picture(top) == before
    assert source.snapshot
    assert source.base != git(top, "rev-parse", "HEAD")
    assert inspect(top, dirty="snapshot").base == source.base
    names = git(tmp_path / "hub.git", "ls-tree", "-r", "--name-only", source.base).split("\n")
    assert names == [".gitignore", "lib/model.py", "new.py", "staged.py", "train.py"]
    assert read_file(tmp_path / "hub.git", source.base, "train.py") == b"edited\n"
    shutil.rmtree(top)
    assert git(tmp_path / "hub.git", "fsck", "--full") == ""


def test_a_clean_tree_needs_no_snapshot(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo", FILES)
    create_run_ignore(top / ".swarm")
    create_run_ignore(top / ".swarm")
    write(top, {".swarm/runs/r/ledger.jsonl": ""})
    assert not inspect(top, dirty="snapshot").snapshot
    assert git(top, "status", "--porcelain") == ""


def test_another_base_than_head_is_measured_as_committed(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo", FILES)
    first = git(top, "rev-parse", "HEAD")
    write(top, {"train.py": "second\n"})
    git(top, "commit", "-qam", "second")
    write(top, {"train.py": "third\n"})
    assert inspect(top, "HEAD~1").base == first


def test_a_target_in_a_subdirectory_of_a_linked_worktree(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "main", FILES)
    git(top, "worktree", "add", "-q", str(tmp_path / "linked"))
    source = inspect(tmp_path / "linked" / "lib")
    assert (source.top, source.git_dir, source.prefix) == (tmp_path / "linked", top / ".git", "lib")


def test_a_snapshot_of_a_linked_worktree_has_its_own_files(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "main", FILES)
    git(top, "worktree", "add", "-q", str(tmp_path / "linked"))
    write(tmp_path / "linked", {"new.py": "1\n", "train.py": "changed\n"})
    git(tmp_path / "linked", "add", "new.py")
    source = inspect(tmp_path / "linked", dirty="snapshot")
    assert set(tracked_files(source)) == {*FILES, "new.py"}


def test_a_shallow_clone_goes_all_the_way(tmp_path: Path) -> None:
    origin = make_repo(tmp_path / "origin", FILES)
    for i in range(3):
        write(origin, {"train.py": f"{i}\n"})
        git(origin, "commit", "-qam", str(i))
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{origin}", "repo")
    source = inspect(tmp_path / "repo")
    create_hub({"": source}, tmp_path / "hub.git", "r")
    hub = Hub(tmp_path / "hub.git", "r")
    mirror = Mirror.create(tmp_path / "mirror.git", hub.bundle([source.base]))
    tree = mirror.worktree("a1", tmp_path / "a1", source.base, A1)
    rig = Rig(tmp_path / "repo", source, hub, mirror, tree)
    best = rig.propose({"train.py": "better\n"})
    hub.update_refs([(BEST, best, NO_OBJECT)])
    before = (source.git_dir / "shallow").read_bytes()
    hub.deliver(source.git_dir, BEST)
    assert (source.git_dir / "shallow").read_bytes() == before
    assert git(rig.top, "rev-parse", BEST) == best
    git(rig.top, "fsck", "--full")


def bare(top: Path) -> None:
    git(top.parent, "clone", "-q", "--bare", str(top), str(top) + ".git")
    shutil.rmtree(top)
    os.rename(str(top) + ".git", top)


def empty(top: Path) -> None:
    shutil.rmtree(top)
    top.mkdir()
    git(top, "init", "-q")


def submodule(top: Path) -> None:
    head = git(top, "rev-parse", "HEAD")
    git(top, "update-index", "--add", "--cacheinfo", f"160000,{head},vendor/sub")
    git(top, "commit", "-q", "-m", "submodule")
    git(top, "update-index", "--force-remove", "vendor/sub")
    git(top, "reset", "-q")


def lfs(top: Path) -> None:
    write(top, {"data/.gitattributes": "# no\n*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "lfs")


def conflicted_merge(top: Path) -> None:
    git(top, "checkout", "-q", "-b", "side")
    write(top, {"train.py": "side\n"})
    git(top, "commit", "-qam", "side")
    git(top, "checkout", "-q", "main")
    write(top, {"train.py": "main\n"})
    git(top, "commit", "-qam", "main")
    who = ["-c", "user.name=user", "-c", "user.email=user@example.invalid"]
    subprocess.run(["git", *who, "merge", "side"], cwd=top, capture_output=True)


def swarm_branch(top: Path) -> None:
    git(top, "branch", "swarm")


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (shutil.rmtree, "does not exist", "`repo`"),
        (lambda top: shutil.rmtree(top / ".git"), "not in a git repository", "git init"),
        (bare, "no working tree", "git clone"),
        (empty, "no commit yet", "git commit"),
        (submodule, r"submodules.*`vendor/sub`", "repo"),
        (lfs, r"`data/.gitattributes`.*filter=lfs", "outside the repository"),
        (conflicted_merge, "uncommitted changes: `train.py`", "commit or stash"),
        (swarm_branch, "branch `swarm`", "git branch -m swarm"),
    ],
)
def test_an_unusable_repository_is_refused_with_a_remedy(
    tmp_path: Path, spoil: object, message: str, hint: str
) -> None:
    top = make_repo(tmp_path / "repo", FILES)
    assert callable(spoil)
    spoil(top)
    with pytest.raises(RepositoryError, match=message) as caught:
        inspect(top)
    assert caught.value.exit_code == 3
    assert hint in (caught.value.hint or "")
    assert str(top) in caught.value.message


def test_a_missing_base_names_what_is_close(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo", FILES)
    git(top, "branch", "experiments")
    with pytest.raises(RepositoryError, match="'experimnets' is no commit") as caught:
        inspect(top, "experimnets")
    assert "`experiments`" in (caught.value.hint or "")
    for base in ("--all", "nothing-like-it", "main:train.py"):
        with pytest.raises(RepositoryError, match="is no commit"):
            inspect(top, base)


def test_a_subdirectory_that_base_lacks_is_refused(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo", FILES)
    (top / "new").mkdir()
    with pytest.raises(RepositoryError, match=r"`new` .* does not exist in the base"):
        inspect(top / "new")


def test_leaked_git_variables_are_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_repo(tmp_path / "other", {"x": "x\n"})
    before = picture(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git/objects"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.bare'='true'")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    top = tmp_path / "a b" / "repo"
    clean = {name: "" for name in os.environ if name.startswith("GIT_")}
    for name in clean:
        value = os.environ.pop(name)
        clean[name] = value
    make_repo(top, FILES)
    os.environ.update(clean)
    source = inspect(top)
    assert source.top == top
    create_hub({"": source}, tmp_path / "hub.git", "r")
    hub = Hub(tmp_path / "hub.git", "r")
    mirror = Mirror.create(tmp_path / "mirror.git", hub.bundle([source.base]))
    tree = mirror.worktree("a1", tmp_path / "a1", source.base, A1)
    commit = Rig(top, source, hub, mirror, tree).propose({"train.py": "x\n"})
    assert "train.py" in hub.diff(source.base, commit)
    assert picture(other) == before


# --- the hub -----------------------------------------------------------------------------------


def test_one_racer_wins_a_compare_and_swap(rig: Rig) -> None:
    commits = [rig.propose({"train.py": f"{i}\n"}) for i in range(6)]
    hub, base = rig.hub, rig.source.base
    hub.update_refs([(BEST, base, NO_OBJECT)])
    barrier = threading.Barrier(len(commits))

    def race(commit: str) -> bool:
        barrier.wait()
        try:
            hub.update_refs([(BEST, commit, base), (f"refs/swarm/r/won/{commit}", commit, None)])
        except GitError:
            return False
        return True

    with ThreadPoolExecutor(len(commits)) as pool:
        won = [c for c, ok in zip(commits, pool.map(race, commits), strict=True) if ok]
    assert len(won) == 1
    assert hub.refs("refs/heads") == {BEST: won[0]}
    assert hub.refs("refs/swarm/r/won/") == {f"refs/swarm/r/won/{won[0]}": won[0]}


def test_refs_are_made_only_where_none_is_and_deleted(rig: Rig) -> None:
    hub, base = rig.hub, rig.source.base
    hub.update_refs([(BEST, base, NO_OBJECT)])
    with pytest.raises(GitError, match="already exists"):
        hub.update_refs([(BEST, base, NO_OBJECT)])
    hub.update_refs([(BEST, NO_OBJECT, base)])
    assert hub.refs("refs/heads") == {}
    for name in ("--stdin", "HEAD", "refs/heads/a b", "refs/x\nrefs/y"):
        with pytest.raises(GitError):
            hub.update_refs([(name, base, None)])
    with pytest.raises(GitError, match="not a full object id"):
        hub.update_refs([(BEST, "--help", None)])


def test_locks_of_a_killed_coordinator_are_cleared(rig: Rig) -> None:
    hub, base = rig.hub, rig.source.base
    hub.update_refs([(BEST, base, None)])
    (hub.path / f"{BEST}.lock").touch()
    (hub.path / "packed-refs.lock").touch()
    hub.recover()
    hub.update_refs([(BEST, NO_OBJECT, base)])
    hub.compact()
    assert hub.has(base)


def test_stack_lays_a_change_on_another_or_names_the_conflict(rig: Rig) -> None:
    base, lines = rig.source.base, FILES["train.py"]
    first = rig.propose({"train.py": lines.replace("line 3\n", "three\n")})
    second = rig.propose({"train.py": lines.replace("line 20\n", "twenty\n"), "new.py": "n\n"})
    clash = rig.propose({"train.py": lines.replace("line 3\n", "drei\n"), "lib/model.py": "2\n"})
    tree = rig.hub.stack(second, base, first)
    assert isinstance(tree, str)
    commit = rig.hub.commit(tree, [first], "stack\n\nSwarm-Run: r\n", A1, AT)
    assert commit == rig.hub.commit(tree, [first], "stack\n\nSwarm-Run: r\n", A1, AT)
    text = read_file(rig.hub.path, commit, "train.py") or b""
    assert b"three\n" in text
    assert b"twenty\n" in text
    assert rig.hub.stack(clash, base, first) == Conflict(("train.py",))
    assert rig.hub.stack(second, base, base) == rig.hub.tree(second)
    stat = rig.hub.stat(base, commit)
    assert (stat.files, stat.added, stat.removed) == (("new.py", "train.py"), 3, 2)
    assert is_ancestor(rig.hub.path, first, commit)
    assert not is_ancestor(rig.hub.path, commit, first)


def test_messages_and_identities_are_data(rig: Rig) -> None:
    message = "--amend -F /etc/passwd\n\n\x1b[31m naïve \udcff \0 $(touch x)\n"
    commit = rig.hub.commit(rig.source.base_tree, [rig.source.base], message, A1, AT)
    shown = git(rig.hub.path, "log", "-1", "--format=%an|%ae|%cI|%B", commit)
    assert shown.startswith("swarm a1|a1@swarm.invalid|2026-11-20T12:00:00")
    assert "--amend -F /etc/passwd" in shown


def test_a_pack_brings_what_is_lacking(rig: Rig) -> None:
    commit = rig.propose({"train.py": "x\n"})
    other = Mirror.create(rig.mirror.path.with_name("m2.git"), rig.hub.bundle([rig.source.base]))
    assert not other.has(commit)
    pack = rig.hub.pack(commit, [rig.source.base])
    assert len(pack) < 1000
    other.unpack(pack)
    assert other.has(commit)
    with pytest.raises(GitError):
        other.unpack(pack[:-30])
    assert read_file(rig.hub.path, commit, "train.py") == b"x\n"
    assert read_file(rig.hub.path, commit, "no\nsuch") is None
    assert read_file(rig.hub.path, commit, "lib") is None


def test_deliver_brings_one_pack_one_ref_and_its_reflog(rig: Rig) -> None:
    best = rig.propose({"train.py": "better\n"})
    rig.hub.update_refs([(BEST, best, NO_OBJECT), ("refs/heads/swarm/r/a1", best, NO_OBJECT)])
    before = picture(rig.top)
    rig.hub.deliver(rig.source.git_dir, BEST)
    after = picture(rig.top)
    changed = {p for p, v in before.items() if after.get(p) != v}
    new = {p for p in after.keys() - before.keys() if (rig.top / p).is_file()}
    assert all((rig.top / p).is_dir() for p in changed)  # only the times of folders
    suffixes = sorted(Path(p).suffix for p in new if "objects" in p)
    assert suffixes in ([".idx", ".pack"], [".idx", ".pack", ".rev"])
    assert {p for p in new if "objects" not in p} == {f".git/{BEST}", f".git/logs/{BEST}"}
    assert git(rig.top, "rev-parse", BEST) == best


def test_deliver_refuses_what_would_lose_the_users_work(rig: Rig) -> None:
    one, two = (rig.propose({"train.py": f"{i}\n"}) for i in range(2))
    rig.hub.update_refs([(BEST, one, NO_OBJECT)])
    rig.hub.deliver(rig.source.git_dir, BEST)
    rig.hub.update_refs([(BEST, two, one)])
    with pytest.raises(RepositoryError, match="somebody else has moved it"):
        rig.hub.deliver(rig.source.git_dir, BEST)
    grown = rig.propose({"train.py": "2\n"}, base=one)
    rig.hub.update_refs([(BEST, grown, two)])
    git(rig.top, "checkout", "-q", "swarm/r/best")
    with pytest.raises(RepositoryError, match="checked out") as caught:
        rig.hub.deliver(rig.source.git_dir, BEST)
    assert "switch" in (caught.value.hint or "")
    git(rig.top, "checkout", "-q", "main")
    rig.hub.deliver(rig.source.git_dir, BEST)
    assert git(rig.top, "rev-parse", BEST) == grown


def test_a_branch_in_the_way_of_delivery_is_named(rig: Rig) -> None:
    git(rig.top, "branch", "swarm/r")
    rig.hub.update_refs([(BEST, rig.propose({"train.py": "1\n"}), NO_OBJECT)])
    with pytest.raises(RepositoryError, match="in its way"):
        rig.hub.deliver(rig.source.git_dir, BEST)


# --- apply -------------------------------------------------------------------------------------


@pytest.fixture
def improved(rig: Rig) -> Rig:
    rig.hub.update_refs([(BEST, rig.propose({"train.py": "better\n"}), NO_OBJECT)])
    rig.hub.deliver(rig.source.git_dir, BEST)
    return rig


def test_apply_fast_forwards_branch_and_files(improved: Rig) -> None:
    (improved.top / "notes.txt").write_text("untracked")
    assert "fast-forwarded" in apply(improved.top / "lib", BEST)
    assert (improved.top / "train.py").read_text() == "better\n"
    assert git(improved.top, "rev-parse", "main") == git(improved.top, "rev-parse", BEST)
    assert git(improved.top, "status", "--porcelain") == "?? notes.txt"


def test_apply_refuses_a_dirty_tree(improved: Rig) -> None:
    write(improved.top, {"lib/data.py": "mine\n"})
    with pytest.raises(PreconditionError, match=r"uncommitted changes: `lib/data\.py`"):
        apply(improved.top, BEST)
    assert (improved.top / "lib/data.py").read_text() == "mine\n"


def test_apply_makes_a_branch_when_head_has_moved_on(improved: Rig) -> None:
    write(improved.top, {"lib/data.py": "mine\n"})
    git(improved.top, "commit", "-qam", "mine")
    with pytest.raises(PreconditionError, match="moved on") as caught:
        apply(improved.top, BEST)
    assert "--onto" in (caught.value.hint or "")
    assert "made the branch wins/1" in apply(improved.top, BEST, onto="wins/1")
    assert git(improved.top, "rev-parse", "wins/1") == git(improved.top, "rev-parse", BEST)
    assert git(improved.top, "branch", "--show-current") == "main"
    for name in ("wins/1", "--force", "a..b", ""):
        with pytest.raises(PreconditionError):
            apply(improved.top, BEST, onto=name)


def test_apply_without_a_best_says_so(rig: Rig) -> None:
    with pytest.raises(PreconditionError, match="has no branch `swarm/r/best`"):
        apply(rig.top, BEST)


# --- snapshots ---------------------------------------------------------------------------------


def test_a_fair_change_becomes_a_tree(rig: Rig) -> None:
    write(rig.tree.path, {"train.py": "a\nb\n", "lib/new.py": "n\n", "x.log": "ignored\n"})
    write(rig.tree.path, {"__pycache__/train.cpython-311.pyc": "droppings"})
    (rig.tree.path / "lib/data.py").unlink()
    found = rig.check("train.py", "lib/")
    assert isinstance(found, Snapshot)
    assert found.files == ("lib/data.py", "lib/new.py", "train.py")
    assert (found.added, found.removed) == (3, 31)
    commit = rig.tree.commit(found.tree, rig.source.base, "m\n", AT)
    assert commit == rig.tree.commit(found.tree, rig.source.base, "m\n", AT)
    assert rig.tree.files(commit, "", Scope(["lib/"])) == ("lib/model.py", "lib/new.py")
    # Looking again after the proposer undid everything finds nothing.
    rig.tree.reset(rig.source.base)
    assert rig.check("**") == Rejected("nothing was changed")


def plant_link(tree: Path) -> None:
    (tree / "train.py").unlink()
    (tree / "train.py").symlink_to("/etc/passwd")


def plant_link_for_a_folder(tree: Path) -> None:
    shutil.rmtree(tree / "lib")
    (tree / "lib").symlink_to("/etc")


def plant_fifo(tree: Path) -> None:
    (tree / "train.py").unlink()
    os.mkfifo(tree / "train.py")


def plant_unreadable(tree: Path) -> None:
    (tree / "lib").rename(tree / "gone")
    (tree / "lib").symlink_to("nowhere")


@pytest.mark.parametrize(
    ("edit", "scope", "reason"),
    [
        (lambda t: None, ["**"], "nothing was changed"),
        (lambda t: write(t, {"lib/data.py": "x", "train.py": "x"}), ["train.py"], "`lib/data.py`"),
        (lambda t: write(t, {"helper.py": "x"}), ["train.py"], "outside the scope: `helper.py`"),
        (lambda t: (t / "lib/data.py").unlink(), ["train.py"], "outside the scope: `lib/data.py`"),
        (plant_link, ["**"], "symbolic link: `train.py`"),
        (plant_link_for_a_folder, ["**"], "link in place of a directory: `lib`"),
        (plant_fifo, ["**"], "`train.py` is not a regular file"),
        (lambda t: write(t, {"lib/conftest.py": "x"}), ["lib/"], "`lib/conftest.py`"),
        (lambda t: write(t, {".gitattributes": "* text"}), ["**"], "names it in full"),
        (lambda t: write(t, {"x/evil.pth": "import os"}), ["**/*.pth"], "names it in full"),
        (lambda t: write(t, {"lib/.git/config": "x"}), ["**"], "repository of its own"),
        (lambda t: write(t, {"a/.GIT/config": "x"}), ["**"], "repository of its own"),
        (lambda t: write(t, {"git~1/config": "x"}), ["**"], "git refuses a name"),
        (lambda t: write(t, {"b\n\x1b[31m`.py": "x"}), ["lib/"], r"`b\n\x1b[31m``.py`"[:12]),
        (lambda t: write(t, {os.fsdecode(b"caf\xe9.py"): "x"}), ["**"], r"`caf\xe9.py`"),
    ],
)
def test_an_unfair_change_is_rejected(
    rig: Rig, edit: object, scope: list[str], reason: str
) -> None:
    assert callable(edit)
    edit(rig.tree.path)
    found = rig.check(*scope)
    assert isinstance(found, Rejected)
    assert reason in found.reason
    assert found.reason.isprintable()
    rig.tree.reset(rig.source.base)
    assert rig.check("**") == Rejected("nothing was changed")


def test_a_change_may_be_limited_in_size(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    write(rig.tree.path, {"train.py": "x\n", "lib/new.py": "x\n"})
    assert isinstance(rig.check("**", max_files=2, max_lines=32), Snapshot)
    assert "2 files were changed" in str(rig.check("**", max_files=1))
    assert "32 lines were changed" in str(rig.check("**", max_lines=31))
    # Calling a file binary hides no lines.
    write(rig.tree.path, {".gitattributes": "*.py binary\n"})
    assert "33 lines" in str(rig.check("**", ".gitattributes", max_lines=31))
    (rig.tree.path / "train.py").write_bytes(b"\0")
    assert "no lines to count" in str(rig.check("**", ".gitattributes", max_lines=99))
    monkeypatch.setattr("swarm.repo.mirror.MAX_FILE_BYTES", 1000)
    write(rig.tree.path, {"big.log": "x" * 2000})  # ignored, and so no part of the change
    assert isinstance(rig.check("**", ".gitattributes"), Snapshot)
    write(rig.tree.path, {"big.bin": "x" * 2000})
    assert "`big.bin` is larger" in str(rig.check("**", ".gitattributes"))


def test_guarded_names_are_admitted_by_name(rig: Rig) -> None:
    write(rig.tree.path, {"lib/conftest.py": "x"})
    assert isinstance(rig.check("lib/conftest.py"), Snapshot)


def test_nothing_that_was_planted_runs(rig: Rig, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    inner = rig.tree.path / "sub"
    make_repo(inner, {"f": "f\n"})
    touch = f"touch '{canary}'; cat"
    git(inner, "config", "core.fsmonitor", touch)
    git(inner, "config", "filter.evil.clean", touch)
    git(inner, "config", "filter.evil.smudge", touch)
    write(inner, {".gitattributes": "* filter=evil\n", "f": "changed\n"})
    write(rig.tree.path, {".gitattributes": "* filter=evil diff=evil merge=evil\n"})
    # The pointer that a discovering git would follow.
    (rig.tree.path / ".git").write_text(f"gitdir: {inner}/.git\n")
    assert "repository of its own" in str(rig.check("**"))
    (rig.tree.path / ".git").unlink()
    assert "`sub/.git`" in str(rig.check("**"))
    shutil.rmtree(inner / ".git")
    assert isinstance(rig.check("**", ".gitattributes", "sub/.gitattributes"), Snapshot)
    rig.tree.reset(rig.source.base)
    assert sorted(os.listdir(rig.tree.path)) == [".gitignore", "lib", "train.py"]
    assert not canary.exists()


def test_limits_do_not_stop_at_an_agents_hidden_files(rig: Rig) -> None:
    # A `.gitignore` that hides itself and others: what is hidden is no part of the change.
    write(rig.tree.path, {"lib/.gitignore": "*\n", "lib/hidden.py": "x\n"})
    assert rig.check("**") == Rejected("nothing was changed")


# --- worktrees ---------------------------------------------------------------------------------


def test_a_worktree_shows_no_git(rig: Rig) -> None:
    assert sorted(os.listdir(rig.tree.path)) == [".gitignore", "lib", "train.py"]
    assert rig.tree.files(rig.source.base, "", Scope(["lib/", "none"])) == (
        "lib/data.py",
        "lib/model.py",
    )


def test_a_worktree_recovers_from_a_killed_git(rig: Rig) -> None:
    admin = next(rig.mirror.path.glob("worktrees/*"))
    (admin / "index.lock").touch()
    (admin / "HEAD.lock").touch()
    (admin / "index").write_bytes(b"DIRC torn")
    write(rig.tree.path, {"train.py": "half", "junk": "x", ".git": "gitdir: nowhere\n"})
    again = rig.mirror.worktree("a1", rig.tree.path, rig.source.base, A1)
    assert sorted(os.listdir(again.path)) == [".gitignore", "lib", "train.py"]
    assert (again.path / "train.py").read_text() == FILES["train.py"]
    assert len(list(rig.mirror.path.glob("worktrees/*"))) == 1
    shutil.rmtree(again.path)
    assert rig.mirror.worktree("a1", again.path, rig.source.base, A1).path.is_dir()


def test_many_worktrees_are_made_at_once(rig: Rig) -> None:
    room = rig.tree.path.parent
    with ThreadPoolExecutor(8) as pool:
        trees = list(
            pool.map(
                lambda i: rig.mirror.worktree(f"b{i}", room / f"b{i}", rig.source.base, A1),
                range(8),
            )
        )
    assert all((t.path / "lib/model.py").exists() for t in trees)
    write(trees[3].path, {"train.py": "3\n"})
    assert isinstance(trees[3].snapshot(rig.source.base, "", Scope(["**"])), Snapshot)
    assert isinstance(trees[4].snapshot(rig.source.base, "", Scope(["**"])), Rejected)


def test_reset_clears_whatever_was_left(rig: Rig, tmp_path: Path) -> None:
    base, top = rig.source.base, rig.tree.path
    other = rig.propose({"lib/more/deep.py": "x\n", "train.py": "y\n"})
    outside = tmp_path / "outside"
    write(outside, {"precious": "x"})
    make_repo(top / "nested" / "repo", {"x": "x"})
    write(top, {"lib/.git/HEAD": "x", "locked/in/f": "x", "x.log": "x"})
    shutil.rmtree(top / "lib" / "more")
    (top / "train.py").unlink()
    (top / "train.py").mkdir()
    (top / "train.py" / "f").write_text("x")
    (top / "lib" / "model.py").unlink()
    os.mkfifo(top / "lib" / "model.py")
    (top / "lib" / "more").symlink_to(outside)
    (top / "link").symlink_to(outside)
    (top / "locked/in").chmod(0o500)
    (top / "lib").chmod(0o500)
    rig.tree.reset(other)
    rig.tree.reset(base)
    files = sorted(str(p.relative_to(top)) for p in top.rglob("*") if not p.is_dir())
    assert files == sorted(FILES)
    assert {f: (top / f).read_text() for f in files} == FILES
    assert (outside / "precious").exists()
    shutil.rmtree(top)
    top.symlink_to(outside)
    assert isinstance(rig.check("**"), Rejected)
    rig.tree.reset(base)
    assert (top / "train.py").is_file()
    assert sorted(os.listdir(outside)) == ["precious"]


def test_reset_sees_an_edit_of_the_same_size_and_time(rig: Rig) -> None:
    file = rig.tree.path / "lib/data.py"
    info = file.stat()
    file.write_text("data = 2\n")
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert isinstance(rig.check("**"), Snapshot)
    rig.tree.reset(rig.source.base)
    assert file.read_text() == "data = 1\n"


def test_reset_gets_rid_of_a_tree_too_deep_to_walk(rig: Rig) -> None:
    fd = os.open(rig.tree.path, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("d" * 100, dir_fd=fd)
        inner = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    assert isinstance(rig.check("**"), Rejected)
    rig.tree.reset(rig.source.base)
    assert sorted(os.listdir(rig.tree.path)) == [".gitignore", "lib", "train.py"]
    subprocess.run(["rm", "-rf", str(rig.tree.path.parent)], check=True)


# --- exports -----------------------------------------------------------------------------------


def test_export_takes_only_what_is_in_scope_from_the_candidate(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo", FILES | {".gitattributes": "lib/* export-ignore\n"})
    (top / "link").symlink_to("lib")
    write(top, {"run.sh": "#!/bin/sh\n", "ver.txt": "$Format:%H$\n"})
    write(top, {"lib/.gitattributes": "data.py export-subst\n"})
    (top / "run.sh").chmod(0o755)
    git(top, "add", "-A")
    git(top, "commit", "-q", "-m", "more")
    source = inspect(top)
    create_hub({"": source}, tmp_path / "hub.git", "r")
    hub = Hub(tmp_path / "hub.git", "r")
    mirror = Mirror.create(tmp_path / "mirror.git", hub.bundle([source.base]))
    tree = mirror.worktree("a1", tmp_path / "a1", source.base, A1)
    rig = Rig(top, source, hub, mirror, tree)
    write(tree.path, {"train.py": "candidate\n", "run.sh": "evil\n", "lib/new.py": "new\n"})
    (tree.path / "lib/data.py").unlink()
    (tree.path / "lib/model.py").unlink()
    (tree.path / "lib/model.py").symlink_to("/etc/passwd")
    (tree.path / "link").unlink()
    write(tree.path, {"link/inside.py": "x\n"})
    git(tree.path, "add", "-A", env=git_env(mirror, tree))
    made = git(tree.path, "write-tree", env=git_env(mirror, tree))
    commit = tree.commit(made, source.base, "hostile\n", AT)
    mirror.export(commit, source.base, "", Scope(["train.py", "lib/", "link/*"]), tmp_path / "e")
    out = tmp_path / "e"
    files = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_symlink() or p.is_file()}
    assert files == {
        *(".gitattributes", ".gitignore", "lib/.gitattributes", "lib/model.py", "lib/new.py"),
        *("link", "run.sh", "train.py", "ver.txt"),
    }
    assert (out / "train.py").read_text() == "candidate\n"
    assert (out / "run.sh").read_text() == "#!/bin/sh\n"
    assert os.access(out / "run.sh", os.X_OK)
    assert (out / "lib/model.py").read_text() == "model = 1\n"
    assert (out / "ver.txt").read_text() == "$Format:%H$\n"
    assert os.readlink(out / "link") == "lib"
    with pytest.raises(GitError, match="not empty"):
        mirror.export(commit, source.base, "", Scope([]), out)
    assert rig.mirror.ignored(out, source.base) == []


def git_env(mirror: Mirror, tree: Worktree) -> dict[str, str]:
    admin = next(mirror.path.glob("worktrees/*"))
    return {"GIT_DIR": str(admin), "GIT_WORK_TREE": str(tree.path)}


def test_exports_run_at_once(rig: Rig, tmp_path: Path) -> None:
    commits = [rig.propose({"train.py": f"{i}\n"}) for i in range(4)]

    def export(i: int) -> str:
        dest = tmp_path / "exports" / str(i)
        rig.mirror.export(commits[i % 4], rig.source.base, "", Scope(["train.py"]), dest)
        assert (dest / "lib/model.py").exists()
        return (dest / "train.py").read_text()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(export, range(12))) == [f"{i % 4}\n" for i in range(12)]
    assert not list(rig.mirror.path.glob("index-*"))


def test_ignored_lists_what_a_setup_left(rig: Rig, tmp_path: Path) -> None:
    out = tmp_path / "setup"
    rig.mirror.export(rig.source.base, rig.source.base, "", Scope([]), out)
    write(out, {"a.log": "x", "__pycache__/x.pyc": "x", "lib/b.log": "x", "new.txt": "x"})
    assert rig.mirror.ignored(out, rig.source.base) == ["__pycache__", "a.log", "lib/b.log"]


def test_a_target_in_a_subdirectory(tmp_path: Path) -> None:
    rig = make_rig(tmp_path, {f"sub/dir/{k}": v for k, v in FILES.items()} | {"train.py": "top\n"},
                   prefix="sub/dir")  # fmt: skip
    assert rig.source.prefix == "sub/dir"
    scope = Scope(["train.py"])
    assert rig.tree.files(rig.source.base, "sub/dir", scope) == ("train.py",)
    write(rig.tree.path, {"sub/dir/train.py": "x\n"})
    found = rig.check("train.py")
    assert isinstance(found, Snapshot)
    assert found.files == ("train.py",)
    commit = rig.tree.commit(found.tree, rig.source.base, "m\n", AT)
    rig.mirror.export(commit, rig.source.base, "sub/dir", scope, tmp_path / "e")
    assert (tmp_path / "e/sub/dir/train.py").read_text() == "x\n"
    write(rig.tree.path, {"train.py": "x\n"})
    assert rig.check("train.py", "**") == Rejected("outside the scope: `train.py`")


def test_weird_names_go_all_the_way(tmp_path: Path) -> None:
    raw = os.fsdecode(b"latin-\xe9.txt")
    names = [
        "-rf",
        "new\nline.py",
        "quo\"te's.py",
        ":(glob)x",
        "tab\t.py",
        " lead",
        "ünï/é.py",
        raw,
    ]
    rig = make_rig(tmp_path / "we\nird 'room' \"1\"", dict.fromkeys(names, "x\n"))
    assert set(rig.tree.files(rig.source.base, "", Scope(["**"]))) == set(names) - {raw}
    write(rig.tree.path, dict.fromkeys(names[:-1], "y\n"))
    found = rig.check("**")
    assert isinstance(found, Snapshot)
    assert set(found.files) == set(names) - {raw}
    commit = rig.tree.commit(found.tree, rig.source.base, "m\n", AT)
    rig.hub.unpack(rig.tree.pack(commit, [rig.source.base]))
    assert set(rig.hub.stat(rig.source.base, commit).files) == set(names) - {raw}
    assert read_file(rig.hub.path, commit, "new\nline.py") == b"y\n"
    rig.mirror.export(commit, rig.source.base, "", Scope(["-rf"]), tmp_path / "e")
    texts = {n: (tmp_path / "e" / n).read_text() for n in names}
    assert texts == {**dict.fromkeys(names, "x\n"), "-rf": "y\n"}
    rig.hub.update_refs([(BEST, commit, NO_OBJECT)])
    rig.hub.deliver(rig.source.git_dir, BEST)
    assert git(rig.top, "rev-parse", BEST) == commit


# --- processes ---------------------------------------------------------------------------------


def test_a_failure_carries_gits_own_words(rig: Rig) -> None:
    missing = "1" * 40
    with pytest.raises(GitError, match=missing) as caught:
        rig.hub.tree(missing)
    assert caught.value.status == 128
    assert caught.value.stderr


def test_a_git_that_is_missing_or_old_is_a_precondition(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert git_version() >= (2, 38)
    monkeypatch.setattr(repo_process, "MINIMUM_VERSION", (99, 0))
    with pytest.raises(PreconditionError, match="too old") as caught:
        git_version()
    assert "99.0" in (caught.value.hint or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreconditionError, match="could not be started"):
        git_version()


def test_a_command_that_hangs_is_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repo_process, "_TIMEOUT_S", 0.2)
    monkeypatch.setenv("GIT_X", "leaked")
    slow = repo_process.GitDir(rig.hub.path, config=(("alias.hang", "!sleep 60"),))
    with pytest.raises(GitError, match="`git hang` did not end"):
        slow.run("hang")
