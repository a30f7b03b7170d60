"""The files of retrieval: a golden set, its queries, results, texts and items. Read and checked.

They are files of JSON `lines`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from ending import NoAnswerError, UsageError
from lines import Line, finite, lines, listed, unique

GRADES = range(4)
"""0 was looked at and is not relevant; 3 is what was meant."""
LONGEST_S = 1e6
"""Seconds for one query; more is no time that anybody has clocked."""
GOLDEN = {"id", "query", "relevant", "keywords", "snippets", "held_out", "note"}


class Query(NamedTuple):
    """One query and what is known of its answers."""

    id: str
    text: str
    relevant: Mapping[str, int] = {}
    """From a result's id to its grade."""
    keywords: Sequence[str] = ()
    """Words that the shown results should contain."""
    snippets: Sequence[str] = ()
    """Passages that the shown results should contain."""
    held_out: bool = False

    @property
    def answerable(self) -> bool:
        """Tell whether anything is known to be relevant."""
        return any(self.relevant.values())


class Result(NamedTuple):
    """One thing that was found."""

    id: str
    text: str = ""
    """Title and text together."""


class Found(NamedTuple):
    """What was found for one query, best first, and how long it took."""

    results: tuple[Result, ...] = ()
    seconds: float | None = None
    cut: int | None = None
    """How many of the results were kept, if there were more."""


class Item(NamedTuple):
    """One thing that can be recommended."""

    tags: frozenset[str] = frozenset()
    vector: tuple[float, ...] = ()
    """Of length 1."""


def golden(path: Path) -> list[Query]:
    """Read a golden set.

    Raises:
        UsageError: it cannot be read, or a line is wrong.
    """
    found = [_golden(line) for line in unique(lines(path))]
    if not found:
        hint = "`swarm golden QUERIES --search COMMAND` makes a golden set with you"
        raise UsageError(f"{path}: there is no query in it; {hint}")
    return found


def _golden(line: Line) -> Query:
    line.known(GOLDEN)
    relevant = line.value.get("relevant", {})
    if not isinstance(relevant, dict):
        line.wrong('`relevant` must map ids to grades, as {"doc-7": 3}')
    for name, grade in cast("dict[str, object]", relevant).items():
        if type(grade) is not int or grade not in GRADES:
            line.wrong(f"the grade of {name!r} is {grade!r}; it must be 0, 1, 2 or 3")
    if not isinstance(held := line.value.get("held_out", False), bool):
        line.wrong("`held_out` must be true or false")
    return Query(
        id=line.text("id"),
        text=line.text("query"),
        relevant=cast("dict[str, int]", relevant),
        keywords=line.texts("keywords"),
        snippets=line.texts("snippets"),
        held_out=held,
    )


def queries(path: Path) -> list[Query]:
    """Read queries without their answers; a golden set will do.

    Raises:
        UsageError: it cannot be read, or a line is wrong.
    """
    found = [Query(li.text("id"), li.text("query")) for li in unique(lines(path))]
    if not found:
        raise UsageError(f"{path}: there is no query in it")
    return found


def results(path: Path) -> dict[str, Found]:
    """Read what was found, by the id of the query.

    Raises:
        NoAnswerError: it cannot be read, or a line is wrong.
    """
    rows = unique(lines(path, NoAnswerError))
    return {row.text("id"): results_in(row.value, row.wrong) for row in rows}


def results_in(value: Mapping[str, Any], wrong: Callable[[str], NoReturn]) -> Found:
    """Take results out of an object that has them; say to `wrong` what cannot be taken."""
    found = listed(value.get("results"))
    if found is None:
        wrong("`results` must be a list")
    taken: dict[str, Result] = {}
    for each in found:
        one = cast("dict[str, Any]", each) if isinstance(each, dict) else {"id": each}
        name = _name(one.get("id"))
        if not name:
            wrong("every result needs an `id`")
        # What is listed twice counts once, at its first place.
        taken.setdefault(name, Result(name, _shown(one)))
    seconds: Any = value.get("seconds", -1.0)
    usable = _number(seconds) and 0 <= seconds <= LONGEST_S
    cut = value.get("cut")
    kept = cut if isinstance(cut, int) else None
    return Found(tuple(taken.values()), float(seconds) if usable else None, kept)


def _shown(value: Mapping[str, Any]) -> str:
    parts = (value.get("title"), value.get("text"))
    return " ".join(p for p in parts if isinstance(p, str))


def _name(value: object) -> str:
    """Take an id, which may be a number, too."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def texts(path: Path) -> dict[str, str]:
    """Read what there is to find: title and text together, by id.

    Raises:
        UsageError: it cannot be read, or a line is wrong.
    """
    found: dict[str, str] = {}
    for line in lines(path):
        name = _name(line.value.get("id"))
        if not name:
            line.wrong("every text needs an `id`")
        if name in found:
            line.wrong(f"the id {name!r} is there already")
        if not any(isinstance(line.value.get(key), str) for key in ("title", "text")):
            line.wrong("`title` or `text` must be a text")
        found[name] = _shown(line.value)
    if not found:
        raise UsageError(f"{path}: there is no text in it")
    return found


def items(path: Path) -> dict[str, Item]:
    """Read what can be recommended, by id: each with `tags` or a `vector`.

    Raises:
        UsageError: it cannot be read, or a line is wrong.
    """
    found: dict[str, Item] = {}
    sizes: set[int] = set()
    for line in unique(lines(path)):
        vector = listed(line.value.get("vector", []))
        if vector is None or not all(_number(n) for n in vector):
            line.wrong("`vector` must be a list of numbers")
        item = Item(frozenset(line.texts("tags")), _direction([float(n) for n in vector]))
        if bool(item.tags) == bool(item.vector):
            line.wrong("an item needs `tags` or a `vector`, and not both")
        if vector and not any(vector):
            line.wrong("a `vector` of zeros has no direction")
        sizes.add(len(item.vector))
        if len(sizes) > 1:
            line.wrong("all items need vectors of one length, or all need tags")
        found[line.text("id")] = item
    if not found:
        raise UsageError(f"{path}: there is no item in it")
    return found


def _direction(vector: Sequence[float]) -> tuple[float, ...]:
    """Give a vector the length 1; what is very large or small neither overflows nor vanishes."""
    largest = max((abs(n) for n in vector), default=0.0) or 1.0
    scaled = [n / largest for n in vector]
    length = math.hypot(*scaled) or 1.0
    return tuple(n / length for n in scaled)


def _number(value: Any) -> bool:
    return finite(value) and not isinstance(value, bool)
