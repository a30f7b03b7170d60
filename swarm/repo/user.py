"""Small questions to the user's repository, and the making of a new one for the demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from swarm.errors import RepositoryError
from swarm.repo.process import SWARM, GitDir, diff, entries, execute
from swarm.repo.source import Source, discover


class Place(NamedTuple):
    """Where a directory lies in git's eyes."""

    top: Path
    git_dir: Path
    """The common directory, absolute."""
    prefix: str


def locate(directory: Path) -> Place:
    """Find the repository of a directory, whatever state it is in.

    Raises:
        RepositoryError: it is in none.
    """
    top, _, common, prefix = discover(directory)
    return Place(top, common, prefix)


def check_branch_room(source: Source, run: str) -> None:
    """Refuse a run whose branch `swarm/<run>/best` git would have no room for.

    Raises:
        RepositoryError: there is a branch `swarm/<run>`.
    """
    name = f"swarm/{run}"
    ref = GitDir(source.git_dir).run(
        "rev-parse", "--quiet", "--verify", f"refs/heads/{name}", accept=(0, 1)
    )
    if ref.status == 0:
        raise RepositoryError(
            f"the repository `{source.top}` has a branch `{name}`, so that git has no room for"
            f" `{name}/best`",
            hint=f"rename it (git branch -m {name} <name>), or launch under another --name",
            path=source.top,
        )


def changes(place: Place, commits: Sequence[str], most: int) -> dict[str, str]:
    """Give what commits changed, as unified diffs, for those that the repository still has.

    Args:
        place: the repository.
        commits: shas, possibly short; the first `most` that are there are looked at.
        most: how many diffs are made.
    """
    git = GitDir(place.git_dir)
    asked = "".join(f"{c}^{{commit}}\n{c}^^{{commit}}\n" for c in commits)
    told = git.run("cat-file", "--batch-check=%(objectname) %(objecttype)", data=asked.encode())
    answers = [line.split() for line in told.stdout.decode("utf-8", "replace").splitlines()]
    found: dict[str, str] = {}
    for commit, new, old in zip(commits, answers[::2], answers[1::2], strict=True):
        if len(found) < most and new[-1] == old[-1] == "commit" and commit not in found:
            found[commit] = diff(git, old[0], new[0])
    return found


def tracked_files(source: Source) -> tuple[str, ...]:
    """Give the files of the base commit below the target's directory, relative to it."""
    if source.snapshot_pack is not None:
        return _files_on_disk(source)
    below = f"{source.prefix}/" if source.prefix else ""
    paths = (e.path for e in entries(GitDir(source.git_dir), source.base_tree))
    return tuple(p.removeprefix(below) for p in paths if p.startswith(below))


def _files_on_disk(source: Source) -> tuple[str, ...]:
    """A snapshot's tree is not in the user's repository, but what it was made from is."""
    _, own, _, _ = discover(source.top)  # a linked worktree has an index of its own
    args = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    out = GitDir(own, source.top / source.prefix).run(*args)
    below = f"{source.prefix}/" if source.prefix else ""
    paths = {p for p in out.fields if p.startswith(below) and (source.top / p).exists()}
    return tuple(sorted(p.removeprefix(below) for p in paths))


def init_repository(top: Path, message: str) -> None:
    """Make a repository of a directory, with one commit of all that is in it."""
    env = {
        "GIT_AUTHOR_NAME": SWARM.name,
        "GIT_AUTHOR_EMAIL": SWARM.email,
        "GIT_COMMITTER_NAME": SWARM.name,
        "GIT_COMMITTER_EMAIL": SWARM.email,
    }
    for args in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all"),
        ("-c", "commit.gpgSign=false", "commit", "--quiet", "--no-verify", "-m", message),
    ):
        execute(args, cwd=top, env=env, strip="local")
