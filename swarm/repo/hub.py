"""The hub: a run's own bare repository, from which everything else can be rebuilt.

Owns how it is made from the user's repository, the run's refs, stacking without a worktree, and
delivery back. One coordinator writes it. Knows no verdict: what is stacked and promoted is
decided elsewhere.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from swarm.errors import GitError, PreconditionError, RepositoryError
from swarm.merge3 import merge3
from swarm.repo.process import (
    NO_OBJECT,
    DiffStat,
    GitDir,
    Identity,
    about,
    alternates,
    changes,
    diff,
    sha,
)
from swarm.repo.source import Source

# Written into the repository too, for the day when somebody runs a plain git in it.
_QUIET_CONFIG = """\
[gc]
\tauto = 0
[maintenance]
\tauto = false
[core]
\thooksPath = /dev/null
\tlogAllRefUpdates = false
"""
_LOCK_RETRIES = 5
_MANY_LOOSE = 6000
"""About two thousand experiments."""
_REF = re.compile(r"refs/[^\0-\x20~^:?*\[\\\x7f]+")


@dataclass(frozen=True)
class Conflict:
    """The commits do not fit together textually in these paths."""

    paths: tuple[str, ...]


def create_run_ignore(swarm_dir: Path) -> None:
    """Make `.swarm`, invisible to git by its own `.gitignore`."""
    swarm_dir.mkdir(parents=True, exist_ok=True)
    ignore = swarm_dir / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def create_bare(path: Path) -> GitDir:
    """Make an empty bare repository that never cleans itself up."""
    args = ("init", "--bare", "--quiet", "--template=", str(path))
    GitDir(path.parent).run(*args, env={"GIT_DIR": str(path)})
    with open(path / "config", "a", encoding="utf-8") as file:
        file.write(_QUIET_CONFIG)
    return GitDir(path)


def create_hub(sources: Mapping[str, Source], hub: Path, run: str) -> None:
    """Make the hub with the history of the bases, all or nothing; a hub that exists is kept.

    The sources are named by their targets' part of the run, "" for the only one. They may be of
    several repositories: their histories lie side by side.

    The objects are copied by a process of the hub that reads the user's object store, so neither
    hooks nor configuration nor the other branches of the user's repository come into it, and
    nothing is hardlinked or borrowed.

    Raises:
        RepositoryError: objects are missing in the user's repository.
    """
    pins = {
        f"refs/swarm/{run}/" + (f"bases/{part}" if part else "base"): source.base
        for part, source in sources.items()
    }
    if hub.exists():
        refs = Hub(hub, run).refs()
        if any(refs.get(pin) != base for pin, base in pins.items()):
            raise PreconditionError(
                f"the hub `{hub}` was made for another base",
                hint="remove the run's directory, or launch under another name",
                path=hub,
            )
        return
    hub.parent.mkdir(parents=True, exist_ok=True)
    for leftover in hub.parent.glob(f".{hub.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=f".{hub.name}-", dir=hub.parent))
    try:
        git_dir = create_bare(building)
        for source in {(s.git_dir, s.base): s for s in sources.values()}.values():
            _fill(git_dir, source)
        Hub(building, run).update_refs([(pin, base, NO_OBJECT) for pin, base in pins.items()])
        building.chmod(hub.parent.stat().st_mode & 0o777)
        os.rename(building, hub)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fill(git_dir: GitDir, source: Source) -> None:
    shallow = source.git_dir / "shallow"
    if shallow.exists():
        with open(git_dir.path / "shallow", "ab") as file:
            file.write(shallow.read_bytes())
    if source.snapshot_pack is not None:
        git_dir.run("unpack-objects", "-q", data=source.snapshot_pack)
    reading = replace(git_dir, env=tuple(alternates(source.git_dir / "objects").items()))
    place = git_dir.path / "objects" / "pack" / "pack"
    try:
        reading.run(
            *("pack-objects", "--revs", "--delta-base-offset", "-q", str(place)),
            data=f"{source.base}\n".encode(),
        )
    except GitError as error:
        if next(source.git_dir.glob("objects/pack/*.promisor"), None) is None:
            raise
        raise RepositoryError(
            f"the repository `{source.top}` is a partial clone that lacks files of its history",
            hint="complete it: git fetch --refetch --no-filter",
            path=source.top,
        ) from error


class Hub:
    """A run's hub. Reading is free for all; only the coordinator calls what writes."""

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self.run = run
        self._git = GitDir(path)

    # --- objects

    def has(self, commit: str) -> bool:
        """Tell whether the commit is here, and with it all its files."""
        return self._git.has(commit)

    def tree(self, commit: str) -> str:
        """Give the tree of a commit."""
        return about(self._git, commit, "%T")

    def unpack(self, pack: bytes) -> None:
        """Take in what an agent packed."""
        self._git.unpack(pack)

    def pack(self, commit: str, have: Sequence[str]) -> bytes:
        """Give what a mirror that has the commits `have` needs for `commit`."""
        return self._git.pack([commit], have)

    def bundle(self, tips: Sequence[str]) -> bytes:
        """Give a pack of all that the tips reach, for `Mirror.create`."""
        return self._git.pack(tips, [])

    def commit(
        self, tree: str, parents: Sequence[str], message: str, identity: Identity, at: datetime
    ) -> str:
        """Write a commit. The same arguments give the same commit; no branch moves."""
        return self._git.commit(tree, parents, message, identity, at)

    def stack(self, winner: str, base: str, onto: str) -> str | Conflict:
        """Lay the change from `base` to `winner` on `onto`; gives the tree. No commit is made."""
        # A merge of `winner` with a commit that has the files of `onto` and the parent `base`
        # is a cherry-pick of all between; git before 2.40 cannot be told the merge base.
        args = ("commit-tree", f"{sha(onto)}^{{tree}}", "-p", sha(base))
        synthetic = self._git.run(*args, data=b"stack\n").line
        out = self._git.run(
            *("merge-tree", "--write-tree", "-z", "--no-messages", synthetic, sha(winner)),
            accept=(0, 1),
        )
        if out.status == 0:
            return out.fields[0] if out.fields else out.line
        tree, *stages = out.fields
        return self._by_lines(tree, stages)

    def _by_lines(self, tree: str, stages: Sequence[str]) -> str | Conflict:
        """Merge by lines what git calls a conflict; gives the tree if all of it can be."""
        found: dict[str, dict[str, tuple[str, str]]] = {}
        for row in stages:
            head, path = row.split("\t", 1)
            mode, blob, stage = head.split(" ")
            found.setdefault(path, {})[stage] = (mode, blob)
        merged: list[str] = []
        for path, sides in found.items():
            text = self._merged(sides)
            if text is None:
                return Conflict(tuple(found))
            blob = self._git.run("hash-object", "-w", "--stdin", data=text).line
            merged.append(f"{sides['2'][0]} {blob}\t{path}\0")
        data = "".join(merged).encode("utf-8", "surrogateescape")
        with tempfile.TemporaryDirectory(prefix="stack-", dir=self.path) as private:
            git = replace(self._git, env=(("GIT_INDEX_FILE", f"{private}/index"),))
            git.run("read-tree", sha(tree))
            git.run("update-index", "-z", "--index-info", data=data)
            return git.run("write-tree").line

    def _merged(self, sides: dict[str, tuple[str, str]]) -> bytes | None:
        regular = {mode for mode, _ in sides.values()} <= {"100644", "100755"}
        if sides.keys() != {"1", "2", "3"} or not regular:
            return None
        base, ours, theirs = (
            self._git.run("cat-file", "blob", sha(sides[stage][1])).stdout for stage in "123"
        )
        return merge3(base, ours, theirs)

    def diff(self, old: str, new: str) -> str:
        """Give the unified diff between two commits."""
        return diff(self._git, old, new)

    def stat(self, old: str, new: str) -> DiffStat:
        """Say how much two commits differ."""
        return changes(self._git, old, new)[1]

    # --- refs

    def refs(self, prefix: str = "") -> dict[str, str]:
        """Give ref -> commit for all refs, or for one ref, or for all below a folder of refs."""
        pattern = [_ref(prefix)] if prefix else []
        rows = self._git.run("for-each-ref", "--format=%(objectname) %(refname)", *pattern).line
        pairs = (row.split(" ", 1) for row in rows.splitlines())
        return {ref: commit for commit, ref in pairs}

    def update_refs(self, updates: Iterable[tuple[str, str, str | None]]) -> None:
        """Move refs, all or none: (ref, new, expected old). None expects nothing.

        Raises:
            GitError: a ref is not where it was expected, or a commit is not here.
        """
        lines: list[str] = []
        for ref, new, old in updates:
            expected = "" if old is None else sha(old)
            if new == NO_OBJECT:
                lines.append(f"delete {_ref(ref)}\0{expected}\0")
            else:
                lines.append(f"update {_ref(ref)}\0{sha(new)}\0{expected}\0")
        data = "".join(lines).encode("utf-8", "surrogateescape")
        for attempt in range(_LOCK_RETRIES + 1):
            try:
                self._git.run("update-ref", "--stdin", "-z", "--no-deref", data=data)
                return
            except GitError as error:
                contended = ".lock': File exists" in error.stderr
                if not contended or attempt == _LOCK_RETRIES:
                    raise
                time.sleep(0.02 * 2**attempt)

    def recover(self) -> None:
        """Clear what a coordinator left when it was killed. Only for the holder of the run."""
        locks = (*self.path.glob("*.lock"), *self.path.glob("refs/**/*.lock"))
        for leftover in (*locks, *self.path.glob("objects/*/tmp_*")):
            leftover.unlink(missing_ok=True)
        for folder in self.path.glob("stack-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def is_loose(self) -> bool:
        """Tell whether thousands of objects lie loose, by a sample as git's own gc does it."""
        try:
            return len(os.listdir(self.path / "objects" / "17")) > _MANY_LOOSE // 256
        except FileNotFoundError:
            return False

    def compact(self) -> None:
        """Pack what thousands of experiments left loose; nothing is ever dropped by it."""
        self._git.run("repack", "-d", "--geometric=2", "-q")
        self._git.run("pack-refs", "--all")

    # --- delivery

    def deliver(self, top_git_dir: Path, ref: str) -> None:
        """Bring one branch of the hub into the user's repository, under the same name.

        Nothing else changes there. It is never forced: the branch only grows.

        Raises:
            RepositoryError: the user's branch cannot take it.
        """
        if not ref.startswith("refs/heads/swarm/"):
            raise GitError(f"not a branch of a run: {ref!r}", status=-1)
        # One pack, however small: it is whole or absent, and on disk when the branch moves.
        user = GitDir(top_git_dir, config=(("fetch.unpackLimit", "1"),))
        try:
            user.run(
                *("fetch", "--no-progress", "--no-tags", "--no-write-fetch-head"),
                *("--no-auto-maintenance", "--no-recurse-submodules", "--no-prune"),
                "--no-write-commit-graph",
                *("--update-shallow", str(self.path.resolve()), f"{_ref(ref)}:{ref}"),
            )
        except GitError as error:
            raise _undelivered(error, ref, top_git_dir) from error


def _undelivered(error: GitError, ref: str, git_dir: Path) -> RepositoryError:
    branch = ref.removeprefix("refs/heads/")
    if "refusing to fetch into" in error.stderr:
        why, hint = "it is checked out", f"switch that checkout to another branch than {branch}"
    elif "non-fast-forward" in error.stderr:
        why = "somebody else has moved it"
        hint = f"keep that work under another name: git branch -m {branch} <name>"
    elif "cannot lock ref" in error.stderr and "exists" in error.stderr:
        why, hint = "a branch is in its way", "rename the branch: git branch -m <old> <new>"
    else:
        why, hint = error.stderr, None
    return RepositoryError(
        f"the branch `{branch}` of `{git_dir}` could not be updated: {why}", hint=hint, path=git_dir
    )


def _ref(name: str) -> str:
    if not _REF.fullmatch(name):
        raise GitError(f"not a full ref name: {name!r}", status=-1)
    return name
