"""Putting queries to the system under test, which is a command.

Owns the two ways in which it is asked: all queries on stdin, or one start for each, where `{query}`
stands in the command.
"""

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any, NoReturn, cast

import processes
from files import Found, NoAnswerError, Query, found

PLACE = "{query}"
OUTPUT_LIMIT = 256 * 2**20
"""Bytes that the system may print."""
SHOWN = 200
"""Characters of an output that cannot be read."""


def ask(
    queries: Sequence[Query],
    command: Sequence[str],
    *,
    cwd: Path,
    env: dict[str, str],
    timeout_s: float,
) -> dict[str, Found]:
    """Ask all queries; give what was found, by id. A query without an answer is left out.

    Args:
        queries: in the order in which they are asked.
        command: one text for the shell, or an argv.
        cwd: where it runs.
        env: its environment.
        timeout_s: for one start of it.

    Raises:
        NoAnswerError: it fails, takes too long, or prints something else.
    """
    if any(PLACE in word for word in command):
        return {q.id: _one(q, command, cwd, env, timeout_s) for q in queries}
    lines = "".join(json.dumps({"id": q.id, "query": q.text}) + "\n" for q in queries)
    output, seconds = _run(_words(command), lines, cwd, env, timeout_s)
    known = {q.id for q in queries}
    answers: dict[str, Found] = {}
    # Not `splitlines`: a text may hold line ends of other kinds, which JSON need not escape.
    for number, line in enumerate(output.split("\n"), start=1):
        value = _read(line)
        if not isinstance(value, dict) or "results" not in value:
            continue  # a system may say other things, too
        object_ = cast("dict[str, Any]", value)
        name = str(object_.get("id"))
        if name not in known:
            raise NoAnswerError(f"line {number} of the output answers `{name}`, which is no query")
        if name in answers:
            raise NoAnswerError(f"line {number} of the output answers `{name}` a second time")
        answers[name] = found(object_, _wrong)._replace(seconds=seconds / len(queries))
    if not answers:
        hint = 'a line for each query, as {"id": "q1", "results": [{"id": "doc-7"}]}'
        raise NoAnswerError(f"no line of the output has results ({output[:SHOWN]!r}); print {hint}")
    return answers


def _one(
    query: Query, command: Sequence[str], cwd: Path, env: dict[str, str], timeout_s: float
) -> Found:
    whole = len(command) == 1
    said = shlex.quote(query.text) if whole else query.text
    words = [word.replace(PLACE, said) for word in command]
    output, seconds = _run(_words(words), "", cwd, env, timeout_s)
    value = next(
        (v for text in (output, *reversed(output.split("\n"))) if (v := _read(text)) is not None),
        None,
    )
    if isinstance(value, list):
        value = {"results": cast("list[Any]", value)}
    if not isinstance(value, dict):
        raise NoAnswerError(f"query `{query.id}`: the output is no JSON: {output[:SHOWN]!r}")
    return found(cast("dict[str, Any]", value), _wrong)._replace(seconds=seconds)


def _words(command: Sequence[str]) -> str | tuple[str, ...]:
    return command[0] if len(command) == 1 else tuple(command)


def _run(
    command: str | tuple[str, ...], stdin: str, cwd: Path, env: dict[str, str], timeout_s: float
) -> tuple[str, float]:
    start = time.monotonic()
    ended = processes.run(
        command,
        cwd=cwd,
        env=env,
        stdin=stdin.encode(),
        timeout_s=timeout_s,
        cancel=Event(),
        limit=OUTPUT_LIMIT,
    )
    if ended.problem is not None:
        raise NoAnswerError(f"the command {ended.problem}")
    return ended.output, time.monotonic() - start


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _wrong(what: str) -> NoReturn:
    raise NoAnswerError(f"the output cannot be used: {what}")
