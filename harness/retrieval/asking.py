"""Putting queries to the system under test, which is a command.

Owns the two ways in which it is asked: all queries on stdin, or one start for each, where `{query}`
stands in the command.
"""

import json
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any, NoReturn, cast

import processes
from ending import NoAnswerError, UsageError
from files import Found, Query, results_in

PLACE = "{query}"
OUTPUT_LIMIT = 256 * 2**20
"""Bytes that the system may print."""
SHOWN = 200
"""Characters of an output that cannot be read."""
_QUOTED = re.compile(
    r"""\\.|'[^']*(?:'|\Z)|"(?:\\.|[^"\\])*(?:"|\Z)|`[^`]*(?:`|\Z)|(?<![^\s;&|()])#[^\n]*|<<.*""",
    re.DOTALL,
)
"""Where the quotes around a query would not hold, or be taken for its own: quotes, backquotes,
comments, and what comes after `<<`."""
_CODE = re.compile(r"-[a-z]*c")
"""An option behind which most programs expect code: `sh -c`, `bash -lc`, `python -c`."""
_HINT = 'print {"results": [{"id": "doc-7"}]}'


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
        UsageError: `{query}` stands where a query would be read as code.
        NoAnswerError: it fails, takes too long, or prints something else.
    """
    if any(PLACE in word for word in command):
        _refuse_code(command)
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
            raise NoAnswerError(f"line {number} of the output answers {name!r}, which is no query")
        if name in answers:
            raise NoAnswerError(f"line {number} of the output answers {name!r} a second time")
        answers[name] = results_in(object_, _wrong)._replace(seconds=seconds / len(queries))
    if not answers:
        hint = 'a line for each query, as {"id": "q1", "results": [{"id": "doc-7"}]}'
        raise NoAnswerError(f"no line of the output has results ({output[:SHOWN]!r}); print {hint}")
    return answers


def _refuse_code(command: Sequence[str]) -> None:
    if len(command) == 1:
        if _QUOTED.sub("", command[0]).count(PLACE) != command[0].count(PLACE):
            raise UsageError(
                f"`{PLACE}` stands in quotes or a comment, where the shell would read a query; it "
                f"is quoted already: write it without, as in ./search --json -- {PLACE}"
            )
        return
    for option, word in pairwise(command):
        if PLACE in word and _CODE.fullmatch(option):
            raise UsageError(
                f"`{PLACE}` stands in what follows `{option}`, where a query would be read as "
                f"code; give it a word of its own, as in "
                f"sh -c './search --json -- \"$1\"' sh {PLACE}"
            )


def _one(
    query: Query, command: Sequence[str], cwd: Path, env: dict[str, str], timeout_s: float
) -> Found:
    whole = len(command) == 1
    said = shlex.quote(query.text) if whole else query.text
    words = [word.replace(PLACE, said) for word in command]
    output, seconds = _run(_words(words), "", cwd, env, timeout_s)
    answers = _answers(output)
    if len(answers) != 1:
        said = f"{len(answers)} lines" if answers else "no line"
        what = f"{said} of the output {'have' if answers else 'has'} results ({output[:SHOWN]!r})"
        raise NoAnswerError(f"query {query.id!r}: {what}; {_HINT}, once")
    return results_in(answers[0], _wrong)._replace(seconds=seconds)


def _answers(output: str) -> list[dict[str, Any]]:
    """Give what in an output is an answer: all of it, or else lines of it.

    A line that is only a list is one if no line is an object with results.
    """
    for texts in ([output], output.split("\n")):
        values = [_read(text) for text in texts]
        objects = [cast("dict[str, Any]", v) for v in values if isinstance(v, dict)]
        found = [one for one in objects if "results" in one]
        if found := found or [{"results": v} for v in values if isinstance(v, list)]:
            return found
    return []


def _words(command: Sequence[str]) -> str | tuple[str, ...]:
    return command[0] if len(command) == 1 else tuple(command)


def _run(
    command: str | tuple[str, ...], stdin: str, cwd: Path, env: dict[str, str], timeout_s: float
) -> tuple[str, float]:
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
        raise NoAnswerError(f"the search failed: {ended.problem}")
    return ended.output, ended.seconds


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _wrong(what: str) -> NoReturn:
    raise NoAnswerError(f"the output cannot be used: {what}")
