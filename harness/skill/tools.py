"""The tools that a model under test is given: it lists, reads, writes, edits and runs commands.

Owns their words, their confinement to the workspace, and what they answer. Whatever a model sends,
a tool gives a text and whether it worked. A command can reach what this process can reach: the
walls are swarm's sandbox, and not these tools.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import processes
from suite import Under, front_matter
from workspace import inside, snapshot

LIMIT = 20_000
"""Most characters of one result."""
LARGEST = 2**20
COMMAND_S = 120.0
"""Longest time of one command, if the case has as much left."""


class ToolError(Exception):
    """The call did not work; the message is for the model."""


class Result(NamedTuple):
    """What a call gives back to the model."""

    text: str
    good: bool


class Room(NamedTuple):
    """Where tools work."""

    place: Path
    env: Mapping[str, str]
    cancel: Event
    under: Under


def _text(says: str) -> dict[str, str]:
    return {"type": "string", "description": says}


def _spec(name: str, says: str, fields: dict[str, dict[str, str]]) -> dict[str, Any]:
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    return {"name": name, "description": says, "input_schema": schema}


_PATH = _text("Path relative to the working directory.")
SPECS = (
    _spec("list_files", "List all files below the working directory.", {}),
    _spec("read_file", "Read a text file.", {"path": _PATH}),
    _spec(
        "write_file",
        "Write a whole file, a new one or in place of an old one.",
        {"path": _PATH, "content": _text("All of the file.")},
    ),
    _spec(
        "edit_file",
        "Replace one piece of a file. `old` must be in it exactly once.",
        {"path": _PATH, "old": _text("What is replaced."), "new": _text("What takes its place.")},
    ),
    _spec(
        "run",
        "Run a command in the working directory with /bin/sh; gives its output and exit status.",
        {"command": _text("The command.")},
    ),
)
SKILL = _spec("Skill", "Open a skill to read how a task is done.", {"skill": _text("Its name.")})


def run(room: Room, name: str, given: Mapping[str, Any], left_s: float) -> Result:
    """Run one call.

    Args:
        room: where.
        name: the tool.
        given: what the model sends.
        left_s: seconds that the case has left.
    """
    spec = next((s for s in (*SPECS, SKILL) if s["name"] == name), None)
    try:
        if spec is None:
            raise ToolError(f"there is no tool {name[:80]!r}")
        values = _values(spec, given)
        if name == "run":
            return _command(room, values["command"], left_s)
        return Result(_FUNCTIONS[name](room, **values)[:LIMIT], good=True)
    except ToolError as error:
        return Result(str(error), good=False)
    except (OSError, ValueError) as error:
        return Result(f"{name} failed: {error}"[:LIMIT], good=False)


def _values(spec: dict[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    wanted = spec["input_schema"]["required"]
    for name in wanted:
        if not isinstance(given.get(name), str):
            raise ToolError(f"{spec['name']} needs the text `{name}`")
    return {name: given[name] for name in wanted}


def _command(room: Room, command: str, left_s: float) -> Result:
    ended = processes.run(
        f"exec 2>&1\n{command}",
        cwd=room.place,
        env=room.env,
        stdin=b"",
        timeout_s=max(0.1, min(COMMAND_S, left_s)),
        cancel=room.cancel,
    )
    text = ended.output if len(ended.output) <= LIMIT else _ends(ended.output)
    if ended.problem is None:
        return Result(text or "(no output, exit 0)", good=True)
    return Result(f"{text}\n[{ended.problem}]".strip(), good=False)


def _ends(text: str) -> str:
    half = LIMIT // 2
    return f"{text[:half]}\n[... {len(text) - LIMIT} characters ...]\n{text[-half:]}"


def _place(room: Room, name: str) -> Path:
    path = room.place / name
    if Path(name).is_absolute() or not name or not inside(room.place, path):
        raise ToolError(f"{name[:200]!r}: give a path inside the working directory")
    return path


def _list(room: Room) -> str:
    return "\n".join(snapshot(room.place)) or "(no files)"


def _content(room: Room, path: str) -> str:
    file = _place(room, path)
    if not file.is_file():
        raise ToolError(f"there is no file {path[:200]!r}")
    if file.stat().st_size > LARGEST:
        raise ToolError(f"{path[:200]!r} is larger than {LARGEST} bytes")
    with file.open(encoding="utf-8", errors="replace", newline="") as opened:
        return opened.read()


def _read(room: Room, path: str) -> str:
    text = _content(room, path)
    more = f"\n[cut: {len(text) - LIMIT} more characters]"
    return text if len(text) <= LIMIT else text[: LIMIT - len(more)] + more


def _write(room: Room, path: str, content: str) -> str:
    file = _place(room, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as opened:
        opened.write(content)
    return f"wrote {path}"


def _edit(room: Room, path: str, old: str, new: str) -> str:
    text = _content(room, path)
    count = text.count(old) if old else 0
    if count != 1:
        raise ToolError(f"`old` is in {path[:200]!r} {count} times; it must be there once")
    return _write(room, path, text.replace(old, new)).replace("wrote", "edited")


def _skill(room: Room, skill: str) -> str:
    if skill != room.under.name:
        raise ToolError(f"there is no skill {skill[:80]!r}")
    return room.under.text


_FUNCTIONS = {
    "list_files": _list,
    "read_file": _read,
    "write_file": _write,
    "edit_file": _edit,
    "Skill": _skill,
}


def offer(under: Under) -> str:
    """Say in a system prompt which skill there is."""
    said = front_matter(under.text).description
    return (
        "Skills hold instructions for some kinds of task. When a task is of the kind that a skill "
        "is for, open it with the tool Skill before anything else, and follow it; otherwise do "
        f"not open it.\n\n- {under.name}: {said}"
    )


def environment(place: Path, home: Path, withheld: set[str | None], **own: str) -> dict[str, str]:
    """Give what a model's commands see: no key, no token, and not where the result goes."""
    hidden = {"SWARM_RESULT", "SWARM_CASES", "SWARM_MODEL_TOKEN", "SWARM_MODEL_URL", *withheld}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    fixed = {"HOME": str(home), "PWD": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **fixed, **own}
