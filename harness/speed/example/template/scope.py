"""The names that a template can use at one place, and their values."""

import copy
from typing import Any


class Scope:
    """Names and values."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def inner(self, values: dict[str, Any]) -> "Scope":
        """Give a scope with more names, which may hide names of this one."""
        together: dict[str, Any] = {}
        for name in self.values:
            together[name] = copy.copy(self.values[name])
        for name in values:
            together[name] = copy.copy(values[name])
        return Scope(together)

    def lookup(self, path: str) -> Any:
        """Follow a path; None if it leads nowhere."""
        value: Any = self.values
        for name in path.split("."):
            value = member(value, name)
        return value


def member(value: Any, name: str) -> Any:
    """Give what a mapping or a list has by a name; None if it has nothing."""
    try:
        return value[name] if hasattr(value, "keys") else value[int(name)]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
