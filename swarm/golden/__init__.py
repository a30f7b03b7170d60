"""`swarm golden`: a golden set for retrieval, from sample queries and a person who grades.

Owns the order of things, and what is told at the end: read the queries, ask the searches, have each
query graded, look at what came out, write the queries beside it. The file is the state: what has a
label there is not asked again. What a line means is in `formats.golden`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from swarm.errors import PreconditionError, UsageError
from swarm.formats import golden
from swarm.formats.golden import Label, Query
from swarm.formats.text import one_line
from swarm.golden.asking import Labelling, Sight
from swarm.golden.book import Book, alone, read, save
from swarm.golden.findings import Figures, Finding, Score, counted_queries, figures, findings, score
from swarm.golden.pages import TerminalPage
from swarm.golden.searching import Search, pool, ranked
from swarm.quantities import Duration, Percent
from swarm.signals import Stopped, signals_raise
from swarm.terminal import emit, emit_json, say

GOLDEN = Path("golden.jsonl")
QUERIES = "queries.jsonl"
_HINT = "the same command goes on at the next query without a label"


@dataclass(frozen=True)
class Wish:
    """What `swarm golden` was asked for."""

    queries: Path
    search: tuple[str, ...] = ()
    out: Path | None = None
    k: int = 10
    held_out: str = "25%"
    timeout: str = "5m"
    again: tuple[str, ...] = ()
    check: bool = False
    json: bool = False

    @property
    def golden(self) -> Path:
        """Where the golden set is. A check without `--out` is about the file that it names."""
        if self.out is not None:
            return self.out
        return self.queries if self.check else GOLDEN

    @property
    def beside(self) -> Path:
        """Where the queries go that the search may see."""
        return self.golden.parent / QUERIES


def start(wish: Wish) -> int:
    """Do what `swarm golden` does, and give the exit code.

    Raises:
        UsageError: the command line, the queries, the golden set or an answer is wrong.
        PreconditionError: a search cannot be used, a file not be written, or the answers end early.
    """
    # A search has a session of its own: nothing else would tell it that the terminal is gone. What
    # is ignored, as under nohup, stays so.
    ending = (signal.SIGTERM, signal.SIGHUP)
    heeded = [which for which in ending if signal.getsignal(which) != signal.SIG_IGN]
    try:
        with signals_raise(*heeded):
            return _started(wish)
    except Stopped as stopped:
        return 128 + stopped.number


def _started(wish: Wish) -> int:
    held_out = _number(Percent, "--held-out", wish.held_out)
    if held_out > 1:
        raise UsageError(f"--held-out: {wish.held_out} is more than all", hint="such as 25%")
    timeout_s = _number(Duration, "--timeout", wish.timeout)
    if wish.check:
        return _check(wish, timeout_s)
    if not wish.search:
        raise UsageError(
            "which search finds the results that are graded?",
            hint='--search "python -m search", or with {query} in it; --check needs none',
        )
    book = Book(wish.golden)
    queries = _named(wish, book)
    _refuse(wish, book, queries)
    searches = _searches(wish, queries, timeout_s)
    labelling = Labelling(
        queries,
        book,
        lambda query: _look(searches, query),
        TerminalPage(),
        held_out,
        again=set(wish.again),
        patient=sys.stdin.isatty(),
    )
    _label(wish, labelling)
    if not book.labels:
        say(f"swarm: nothing labelled; {_HINT}")
        return 0
    written = _write_queries(wish, list(book.labels.values()))
    _tell(wish, list(book.labels.values()), labelling.open, searches, written)
    return 0


def _label(wish: Wish, labelling: Labelling) -> None:
    left = len(labelling.open)
    say(f"swarm: {counted_queries(len(labelling.queries))}, {left} without a label; ? for help")
    try:
        labelling.work()
    except EOFError:
        done = len(labelling.queries) - len(labelling.open)
        raise PreconditionError(
            f"the answers ended early: {done} of {len(labelling.queries)} queries are labelled in "
            f"`{wish.golden}`",
            hint=_HINT,
            path=wish.golden,
        ) from None
    except (KeyboardInterrupt, Stopped):
        say(f"\nswarm: what was answered is in {wish.golden}; {_HINT}")
        raise


def _check(wish: Wish, timeout_s: float) -> int:
    """Look at a golden set that is there; give exit code 2 if nothing can be measured with it."""
    text = read(wish.golden)
    if wish.out is None and golden.only_queries(text):
        raise UsageError(
            f"{wish.golden}: no line of it says what is good, so it is no golden set",
            hint=f"if it is a list of queries, name the set: --out {GOLDEN}",
            path=wish.golden,
        )
    labels = golden.labels(text, wish.golden)
    if not labels:
        raise UsageError(
            f"{wish.golden}: there is no query in it",
            hint="`swarm golden QUERIES --search COMMAND` makes a golden set",
            path=wish.golden,
        )
    asked = [] if wish.golden == wish.queries else golden.queries(read(wish.queries), wish.queries)
    known = {(label.id, label.query) for label in labels}
    texts = {label.query for label in labels}
    open_ = [
        query.id or query.text
        for query in asked
        if ((query.id, query.text) not in known if query.id else query.text not in texts)
    ]
    queries = [Query(label.query, label.id) for label in labels]
    searches = _searches(wish, queries, timeout_s)
    for search in searches:
        for query in queries:
            search.ask(query)
    found = _tell(wish, labels, open_, searches, None)
    return 2 if any(each.level == "error" for each in found) else 0


# --- queries ------------------------------------------------------------------------------------


def _named(wish: Wish, book: Book) -> list[Query]:
    """Give every query its id: its own, that of its label, or its place in the file."""
    given = golden.queries(read(wish.queries), wish.queries)
    ids = {label.query: label.id for label in book.labels.values()}
    taken = {query.id for query in given if query.id} | set(book.labels)
    found: dict[str, Query] = {}
    for number, query in enumerate(given, start=1):
        name = query.id or ids.get(query.text) or _free(number, taken)
        taken.add(name)
        ids.setdefault(query.text, name)
        if name in found:
            say(f"swarm: {one_line(query.text, 60)!r} is there twice; it is asked once")
            continue
        found[name] = query._replace(id=name)
        label = book.labels.get(name)
        if label is not None and label.query != query.text:
            raise UsageError(
                f"{wish.golden}:{label.line}: query `{name}` is {one_line(label.query, 60)!r} "
                f"there and {one_line(query.text, 60)!r} in {wish.queries}",
                hint="give one of them another id",
                path=wish.golden,
                line=label.line,
            )
    return list(found.values())


def _free(number: int, taken: set[str]) -> str:
    while f"q{number}" in taken:
        number += 1
    return f"q{number}"


def _refuse(wish: Wish, book: Book, queries: Sequence[Query]) -> None:
    """Refuse what would be seen only at the end."""
    if wish.golden.name == QUERIES:
        raise UsageError(
            f"--out: {QUERIES} is what the file beside the golden set is called, without answers",
            hint=f"such as --out {GOLDEN}",
        )
    if strange := [name for name in wish.again if name not in {q.id for q in queries}]:
        raise UsageError(
            f"--again: there is no query `{strange[0]}`", hint=f"{wish.golden} has the ids"
        )
    if not wish.golden.absolute().parent.is_dir():
        raise UsageError(
            f"there is no directory `{wish.golden.parent}` for the golden set",
            hint="make it first, or correct --out",
        )
    if not wish.beside.exists():
        return
    there = golden.queries(read(wish.beside), wish.beside)
    known = {*queries, *(Query(label.query, label.id) for label in book.labels.values())}
    if not set(there) <= known:
        ids = "give its lines ids, or " if wish.beside.resolve() == wish.queries.resolve() else ""
        raise UsageError(
            f"`{wish.beside}` is where the queries go, and it has others in it",
            hint=f"{ids}move it away, or name another folder with --out",
            path=wish.beside,
        )


def _write_queries(wish: Wish, labels: Sequence[Label]) -> Path:
    """Write what the search may see; a list of the person's own that has it all is left alone."""
    queries = [Query(label.query, label.id) for label in labels]
    with alone(wish.beside):
        text = read(wish.beside) if wish.beside.exists() else ""
        there = set(golden.queries(text, wish.beside)) if text else set[Query]()
        if more := [query for query in queries if query not in there]:
            text += "\n" if text and not text.endswith("\n") else ""
            save(wish.beside, (text + golden.write_queries(more)).encode())
    return wish.beside


# --- searches -----------------------------------------------------------------------------------


def _searches(wish: Wish, queries: Sequence[Query], timeout_s: float) -> list[Search]:
    def tell(text: str) -> None:
        say(f"swarm: {text}")

    return [Search(c, queries, most=wish.k, timeout_s=timeout_s, say=tell) for c in wish.search]


def _look(searches: Sequence[Search], query: Query) -> Sight:
    found = [search.ask(query) for search in searches]
    failures = tuple(one.failure for one in found if one.failure)
    return Sight(pool(query, [one.results for one in found]), failures)


# --- words --------------------------------------------------------------------------------------


def _tell(
    wish: Wish,
    labels: Sequence[Label],
    open_: Sequence[str],
    searches: Sequence[Search],
    written: Path | None,
) -> list[Finding]:
    seen = figures(labels)
    scores = [s for each in searches if (s := score(each.command, labels, ranked(each.found)))]
    failed = {
        s.command: ids for s in searches if (ids := [q for q in s.found if s.found[q].failure])
    }
    found = findings(labels, open_, scores, failed)
    if wish.json:
        emit_json(_json(wish, seen, open_, scores, found, written))
        return found
    emit(
        f"{'golden':9}{wish.golden}: {counted_queries(seen.queries)}, {seen.held_out} held out, "
        f"{seen.answerable} with a good answer"
    )
    if written is not None:
        emit(f"{'queries':9}{written}")
    for each in scores:
        emit(
            f"{'search':9}{one_line(each.command)}: hit rate {each.hit_rate:.2f}, "
            f"mrr {each.mrr:.2f} at {wish.k}, over {counted_queries(each.queries)}"
        )
    for each in found:
        emit(f"{each.level:9}{each.kind}: {one_line(each.message)}")
        emit(f"{'':9}-> {each.hint}")
    return found


def _json(
    wish: Wish,
    seen: Figures,
    open_: Sequence[str],
    scores: Sequence[Score],
    found: Sequence[Finding],
    written: Path | None,
) -> dict[str, Any]:
    return {
        "golden": str(wish.golden),
        "queries_file": None if written is None else str(written),
        "ok": not any(each.level == "error" for each in found),
        **seen._asdict(),
        "unlabelled": len(open_),
        "detectable": seen.detectable,
        "searches": [
            {"command": s.command, "queries": s.queries, "hit_rate": s.hit_rate, "mrr": s.mrr}
            for s in scores
        ],
        "findings": [each._asdict() for each in found],
    }


def _number(kind: Any, option: str, text: str) -> float:
    try:
        return TypeAdapter[float](kind).validate_python(text)
    except ValidationError as error:
        raise UsageError(f"{option}: {error.errors()[0]['msg']}") from None
