"""Which paths an experiment may change. Pure text; knows no file system and no git.

Patterns are relative to the target's `repo` directory and use `/`: `train.py` (a literal path),
`index/` (everything below), `src/**/*.py`, `*.yaml`. `*` and `?` stay within one path part, `**`
crosses parts, `[abc]` is a set. A literal path that is a directory covers everything below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_WILD = re.compile(r"[*?\[]")

GUARDED_NAMES = (".gitattributes", ".gitmodules", "conftest.py", "sitecustomize.py")
"""Names that steer tools rather than being data: only a literal path in scope admits them."""
GUARDED_SUFFIX = ".pth"


class Scope:
    """An immutable set of patterns."""

    def __init__(
        self,
        patterns: Iterable[str],
        *,
        within: Scope | None = None,
        without: Scope | None = None,
        guarded: bool = True,
    ) -> None:
        self.within = within
        """A wider scope that this one cannot leave."""
        self.without = without
        """What is never in it."""
        self.guarded = guarded
        """Whether names that steer tools must be named in full."""
        self.patterns = tuple(p.removeprefix("./") for p in patterns)
        self._literal = frozenset(p for p in self.patterns if not _WILD.search(p))
        self._regexes = tuple(_compile(p) for p in self.patterns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scope):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        return (self.patterns, self.within, self.without, self.guarded)

    def __repr__(self) -> str:
        return f"Scope({list(self.patterns)!r})"

    def __contains__(self, path: str) -> bool:
        """Tell whether an experiment may change `path`."""
        if self.within is not None and path not in self.within:
            return False
        if self.without is not None and path in self.without:
            return False
        if not any(r.fullmatch(path) for r in self._regexes):
            return False
        return not self.guarded or path in self._literal or not is_guarded(path)


def is_guarded(path: str) -> bool:
    """Tell whether the path is one that only its literal name in a scope admits."""
    name = path.rsplit("/", 1)[-1]
    return name in GUARDED_NAMES or name.endswith(GUARDED_SUFFIX)


@lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str]:
    below = pattern.endswith("/") or not _WILD.search(pattern)
    body = "".join(_part(m) for m in _TOKEN.finditer(pattern.rstrip("/")))
    if pattern.rstrip("/") in (".", ""):
        return re.compile(r".+", re.DOTALL)
    return re.compile(body + (r"(?:/.+)?" if below else ""), re.DOTALL)


_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.", re.DOTALL)


def _part(match: re.Match[str]) -> str:
    token = match.group()
    match token:
        case "**/":
            return r"(?:[^/]+/)*"
        case "**":
            return r".*"
        case "*":
            return r"[^/]*"
        case "?":
            return r"[^/]"
        case _ if token.startswith("[") and len(token) > 1:
            negated = token.startswith("[!")
            inner = "".join(_members(m) for m in _MEMBER.finditer(token[1 + negated : -1]))
            # Neither what a set leaves out nor a range such as `[+-9]` crosses into another part.
            if not inner:
                return r"[^/]" if negated else r"(?!)"
            return f"(?!/)[{'^' if negated else ''}{inner}]"
        case _:
            return re.escape(token)


_MEMBER = re.compile(r"(.)-(.)|.", re.DOTALL)


def _members(match: re.Match[str]) -> str:
    first, last = match.groups()
    if first is None:
        return re.escape(match.group())
    return f"{re.escape(first)}-{re.escape(last)}" if first <= last else ""
