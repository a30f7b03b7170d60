"""The files of a golden set: queries, and which results are good for each of them.

Owns what a line may hold, which is what `harness/retrieval` reads, and how it is written: text in,
records out, with every mistake at its line. A line is one JSON object; lines that are empty or
begin with `#` are passed over. Knows no disk, and nothing of how grades come about.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from swarm.errors import UsageError

GRADES = range(4)
"""3 is what was meant, 1 is near, 0 was looked at and is not relevant."""
_KNOWN = {"relevant", "keywords", "snippets"}
"""Keys that say what is good."""
KEYS = ("id", "query", "relevant", "keywords", "snippets", "held_out", "note")
_MOST_SAID = 10
"""Mistakes of one file that are said at once."""


class Query(NamedTuple):
    """One query; without an `id` where its file gives none."""

    text: str
    id: str = ""


@dataclass(frozen=True)
class Label:
    """A query and what is known of its results."""

    id: str
    query: str
    relevant: Mapping[str, int]
    """From a result's id to its grade."""
    keywords: tuple[str, ...] = ()
    """Words that should be in some result."""
    snippets: tuple[str, ...] = ()
    """Passages that should be in some result."""
    held_out: bool = False
    note: Any = None
    line: int = 0
    """Where it stands in its file, from 1 up; 0 where it does not stand in one yet."""

    @property
    def answerable(self) -> bool:
        """Tell whether anything is known to be relevant."""
        return any(self.relevant.values())

    def write(self) -> str:
        """Give its line, without the end."""
        value: dict[str, Any] = {"id": self.id, "query": self.query, "relevant": self.relevant}
        value |= {"keywords": self.keywords} if self.keywords else {}
        value |= {"snippets": self.snippets} if self.snippets else {}
        value |= {"held_out": True} if self.held_out else {}
        value |= {"note": self.note} if self.note is not None else {}
        return _json(value)


def labels(text: str, path: Path | str) -> list[Label]:
    """Read a golden set.

    Raises:
        UsageError: lines are wrong; each is named.
    """
    if _is_plain(text):
        raise UsageError(
            f"{path}: no line of it is a JSON object, so it is no golden set",
            hint="if it is a list of queries, name the set: --out golden.jsonl",
            path=path,
        )
    mistakes = _Mistakes(path)
    found = [_label(row) for row in _rows(text, mistakes)]
    mistakes.end()
    return found


def queries(text: str, path: Path | str) -> list[Query]:
    """Read queries: plain text with one a line, or JSON lines with `query` and perhaps `id`.

    Raises:
        UsageError: lines are wrong, or there is no query.
    """
    lines = _plain(text)
    if lines and lines[0].startswith("{"):
        if _is_plain(text):
            raise UsageError(
                f"{path}: the first query begins with {{ as JSON lines do, and no line is one",
                hint='put another query first, or write each as {"query": "..."}',
                path=path,
            )
        mistakes = _Mistakes(path)
        found = [
            Query(row.text("query"), row.text("id") if "id" in row.value else "")
            for row in _rows(text, mistakes)
        ]
        mistakes.end()
    else:
        found = [Query(line) for line in lines]
    if not found:
        raise UsageError(
            f"{path}: there is no query in it", hint="write one query a line", path=path
        )
    return found


def only_queries(text: str) -> bool:
    """Tell whether a text is queries of which nothing is known, plain or as JSON lines."""
    rows = [_object(line) for line in _plain(text)]
    if any(row is None for row in rows):
        return _is_plain(text)
    return bool(rows) and not any(row.keys() & _KNOWN for row in rows if row is not None)


def write_queries(asked: Sequence[Query]) -> str:
    """Give queries as a search sees them: with nothing of their answers."""
    return "".join(_json({"id": q.id, "query": q.text}) + "\n" for q in asked)


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, as strangers' programs print it
        return json.dumps(value)
    return text


# --- reading ------------------------------------------------------------------------------------


def _plain(text: str) -> list[str]:
    """Give what stands in the lines of a plain text."""
    stripped = [line.strip() for line in text.split("\n")]
    return [line for line in stripped if line and not line.startswith("#")]


def _is_plain(text: str) -> bool:
    """Tell whether no line is a JSON object, and not each was meant to be one."""
    lines = _plain(text)
    if all(line.startswith("{") for line in lines):
        return False
    return all(_object(line) is None for line in lines)


def _object(line: str) -> dict[str, Any] | None:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


class _Mistakes:
    """All that is wrong with one file, each at its line."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, what: str) -> None:
        self._found.append((line, what))

    def end(self) -> None:
        """Raise if there is any."""
        if not self._found:
            return
        said = [f"{self._path}:{line}: {what}" for line, what in self._found[:_MOST_SAID]]
        if more := len(self._found) - _MOST_SAID:
            said += [f"and {more} more"] if more > 0 else []
        raise UsageError(
            "\n".join(said), hint="correct the line", path=self._path, line=self._found[0][0]
        )


class _Row(NamedTuple):
    number: int
    value: dict[str, Any]
    mistakes: _Mistakes

    def wrong(self, what: str) -> None:
        self.mistakes.add(self.number, what)

    def text(self, key: str) -> str:
        value = self.value.get(key)
        if not isinstance(value, str) or not value.strip():
            self.wrong(f"`{key}` must be a text that is not empty")
            return ""
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value: Any = self.value.get(key, [])
        if isinstance(value, list) and all(
            isinstance(v, str) and v.strip() for v in cast("list[Any]", value)
        ):
            return tuple(cast("list[str]", value))
        self.wrong(f"`{key}` must be a list of texts")
        return ()


def _rows(text: str, mistakes: _Mistakes) -> Iterator[_Row]:
    """Give the objects of all lines, each id once."""
    seen: dict[str, int] = {}
    # Not `splitlines`: a text may hold line ends of other kinds, which JSON need not escape.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            value: object = json.loads(line, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            mistakes.add(number, f"not JSON: {error}")
            continue
        if not isinstance(value, dict):
            mistakes.add(number, "not a JSON object")
            continue
        row = _Row(number, cast("dict[str, Any]", value), mistakes)
        name = row.value.get("id")
        if isinstance(name, str) and seen.setdefault(name, number) != number:
            row.wrong(f"the id `{name}` is there already, in line {seen[name]}")
        yield row


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key `{twice}` is there twice")
    return value


def _label(row: _Row) -> Label:
    if unknown := sorted(row.value.keys() - set(KEYS)):
        row.wrong(f"unknown key `{unknown[0]}`; there are {', '.join(KEYS)}")
    relevant: Any = row.value.get("relevant", {})
    if not isinstance(relevant, dict):
        row.wrong('`relevant` must map ids to grades, as {"doc-7": 3}')
        relevant = {}
    for name, grade in cast("dict[str, object]", relevant).items():
        if type(grade) is not int or grade not in GRADES:
            row.wrong(f"the grade of `{name}` is {json.dumps(grade)}; it must be 0, 1, 2 or 3")
    held = row.value.get("held_out", False)
    if not isinstance(held, bool):
        row.wrong("`held_out` must be true or false")
    return Label(
        id=row.text("id"),
        query=row.text("query"),
        relevant=cast("dict[str, int]", relevant),
        keywords=row.texts("keywords"),
        snippets=row.texts("snippets"),
        held_out=held is True,
        note=row.value.get("note"),
        line=row.number,
    )
