"""Files of JSON lines that a person or a program has written: read and checked.

A line is one JSON object. Lines that are empty or begin with `#` are passed over. What is wrong is
an error with file and line, of the kind that the reader of the file asks for: whose fault it is.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from ending import UsageError


class Line(NamedTuple):
    """One line, and how to say what is wrong with it."""

    path: Path
    number: int
    value: dict[str, Any]
    fault: type[Exception]

    def wrong(self, what: str) -> NoReturn:
        """Raise what the reader asked for, with the place."""
        raise self.fault(f"{self.path}:{self.number}: {what}")

    def text(self, key: str) -> str:
        """Give a text that must be there."""
        value = self.value.get(key)
        if not isinstance(value, str) or not value.strip():
            self.wrong(f"`{key}` must be a text that is not empty")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Give a list of texts; none if the key is not there."""
        found = listed(self.value.get(key, []))
        if found is None or not all(isinstance(v, str) and v.strip() for v in found):
            self.wrong(f"`{key}` must be a list of texts that are not empty")
        return tuple(str(v) for v in found)

    def whole(self) -> None:
        """Refuse half a character, which JSON can say and nothing else can hold."""
        try:
            json.dumps(self.value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            self.wrong("half a character (\\ud800 to \\udfff alone) is no text")

    def known(self, keys: Iterable[str]) -> None:
        """Refuse a key that is not one of these."""
        if unknown := sorted(self.value.keys() - set(keys)):
            self.wrong(f"unknown key {unknown[0]!r}; there are {', '.join(sorted(keys))}")


def lines(path: Path, fault: type[Exception] = UsageError) -> Iterator[Line]:
    """Read the lines of a file.

    Raises:
        fault: it cannot be read, or a line is no JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise fault(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise fault(f"{path} is not UTF-8") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.startswith("#"):
            yield Line(path, number, _object(line, f"{path}:{number}", fault), fault)


def _object(line: str, place: str, fault: type[Exception]) -> dict[str, Any]:
    try:
        value: object = json.loads(line, object_pairs_hook=_once)
    except ValueError as error:
        raise fault(f"{place}: not JSON: {error}") from None
    except RecursionError:
        raise fault(f"{place}: too many brackets inside each other") from None
    if not isinstance(value, dict):
        raise fault(f"{place}: not a JSON object")
    return cast("dict[str, Any]", value)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, each in pairs:
        if name in value:
            raise ValueError(f"the key {name!r} is there twice")
        value[name] = each
    return value


def unique(found: Iterable[Line]) -> Iterator[Line]:
    """Give the lines; an `id` that is there already is wrong."""
    seen: dict[str, int] = {}
    for line in found:
        name = line.text("id")
        if name in seen:
            line.wrong(f"the id {name!r} is there already, in line {seen[name]}")
        seen[name] = line.number
        yield line


def listed(value: object) -> list[Any] | None:
    """Take a JSON value for a list."""
    return cast("list[Any]", value) if isinstance(value, list) else None


def finite(value: Any) -> bool:
    """Tell whether something is a number that can be counted with; true and false are, too."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # JSON has integers that no float can hold
        return False
