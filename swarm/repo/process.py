"""Git commands as hardened processes: the one place where git is started.

Owns the environment and the configuration that git sees, its exit statuses and its words. Nothing
that another party can write (a user's configuration, an agent's files, an inherited variable)
decides what these processes run. Knows no hub, no mirror and no run.

GitPython is the process wrapper and nothing more: its `Repo` objects leak children and are unsafe
in threads, its `Git` objects are cheap, so every command gets a fresh one.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from swarm.errors import GitError, PreconditionError

# Without it, the import fails on a machine that has no git, and with it our own message.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
import git
import git.exc

MINIMUM_VERSION = (2, 38)
"""The first with `merge-tree --write-tree`."""
NO_OBJECT = "0" * 40
"""As the expected value of a ref: it must not exist. As the new one: delete it."""
REGULAR_MODES = ("100644", "100755")

_TIMEOUT_S = 1800.0
_STDERR_TAIL = 4000
_SHA = re.compile(r"[0-9a-f]{40}")

_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.quotePath": "false",
    "core.filesRefLockTimeout": "2000",
    "core.packedRefsTimeout": "5000",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gc.auto": "0",
    # Alone it would do, and it saves the start of `git maintenance` on every commit.
    "maintenance.auto": "false",
    "diff.ignoreSubmodules": "all",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "protocol.allow": "never",
    "protocol.file.allow": "always",
    # The user named the directory, and swarm is about to run what is in it: git's question
    # whether its owner is trusted has been answered.
    "safe.directory": "*",
    "rerere.enabled": "false",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
}


_ROLES = ("AUTHOR", "COMMITTER")


@dataclass(frozen=True)
class Identity:
    """Author and committer of a commit."""

    name: str
    email: str

    def env(self, at: datetime) -> dict[str, str]:
        """Give the variables that make a commit by this identity at that time reproducible."""
        when = f"{int(at.timestamp())} +0000"
        env: dict[str, str] = {}
        for role in _ROLES:
            env[f"GIT_{role}_NAME"] = self.name
            env[f"GIT_{role}_EMAIL"] = self.email
            env[f"GIT_{role}_DATE"] = when
        return env


SWARM = Identity("swarm", "swarm@swarm.invalid")


def _hardened() -> dict[str, str]:
    env = {
        # The reflog of a fetch and a synthetic commit need some identity.
        **{f"GIT_{role}_NAME": SWARM.name for role in _ROLES},
        **{f"GIT_{role}_EMAIL": SWARM.email for role in _ROLES},
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_EDITOR": "/bin/false",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_ALLOW_PROTOCOL": "file",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_DEFAULT_REF_FORMAT": "files",
        "HOME": "/dev/null",
        "XDG_CONFIG_HOME": "/dev/null",
        "LC_ALL": "C",
        "GIT_CONFIG_COUNT": str(len(_CONFIG)),
    }
    for i, (key, value) in enumerate(_CONFIG.items()):
        env[f"GIT_CONFIG_KEY_{i}"] = key
        env[f"GIT_CONFIG_VALUE_{i}"] = value
    return env


_HARDENED = _hardened()
# What `git rev-parse --local-env-vars` lists, and the variables that change what a path means.
_LOCAL = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_CONFIG_COUNT",
        "GIT_CONFIG_PARAMETERS",
        "GIT_DIR",
        "GIT_GLOB_PATHSPECS",
        "GIT_GRAFT_FILE",
        "GIT_ICASE_PATHSPECS",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_LITERAL_PATHSPECS",
        "GIT_NAMESPACE",
        "GIT_NOGLOB_PATHSPECS",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)


class Output(NamedTuple):
    """What a git process left behind."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def line(self) -> str:
        """Standard output as text without its newline."""
        return self.stdout.removesuffix(b"\n").decode("utf-8", "surrogateescape")

    @property
    def fields(self) -> list[str]:
        """Standard output split at its NULs. Bytes that are not UTF-8 become surrogates."""
        return self.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


@dataclass(frozen=True)
class GitDir:
    """A git directory to run commands on, never discovered from files that others can write."""

    path: Path
    work_tree: Path | None = None
    config: tuple[tuple[str, str], ...] = ()
    """Settings on top of the hardened ones."""
    env: tuple[tuple[str, str], ...] = ()
    """Variables on top of the hardened ones."""

    def run(
        self,
        *args: str,
        data: bytes = b"",
        env: Mapping[str, str] | None = None,
        accept: Collection[int] = (0,),
    ) -> Output:
        """Run `git args` with `data` on its standard input.

        Raises:
            GitError: the exit status is not in `accept`.
        """
        own = {**_HARDENED, "GIT_DIR": str(self.path), **dict(self.env), **(env or {})}
        if self.work_tree is not None:
            own["GIT_WORK_TREE"] = str(self.work_tree)
        settings = [part for key, value in self.config for part in ("-c", f"{key}={value}")]
        cwd = self.work_tree or self.path
        return execute([*settings, *args], cwd=cwd, env=own, strip="all", data=data, accept=accept)

    def commit(
        self, tree: str, parents: Collection[str], message: str, identity: Identity, at: datetime
    ) -> str:
        """Write a commit object. The same arguments give the same commit."""
        args = ["commit-tree", sha(tree)]
        for parent in parents:
            args += ["-p", sha(parent)]
        # git refuses a NUL; lone surrogates have no UTF-8.
        text = message.replace("\0", "").encode("utf-8", "replace")
        return self.run(*args, data=text, env=identity.env(at)).line

    def pack(self, commits: Collection[str], have: Collection[str]) -> bytes:
        """Give a thin pack of what is reachable from `commits` but not from `have`."""
        revs = [sha(c) for c in commits] + [f"^{sha(c)}" for c in have]
        data = "".join(f"{r}\n" for r in revs).encode()
        return self.run(
            "pack-objects", "--revs", "--thin", "--stdout", "--delta-base-offset", "-q", data=data
        ).stdout

    def unpack(self, pack: bytes) -> None:
        """Store the objects of a pack, children before parents: a commit implies its files."""
        many = int.from_bytes(pack[8:12], "big") > 1000
        if many:
            self.run("index-pack", "--stdin", "--fix-thin", "--strict", data=pack)
        else:
            self.run("unpack-objects", "--strict", "-q", data=pack)

    def has(self, commit: str) -> bool:
        """Tell whether the commit is here."""
        # Not `-e`: to that, the empty file that a crash of the machine leaves is an object.
        return self.run("cat-file", "-t", sha(commit), accept=(0, 1, 128)).status == 0


def execute(
    args: Collection[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    strip: Literal["all", "local"],
    data: bytes = b"",
    accept: Collection[int] = (0,),
) -> Output:
    """Run one git process. `strip` says which inherited `GIT_*` variables it does not get.

    Raises:
        GitError: the exit status is not in `accept`.
        PreconditionError: the same, and the disk is full; or there is no git.
    """
    command = ["git", *args]
    leaked = [name for name in os.environ if name not in env and _is_leak(name, strip)]
    if leaked:
        # GitPython can add to the environment but takes nothing away from it.
        command = ["env", *(part for name in leaked for part in ("-u", name)), *command]
    try:
        # A session of its own: Ctrl-C in the terminal ends no git in the middle of a write, and
        # no command can ask the terminal a question.
        process: Any = git.Git(str(cwd)).execute(
            command, istream=_PIPE, as_process=True, env=env, start_new_session=True
        )
    except git.exc.GitCommandNotFound as error:
        raise PreconditionError(
            f"git could not be started: {error}",
            hint=f"install git {_dotted(MINIMUM_VERSION)} or newer",
        ) from error
    stdout, stderr = _communicate(process, data, command)
    text = stderr.decode("utf-8", "replace").strip()[-_STDERR_TAIL:]
    if process.returncode not in accept:
        words = text or f"exit status {process.returncode}"
        if _is_full(cwd) or any(sign in text for sign in _FULL):
            raise PreconditionError(  # git itself does not always say why it could not write
                f"`git {_name(args)}` failed in `{cwd}`: {words}\n(no space is left on that disk)",
                hint="free some disk space, then launch the run again: it resumes",
                path=cwd,
            )
        raise GitError(
            f"`git {_name(args)}` failed in `{cwd}`: {words}",
            status=process.returncode,
            stderr=text,
        )
    return Output(process.returncode, stdout, text)


_PIPE: Any = subprocess.PIPE
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def _communicate(process: Any, data: bytes, command: Collection[str]) -> tuple[bytes, bytes]:
    try:
        return process.communicate(data, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, stderr = process.communicate()
        raise GitError(
            f"`git {_name(command)}` did not end within {_TIMEOUT_S:.0f} s",
            status=-signal.SIGKILL,
            stderr=stderr.decode("utf-8", "replace")[-_STDERR_TAIL:],
        ) from None


def _is_full(place: Path) -> bool:
    try:
        disk = os.statvfs(place)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < 64 * 1024 or (disk.f_files > 0 and disk.f_favail == 0)


def _is_leak(name: str, strip: Literal["all", "local"]) -> bool:
    if strip == "local":
        return name in _LOCAL
    # A relocated git finds its own commands by GIT_EXEC_PATH.
    return name.startswith("GIT_") and name != "GIT_EXEC_PATH" and not name.startswith("GIT_PYTHON")


def _name(args: Collection[str]) -> str:
    words = [a for a in args if a not in ("git", "env", "-u") and not a.startswith("GIT_")]
    return next((w for w in words if not w.startswith("-") and "=" not in w), "")


def sha(value: str) -> str:
    """Give the object id back, or refuse: nothing else may stand where git expects one."""
    if not _SHA.fullmatch(value):
        raise GitError(f"not a full object id: {value!r}", status=-1)
    return value


def alternates(objects: Path) -> dict[str, str]:
    """Give the variable by which git reads, but never writes, the objects of another repository."""
    # Quoted as git unquotes it: the value is a list separated by colons.
    text = str(objects).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{text}"'}


def printable(path: str) -> str:
    """Give a path in backticks for a message: no control character, no lone surrogate."""
    raw = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "`" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in raw) + "`"


def few(paths: Collection[str], limit: int = 3) -> str:
    """Name the first few paths and count the rest."""
    shown = ", ".join(printable(p) for p in list(paths)[:limit])
    return shown if len(paths) <= limit else f"{shown} and {len(paths) - limit} more"


def git_version() -> tuple[int, ...]:
    """Give the version of the git that is used.

    Raises:
        PreconditionError: it is missing or too old.
    """
    text = execute(["--version"], cwd=Path("/"), env=_HARDENED, strip="all").line
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    version = tuple(int(n) for n in match.groups(default="0")) if match else ()
    if version < MINIMUM_VERSION:
        raise PreconditionError(
            f"git {_dotted(version)} is too old for swarm",
            hint=f"install git {_dotted(MINIMUM_VERSION)} or newer",
        )
    return version


def _dotted(version: Collection[int]) -> str:
    return ".".join(str(n) for n in version)


# --- reading objects ---------------------------------------------------------------------------


@dataclass(frozen=True)
class DiffStat:
    """How much two commits differ; `files` are relative to the top of the repository."""

    files: tuple[str, ...]
    added: int
    removed: int
    binary: tuple[str, ...] = ()
    """Those among `files` that have no lines to count."""


class Change(NamedTuple):
    """One path on which two trees differ. A mode is `000000` where the path does not exist."""

    path: str
    old_mode: str
    new_mode: str
    new_sha: str
    old_sha: str


def changes(git_dir: GitDir, old: str, new: str) -> tuple[list[Change], DiffStat]:
    """Compare two trees (or commits), path by path, without any guess about renames.

    Without a working tree, that is without attributes: no file hides its lines by calling itself
    binary.
    """
    assert git_dir.work_tree is None
    out = git_dir.run(
        *("diff-tree", "-r", "-z", "--raw", "--numstat", "--no-renames", "--no-abbrev"),
        *(sha(old), sha(new)),
    ).fields
    found: list[Change] = []
    added = removed = 0
    i = 0
    while i < len(out) and out[i].startswith(":"):
        old_mode, new_mode, old_sha, new_sha, _status = out[i][1:].split(" ")
        found.append(Change(out[i + 1], old_mode, new_mode, new_sha, old_sha))
        i += 2
    binary: list[str] = []
    for row in out[i:]:
        more, less, path = row.split("\t", 2)
        if more == "-":
            binary.append(path)
        else:
            added, removed = added + int(more), removed + int(less)
    return found, DiffStat(tuple(c.path for c in found), added, removed, tuple(binary))


def diff(git_dir: GitDir, old: str, new: str) -> str:
    """Give the unified diff between two trees (or commits)."""
    args = ("diff-tree", "-r", "-p", "-M", "--no-ext-diff", "--no-textconv", "--no-color")
    return git_dir.run(*args, sha(old), sha(new)).stdout.decode("utf-8", "replace")


class Entry(NamedTuple):
    """One path of a tree."""

    mode: str
    sha: str
    path: str


def entries(git_dir: GitDir, tree: str) -> tuple[Entry, ...]:
    """List every file of a tree (or commit), gitlinks included."""
    rows = git_dir.run("ls-tree", "-r", "-z", "--full-tree", sha(tree)).fields
    return tuple(Entry(r[:6], r[7:].split(" ", 1)[1][:40], r.split("\t", 1)[1]) for r in rows)


def about(git_dir: GitDir, commit: str, what: str) -> str:
    """Give one fact of a commit, named as in git's pretty formats."""
    # Plumbing: `log` and `show` run what a configuration names to verify signatures.
    args = ("rev-list", "--max-count=1", f"--format={what}", sha(commit), "--")
    return git_dir.run(*args).line.split("\n", 1)[1]


def read_file(git_dir: Path, commit: str, path: str) -> bytes | None:
    """Read a file of a commit; None when the commit has no such file."""
    name = f"{sha(commit)}:{path}\0".encode("utf-8", "surrogateescape")
    out = GitDir(git_dir).run("cat-file", "--batch", "-z", data=name).stdout
    header, _, rest = out.partition(b"\n")
    # The name of a missing object is repeated as it was asked for, newlines and all.
    match = re.fullmatch(rb"[0-9a-f]{40} blob ([0-9]+)", header)
    return rest[: int(match[1])] if match else None


def is_ancestor(git_dir: Path, old: str, new: str) -> bool:
    """Tell whether `new` is `old` or grew from it."""
    args = ("merge-base", "--is-ancestor", sha(old), sha(new))
    return GitDir(git_dir).run(*args, accept=(0, 1)).status == 0
