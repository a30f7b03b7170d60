"""One query after the other is shown and graded, and each label is on the disk before the next.

Owns which query comes next, what is held out, and the pace. Shows and hears through a `Page`, and
knows neither the terminal nor how a search is run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple, Protocol

from swarm.errors import UsageError
from swarm.formats.golden import Label, Query
from swarm.formats.text import counted, one_line
from swarm.golden.answers import HELP, Answer, UnclearError, answered
from swarm.golden.book import Book
from swarm.golden.searching import Result

ENOUGH = 3
"""Answers after which a pace can be told."""


class Sight(NamedTuple):
    """What is shown for one query."""

    results: tuple[Result, ...]
    failures: tuple[str, ...] = ()
    """How searches have failed on it."""


class Progress(NamedTuple):
    """How far the labelling has come."""

    number: int
    """Of the query, from 1 up."""
    of: int
    left: int
    """Queries that have no label yet."""
    left_s: float | None
    """What they take at this pace; None where that cannot be told yet."""


class Page(Protocol):
    """Where the person is."""

    def show(self, query: Query, sight: Sight, label: Label | None, at: Progress) -> None:
        """Show a query with its results, and its label if it has one."""
        ...

    def say(self, text: str) -> None:
        """Say something in between."""
        ...

    def hear(self) -> str:
        """Give the next answer; EOFError when there are no more."""
        ...


def is_held_out(name: str, share: float) -> bool:
    """Tell by its id alone whether a query is held out, so that it stays so whatever else comes."""
    digest = hashlib.sha256(name.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share


@dataclass
class Labelling:
    """The queries, the book, and the person."""

    queries: Sequence[Query]
    book: Book
    look: Callable[[Query], Sight]
    page: Page
    held_out: float
    again: set[str] = field(default_factory=set[str])
    """Ids that are asked although they have a label."""
    patient: bool = True
    """Whether an answer that is none may be given once more. Of answers from a file it may not: all
    that follow would go to wrong queries."""
    _skipped: set[str] = field(default_factory=set[str])
    _begun: dict[str, Label] = field(default_factory=dict[str, Label])
    """What was added to queries that have not been graded since."""
    _took_s: list[float] = field(default_factory=list[float])
    _heard: int = 0

    @property
    def open(self) -> list[str]:
        """Give the ids of queries without a label."""
        return [q.id for q in self.queries if q.id not in self.book.labels]

    def work(self) -> None:
        """Ask until nothing is left or the person stops.

        Raises:
            EOFError: there are no more answers.
            UsageError: an answer is none, and nobody is there to give another.
            PreconditionError: a search cannot be used, or the book not be written.
        """
        at = self._next(0)
        while at is not None:
            query = self.queries[at]
            start = time.monotonic()
            answer = self._ask(at)
            match answer.verb:
                case "stop":
                    return
                case "back":
                    at = max(0, at - 1)
                    continue
                case "skip":
                    self._skipped.add(query.id)
                case "grade":
                    self.book.put(answer.label)
                    self._begun.pop(query.id, None)
                    self._took_s.append(time.monotonic() - start)
                    self.again.discard(query.id)
                case _:
                    self.again.discard(query.id)
            at = self._next(at + 1)

    def _next(self, start: int) -> int | None:
        for number in range(start, len(self.queries)):
            name = self.queries[number].id
            if name in self.again:
                return number
            if name not in self.book.labels and name not in self._skipped:
                return number
        return None

    def _ask(self, at: int) -> Answer:
        """Show one query, and hear until there is an answer that ends it."""
        query = self.queries[at]
        sight = self.look(query)
        old = self.book.labels.get(query.id)
        self.page.show(query, sight, old, self._progress(at))
        label = (
            self._begun.get(query.id)
            or old
            or Label(query.id, query.text, {}, held_out=is_held_out(query.id, self.held_out))
        )
        shown = [result.id for result in sight.results]
        while True:
            line = self.page.hear()
            self._heard += 1
            try:
                answer = answered(line, label, shown, failed=bool(sight.failures))
                self._refuse(answer, at, old)
            except UnclearError as error:
                self._unclear(str(error), query)
                continue
            label = answer.label
            match answer.verb:
                case "help":
                    self.page.say(HELP)
                case "stay":
                    self._begun[query.id] = label
                    self.page.say(_so_far(label))
                case "keep" if label != old:  # what was added goes into the label that is there
                    return answer._replace(verb="grade")
                case _:
                    return answer

    def _refuse(self, answer: Answer, at: int, old: Label | None) -> None:
        if answer.verb == "back" and at == 0:
            raise UnclearError("this is the first query")
        if answer.verb == "keep" and old is None:
            raise UnclearError("grades end a query: such as `1 3`, or `n` for none; ? for help")

    def _unclear(self, what: str, query: Query) -> None:
        if not self.patient:
            raise UsageError(
                f"answer {self._heard}, to query `{query.id}`: {what}",
                hint="what was answered before is saved; go on from this query with the rest",
            )
        self.page.say(what)

    def _progress(self, at: int) -> Progress:
        left = len([name for name in self.open if name not in self._skipped])
        enough = len(self._took_s) >= ENOUGH
        # The median: a cup of coffee is no pace.
        left_s = median(self._took_s) * left if enough else None
        return Progress(at + 1, len(self.queries), left, left_s)


def _so_far(label: Label) -> str:
    said = [f"{one_line(name, 60)}={grade}" for name, grade in label.relevant.items() if grade]
    said += [f"keywords {one_line(', '.join(label.keywords), 200)}"] if label.keywords else []
    said += [counted(len(label.snippets), "passage")] if label.snippets else []
    return f"so far: {'; '.join(said) or 'nothing'}. Now the grades, or n"
