"""Examples that a proposer may put into a text: requests with good answers, from training cases.

Owns the forms in which they are found: JSON lines, or a list in YAML or JSON, or a file with such a
list under `cases`. Reads files of the worktree that are not hidden, and never a case that is held
out: an example is an answer told, so a case that is to prove something must not become one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

from swarm.scope import Scope

REQUESTS = ("request", "input", "question", "query", "prompt")
ANSWERS = ("good", "output", "answer", "expected")
REFERENCE = "reference"
"""A good answer too, or the path of a file or folder with it."""
LARGEST = 4_000
"""Characters of one request or answer: a longer one is no example but a document."""
LARGEST_FILE = 1_000_000
LARGEST_PATH = 200
MOST = 40
_SKIPPED = frozenset({".git", ".venv", "node_modules", "__pycache__", ".swarm"})


class Example(NamedTuple):
    """One request, and an answer that is good."""

    id: str
    request: str
    answer: str


class ExamplesError(Exception):
    """A file of examples cannot be used; the message says which, where and why."""


def read(root: Path, patterns: Sequence[str], hidden: Scope) -> tuple[Example, ...]:
    """Read the examples that the patterns name below `root`, in order of file and place.

    Raises:
        ExamplesError: no file fits, or one of them is not of a form that is known.
    """
    if not patterns:
        return ()
    wanted = Scope(patterns, guarded=False)
    files = [name for name in _walk(root) if name in wanted]
    shown = ", ".join(f"`{p}`" for p in patterns)
    if not files:
        raise ExamplesError(f"examples: no file in `{root.name}` fits {shown}")
    seen = [name for name in files if name not in hidden]
    if not seen:
        raise ExamplesError(
            f"examples: `hide` names all that fits {shown}; give files of training cases"
        )
    found: dict[str, Example] = {}
    for name in seen:
        for example in _in_file(root, name, hidden):
            found.setdefault(example.id, example)
    return tuple(found.values())[:MOST]


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED)
        for name in sorted(names):
            path = Path(folder) / name
            if not path.is_symlink() and path.is_file():
                yield path.relative_to(root).as_posix()


def _in_file(root: Path, name: str, hidden: Scope) -> Iterator[Example]:
    folder = Path(name).parent
    for place, case in enumerate(_cases(root, name, hidden), start=1):
        if not isinstance(case, dict):
            raise ExamplesError(f"{name}: case {place} is no mapping with a request and an answer")
        given = cast("dict[str, Any]", case)
        if given.get("held_out"):
            continue
        request = _text(given, REQUESTS)
        answer = _answer(root, folder, given, hidden)
        if request and answer and max(len(request), len(answer)) <= LARGEST:
            named = given.get("id", f"{Path(name).stem}-{place}")
            yield Example(str(named), request.strip(), answer.strip())


def _cases(root: Path, name: str, hidden: Scope) -> list[Any]:
    """Give the entries of a file, or of the files that its `cases: {file: ...}` names."""
    path = root / name
    if path.stat().st_size > LARGEST_FILE:
        raise ExamplesError(f"{name}: larger than {LARGEST_FILE} bytes; give a file of examples")
    try:
        data = _parsed(path.read_text(encoding="utf-8"), name)
    except UnicodeDecodeError as error:
        raise ExamplesError(f"{name}: not UTF-8 at byte {error.start}") from None
    if isinstance(data, dict):
        data = cast("dict[str, Any]", data).get("cases", data)
    match data:
        case list():
            return cast("list[Any]", data)
        case {"file": str() as elsewhere}:
            folder = Path(name).parent
            pattern = Scope([(folder / elsewhere).as_posix()], guarded=False)
            files = [n for n in _walk(root) if n in pattern and n not in hidden and n != name]
            return [case for file in files for case in _listed(root, file)]
        case {**only} if _text(cast("dict[str, Any]", only), REQUESTS):
            return [only]
        case _:
            wanted = "a list of cases, or a mapping with one under `cases`"
            raise ExamplesError(f"{name}: {wanted}, is wanted; each with `request` and `output`")


def _listed(root: Path, name: str) -> list[Any]:
    data = _parsed((root / name).read_text(encoding="utf-8", errors="replace"), name)
    return cast("list[Any]", data) if isinstance(data, list) else [data]


def _parsed(text: str, name: str) -> Any:
    if name.endswith((".jsonl", ".ndjson")):
        return [_line(line, name, n) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    try:
        return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise ExamplesError(f"{name}:{error.lineno}: not JSON: {error.msg}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise ExamplesError(f"{where}: not YAML: {getattr(error, 'problem', error)}") from None


def _line(line: str, name: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ExamplesError(f"{name}:{number}: not JSON: {error.msg}") from None


def _text(case: dict[str, Any], names: Sequence[str]) -> str:
    for name in names:
        value = case.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, dict | list) and value:
            return json.dumps(value, ensure_ascii=False, indent=1)
    return ""


def _answer(root: Path, folder: Path, case: dict[str, Any], hidden: Scope) -> str:
    """Give the answer of a case; a `reference` that names files stands for what they hold."""
    said = _text(case, ANSWERS)
    if said or not isinstance(case.get(REFERENCE), str):
        return said or _text(case, (REFERENCE,))
    said = case[REFERENCE].strip()
    named = Path(os.path.normpath(folder / said)).as_posix()
    if not said or "\n" in said or len(said) > LARGEST_PATH or named.startswith("."):
        return said
    path = root / named
    if path.is_symlink() or not path.exists():
        return "" if "/" in said and " " not in said else said
    if path.is_file():
        return "" if named in hidden else _content(path) or ""
    parts: list[str] = []
    for name in _walk(path):
        held = None if f"{named}/{name}" in hidden else _content(path / name)
        if held is None:
            return ""  # a part of an answer is none
        parts.append(f"{name}:\n{held.rstrip()}")
    return "\n\n".join(parts)


def _content(path: Path) -> str | None:
    """Give a file's text; None for what is too long to be shown, or no text."""
    if path.stat().st_size > LARGEST:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
