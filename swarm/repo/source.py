"""The user's repository: looked at before a run, never worked in; `apply` alone changes it.

Owns what makes a repository unusable and the words for it, and the snapshot of a dirty tree.
Knows no hub. Apart from `apply`, a command that the user gives, nothing here writes a byte into
the repository or touches a modification time.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from swarm.errors import GitError, PreconditionError, RepositoryError
from swarm.repo.process import (
    SWARM,
    GitDir,
    Output,
    about,
    alternates,
    entries,
    execute,
    few,
    git_version,
    is_ancestor,
    printable,
)

_UNREADABLE_FILTERS = re.compile(rb"^(?![ \t]*#).*[ \t]filter=(lfs|git-crypt)\b", re.MULTILINE)
"""Filters without which the files are no content: pointers, ciphertext."""


@dataclass(frozen=True)
class Source:
    """The user's repository as it was found."""

    top: Path
    """Git top level."""
    git_dir: Path
    """The common directory, absolute."""
    prefix: str
    """The target's directory relative to `top`, "" for the top itself."""
    base: str
    """The commit that is measured against; a snapshot of the working tree if `snapshot`."""
    base_tree: str
    snapshot: bool = False
    snapshot_pack: bytes | None = field(default=None, repr=False)
    """The objects of the snapshot, which are nowhere in the user's repository."""


def inspect(
    repo: Path, base: str = "HEAD", *, dirty: Literal["refuse", "snapshot"] = "refuse"
) -> Source:
    """Look at the repository of a target.

    A tree is dirty when tracked files differ from HEAD anywhere in the repository: the harness can
    reach all of it. Untracked files are no part of base either way and refuse nothing; a snapshot
    takes them along. A base other than HEAD is measured as committed, whatever is on disk.

    Raises:
        RepositoryError: it cannot be used as it is.
    """
    git_version()
    top, own, common, prefix = discover(repo)
    user = GitDir(own, top, config=_user_settings(top))
    head = _resolve(user, "HEAD")
    if head is None:
        raise RepositoryError(
            f"the repository `{top}` has no commit yet",
            hint="git add -A && git commit -m base",
            path=top,
        )
    commit = _resolve(user, base)
    if commit is None:
        raise _no_such_base(user, base)
    _check_branch_room(user)
    _check_tree(user, commit, prefix)
    dirt = _dirt(user, untracked=dirty == "snapshot") if commit == head else []
    if dirt and dirty == "refuse":
        raise RepositoryError(
            f"the repository `{top}` has uncommitted changes: {few(dirt)}",
            hint="commit or stash them, or set `dirty: snapshot` to measure what is on disk",
            path=top,
        )
    if dirt:
        return _snapshot(user, common, prefix, head)
    return Source(top, common, prefix, commit, about(user, commit, "%T"))


def discover(repo: Path) -> tuple[Path, Path, Path, str]:
    """Find top level, git directory, common directory and prefix."""
    if not repo.is_dir():
        what = "is not a directory" if repo.exists() else "does not exist"
        raise RepositoryError(f"`{repo}` {what}", hint="correct `repo` in the config", path=repo)

    def ask(*args: str) -> str:
        args = ("-c", "safe.directory=*", "rev-parse", "--path-format=absolute", *args)
        return _user_git(repo, *args).line

    try:
        inside = ask("--is-inside-work-tree") == "true"
    except GitError as error:
        if "not a git repository" not in error.stderr:
            raise RepositoryError(error.message, path=repo) from error
        raise RepositoryError(
            f"`{repo}` is not in a git repository",
            hint=f"cd '{repo}' && git init && git add -A && git commit -m base",
            path=repo,
        ) from error
    if not inside:
        raise RepositoryError(
            f"`{repo}` has no working tree: it is a bare repository or inside a git directory",
            hint="point `repo` at a checkout: git clone <repository> <directory>",
            path=repo,
        )
    if ask("--show-object-format") != "sha1":
        raise RepositoryError(
            f"the repository `{repo}` uses SHA-256 object ids, which swarm cannot handle",
            hint="use a repository with the default object format",
            path=repo,
        )
    top, own, common = ask("--show-toplevel"), ask("--absolute-git-dir"), ask("--git-common-dir")
    return Path(top), Path(own), Path(common), ask("--show-prefix").removesuffix("/")


def _user_git(cwd: Path, *args: str) -> Output:
    """Run git as the user would in `cwd`: their configuration, hooks and identity."""
    env = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    return execute(args, cwd=cwd, env=env, strip="local")


def _user_settings(top: Path) -> tuple[tuple[str, str], ...]:
    """Take over from the user's configuration what decides which files differ, nothing else."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    settings = {"core.excludesFile": f"{home}/git/ignore"}
    for key in ("core.excludesFile", "core.autocrlf", "core.eol"):
        with suppress(GitError):
            args = ("-c", "safe.directory=*", "config", "--type=path", "--get", key)
            settings[key] = _user_git(top, *args).line
    return tuple(settings.items())


def _resolve(user: GitDir, name: str) -> str | None:
    """Give the commit that a name of the user's stands for."""
    if name.startswith("-") or "\0" in name:
        return None
    args = ("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    out = user.run(*args, accept=(0, 1, 128))
    return out.line if out.status == 0 else None


def _top(user: GitDir) -> Path:
    assert user.work_tree is not None
    return user.work_tree


def _no_such_base(user: GitDir, base: str) -> RepositoryError:
    names = user.run(
        *("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes")
    ).line.splitlines()
    close = difflib.get_close_matches(base, names, n=3, cutoff=0.5)
    shallow = user.run("rev-parse", "--is-shallow-repository").line == "true"
    if close:
        hint = "did you mean " + " or ".join(f"`{name}`" for name in close) + "?"
    elif shallow:
        hint = "the clone is shallow: `git fetch --unshallow` brings the rest of its history"
    else:
        hint = "list what there is: git branch -a; git tag"
    return RepositoryError(
        f"base {base!r} is no commit of the repository `{_top(user)}`", hint=hint, path=_top(user)
    )


def _check_branch_room(user: GitDir) -> None:
    """A branch `swarm` leaves no room for `swarm/<run>/best`: better said now than hours on."""
    if _resolve(user, "refs/heads/swarm") is not None:
        raise RepositoryError(
            f"the repository `{_top(user)}` has a branch `swarm`, so that git has no room for"
            " the branches `swarm/<run>/best`",
            hint="rename it: git branch -m swarm <name>",
            path=_top(user),
        )


def _check_tree(user: GitDir, commit: str, prefix: str) -> None:
    """Refuse a base that a plain checkout of its objects does not reproduce."""
    top, found = _top(user), entries(user, commit)
    links = [e.path for e in found if e.mode == "160000"]
    if links:
        raise RepositoryError(
            f"the repository `{top}` has submodules, which swarm cannot measure: {few(links)}",
            hint="make their files part of the repository, or point `repo` at one of them",
            path=top,
        )
    for entry in found:
        if entry.path.rsplit("/", 1)[-1] != ".gitattributes" or entry.mode == "120000":
            continue
        match = _UNREADABLE_FILTERS.search(user.run("cat-file", "blob", entry.sha).stdout)
        if match:
            raise RepositoryError(
                f"{printable(entry.path)} in `{top}` keeps files out of git with"
                f" filter={match[1].decode()}, so that they cannot be measured",
                hint="keep such files outside the repository, where the harness can read them",
                path=top / entry.path,
            )
    if prefix and not any(e.path.startswith(f"{prefix}/") for e in found):
        raise RepositoryError(
            f"the directory {printable(prefix)} of `{top}` does not exist in the base commit",
            hint="commit it, or set `base` to a commit that has it",
            path=top / prefix,
        )


def _dirt(user: GitDir, *, untracked: bool) -> list[str]:
    """List what differs from HEAD: tracked files, and those not ignored if `untracked`."""
    which = "all" if untracked else "no"
    args = ("status", "--porcelain=v1", "-z", "--no-renames", f"--untracked-files={which}")
    rows = user.run(*args, "--", ".", _NOT_OURS).fields
    return [row[3:] for row in rows]


_NOT_OURS = ":(exclude,top).swarm"


def _snapshot(user: GitDir, common: Path, prefix: str, head: str) -> Source:
    """Commit what is on disk, without a byte of it in the user's repository."""
    with tempfile.TemporaryDirectory(prefix="swarm-snapshot-") as tmp:
        index, objects = Path(tmp, "index"), Path(tmp, "objects")
        objects.mkdir()
        if (user.path / "index").exists():
            # With its time: git tells by it which files it has to look into.
            shutil.copy2(user.path / "index", index)
        # No alternates while files are added: git "freshens" the time of every object that it
        # need not write, in the user's repository too.
        env = {"GIT_INDEX_FILE": str(index), "GIT_OBJECT_DIRECTORY": str(objects)}
        aside = replace(user, env=tuple(env.items()))
        aside.run("add", "-A", "--", ".", _NOT_OURS)
        tree = aside.run("write-tree", "--missing-ok").line
        aside = replace(user, env=tuple((env | alternates(common / "objects")).items()))
        seconds = int(about(aside, head, "%ct"))
        # The time of HEAD, so that the same files make the same base again.
        at = datetime.fromtimestamp(seconds, UTC)
        base = aside.commit(tree, [head], "Snapshot of the working tree\n", SWARM, at)
        _check_tree(aside, base, prefix)
        # Not thin: the hub unpacks it before it has anything else.
        pack = aside.run(
            "pack-objects", "--revs", "--stdout", "-q", data=f"{base}\n^{head}\n".encode()
        ).stdout
    return Source(_top(user), common, prefix, base, tree, True, pack)


# --- apply -------------------------------------------------------------------------------------


def apply(top: Path, ref: str, *, onto: str | None = None) -> str:
    """Bring the user's current branch to `ref`, or make the new branch `onto` there.

    This is the user's own `git merge --ff-only`, with their configuration and hooks.
    Gives one line that says what was done.

    Raises:
        PreconditionError: the tree is dirty, the branch has moved on, or `onto` cannot be made.
    """
    top, own, common, _ = discover(top)
    user = GitDir(own, top)
    tip, head = _resolve(user, ref), _resolve(user, "HEAD")
    if tip is None or head is None:
        raise RepositoryError(
            f"the repository `{top}` has no branch `{ref.removeprefix('refs/heads/')}`",
            hint="launch the run again: it delivers its best branch",
            path=top,
        )
    dirt = _dirt(GitDir(own, top, config=_user_settings(top)), untracked=False)
    if dirt:
        raise PreconditionError(
            f"the repository `{top}` has uncommitted changes: {few(dirt)}",
            hint="commit or stash them, then run `swarm apply` again",
            path=top,
        )
    if onto is not None:
        return _branch(user, ref, tip, onto)
    if not is_ancestor(common, head, tip):
        if is_ancestor(common, tip, head):
            return f"nothing to do: {ref.removeprefix('refs/heads/')} is already in HEAD"
        raise PreconditionError(
            f"the current branch of `{top}` has moved on since the run began",
            hint="swarm apply --onto <new branch>, then merge it yourself",
            path=top,
        )
    try:
        _user_git(top, "merge", "--ff-only", "--no-edit", tip)
    except GitError as error:
        raise PreconditionError(
            f"git would not fast-forward `{top}`: {error.stderr}",
            hint="swarm apply --onto <new branch>",
            path=top,
        ) from error
    return f"fast-forwarded from {head[:10]} to {tip[:10]}"


def _branch(user: GitDir, ref: str, tip: str, name: str) -> str:
    full = f"refs/heads/{name}"
    if name.startswith("-") or user.run("check-ref-format", full, accept=(0, 1)).status:
        raise PreconditionError(f"{name!r} is no name for a branch", path=user.path)
    if _resolve(user, full) is not None:
        raise PreconditionError(
            f"the branch `{name}` exists already",
            hint="choose another name for `--onto`",
            path=user.path,
        )
    _user_git(_top(user), "branch", "--no-track", name, tip)
    return f"made the branch {name} at {tip[:10]}, the tip of {ref.removeprefix('refs/heads/')}"
