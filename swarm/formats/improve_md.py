"""`improve.md`, the file of autoimprove: text in, what it asks for out, with every mistake at once.

Owns the sections, the keys of each and how their values are written. Knows no config and no file:
what swarm makes of it is `doors.improve`'s. Below `## Instructions` everything is free text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from swarm.errors import ConfigError, Problem
from swarm.patterns import literals
from swarm.quantities import Duration
from swarm.records import Goal
from swarm.sections import closest
from swarm.yaml_marks import Spot

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Change": ("scope", "exclude", "files", "context"),
    "Check": (
        *("test", "test-files", "run", "score", "goal", "guard"),
        *("keep_if_equal", "timeout"),
    ),
    "Stop": ("budget", "rounds", "target", "stale"),
    "Agent": ("provider", "model"),
}
"""The keys of each section. `files` is what `scope` was once called."""
FREE = "Instructions"
_TAKEN_AS_WRITTEN = frozenset({"test", "run", "score", "guard"})
"""Keys of which ` # ...` is a part: a shell knows comments itself, and regexes contain `#`."""
_GOALS: Mapping[str, Goal] = {"lower": "minimize", "higher": "maximize"}
T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """Where the number stands, if not in a line `SCORE: number`."""

    pattern: str | None = None
    """A regular expression with one group."""
    json: str | None = None
    """Keys and indices joined by dots."""


@dataclass(frozen=True)
class Guard:
    """A limit on another number of the output."""

    name: str
    pattern: str
    """A regular expression with one group."""
    maximum: float | None = None
    minimum: float | None = None


@dataclass(frozen=True)
class Improve:
    """What a file asks for."""

    title: str | None
    scope: tuple[str, ...]
    """Paths, globs, or words that say which files are meant."""
    run: str
    goal: Goal
    score: Score = Score()
    test: str | None = None
    exclude: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    guards: tuple[Guard, ...] = ()
    keep_if_equal: bool = False
    timeout: float | None = None
    """Seconds; so with `budget`."""
    budget: float | None = None
    rounds: int | None = None
    target: float | None = None
    stale: int | None = None
    provider: str | None = None
    model: str | None = None
    instructions: str = ""
    spots: Mapping[str, Spot] = field(default_factory=dict[str, Spot])
    """Where the value of each key stands; of guards, `guard.0` and so on."""


def parse(text: str, path: Path) -> Improve:
    """Read a file's text; `path` is only named in errors.

    Raises:
        ConfigError: all that is wrong with it, each with its place.
    """
    reader = _Reader(text.splitlines())
    found = reader.read()
    if reader.problems:
        problems = sorted(reader.problems, key=lambda p: (p.line or 0, p.column or 0))
        raise ConfigError(path, problems)
    return found


# --- lines --------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """One `key: value`."""

    key: str
    value: str
    spot: Spot
    """Of the value."""


_HEADING = re.compile(r"##[ \t]+(.*?)[ \t:#]*$")
_KEY = re.compile(r"\s*(?:[-*][ \t]+)?([A-Za-z][\w-]*)[ \t]*:[ \t]*(.*)$")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_TITLE = re.compile(r"#[ \t]+(?:autoimprove[ \t]*:[ \t]*)?(.*?)[ \t#]*$", re.IGNORECASE)


class _Reader:
    """One walk over the lines of a file."""

    def __init__(self, lines: list[str]) -> None:
        self.problems: list[Problem] = []
        self._lines = lines
        self._title: str | None = None
        self._given: dict[str, _Line] = {}
        self._guards: list[_Line] = []
        self._headings: dict[str, int] = {}
        self._instructions = ""

    def read(self) -> Improve:
        """Give what the file asks for; with problems, what is left of that."""
        self._split()
        for absent in ("Change", "Check"):
            if absent not in self._headings:
                self._absent(absent)
        scope, run, goal = self._scope(), self._needed("Check", "run"), self._goal()
        guards = self._read_guards()
        spots = {key: line.spot for key, line in self._given.items()}
        spots |= {f"guard.{i}": line.spot for i, line in enumerate(self._guards)}
        return Improve(
            title=self._title or None,
            scope=scope,
            run=run or "",
            goal=goal or "minimize",
            score=self._score(),
            test=self._text("test"),
            exclude=self._list("exclude"),
            test_files=self._list("test-files"),
            context=self._list("context"),
            guards=guards,
            keep_if_equal=self._value("keep_if_equal", _flag) or False,
            timeout=self._value("timeout", _duration),
            budget=self._value("budget", _duration),
            rounds=self._value("rounds", _whole),
            target=self._value("target", _number),
            stale=self._value("stale", _whole),
            provider=self._text("provider"),
            model=self._text("model"),
            instructions=self._instructions,
            spots=spots,
        )

    def _split(self) -> None:
        """Take the file apart into keys of sections and free text."""
        section: str | None = None
        hidden = False
        for number, line in enumerate(self._lines, start=1):
            shown, hidden = _without_remarks(line, hidden)
            if heading := _HEADING.match(shown):
                section = self._heading(heading[1], number)
                if section == FREE:
                    self._instructions = "\n".join(self._lines[number:]).strip()
                    return
            elif shown.startswith("# ") or shown.strip() == "#":
                # Above all sections it is the title, in one of them a comment.
                if section is None and self._title is None and (title := _TITLE.match(shown)):
                    self._title = title[1]
            elif section is not None and shown.strip():
                self._key(section, shown, number)

    def _heading(self, name: str, number: int) -> str:
        known = {s.lower(): s for s in (*SECTIONS, FREE)}
        section = known.get(name.lower())
        if section is None:
            meant = closest(name.lower(), list(known))
            there = ", ".join((*SECTIONS, FREE))
            what = f"unknown section `{name}`; there are {there}; free text belongs below the last"
            self._note(what, Spot(number, 4), f"## {known[meant]}" if meant else None)
            return ""
        if section in self._headings:
            first = self._headings[section]
            self._note(
                f"section `{section}` is given twice, first on line {first}", Spot(number, 4)
            )
        self._headings.setdefault(section, number)
        return section

    def _key(self, section: str, line: str, number: int) -> None:
        if section == "":
            return  # its heading has been reported
        match = _KEY.match(line)
        if match is None:
            column = len(line) - len(line.lstrip()) + 1
            what = f"this is no `key: value`; free text belongs below `## {FREE}`"
            self._note(what, Spot(number, column))
            return
        key, value = match.groups()
        if key not in SECTIONS[section]:
            self._unknown(section, key, Spot(number, match.start(1) + 1))
            return
        if key not in _TAKEN_AS_WRITTEN:
            value = _COMMENT.sub("", value)
        start = match.start(2) + len(value) - len(value.lstrip())
        value = value.strip()
        if re.fullmatch(r"`[^`]+`", value):
            value, start = value[1:-1], start + 1
        taken = _Line(key, value, Spot(number, start + 1))
        if key == "guard":
            self._guards += [taken] if value else []
        elif key in self._given:
            first = self._given[key].spot.line
            self._note(
                f"`{key}` is given twice, first on line {first}", Spot(number, match.start(1) + 1)
            )
        elif value:
            self._given[key] = taken

    def _unknown(self, section: str, key: str, spot: Spot) -> None:
        home = next((s for s, keys in SECTIONS.items() if key in keys), None)
        if home is not None:
            self._note(f"`{key}` belongs below `## {home}`", spot)
            return
        near = closest(key.lower().replace("_", "-"), SECTIONS[section])
        near = near or closest(key.lower(), SECTIONS[section])
        what = f"unknown key `{key}`; `## {section}` has {', '.join(SECTIONS[section])}"
        self._note(what, spot, near)

    # Values.

    def _note(self, message: str, spot: Spot, suggestion: str | None = None) -> None:
        source = self._lines[spot.line - 1] if spot.line <= len(self._lines) else None
        shown = source.replace("\t", " ").rstrip()[:200] if source is not None else None
        self.problems.append(Problem(message, spot.line, spot.column, shown, suggestion))

    def _absent(self, section: str) -> None:
        needed = {"Change": "`scope`", "Check": "`run` and `goal`"}[section]
        last = max(1, len(self._lines))
        self._note(f"there is no section `## {section}`, which holds {needed}", Spot(last, 1))

    def _needed(self, section: str, key: str, hint: str = "") -> str | None:
        if key in self._given:
            return self._given[key].value
        if section in self._headings:
            self._note(f"`{key}` is required{hint}", Spot(self._headings[section], 1))
        return None

    def _text(self, key: str) -> str | None:
        return self._given[key].value if key in self._given else None

    def _value(self, key: str, read: Callable[[str], T]) -> T | None:
        line = self._given.get(key)
        try:
            return None if line is None else read(line.value)
        except ValueError as error:
            assert line is not None
            self._note(f"`{key}`: {error}", line.spot)
            return None

    def _list(self, key: str) -> tuple[str, ...]:
        line = self._given.get(key)
        return () if line is None else parts(line.value)

    def _scope(self) -> tuple[str, ...]:
        if "files" in self._given and "scope" in self._given:
            self._note("`files` means the same as `scope`: give one", self._given["files"].spot)
        elif "files" in self._given:
            self._given["scope"] = self._given.pop("files")
        what = ": the files that may change, separated by commas"
        return self._list("scope") if self._needed("Change", "scope", what) else ()

    def _goal(self) -> Goal | None:
        given = self._needed("Check", "goal", ": lower or higher")
        if given is None or given.lower() in _GOALS:
            return _GOALS[given.lower()] if given else None
        others = {"min": "lower", "max": "higher", "smaller": "lower", "up": "higher"}
        said = next((goal for word, goal in others.items() if given.lower().startswith(word)), None)
        near = said or closest(given.lower(), list(_GOALS), 0.5)
        what = f"`goal` is lower or higher, not {given!r}"
        self._note(what, self._given["goal"].spot, near)
        return None

    def _score(self) -> Score:
        line = self._given.get("score")
        if line is None or re.fullmatch(r"SCORE:\s*\{\w*\}", line.value):
            return Score()
        try:
            return read_score(line.value)
        except _UnusableError as error:
            spot = Spot(line.spot.line, line.spot.column + error.offset)
            self._note(f"`score`: {error}", spot, error.suggestion)
            return Score()

    def _read_guards(self) -> tuple[Guard, ...]:
        found: list[Guard] = []
        for line in self._guards:
            try:
                found.append(_read_guard(line.value, {guard.name for guard in found}))
            except _UnusableError as error:
                spot = Spot(line.spot.line, line.spot.column + error.offset)
                self._note(f"`guard`: {error}", spot, error.suggestion)
        return tuple(found)


def _without_remarks(line: str, hidden: bool) -> tuple[str, bool]:
    """Blank out `<!-- ... -->`, which may go over several lines; columns stay as they are."""
    shown, at = "", 0
    while at < len(line):
        mark = "-->" if hidden else "<!--"
        end = line.find(mark, at)
        stop = len(line) if end < 0 else end + (3 if hidden else 0)
        shown += " " * (stop - at) if hidden else line[at:stop]
        if end < 0:
            break
        at, hidden = stop, not hidden
    return shown, hidden


def parts(value: str) -> tuple[str, ...]:
    """Split a list at its commas, but not at those within braces or brackets."""
    found = re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,])+", value)
    stripped = (part.strip().strip("`").strip() for part in found)
    return tuple(part for part in stripped if part)


# --- values -------------------------------------------------------------------------------------


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"true or false is wanted, not {text!r}")
    return text.lower() == "true"


def _whole(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,14}", text):
        raise ValueError(f"a whole number above 0 is wanted, not {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"a number is wanted, not {text!r}")
    return number


_DURATION: TypeAdapter[Any] = TypeAdapter(Duration)


def _duration(text: str) -> float:
    try:
        return float(_DURATION.validate_python(text))
    except ValidationError:
        raise ValueError(f"a duration such as 90s, 3m or 4h is wanted, not {text!r}") from None


# --- score and guard ----------------------------------------------------------------------------


class _UnusableError(Exception):
    """A score or guard that finds nothing, whatever the output is."""

    def __init__(self, message: str, offset: int = 0, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.offset, self.suggestion = offset, suggestion


def read_score(text: str) -> Score:
    """Read a score: with parentheses it is a regular expression, with a dot first a jq path."""
    if "(" in text or ")" in text:
        return Score(pattern=_first_group(text))
    if text.startswith("."):
        return Score(json=_jq(text))
    forms = (
        "a regular expression with its number in parentheses, as `p95: ([\\d.]+)`, or a path into "
        "JSON, as `.p95`, is wanted; without `score` a line `SCORE: number` is read"
    )
    word = text.rstrip()
    if re.search(r"\\[sd]|[*+]$", word):
        completed = word + r"([\d.]+)"
    else:
        completed = word.rstrip(":= ") + r":\s*([\d.]+)"
    raise _UnusableError(f"{forms}; this is neither: {text!r}", 0, completed)


def _first_group(pattern: str) -> str:
    """Give the pattern with its first capture group alone: the tool reads no other."""
    try:
        groups = re.compile(pattern, re.MULTILINE).groups
    except re.error as error:
        raise _UnusableError(f"no regular expression: {error}", error.pos or 0) from None
    except (OverflowError, RecursionError) as error:
        raise _UnusableError(f"no regular expression: {error}") from None
    if groups == 0:
        what = "the number must be in parentheses of its own, as in `p95: ([\\d.]+)`"
        raise _UnusableError(f"{what}; this has no group: {pattern!r}")
    if groups == 1:
        return pattern
    alone = _OPENING.sub(_Opener(), pattern)
    try:
        if re.compile(alone, re.MULTILINE).groups == 1:
            return alone
    except re.error:
        pass
    what = f"one group is wanted, the number; this has {groups}: write the others as (?:...)"
    raise _UnusableError(what)


_OPENING = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?:\?P<\w+>|(?!\?))", re.DOTALL)
"""What is escaped, sets, and what opens a capture group."""


class _Opener:
    """Leaves the first group as it is and makes the others capture nothing."""

    def __init__(self) -> None:
        self._seen = 0

    def __call__(self, match: re.Match[str]) -> str:
        if not match.group().startswith("("):
            return match.group()
        self._seen += 1
        return match.group() if self._seen == 1 else "(?:"


_STEP = re.compile(r'\.?\["([^"\]]+)"\]|\.?\[(\d+)\]|\.([A-Za-z_][\w-]*)|\."([^"]+)"')


def _jq(path: str) -> str:
    """Turn a path of jq into keys and indices joined by dots."""
    found: list[str] = []
    at = 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            what = "only a path is understood, as `.results[0].p95`, and no other expression of jq"
            raise _UnusableError(f"{what}: {path!r}", at)
        key = next(group for group in step.groups() if group is not None)
        if "." in key:
            raise _UnusableError(f"a key with a dot cannot be read: {key!r}", at)
        found.append(key)
        at = step.end()
    return ".".join(found)


_GUARD = re.compile(r"(?P<pattern>.*\S)\s(?P<op><=|>=|<|>)\s+(?P<limit>.*)$")


def _read_guard(text: str, taken: set[str]) -> Guard:
    match = _GUARD.match(text)
    if match is None:
        what = "`<regular expression> < number` is wanted (or >, <=, >=, with blanks around)"
        raise _UnusableError(f"{what}, as `error rate: ([\\d.]+) < 0.05`; not {text!r}")
    # Behind the number nothing is part of a regular expression any more.
    limit = _COMMENT.sub("", match["limit"]).strip()
    try:
        number = _number(limit)
    except ValueError as error:
        raise _UnusableError(str(error), match.start("limit")) from None
    pattern = match["pattern"]
    if re.fullmatch(r"`[^`]+`", pattern):
        pattern = pattern[1:-1]
    pattern = _first_group(pattern)
    name = _name_of(pattern, taken)
    match match["op"]:
        case "<=":
            return Guard(name, pattern, maximum=number)
        case ">=":
            return Guard(name, pattern, minimum=number)
        case "<":
            return Guard(name, pattern, maximum=math.nextafter(number, -math.inf))
        case _:
            return Guard(name, pattern, minimum=math.nextafter(number, math.inf))


_OTHERS = ("score", "seconds", "peak_memory_mb", "cases")
"""Names of metrics that are something else already."""


def _name_of(pattern: str, taken: set[str]) -> str:
    """Name a guard's number by the words of its pattern."""
    words = re.sub(r"\W+", "_", "_".join(literals(pattern))).strip("_").lower()[:40]
    plain = words or "guard"
    numbered = (f"{plain}_{n}" for n in range(2, len(taken) + 3))
    names = [*([plain] if plain not in _OTHERS else []), *numbered]
    return next(name for name in names if name not in taken)
