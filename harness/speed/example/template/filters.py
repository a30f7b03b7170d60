"""The filters: each gets a value and the text of its argument."""

from collections.abc import Callable
from typing import Any


def shown(value: Any) -> str:
    """Give a value as text."""
    return "" if value is None else str(value)


def money(value: Any, _: str) -> str:
    """Give a whole number of cents as an amount, with thousands apart."""
    cents = int(value)
    whole = str(abs(cents) // 100)
    grouped = ""
    for place, digit in enumerate(reversed(whole)):
        if place > 0 and place % 3 == 0:
            grouped = "," + grouped
        grouped = digit + grouped
    sign = "-" if cents < 0 else ""
    return f"{sign}{grouped}.{abs(cents) % 100:02}"


def cut(value: Any, argument: str) -> str:
    """Keep the first characters; three dots stand for the rest."""
    text = shown(value)
    length = int(argument)
    return text if len(text) <= length else text[: max(0, length - 3)] + "..."


FILTERS: dict[str, Callable[[Any, str], Any]] = {
    "upper": lambda value, _: shown(value).upper(),
    "title": lambda value, _: shown(value).title(),
    "length": lambda value, _: len(value or ()),
    "join": lambda value, argument: argument.join(shown(each) for each in value or ()),
    "default": lambda value, argument: value if value else argument,
    "money": money,
    "cut": cut,
}
