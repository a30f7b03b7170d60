"""The searches whose results are graded: commands of the person's own, run as they would run them.

Owns how a command is asked (all queries on its stdin, or one start for each where `{query}` stands
in it), what it may print, and how the results of several are pooled. Not sandboxed: it is the
person's program in the person's directory, and no candidate.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple, cast

from swarm.errors import PreconditionError, UsageError
from swarm.formats.golden import Query, write_queries
from swarm.formats.text import duration, one_line
from swarm.signals import signals_wait

PLACE = "{query}"
SEED = "golden"
"""Of the order of a pool: the same query has the same one every time."""
MOST_BYTES = 256 * 2**20
"""What a search may print; one in a loop would fill the disk."""
LOOK_S = 0.1
"""How often it is looked at."""
_QUOTED = re.compile(
    r"""\\.|'[^']*(?:'|\Z)|"(?:\\.|[^"\\])*(?:"|\Z)|`[^`]*(?:`|\Z)|(?<![^\s;&|()])#[^\n]*|<<.*""",
    re.DOTALL,
)
"""Where the quotes around a query would not hold, or be taken for its own: quotes, backquotes,
comments, and what comes after `<<`."""
_NOT_STARTED = (126, 127)
"""What a shell says of a command that is not there: no query will fare better."""
_TELL = 'print a line for each query, as {"id": "q1", "results": [{"id": "doc-7", "text": "..."}]}'


class Result(NamedTuple):
    """One thing that was found."""

    id: str
    title: str = ""
    text: str = ""


class Found(NamedTuple):
    """What one search has found for a query, best first, or how it failed."""

    results: tuple[Result, ...] = ()
    failure: str = ""


class Search:
    """One search; a query is put to it once.

    Raises:
        UsageError: `{query}` stands in its command where the shell would read the query.
    """

    def __init__(
        self,
        command: str,
        queries: Sequence[Query],
        *,
        most: int,
        timeout_s: float,
        say: Callable[[str], None],
    ) -> None:
        if _QUOTED.sub("", command).count(PLACE) != command.count(PLACE):
            raise UsageError(
                f"--search: `{PLACE}` stands in quotes or a comment, where the shell would read it",
                hint=f"it is quoted already; write it without: ./search --json -- {PLACE}",
            )
        self.command = command
        self.found: dict[str, Found] = {}
        """What is known so far, by a query's id."""
        self._queries, self._most, self._timeout_s, self._say = queries, most, timeout_s, say

    def ask(self, query: Query) -> Found:
        """Give what it finds.

        Raises:
            PreconditionError: it cannot be asked, or what it prints cannot be read.
        """
        if query.id not in self.found:
            if PLACE in self.command:
                self.found[query.id] = self._one(query)
            else:
                self._say(f"asking `{one_line(self.command, 60)}`")
                self.found = self._all()
        return self.found[query.id]

    def _one(self, query: Query) -> Found:
        try:
            ended = _run(self.command.replace(PLACE, shlex.quote(query.text)), b"", self._timeout_s)
            if ended.status in _NOT_STARTED:
                raise self._failed(f"it {ended.failure}")
            if ended.failure:
                return Found(failure=ended.failure)
            return Found(self._results(_answer(ended.output)))
        except _UnreadableError as error:
            return Found(failure=f"printed what cannot be read: {error}")

    def _all(self) -> dict[str, Found]:
        ended = _run(self.command, write_queries(self._queries).encode(), self._timeout_s)
        if ended.failure:
            raise self._failed(f"it {ended.failure}")
        found = {query.id: Found(failure="printed no line for it") for query in self._queries}
        seen: set[str] = set()
        # Not `splitlines`: a text may hold line ends of other kinds, which JSON need not escape.
        for number, line in enumerate(ended.output.split("\n"), start=1):
            value = _json(line)
            if not isinstance(value, dict) or "results" not in value:
                continue  # a search may say other things, too
            name = str(cast("dict[str, Any]", value).get("id"))
            if name not in found or name in seen:
                which = "which is no query" if name not in found else "a second time"
                raise self._failed(f"line {number} of its output answers `{name}`, {which}")
            seen.add(name)
            try:
                found[name] = Found(self._results(cast("object", value)))
            except _UnreadableError as error:
                raise self._failed(f"line {number} of its output: {error}") from None
        if not seen:
            raise self._failed(f"no line of its output has results ({ended.output[:200]!r})")
        return found

    def _results(self, value: object) -> tuple[Result, ...]:
        if isinstance(value, dict):
            value = cast("dict[str, object]", value).get("results")
        if not isinstance(value, list):
            raise _UnreadableError("there is no list `results`")
        taken: dict[str, Result] = {}
        for each in cast("list[object]", value):
            one = cast("dict[str, object]", each) if isinstance(each, dict) else {"id": each}
            result = Result(_name(one.get("id")), _text(one.get("title")), _text(one.get("text")))
            taken.setdefault(result.id, result)
        return tuple(taken.values())[: self._most]

    def _failed(self, what: str) -> PreconditionError:
        return PreconditionError(
            f"the search `{one_line(self.command, 200)}` cannot be used: {what}", hint=_TELL
        )


def pool(query: Query, lists: Sequence[Sequence[Result]]) -> tuple[Result, ...]:
    """Give the results of all searches, each once.

    One search keeps its order. Of several nobody shall see what came first where, so theirs are
    shuffled, the same way each time.
    """
    taken: dict[str, Result] = {}
    for result in (result for each in lists for result in each):
        had = taken.get(result.id, result)
        taken[result.id] = Result(had.id, had.title or result.title, had.text or result.text)
    pooled = list(taken.values())
    if len(lists) > 1:
        pooled.sort(key=lambda result: result.id)
        random.Random(f"{SEED}:{query.id}".encode("utf-8", "replace")).shuffle(pooled)
    return tuple(pooled)


def ranked(found: Mapping[str, Found]) -> dict[str, list[str]]:
    """Give the ids that a search found, for the queries on which it did not fail."""
    return {q: [r.id for r in one.results] for q, one in found.items() if not one.failure}


# --- a process ----------------------------------------------------------------------------------


class _UnreadableError(Exception):
    """What a search has printed is something else than results."""


class _Ended(NamedTuple):
    output: str
    status: int | None
    failure: str
    """How it failed; empty if it did not."""


def _run(command: str, stdin: bytes, timeout_s: float) -> _Ended:
    # Files and no pipes: whatever it leaves running may hold them open.
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin)
        given.seek(0)
        try:
            with _begun(command, given, out, err) as process:
                problem = _waited(process, (out, err), timeout_s)
        except (OSError, ValueError) as error:  # too long, or with what no argument can hold
            return _Ended("", None, f"could not be started: {error}")
        if problem:
            return _Ended("", None, f"{problem}{_last_words(err)}")
        status = process.returncode
        failure = f"ended with {_status(status)}{_last_words(err)}" if status else ""
        out.seek(0)
        return _Ended(out.read(MOST_BYTES).decode("utf-8", "replace"), status, failure)


@contextmanager
def _begun(
    command: str, given: BinaryIO, out: BinaryIO, err: BinaryIO
) -> Generator[subprocess.Popen[bytes]]:
    """Start a command; end it, if it still runs, and what it has left running in its group."""
    words, process = ["/bin/sh", "-c", command], None
    try:
        with signals_wait():
            process = subprocess.Popen(
                words, stdin=given, stdout=out, stderr=err, start_new_session=True
            )
        yield process
    finally:
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _waited(
    process: subprocess.Popen[bytes], printed: Sequence[BinaryIO], timeout_s: float
) -> str | None:
    """Wait for a command to end; give why it has to be ended instead, or does not count."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = deadline - time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, min(LOOK_S, left)))
        if any(os.fstat(file.fileno()).st_size > MOST_BYTES for file in printed):
            return f"printed more than {MOST_BYTES >> 20} MiB"
        if process.returncode is not None:
            return None
        if left <= 0:
            return f"took longer than --timeout {duration(timeout_s)}"


def _status(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _last_words(err: BinaryIO) -> str:
    size = err.seek(0, os.SEEK_END)
    err.seek(max(0, size - 4096))
    lines = [li for li in err.read().decode("utf-8", "replace").split("\n") if li.strip()]
    return f": {one_line(lines[-1], 300)}" if lines else ""


# --- what it prints -----------------------------------------------------------------------------


def _answer(output: str) -> object:
    """Take what in an output is the answer: all of it, or else one line of it.

    A line that is only a list is one if no line is an object with results.
    """
    for texts in ([output], output.split("\n")):
        values = [_json(text) for text in texts]
        objects = [cast("dict[str, object]", v) for v in values if isinstance(v, dict)]
        found = [one for one in objects if "results" in one]
        found = found or [{"results": v} for v in values if isinstance(v, list)]
        if len(found) > 1:
            raise _UnreadableError(f"{len(found)} lines have results")
        if found:
            return found[0]
    raise _UnreadableError(f"no line has results ({one_line(output, 200)!r})")


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _name(value: object) -> str:
    """Take an id, which may be a number, too."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise _UnreadableError("every result needs an `id`")
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
