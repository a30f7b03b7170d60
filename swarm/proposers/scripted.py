"""The shipped fake: replays given patches in order. For demos, tests and rehearsals of a config.

Owns a strict applier of unified diffs and the JSON form of a patch. Keeps no state: which patch is
next follows from the briefing's history, so that a resumed run goes on where it was.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import ConfigDict, Field, ValidationError

from swarm.briefing import Briefing
from swarm.proposers import Draft, ExhaustedError, NoProposalError, Workspace
from swarm.records import Noun, Usage


class Script(Noun):
    """A patch in JSON: whole files, and how the proposal behaves."""

    model_config = ConfigDict(title="scripted patch")

    summary: str = ""
    rationale: str = ""
    files: dict[str, str | None] = Field(default_factory=dict)
    """Path -> new content; null deletes."""
    sleep: float = Field(default=0.0, ge=0, le=3600)
    """Seconds that the proposal takes."""
    usd: float = Field(default=0.0, ge=0)
    fail: str | None = None
    """The reason of a proposal that comes to nothing."""


class Scripted:
    """One agent of a group that shares patches: agent `index` takes every `count`-th."""

    def __init__(
        self, patches: Sequence[Path], index: int = 0, count: int = 1, loop: bool = False
    ) -> None:
        self.patches = tuple(p for given in patches for p in _expand(given))[index::count]
        self.loop = loop

    def propose(self, workspace: Workspace, briefing: Briefing) -> Draft:
        """Apply the next patch.

        Raises:
            ExhaustedError: all patches were replayed.
            NoProposalError: the patch does not apply, or says that it fails.
        """
        done = sum(attempt.agent == briefing.agent for attempt in briefing.attempts)
        if not self.patches or (done >= len(self.patches) and not self.loop):
            raise ExhaustedError(f"all {len(self.patches)} patches were replayed")
        path = self.patches[done % len(self.patches)]
        try:
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise NoProposalError(f"patch {path.name} cannot be read: {error}") from error
        if path.suffix == ".json":
            return _play(path, text, workspace)
        try:
            apply_diff(text, workspace.root)
        except PatchError as error:
            raise NoProposalError(f"patch {path.name} does not apply: {error}") from error
        return Draft(_subject(text) or path.name, edit={"patch": path.name})


def _expand(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    return sorted(p for p in given.iterdir() if p.suffix in (".diff", ".patch", ".json"))


def _play(path: Path, text: str, workspace: Workspace) -> Draft:
    started = time.monotonic()
    try:
        script = Script.model_validate_json(text)
        changes = {_inside(name, workspace.root): new for name, new in script.files.items()}
    except (ValidationError, PatchError) as error:
        raise NoProposalError(f"patch {path.name} is not one: {error}") from error
    time.sleep(script.sleep)
    usage = Usage(usd=script.usd, seconds=time.monotonic() - started)
    if script.fail is not None:
        raise NoProposalError(script.fail, usage)
    for file, new in changes.items():
        if new is None:
            file.unlink(missing_ok=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(new.encode())
    summary = script.summary or path.name
    return Draft(summary, script.rationale, usage=usage, edit={"patch": path.name})


def _subject(text: str) -> str:
    """Give the first line of words before the diff; of a mail, its subject."""
    for line in text.splitlines():
        if line.startswith(("diff --git ", "--- ", "+++ ", "@@ ", "---")):
            break
        if line.startswith("Subject:"):
            return re.sub(r"^\[PATCH[^\]]*\]\s*", "", line.removeprefix("Subject:").strip())
        if line.strip() and not re.match(r"From [0-9a-f]{40} |(?:From|Date|To|Cc): ", line):
            return line.strip()
    return ""


# --- unified diffs -----------------------------------------------------------------------------


class PatchError(ValueError):
    """A diff that cannot be applied exactly."""


@dataclass
class _Hunk:
    start: int
    old: list[bytes]
    new: list[bytes]


@dataclass
class _Change:
    old_path: str | None
    new_path: str | None
    hunks: list[_Hunk] = field(default_factory=list[_Hunk])
    open: bool = False
    """Whether only `diff --git` has named it yet."""


_RANGE = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_UNSUPPORTED = (b"GIT binary patch", b"Binary files ", b"copy from ")


def apply_diff(text: str, root: Path) -> list[str]:
    """Apply a unified diff below `root` and return the changed paths: all of it, or nothing.

    Strict: every line of context must stand where the diff says. Modes are not applied.

    Raises:
        PatchError: it does not fit, or names a path outside `root`.
    """
    changes = parse_diff(text)
    results: dict[Path, bytes | None] = {}
    for change in changes:
        old = _inside(change.old_path, root) if change.old_path is not None else None
        new = _inside(change.new_path, root) if change.new_path is not None else None
        if old is not None and not old.is_file():
            raise PatchError(f"{change.old_path} does not exist")
        if new is not None and new != old and new.exists():
            raise PatchError(f"{change.new_path} exists already")
        after = _patched(old.read_bytes() if old is not None else b"", change)
        if new is None and after:
            raise PatchError(f"{change.old_path} is deleted but has more lines")
        if old is not None:
            results.setdefault(old, None)
        if new is not None:
            if results.get(new) is not None:
                raise PatchError(f"{change.new_path} is changed twice")
            results[new] = after
    for file, content in results.items():
        if content is None:
            file.unlink()
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return [p for change in changes if (p := change.new_path or change.old_path)]


def _patched(before: bytes, change: _Change) -> bytes:
    lines = _lines(before)
    done: list[bytes] = []
    position = 0
    for hunk in change.hunks:
        # An empty old side means "after line `start`"; else `start` is the first line itself.
        start = hunk.start if not hunk.old else hunk.start - 1
        if start < position or lines[start : start + len(hunk.old)] != hunk.old:
            name = change.old_path or change.new_path
            raise PatchError(f"the lines at {name}:{hunk.start} are not those of the patch")
        done += lines[position:start] + hunk.new
        position = start + len(hunk.old)
    return b"".join(done + lines[position:])


def _lines(data: bytes) -> list[bytes]:
    """Split at line feeds only: the others are content to git."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def parse_diff(text: str) -> list[_Change]:
    """Read the files and hunks of a unified diff.

    Raises:
        PatchError: it is no diff, or does what this applier leaves out (binary, copies).
    """
    lines = _lines(text.encode())
    changes: list[_Change] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        if line.startswith(_UNSUPPORTED):
            raise PatchError("binary content and copies are not supported")
        if line.startswith(b"diff --git "):
            index = _git_header(lines, index, changes)
        elif line.startswith(b"--- ") and b"".join(lines[index + 1 : index + 2])[:4] == b"+++ ":
            old, new = _name(line[4:], "a/"), _name(lines[index + 1][4:], "b/")
            # Below a `diff --git` these lines repeat its names, and say them more exactly.
            if not (changes and changes[-1].open):
                changes.append(_Change(old, new))
            changes[-1].old_path, changes[-1].new_path = old, new
            changes[-1].open = False
            index += 2
        elif line.startswith(b"@@ ") and changes:
            index = _hunk(lines, index, changes[-1])
        else:
            index += 1
    if not changes:
        raise PatchError("it holds no diff")
    return changes


def _git_header(lines: list[bytes], index: int, changes: list[_Change]) -> int:
    """Read `diff --git` and the extended headers that no `---` line repeats."""
    rest = lines[index][len(b"diff --git ") :].rstrip(b"\r\n").decode()
    half = re.fullmatch(r"a/(.+) b/\1", rest)
    name = half[1] if half else None
    change = _Change(name, name, open=True)
    index += 1
    while index < len(lines) and not lines[index].startswith((b"diff --git ", b"--- ", b"@@ ")):
        line = lines[index]
        if line.startswith(_UNSUPPORTED):
            raise PatchError("binary content and copies are not supported")
        if line.startswith(b"new file mode"):
            change.old_path = None
        elif line.startswith(b"deleted file mode"):
            change.new_path = None
        elif line.startswith(b"rename from "):
            change.old_path = _name(line[12:], "")
        elif line.startswith(b"rename to "):
            change.new_path = _name(line[10:], "")
        index += 1
    if index < len(lines) and lines[index].startswith(b"--- "):
        changes.append(change)
    elif change.old_path != change.new_path:
        changes.append(change)  # an empty file, or a rename of the same content
    return index


def _name(raw: bytes, prefix: str) -> str | None:
    text = raw.rstrip(b"\r\n").decode().split("\t")[0]
    if text.startswith('"'):
        try:
            text = json.loads(text)
        except ValueError as error:
            raise PatchError(f"the quoted name {text} cannot be read") from error
    return None if text == "/dev/null" else text.removeprefix(prefix)


def _hunk(lines: list[bytes], index: int, change: _Change) -> int:
    found = _RANGE.match(lines[index])
    if found is None:
        raise PatchError(f"not a hunk: {lines[index][:40]!r}")
    left = int(found[2] or 1)
    right = int(found[4] or 1)
    hunk = _Hunk(int(found[1]), [], [])
    index += 1
    while left > 0 or right > 0:
        if index >= len(lines):
            raise PatchError("the last hunk is cut off")
        mark, body = lines[index][:1], lines[index][1:]
        if mark in (b"\n", b"\r"):
            mark, body = b" ", lines[index]  # editors strip the blank of an empty context line
        if mark not in (b" ", b"-", b"+"):
            raise PatchError("a hunk is shorter than it says")
        if mark in (b" ", b"-"):
            hunk.old.append(body)
            left -= 1
        if mark in (b" ", b"+"):
            hunk.new.append(body)
            right -= 1
        index += 1
        if index < len(lines) and lines[index].startswith(b"\\"):
            for side in {b" ": (hunk.old, hunk.new), b"-": (hunk.old,), b"+": (hunk.new,)}[mark]:
                side[-1] = side[-1].removesuffix(b"\n").removesuffix(b"\r")
            index += 1
    if left or right:
        raise PatchError("the counts of a hunk do not add up")
    change.hunks.append(hunk)
    return index


def _inside(name: str, root: Path) -> Path:
    """Resolve a patch's path; nothing outside `root`, nothing through a link."""
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or ".git" in pure.parts:
        raise PatchError(f"the path {name!r} is not inside the target")
    place = root
    for part in pure.parts:
        place = place / part
        if place.is_symlink():
            raise PatchError(f"the path {name!r} goes through a link")
    return place
