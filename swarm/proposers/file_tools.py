"""The tools that a model is given: to look at the worktree, change files, look up experiments.

Owns the confinement of paths, the limits on sizes, and how a model's input is checked: whatever a
model sends, a tool returns text or raises `ToolError`. Knows no provider and no conversation.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from swarm.briefing import Briefing
from swarm.formats.fence import fenced, head, tail
from swarm.lessons import changes
from swarm.proposers import Workspace
from swarm.proposers import search_child as _search_child
from swarm.records import Attempt
from swarm.scope import Scope, is_guarded

LIMIT = 20_000
"""Most characters of one result."""
LINE = 2_000
"""Most characters of one line that is shown."""
LARGEST_READ = 4_000_000
LARGEST_WRITE = 1_000_000
MOST_FILES = 20_000
LONGEST_PATTERN = 1_000
SEARCH_S = 5.0
"""Longest time of one search."""


class ToolError(Exception):
    """The call did not work; the message is for the model."""


# --- what a tool takes ----------------------------------------------------------------------------


class Field(NamedTuple):
    """One input of a tool."""

    kind: Literal["string", "integer"]
    says: str
    required: bool = True


class Tool(NamedTuple):
    """What a model is told of a tool."""

    name: str
    says: str
    fields: Mapping[str, Field]

    def spec(self) -> dict[str, Any]:
        """Describe it as the Messages API wants it."""
        properties = {n: {"type": f.kind, "description": f.says} for n, f in self.fields.items()}
        schema = {
            "type": "object",
            "properties": properties,
            "required": [name for name, field in self.fields.items() if field.required],
            "additionalProperties": False,
        }
        return {"name": self.name, "description": self.says, "input_schema": schema}

    def check(self, given: object) -> dict[str, Any]:
        """Give a model's input in the right types.

        Raises:
            ToolError: it is not what the tool takes.
        """
        if not isinstance(given, dict):
            raise ToolError(f"{self.name} takes an object with {', '.join(self.fields)}")
        values = {str(k): v for k, v in cast("dict[Any, Any]", given).items() if v is not None}
        if unknown := sorted(values.keys() - self.fields.keys()):
            known = ", ".join(self.fields) or "nothing"
            raise ToolError(f"{self.name} does not take {', '.join(unknown)[:200]}, only {known}")
        if missing := [n for n, f in self.fields.items() if f.required and n not in values]:
            raise ToolError(f"{self.name} needs {', '.join(missing)}")
        return {name: self._value(name, value) for name, value in values.items()}

    def _value(self, name: str, value: object) -> str | int:
        if self.fields[name].kind == "string" and isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ToolError(f"`{name}` is not valid text") from None
            return value
        if self.fields[name].kind == "integer":
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}", value):
                return int(value)
        raise ToolError(f"`{name}` of {self.name} must be of type {self.fields[name].kind}")


_PATH = Field("string", "Path relative to the worktree's top, such as `src/model.py`.")
_GLOB = Field("string", "Only files that match, such as `*.py` or `src/**/*.yaml`.", False)
TOOLS = (
    Tool("list_files", "List the files, and tell which of them may be changed.", {"glob": _GLOB}),
    Tool(
        "read_file",
        "Read a text file, with line numbers, which are not a part of it.",
        {
            "path": _PATH,
            "start": Field("integer", "First line, from 1.", False),
            "end": Field("integer", "Last line.", False),
        },
    ),
    Tool(
        "search",
        "Find the lines that match a regular expression (Python's), in all files.",
        {"pattern": Field("string", "The expression, matched line by line."), "glob": _GLOB},
    ),
    Tool(
        "edit_file",
        "Replace one piece of a file. `old` must be in it exactly once, character by character, "
        "without line numbers.",
        {
            "path": _PATH,
            "old": Field("string", "The text to be replaced, with enough around it to be unique."),
            "new": Field("string", "What takes its place; empty removes it."),
        },
    ),
    Tool(
        "write_file",
        "Write a whole file, a new one or in place of an old one. To change a piece of a file, use "
        "edit_file.",
        {"path": _PATH, "content": Field("string", "All of the file.")},
    ),
    Tool("delete_file", "Delete a file.", {"path": _PATH}),
    Tool(
        "view_experiment",
        "Show all that is known of an earlier experiment: its change, verdict, numbers and log.",
        {"number": Field("integer", "The experiment's number.")},
    ),
)


def run(workspace: Workspace, briefing: Briefing, name: str, given: object) -> str:
    """Run one call of a tool of `TOOLS`.

    Raises:
        ToolError: it did not work; the message says why, for the model.
    """
    tool = next((tool for tool in TOOLS if tool.name == name), None)
    if tool is None:
        raise ToolError(f"there is no tool {name[:80]!r}")
    values = tool.check(given)
    try:
        if name == "view_experiment":
            return view_experiment(briefing, **values)
        return cut(_FUNCTIONS[name](workspace, **values))
    except OSError as error:
        raise ToolError(f"{name} failed: {error.strerror or type(error).__name__}") from error


def cut(text: str, limit: int = LIMIT, more: str = "") -> str:
    """Shorten a text, and say so."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: {len(text) - limit} more characters{more}]"


# --- paths ----------------------------------------------------------------------------------------


def _normal(path: str) -> str:
    """Give a path in the form in which scopes know it.

    Raises:
        ToolError: it is none that a model may name.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or not parts:
        raise ToolError(f"{_show(path)}: give a path relative to the worktree's top")
    if ".." in parts:
        raise ToolError(f"{_show(path)}: `..` leads out of the worktree")
    if any(part.lower() == ".git" for part in parts):
        raise ToolError(f"{_show(path)}: git's own files are not to be touched")
    if "\0" in path or len(path) > 1000:
        raise ToolError(f"{_show(path)} is no path")
    return "/".join(parts)


def _show(path: str) -> str:
    return repr(path[:200])


def _place(workspace: Workspace, path: str) -> tuple[str, Path]:
    """Find what a model names: a regular file below the root, or nothing as yet.

    Raises:
        ToolError: it is hidden, or there is something else in the way, a link above all.
    """
    name = _normal(path)
    if is_hidden(workspace.hidden, name):
        raise ToolError(f"{_show(name)} is hidden from you")
    place, parts = workspace.root, name.split("/")
    for depth, part in enumerate(parts, start=1):
        place = place / part
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            return name, workspace.root / name
        if stat.S_ISLNK(mode):
            raise ToolError(f"{_show(name)} is reached through a link, which is not followed")
        last = depth == len(parts)
        if last and stat.S_ISDIR(mode):
            raise ToolError(f"{_show(name)} is a directory; list_files with glob `{name}/`")
        if not (stat.S_ISREG(mode) if last else stat.S_ISDIR(mode)):
            wanted = "regular file" if last else "directory"
            raise ToolError(f"{_show('/'.join(parts[:depth]))} is no {wanted}")
    return name, place


def is_hidden(hidden: Scope, name: str) -> bool:
    """Tell whether a file is hidden; a name that scopes guard is no way around it."""
    if not hidden.patterns:
        return False
    parts = name.split("/")
    if any("/".join(parts[:depth]) in hidden for depth in range(1, len(parts) + 1)):
        return True
    if not is_guarded(name):
        return False
    lasts = (pattern.rstrip("/").rsplit("/", 1)[-1] for pattern in hidden.patterns)
    return any(fnmatchcase(parts[-1], last) for last in lasts)


def _writable(workspace: Workspace, path: str) -> tuple[str, Path]:
    name, place = _place(workspace, path)
    if name not in workspace.scope:
        scope = cut(", ".join(workspace.scope.patterns), 400)
        raise ToolError(f"{_show(name)} is not in scope; you may change only {scope}")
    return name, place


def _walk(workspace: Workspace) -> Iterator[str]:
    """Give the regular files that may be read, sorted, directory by directory."""
    ways, left = [""], MOST_FILES
    while ways and left:
        way = ways.pop()
        below: list[str] = []
        with os.scandir(workspace.root / way) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = way + entry.name
                if entry.name.lower() == ".git" or is_hidden(workspace.hidden, name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(f"{name}/")
                elif entry.is_file(follow_symlinks=False) and left:
                    left -= 1
                    yield name
        ways += reversed(below)


def _matching(workspace: Workspace, glob: str | None) -> list[str]:
    """Give the files that may be read and match.

    Raises:
        ToolError: the glob is too long.
    """
    if glob and len(glob) > LONGEST_PATTERN:
        raise ToolError(f"the glob is longer than {LONGEST_PATTERN} characters")
    names = list(_walk(workspace))
    parts = _glob_parts(glob or "")
    return [name for name in names if _fits(name, parts)] if parts else names


def _glob_parts(glob: str) -> tuple[str, ...]:
    """Take a glob apart at `/`; `**` stands for any number of directories, none included."""
    parts: list[str] = []
    for part in glob.split("/"):
        if part not in ("", "."):
            parts += ("**", part) if "**" in part and part != "**" else (part,)
    if len(parts) == 1:
        parts.insert(0, "**")
    if parts and (glob.endswith("/") or not re.search(r"[*?\[]", glob)):
        parts.append("**")
    return tuple(parts)


def _fits(name: str, parts: tuple[str, ...]) -> bool:
    """Tell whether a name matches, in a time that no glob can blow up, unlike that of a regex."""
    here = _onwards({0}, parts)
    for word in name.split("/"):
        stay = {i for i in here if i < len(parts) and parts[i] == "**"}
        go = {i + 1 for i in here - stay if i < len(parts) and fnmatchcase(word, parts[i])}
        here = _onwards(stay | go, parts)
    return len(parts) in here


def _onwards(here: set[int], parts: tuple[str, ...]) -> set[int]:
    """Add the places that are reached through nothing at all."""
    found = set(here)
    for place in range(len(parts)):
        if place in found and parts[place] == "**":
            found.add(place + 1)
    return found


# --- reading --------------------------------------------------------------------------------------


def _bytes(name: str, place: Path) -> bytes:
    try:
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ToolError(f"there is no file {_show(name)}") from None
    with open(handle, "rb") as file:
        data = file.read(LARGEST_READ + 1)
        size = os.fstat(file.fileno()).st_size
    if b"\0" in data[:8192]:
        raise ToolError(f"{_show(name)} is a binary file of {size} bytes")
    if len(data) > LARGEST_READ:
        raise ToolError(
            f"{_show(name)} has {size} bytes, more than can be read; search looks at it"
        )
    return data


def content(workspace: Workspace, path: str) -> str:
    """Give a text file's content as it is.

    Raises:
        ToolError: it is none, or may not be read.
    """
    name, place = _place(workspace, path)
    try:
        return _bytes(name, place).decode()
    except UnicodeDecodeError:
        raise ToolError(f"{_show(name)} is not UTF-8 text") from None


def numbered(text: str, start: int = 1, end: int | None = None, limit: int = LIMIT - 100) -> str:
    """Give lines with their numbers; if not all fit, say how to see more."""
    lines = text.removeprefix("\ufeff").split("\n")
    if lines[-1] == "":
        lines.pop()
    last = len(lines) if end is None else min(end, len(lines))
    shown: list[str] = []
    for number in range(start, last + 1):
        line = f"{number:>5}\t{cut(lines[number - 1].removesuffix(chr(13)), LINE)}"
        limit -= len(line) + 1
        if limit < 0 and shown:
            shown.append(f"[of {len(lines)} lines; go on with start={number}]")
            break
        shown.append(line)
    return "\n".join(shown)


def list_files(workspace: Workspace, glob: str | None = None) -> str:
    """List the files that may be changed, and those that may be read."""
    names = _matching(workspace, glob)
    free = [name for name in names if name in workspace.scope]
    fixed = [name for name in names if name not in workspace.scope]
    parts = ["You may change:", *(free or ["(none)"]), "", "You may only read:"]
    text = "\n".join([*parts, *(fixed or ["(none)"])])
    return cut(text, more="; narrow it with a glob such as `src/**`")


def read_file(workspace: Workspace, path: str, start: int = 1, end: int | None = None) -> str:
    """Read lines of a file."""
    name, place = _place(workspace, path)
    text = _bytes(name, place).decode(errors="replace")
    if not text:
        return "(the file is empty)"
    if start < 1 or (end is not None and end < start):
        raise ToolError("`start` is at least 1 and `end` not below it")
    return numbered(text, start, end) or f"(the file ends before line {start})"


def search(workspace: Workspace, pattern: str, glob: str | None = None) -> str:
    """Search files line by line."""
    if len(pattern) > LONGEST_PATTERN:
        raise ToolError(f"the pattern is longer than {LONGEST_PATTERN} characters")
    files = [(name, str(workspace.root / name)) for name in _matching(workspace, glob)]
    order = json.dumps({"pattern": pattern, "limit": LIMIT - 200, "files": files})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", _search_child.__file__],
            input=order.encode(),
            capture_output=True,
            timeout=SEARCH_S,
            env={"PATH": os.defpath},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ToolError("the search took too long; use a simpler pattern") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise ToolError(f"the search failed: {said[:200]}")
    return done.stdout.decode(errors="replace").rstrip("\n") or f"no match in {len(files)} files"


# --- changing -------------------------------------------------------------------------------------


def edit_file(workspace: Workspace, path: str, old: str, new: str) -> str:
    """Replace one piece of a file."""
    name, place = _writable(workspace, path)
    text = content(workspace, path)
    if not old:
        raise ToolError("`old` is empty; use write_file to write a whole file")
    old, new = _endings(text, old), _endings(text, new)
    if old == new:
        raise ToolError("`old` and `new` are the same")
    at = text.find(old)
    if at < 0:
        raise ToolError(_not_found(name, text, old))
    if text.find(old, at + 1) >= 0:
        lines = ", ".join(str(text.count("\n", 0, at) + 1) for at in _places(text, old))
        raise ToolError(
            f"`old` is in {_show(name)} more than once, at lines {lines}; give more of it"
        )
    _save(place, text[:at] + new + text[at + len(old) :])
    line = text.count("\n", 0, at) + 1
    return f"replaced at line {line} of {name}"


def _places(text: str, old: str, most: int = 5) -> Iterator[int]:
    at = text.find(old)
    while at >= 0 and most:
        yield at
        at, most = text.find(old, at + 1), most - 1


def _not_found(name: str, text: str, old: str) -> str:
    def squeezed(part: str) -> str:
        return " ".join(part.split())

    if squeezed(old) and squeezed(old) in squeezed(text):
        return f"`old` is not in {_show(name)} exactly so: its spaces or line breaks differ"
    return f"`old` is not in {_show(name)}; read the file again"


def _endings(text: str, part: str) -> str:
    """Give new text the line endings of the file that it goes into, if those are all Windows's."""
    ends = text.count("\n")
    if not ends or text.count("\r\n") != ends:
        return part
    return part.replace("\r\n", "\n").replace("\n", "\r\n")


def write_file(workspace: Workspace, path: str, content: str) -> str:
    """Write a whole file."""
    name, place = _writable(workspace, path)
    with suppress(ToolError):  # There is none as yet, or it is no text: nothing to preserve.
        content = _endings(_bytes(name, place).decode(errors="replace"), content)
    _save(place, content)
    return f"wrote {name}, {content.count(chr(10))} lines"


def _save(place: Path, text: str) -> None:
    data = text.encode()
    if len(data) > LARGEST_WRITE:
        raise ToolError(
            f"a file may have at most {LARGEST_WRITE} bytes, this would have {len(data)}"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(place, flags, 0o644), "wb") as file:
        file.write(data)


def delete_file(workspace: Workspace, path: str) -> str:
    """Delete a file."""
    name, place = _writable(workspace, path)
    try:
        place.unlink()
    except FileNotFoundError:
        raise ToolError(f"there is no file {_show(name)}") from None
    return f"deleted {name}"


# --- experiments ----------------------------------------------------------------------------------


def view_experiment(briefing: Briefing, number: int) -> str:
    """Show an experiment, and that of the earlier run with the same number."""
    known = [(a, "") for a in briefing.attempts if a.number == number]
    known += [(a, " of the earlier run") for a in briefing.earlier if a.number == number]
    if not known:
        raise ToolError(f"there is no experiment {number}")
    return "\n\n".join(_experiment(a, where, len(known)) for a, where in known)


def _experiment(attempt: Attempt, where: str, share: int) -> str:
    verdict = attempt.verdict or "in flight"
    lines = [f"Experiment {attempt.number}{where}, by {attempt.agent}: {verdict}."]
    if attempt.gain is not None:
        lines.append(f"Gain: {attempt.gain:+.6g} (positive is better).")
    return "\n".join([*lines, *_told(attempt, share)])


def _told(attempt: Attempt, share: int) -> Iterator[str]:
    """Give what others wrote of it, each fenced as data, in a part of the room for one result."""
    texts = {
        "values": (", ".join(f"{k}={v:.6g}" for k, v in attempt.values.items()), 1_000),
        "summary": (attempt.summary, 500),
        "rationale": (attempt.rationale, 2_000),
        "reason of the verdict": (attempt.reason, 1_000),
        "cases": (changes(attempt.fixed, attempt.broken, 20), 1_000),
        "feedback of the harness": (attempt.feedback, 3_000),
        "end of the log": (tail(attempt.tail, 3_000 // share), 3_000),
        "diff": (attempt.diff, 9_000),
    }
    return (fenced(head(text, room // share), name) for name, (text, room) in texts.items() if text)


_FUNCTIONS: Mapping[str, Callable[..., str]] = {
    "list_files": list_files,
    "read_file": read_file,
    "search": search,
    "edit_file": edit_file,
    "write_file": write_file,
    "delete_file": delete_file,
}
