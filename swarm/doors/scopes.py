"""Which files are meant: paths, globs and directories as people write them, or plain words.

Owns how they become a scope, who is asked where they are words, and the warning about a scope that
holds what measures it. Knows no door.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple, cast

from swarm import config as configs
from swarm.config import RunConfig
from swarm.doors.draft import Ground
from swarm.doors.surroundings import programs
from swarm.errors import PreconditionError, SwarmError
from swarm.groups import MessagesProposer
from swarm.keys import of, wanted
from swarm.rundir import RunDir, runs_folder
from swarm.scope import Scope

SHOWN = 8
"""Candidates that an error lists."""
MOST_FILES = 3_000
"""Names of files that a model is shown."""


class Unresolved(NamedTuple):
    """Words that name no file, and the files that they may mean."""

    words: str
    candidates: tuple[str, ...]

    @property
    def message(self) -> str:
        """Say what was not found, and what there is."""
        near = ", ".join(self.candidates)
        return f"no tracked file is called {self.words!r}; candidates: {near or 'none: no files'}"


def globs_of(parts: Sequence[str], ground: Ground) -> list[str] | Unresolved:
    """Make globs of what a person has named, if tracked files answer to each of them."""
    found: list[str] = []
    for part in parts:
        globs = [_relative(glob, ground.folder) for glob in _braces(part)]
        absent = [g for g in globs if not any(f in Scope([g]) for f in ground.files)]
        if absent:
            return Unresolved(part, candidates(part, ground.files))
        found += globs
    return list(dict.fromkeys(found))


def _relative(name: str, folder: Path) -> str:
    """Give a path relative to the target's directory; `./src/` and `src` are the same."""
    directory = name.endswith("/")
    if os.path.isabs(name) and Path(name).is_relative_to(folder):
        name = os.path.relpath(name, folder)
    name = re.sub(r"^(?:\./+)+", "", name) or "."
    return name if directory and name.endswith("/") else name.rstrip("/") or "."


def _braces(glob: str) -> list[str]:
    """Write `src/{a,b}.py` out: a scope knows no braces."""
    match = re.search(r"\{([^{}]*)\}", glob)
    if match is None:
        return [glob]
    before, after = glob[: match.start()], glob[match.end() :]
    return [g for part in match[1].split(",") for g in _braces(before + part.strip() + after)]


def candidates(words: str, files: Sequence[str]) -> tuple[str, ...]:
    """Give the files whose paths share most with some words, at least a few."""
    asked = {w[:6] for w in re.findall(r"[a-z0-9]{3,}", words.lower())} - _DULL

    def shared(path: str) -> int:
        words = re.findall(r"[a-z0-9]+", path.lower())
        return sum(any(word.startswith(start) for word in words) for start in asked)

    shown = [path for path in files if not path.startswith(".")]
    ranked = sorted(shown, key=lambda path: (-shared(path), path))
    near = [path for path in ranked if shared(path)] or ranked
    return tuple(near[:SHOWN])


_DULL = frozenset({"the", "and", "all", "any", "files", "file", "that", "code", "for", "with"})


# --- words ---------------------------------------------------------------------------------------


def resolve(words: str, ground: Ground, config: RunConfig) -> tuple[list[str], str] | Unresolved:
    """Have the run's own model say which files are meant; the second is what to tell of it.

    A run that is resumed keeps the files that it began with.

    Raises:
        PreconditionError: the model could not be asked.
    """
    unresolved = Unresolved(words, candidates(words, ground.files))
    if (before := _as_before(words, ground, config)) is not None:
        return before, f"scope    {', '.join(before)}   (as when the run began)"
    proposers = (group.proposer for group in config.agents)
    model = next((p for p in proposers if isinstance(p, MessagesProposer)), None)
    if model is None:
        return unresolved
    said = _ask(model, words, ground.files)
    there = frozenset(ground.files)
    named = [path for path in said if path in there]
    if not named:
        return unresolved
    return named, f"scope    {', '.join(named)}   ({model.model} takes {words!r} for this)"


def _as_before(words: str, ground: Ground, config: RunConfig) -> list[str] | None:
    rundir = RunDir(runs_folder(ground.source.top) / config.name)
    try:
        stored = configs.restore(rundir.config.read_text(encoding="utf-8")).target
    except (OSError, SwarmError):
        return None
    return list(stored.scope) if told(words) in stored.program else None


def told(words: str) -> str:
    """Give the sentence by which a program says what its scope was in words."""
    return f"The files that may change were chosen as: {words}"


_SYSTEM = """\
You resolve a description of files to paths of a repository. Answer with a JSON list of paths, each
exactly as it stands in the list that you are given, and nothing else. Name as few files as the
description allows. If nothing fits, answer []."""


def _ask(model: MessagesProposer, words: str, files: Sequence[str]) -> list[str]:
    from swarm.proposers import NoProposalError
    from swarm.proposers.messages import ask

    listed = "\n".join(islice(files, MOST_FILES))
    keys = {name: os.environ[name] for name in wanted(model) if os.environ.get(name)}
    question = f"The description:\n{words}\n\nThe files:\n{listed}"
    try:
        answer = ask(model, of(model, keys), _SYSTEM, question).text
    except NoProposalError as error:
        raise PreconditionError(
            f"the model could not be asked which files {words!r} means: {error}",
            hint="name files or globs as `scope`, separated by commas",
        ) from error
    return _list_in(answer)


def _list_in(answer: str) -> list[str]:
    """Read a JSON list of texts, with or without words around it."""
    match = re.search(r"\[.*\]", answer, re.DOTALL)
    try:
        found: object = json.loads(match.group()) if match else []
    except ValueError:
        found = []
    items = cast("list[object]", found) if isinstance(found, list) else []
    return list(dict.fromkeys(item for item in items if isinstance(item, str)))


# --- what measures -------------------------------------------------------------------------------

_TESTS = re.compile(
    r"(?:^|/)(?:tests?|__tests__|spec)/|(?:^|/)(?:test_[^/]*|[^/]*_test)\.\w+$"
    r"|\.(?:test|spec)\.[cm]?[jt]sx?$"
)
_STEERING = {
    "pytest": ("pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml"),
    "ruff": ("ruff.toml", ".ruff.toml", "pyproject.toml"),
    "npm": ("package.json",),
}


def measured_by(command: str, scope: Iterable[str], files: Sequence[str]) -> list[str]:
    """Name the files that decide what a command measures and that the scope covers by the way.

    A file that the scope names itself is meant to change: it is what is measured.
    """
    patterns, used = list(scope), programs(command)
    area = Scope(patterns)
    words = {word.strip("'\"").removeprefix("./").rstrip("/") for word in command.split()}
    tests = "pytest" in words | set(used) or re.search(r"\b(?:npm|cargo|go) (?:run )?test", command)
    steering = {name for program in used for name in _STEERING.get(program, ())}
    found: list[str] = []
    for path in files:
        if path in patterns or path not in area:
            continue
        named = path in words and PurePosixPath(path).suffix in (".py", ".sh", ".js", ".ts", ".mjs")
        if named or path in steering or (tests and _TESTS.search(path)):
            found.append(path)
    return found
