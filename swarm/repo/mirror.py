"""A node's own repository, the worktrees that hang from it, and the exports that are measured.

Owns what a hostile or clumsy proposer can leave on disk: it is looked at before git touches it,
and judged as tree objects afterwards. Knows no ref of the run; all here can be rebuilt.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from swarm.errors import GitError
from swarm.removal import remove_tree
from swarm.repo.hub import create_bare
from swarm.repo.process import (
    REGULAR_MODES,
    DiffStat,
    GitDir,
    Identity,
    changes,
    diff,
    entries,
    few,
    printable,
    sha,
)
from swarm.scope import Scope, is_guarded

MAX_FILE_BYTES = 100 * 2**20
"""The largest file that can be part of a change."""
_MAX_PATHS = 10_000
# Droppings of the tools that proposers run, which not every repository ignores.
_EXCLUDES = """\
__pycache__/
*.py[co]
.pytest_cache/
.ruff_cache/
.mypy_cache/
.ipynb_checkpoints/
.DS_Store
.aider*
.swarm/
"""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Snapshot:
    """What a proposer changed, as a tree; `files` are relative to the target's directory."""

    tree: str
    files: tuple[str, ...]
    added: int
    removed: int


@dataclass(frozen=True)
class Rejected:
    """Why what a proposer left cannot be measured."""

    reason: str


class Mirror:
    """A node's repository. Several threads and processes of the node may use it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._git = GitDir(path)

    @classmethod
    def create(cls, path: Path, bundle: bytes) -> Mirror:
        """Make the mirror from a pack, all or nothing; a mirror that exists is kept."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f"{path.name}.lock")):
            if not path.exists():
                for leftover in path.parent.glob(f".{path.name}-*"):
                    remove_tree(leftover)
                building = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
                try:
                    git_dir = create_bare(building)
                    git_dir.run("index-pack", "--stdin", "--fix-thin", data=bundle)
                    (building / "info").mkdir(exist_ok=True)
                    (building / "info" / "exclude").write_text(_EXCLUDES)
                    os.rename(building, path)
                finally:
                    shutil.rmtree(building, ignore_errors=True)
        return cls(path)

    def unpack(self, pack: bytes) -> None:
        """Take in what the hub packed."""
        self._git.unpack(pack)

    def has(self, commit: str) -> bool:
        """Tell whether the commit is here, and with it all its files."""
        return self._git.has(commit)

    def worktree(self, name: str, tree_dir: Path, commit: str, identity: Identity) -> Worktree:
        """Open an agent's worktree at a commit; made if it is new, repaired if it is not."""
        if not _NAME.fullmatch(name):
            raise GitError(f"not a name for a worktree: {name!r}", status=-1)
        tree_dir = tree_dir.absolute()
        # `worktree add` reads all its siblings, and fails on one that is half made.
        with _locked(self.path / "worktrees.lock"):
            admin = self._admin(tree_dir) or self._add(name, tree_dir, sha(commit))
        # Only the owner of a worktree opens it, so its locks are those of a killed git.
        for leftover in (*admin.glob("*.lock"), admin / "index"):
            leftover.unlink(missing_ok=True)
        worktree = Worktree(GitDir(admin, tree_dir), self._git, identity)
        worktree.reset(commit)
        return worktree

    def _admin(self, tree_dir: Path) -> Path | None:
        for file in sorted(self.path.glob("worktrees/*/gitdir")):
            if file.read_bytes() == os.fsencode(tree_dir / ".git") + b"\n":
                return file.parent
        return None

    def _add(self, name: str, tree_dir: Path, commit: str) -> Path:
        # git names its folder after the last part of the path, which need not be ours, and it
        # leaves a `.git` file there, so it is given another path. Nothing is checked out yet.
        room = self.path / f"add-{name}"
        remove_tree(room)
        room.mkdir()
        args = ("worktree", "add", "--no-checkout", "--lock", "--detach", "--quiet")
        self._git.run(*args, str(room / name), commit)
        pointer = (room / name / ".git").read_bytes().removesuffix(b"\n")
        admin = Path(os.fsdecode(pointer.removeprefix(b"gitdir: ")))
        remove_tree(room)
        remove_tree(tree_dir)
        tree_dir.mkdir(parents=True)
        (admin / "gitdir").write_bytes(os.fsencode(tree_dir / ".git") + b"\n")
        return admin

    def ignored(self, checkout: Path, commit: str) -> list[str]:
        """List what git ignores in a checkout of the commit, a whole directory as one path."""
        with _own_index(self._git) as env:
            git_dir = GitDir(self.path, checkout.absolute(), env=env)
            git_dir.run("read-tree", sha(commit))
            args = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
            return sorted(p.removesuffix("/") for p in git_dir.run(*args).fields)

    def export(self, commit: str, base: str, prefix: str, scope: Scope, dest: Path) -> None:
        """Write a fresh directory: base, with the regular files in scope taken from `commit`.

        A path in scope that the commit lacks is absent; links are those of base. `dest` must not
        exist, or be empty.
        """
        tree = _overlay(self._git, sha(commit), sha(base), prefix, scope)
        dest.mkdir(parents=True, exist_ok=True)
        if any(dest.iterdir()):
            raise GitError(f"the directory of an export is not empty: `{dest}`", status=-1)
        with _own_index(self._git) as env:
            git_dir = GitDir(self.path, dest.absolute(), env=env)
            git_dir.run("read-tree", "-u", "--reset", tree)


@contextmanager
def _own_index(git_dir: GitDir) -> Generator[tuple[tuple[str, str], ...]]:
    """Give an index of its own to what runs while others do the same."""
    with tempfile.TemporaryDirectory(prefix="index-", dir=git_dir.path) as folder:
        yield (("GIT_INDEX_FILE", str(Path(folder, "index"))),)


@lru_cache(maxsize=256)
def _overlay(git_dir: GitDir, commit: str, base: str, prefix: str, scope: Scope) -> str:
    """Give the tree to be measured. It is the commit's own unless that oversteps the scope."""
    if commit == base:
        return commit
    found, _ = changes(git_dir, base, commit)
    fair = [
        c
        for c in found
        if _inside(c.path, prefix, scope) and c.new_mode in (*REGULAR_MODES, "000000")
    ]
    if len(fair) == len(found):
        return commit
    kept = {e.path for e in entries(git_dir, base)} - {c.path for c in fair}
    folders = {parent for path in kept for parent in _parents(path)}
    rows = [f"0 {'0' * 40}\t{c.path}\0" for c in fair]
    rows += [
        f"{c.new_mode} {c.new_sha}\t{c.path}\0"
        for c in fair
        # Neither a file where base has a folder nor a folder where base has a file.
        if c.new_mode in REGULAR_MODES
        and c.path not in folders
        and kept.isdisjoint(_parents(c.path))
    ]
    with _own_index(git_dir) as env:
        aside = replace(git_dir, env=env)
        aside.run("read-tree", base)
        data = "".join(rows).encode("utf-8", "surrogateescape")
        aside.run("update-index", "-z", "--index-info", data=data)
        return aside.run("write-tree").line


class Worktree:
    """An agent's files. One thread uses it at a time, and only when its proposer has ended."""

    def __init__(self, git_dir: GitDir, mirror: GitDir, identity: Identity) -> None:
        assert git_dir.work_tree is not None
        self.path = git_dir.work_tree
        self._git = git_dir
        self._mirror = mirror
        self._identity = identity

    def reset(self, commit: str) -> None:
        """Make the tree exactly `commit`, whatever lies there now."""
        files, folders = _layout(self._mirror, sha(commit))
        try:
            _sweep(self.path, files, folders)
        except (OSError, RecursionError):
            # Too deep or too odd to clean: out of the way, and start with an empty directory.
            _discard(self.path)
            (self._git.path / "index").unlink(missing_ok=True)
        self.path.mkdir(exist_ok=True)
        self._git.run("read-tree", "-u", "--reset", commit)

    def snapshot(
        self,
        base: str,
        prefix: str,
        scope: Scope,
        *,
        max_files: int | None = None,
        max_lines: int | None = None,
        secrets: Sequence[str] = (),
    ) -> Snapshot | Rejected:
        """Turn what is on disk into a tree and check it against `base`. Ignored files stay out.

        Nothing that a proposer planted is run: what could be is rejected before git looks at it,
        and every rule is checked on the tree, not on the files. Only `secrets`, which no change may
        contain, are looked for beforehand: git never forgets an object.
        """
        problem = self._stage(*_layout(self._mirror, sha(base)), secrets)
        if problem is not None:
            return Rejected(problem)
        tree = self._git.run("write-tree").line
        found, size = changes(self._mirror, base, tree)
        problem = _unfair([(c.path, c.new_mode) for c in found], prefix, scope)
        problem = problem or _oversized(size, max_files, max_lines)
        if problem is not None:
            return Rejected(problem)
        skip = len(prefix) + 1 if prefix else 0
        return Snapshot(tree, tuple(c.path[skip:] for c in found), size.added, size.removed)

    def _stage(
        self, files: frozenset[str], folders: frozenset[str], secrets: Sequence[str]
    ) -> str | None:
        """Bring the index up to what is on disk; says why not."""
        found = _look(self.path, files, folders)
        if found.hazard is not None:
            return found.hazard
        if found.odd:
            # Perhaps it is ignored, and then it is no matter.
            problem = self._diagnose()
            if problem is not None:
                return problem
        if secrets and self._holds([os.fsencode(secret) for secret in secrets]):
            return "the change contains a key"
        try:
            self._git.run("add", "-A", "--", ".")
        except GitError as error:
            problem = self._diagnose()
            if problem is None and "nvalid path" in error.stderr:
                problem = f"git refuses a name: {error.stderr.splitlines()[0]}"
            if problem is None:
                raise
            return problem
        return None

    def _diagnose(self) -> str | None:
        """Look at each path that git would stage, and say what is wrong with the first bad one."""
        paths = self._changed()
        if len(paths) > _MAX_PATHS:
            return f"{len(paths)} files were changed: {few(paths)}"
        return next((p for p in map(self._unstageable, paths) if p is not None), None)

    def _changed(self) -> list[str]:
        """List the paths that git would stage."""
        listing = ("ls-files", "-z", "--others", "--modified", "--deleted", "--exclude-standard")
        return sorted(set(self._git.run(*listing).fields))

    def _holds(self, secrets: Sequence[bytes]) -> bool:
        """Look for secrets in the names, the contents and the link targets that git would stage."""
        for path in self._changed():
            full, said = self.path / path, os.fsencode(path)
            with suppress(OSError):
                said += os.readlink(os.fsencode(full)) if full.is_symlink() else full.read_bytes()
            if any(secret in said for secret in secrets):
                return True
        return False

    def _unstageable(self, path: str) -> str | None:
        full = self.path / path
        try:
            info = full.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if path.endswith("/"):
            return f"{printable(path)} is a git repository of its own"
        if stat.S_ISLNK(info.st_mode) or stat.S_ISDIR(info.st_mode):
            return None
        if not stat.S_ISREG(info.st_mode):
            return f"{printable(path)} is not a regular file"
        if info.st_size > MAX_FILE_BYTES:
            return f"{printable(path)} is larger than {MAX_FILE_BYTES // 2**20} MiB"
        if not os.access(full, os.R_OK):
            return f"{printable(path)} cannot be read"
        return None

    def diff(self, base: str, tree: str) -> str:
        """Give the unified diff from a commit to a tree."""
        return diff(self._mirror, base, tree)

    def commit(self, tree: str, parent: str, message: str, at: datetime) -> str:
        """Write a commit by this worktree's identity; no branch moves."""
        return self._mirror.commit(tree, [parent], message, self._identity, at)

    def pack(self, commit: str, have: Sequence[str]) -> bytes:
        """Give what a hub that has the commits `have` needs for `commit`."""
        return self._mirror.pack([commit], have)

    def files(self, commit: str, prefix: str, scope: Scope) -> tuple[str, ...]:
        """List the regular files in scope, relative to the target's directory, sorted."""
        return _in_scope(self._mirror, sha(commit), prefix, scope)


def _unfair(found: list[tuple[str, str]], prefix: str, scope: Scope) -> str | None:
    """Say what rule a change breaks."""
    if not found:
        return "nothing was changed"
    outside = [path for path, _ in found if not _inside(path, prefix, scope)]
    guarded = [path for path in outside if is_guarded(path)]
    links = [path for path, mode in found if mode not in (*REGULAR_MODES, "000000")]
    if links:
        return f"a symbolic link: {few(links)}"
    if guarded:
        return f"only a scope that names it in full admits {few(guarded)}"
    if outside:
        return f"outside the scope: {few(outside)}"
    return None


def _oversized(size: DiffStat, max_files: int | None, max_lines: int | None) -> str | None:
    """Say which limit a change is over."""
    files, lines = len(size.files), size.added + size.removed
    if max_files is not None and files > max_files:
        return f"{files} files were changed, more than the {max_files} allowed"
    if max_lines is not None and size.binary:
        return f"no lines to count against the {max_lines} allowed: {few(size.binary)}"
    if max_lines is not None and lines > max_lines:
        return f"{lines} lines were changed, more than the {max_lines} allowed"
    return None


def _inside(path: str, prefix: str, scope: Scope) -> bool:
    """Tell whether a path of the repository is in scope; what no record can name never is."""
    if prefix:
        if not path.startswith(f"{prefix}/"):
            return False
        path = path[len(prefix) + 1 :]
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return path in scope


# --- files on disk -----------------------------------------------------------------------------

_entries = lru_cache(maxsize=8)(entries)


@lru_cache(maxsize=8)
def _in_scope(git_dir: GitDir, commit: str, prefix: str, scope: Scope) -> tuple[str, ...]:
    skip = len(prefix) + 1 if prefix else 0
    found = _entries(git_dir, commit)
    fair = (e.path for e in found if e.mode in REGULAR_MODES and _inside(e.path, prefix, scope))
    return tuple(sorted(path[skip:] for path in fair))


@lru_cache(maxsize=8)
def _layout(git_dir: GitDir, commit: str) -> tuple[frozenset[str], frozenset[str]]:
    """Give the files of a commit and the folders that hold them."""
    files = frozenset(e.path for e in _entries(git_dir, commit))
    return files, frozenset(parent for path in files for parent in _parents(path))


def _parents(path: str) -> Iterator[str]:
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)


def _sweep(root: Path, files: frozenset[str], folders: frozenset[str]) -> None:
    """Remove all that the commit does not have, and make its folders usable."""
    if root.is_symlink() or not root.is_dir():
        root.unlink(missing_ok=True)
        root.mkdir()
    pending = [""]
    while pending:
        folder = pending.pop()
        place = os.path.join(root, folder)
        mode = os.lstat(place).st_mode
        if mode & 0o700 != 0o700:
            os.chmod(place, mode | 0o700)
        with os.scandir(place) as found:
            for entry in found:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    if path in folders:
                        pending.append(path)
                    else:
                        remove_tree(Path(entry.path))
                elif path not in files:
                    os.unlink(entry.path)


class _Look(NamedTuple):
    """What a walk over the files on disk found."""

    hazard: str | None
    """Git must not even look at the tree."""
    odd: bool
    """Something is too large, too much or no file, and so no change unless it is ignored."""


def _look(root: Path, files: frozenset[str], folders: frozenset[str]) -> _Look:
    """Walk over what a proposer left before git does."""
    if root.is_symlink() or not root.is_dir():
        return _Look("the directory itself was replaced", odd=True)
    odd, new, pending = False, 0, [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as found:
                for entry in found:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.name.lower() == ".git":
                        return _Look(f"a git repository of its own: {printable(path)}", odd)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path)
                        continue
                    if path in folders and entry.is_symlink():
                        return _Look(f"a link in place of a directory: {printable(path)}", odd)
                    info = entry.stat(follow_symlinks=False)
                    special = not stat.S_ISREG(info.st_mode) and not stat.S_ISLNK(info.st_mode)
                    odd = odd or special or info.st_size > MAX_FILE_BYTES
                    new += path not in files
        except OSError as error:
            return _Look(f"{printable(folder or '.')} cannot be read: {error.strerror}", odd)
    return _Look(None, odd or new > _MAX_PATHS)


def _discard(path: Path) -> None:
    """Move a tree that cannot be removed out of the way, and remove as much as can be."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    with suppress(FileNotFoundError):
        os.rename(path, aside / path.name)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Generator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
