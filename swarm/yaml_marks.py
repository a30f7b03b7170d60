"""YAML in, plain data out, and for each value the place where it was written.

Owns the dialect (YAML 1.2's core words: `no` is text, `1e-3` a number), the limits that keep a
hostile file from hanging us, duplicate keys, merge keys and `--set` overrides. Knows no model:
what the keys mean lives in `config`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from yaml.composer import Composer
from yaml.emitter import Emitter
from yaml.error import Mark, MarkedYAMLError, YAMLError
from yaml.events import Event
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.representer import SafeRepresenter
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner
from yaml.serializer import Serializer

from swarm.errors import ConfigError, Problem

MAX_CHARACTERS = 1 << 20
MAX_VALUES = 10_000
"""Counted after aliases are expanded, so a billion laughs end here."""
MAX_DEPTH = 50

Loc = tuple[str | int, ...]
"""Keys and list indices from the root down to a value."""

_PREFIX = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _STR, _MERGE = (
    _PREFIX + t for t in ("null", "bool", "int", "float", "str", "merge")
)
# Whole numbers with leading zeros (`017`) stay text: they are identifiers or a mistake, and the
# two versions of YAML read them differently. So do 0o17, 0x1f, 1_000, 1:30 and dates.
_WORDS: dict[str, tuple[re.Pattern[str], list[str]]] = {
    _NULL: (re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    _BOOL: (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    _INT: (re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z"), list("-+0123456789")),
    _FLOAT: (
        re.compile(
            r"""[-+]?(?:(?:\.[0-9]+|(?:0|[1-9][0-9]*)\.[0-9]*)(?:[eE][-+]?[0-9]+)?
            |(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))\Z|\.(?:nan|NaN|NAN)\Z""",
            re.VERBOSE,
        ),
        list("-+0123456789."),
    ),
    _MERGE: (re.compile(r"<<\Z"), ["<"]),
}


_SURROGATE = re.compile(r"[\ud800-\udfff]")


class _Resolver(BaseResolver):
    pass


for _tag, (_regex, _first) in _WORDS.items():
    _Resolver.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
        _tag, _regex, _first
    )


class _Loader(Reader, Scanner, Parser, Composer, _Resolver):
    """Text to nodes; constructs no Python objects."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _Resolver.__init__(self)
        self._values = 0
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self._values += 1
        self._depth += 1
        if self._values > 2 * MAX_VALUES:
            self._refuse(f"more than {MAX_VALUES} values")
        if self._depth > MAX_DEPTH:
            self._refuse(f"nested more than {MAX_DEPTH} levels deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def compose_scalar_node(self, anchor: dict[Any, Node]) -> ScalarNode:
        node = super().compose_scalar_node(anchor)
        text = cast("str", node.value)
        if _SURROGATE.search(text):
            # JSON writes such a character as two escapes; YAML reads these as two characters.
            try:
                node.value = text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                mark = cast("Mark", node.start_mark)
                problem = "half of a surrogate pair is no character"
                raise MarkedYAMLError(problem=problem, problem_mark=mark) from None
        return node

    def _refuse(self, why: str) -> NoReturn:
        event = cast("Event", self.peek_event())  # pyright: ignore[reportUnknownMemberType]
        raise MarkedYAMLError(problem=why, problem_mark=cast("Mark", event.start_mark))


class _Dumper(Emitter, Serializer, SafeRepresenter, _Resolver):
    """Plain data to text that reads back as the same, in the dialect of this module."""

    def __init__(self, stream: io.StringIO) -> None:
        Emitter.__init__(self, stream, width=100, allow_unicode=True)
        Serializer.__init__(self)  # pyright: ignore[reportUnknownMemberType]
        # None: what is flat is written on one line.
        flow: Any = None
        SafeRepresenter.__init__(self, default_flow_style=flow, sort_keys=False)
        _Resolver.__init__(self)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: SafeRepresenter, value: str) -> ScalarNode:
    style = "|" if "\n" in value and _SAFE_BLOCK.fullmatch(value) else None
    return dumper.represent_scalar(  # pyright: ignore[reportUnknownMemberType]
        _STR, value, style=style
    )


_SAFE_BLOCK = re.compile(r"[^\n ](?:[^\n]*[^\n ])?(?:\n+[^\n]*[^\n ])*\n")
_Dumper.add_representer(str, _text)


def to_yaml(data: dict[str, Any]) -> str:
    """Write plain data as a config file that reads back as the same."""
    stream = io.StringIO()
    dumper = _Dumper(stream)
    dumper.open()
    dumper.represent(data)  # pyright: ignore[reportUnknownMemberType]
    dumper.close()
    return stream.getvalue()


class Spot(NamedTuple):
    """A place in the file, counted from 1."""

    line: int
    column: int


class Place(NamedTuple):
    """Where a value comes from: the file, or the text of a `--set`."""

    key: Spot | None
    value: Spot
    override: str | None = None


Places = dict[Loc, Place]


@dataclass
class Document:
    """A config file as plain data, with a place for every value in it.

    Values are never shared between paths, however many aliases the file uses.
    """

    path: Path
    lines: list[str]
    verbatim: Callable[[Loc], bool]
    """Tells for which paths a scalar is wanted as it is written (`3.10`, not 3.1)."""
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    places: dict[Loc, Place] = field(default_factory=dict[Loc, Place])
    problems: list[Problem] = field(default_factory=list[Problem])

    def report(
        self, loc: Loc, message: str, *, at_key: bool = False, suggestion: str | None = None
    ) -> None:
        """Note a problem with the value at `loc`, or where it should be if it is not there."""
        label = ".".join(map(str, loc))
        message = f"{label}: {message}" if label else message
        near = loc
        while near not in self.places:
            near = near[:-1]
        place = self.places[near]
        # What is missing in a section is missed at the section's own key.
        at_key = at_key or (near != loc and isinstance(self._value(near), dict))
        spot = place.key if place.key and at_key else place.value
        self.note(message, spot, place.override, suggestion)

    def _value(self, loc: Loc) -> Any:
        value: Any = self.data
        for part in loc:
            value = value[part]
        return value

    def note(
        self, message: str, spot: Spot, override: str | None, suggestion: str | None = None
    ) -> None:
        """Note a problem with what is written at a spot."""
        if override is not None:
            message = f"in `--set {override}`: {message}"
        message = _UNPRINTABLE.sub(" ", message)
        if override is not None:
            problem = Problem(message, suggestion=suggestion)
        else:
            problem = Problem(
                message, spot.line, spot.column, _excerpt(self.lines, spot), suggestion
            )
        if problem not in self.problems:
            self.problems.append(problem)

    def fail(self) -> NoReturn:
        """Raise all problems at once, in the order of the file."""
        end = len(self.lines) + 1
        self.problems.sort(key=lambda p: (p.line or end, p.column or 0))
        raise ConfigError(self.path, self.problems)

    def build(self, node: Node, loc: Loc = (), override: str | None = None) -> Any:
        """Turn a node into plain data and remember the places of all that is in it."""
        return _Builder(self, override).value(node, loc, None)

    def override(self, text: str) -> None:
        """Apply one `path.to.key=value`; what is wrong with it becomes a problem."""
        dotted, equals, value = text.partition("=")
        parts = dotted.strip().split(".")
        if not equals or not all(parts):
            self.note("write `path.to.key=value`", Spot(1, 1), text)
            return
        try:
            node = _Loader(value).get_single_node() if _fits(value) else None
        except YAMLError as error:
            self.note(f"{dotted}: not YAML: {_explain(error)[0]}", Spot(1, 1), text)
            return
        try:
            self._graft(parts, node or ScalarNode(_NULL, "", Mark("", 0, 0, 0, None, 0)), text)
        except (_NoSuchPlaceError, _TooManyError) as error:
            self.note(f"{dotted}: {error}", Spot(1, 1), text)

    def _graft(self, parts: list[str], node: Node, text: str) -> None:
        here: Any = self.data
        loc: Loc = ()
        for part, after in zip(parts, [*parts[1:], None], strict=True):
            key = _step(here, part, loc)
            loc = (*loc, key)
            if after is None:
                for gone in [p for p in self.places if p[: len(loc)] == loc]:
                    del self.places[gone]
                _put(here, key, self.build(node, loc, text))
            elif (here[key] if _has(here, key) else None) is None:
                if after.isdecimal():
                    _step([], after, loc)
                _put(here, key, [] if after.isdecimal() else {})
                self.places[loc] = Place(None, Spot(1, 1), text)
            if after is not None:
                here = here[key]


class _NoSuchPlaceError(Exception):
    pass


def _step(here: Any, part: str, loc: Loc) -> str | int:
    """Give the key or index that `part` means in `here`."""
    label = ".".join(map(str, loc))
    if isinstance(here, dict):
        return part
    if not isinstance(here, list):
        raise _NoSuchPlaceError(f"`{label}` is {here!r}, which has no keys; set `{label}` itself")
    size = len(cast("list[Any]", here))
    # The next free index appends, so a list can be grown from the command line.
    if not part.isdecimal() or len(part) > 6 or int(part) > size:
        indices = f"an index from 0 to {size}" if size else "index 0 first"
        raise _NoSuchPlaceError(f"`{label}` is a list: use {indices}, not {part!r}")
    return int(part)


def _has(here: Any, key: str | int) -> bool:
    return key < len(here) if isinstance(key, int) else key in here


def _put(here: Any, key: str | int, value: Any) -> None:
    if isinstance(key, int) and key == len(here):
        here.append(value)
    else:
        here[key] = value


class _TooManyError(Exception):
    pass


class _Builder:
    """One walk over a node tree."""

    def __init__(self, document: Document, override: str | None) -> None:
        self._document = document
        self._override = override
        self._work = 0
        self._open: set[int] = set()
        """Nodes being built: meeting one again means that an alias contains itself."""

    def value(self, node: Node, loc: Loc, key: Node | None) -> Any:
        document = self._document
        document.places[loc] = Place(_spot(key) if key else None, _spot(node), self._override)
        self._count()
        if isinstance(node, ScalarNode):
            return self._scalar(node, loc)
        if not self._enter(node, loc):
            return None
        try:
            if isinstance(node, SequenceNode) and node.tag == _PREFIX + "seq":
                items = enumerate(cast("list[Node]", node.value))
                return [self.value(item, (*loc, i), None) for i, item in items]
            if isinstance(node, MappingNode) and node.tag == _PREFIX + "map":
                pairs = self._pairs(node, loc)
                return {k: self.value(v, (*loc, k), at) for k, (at, v) in pairs.items()}
        finally:
            self._open.discard(id(node))
        self._unknown_tag(node, loc)
        return None

    def _count(self) -> None:
        self._work += 1
        if self._work > MAX_VALUES:
            raise _TooManyError(f"more than {MAX_VALUES} values, aliases expanded")

    def _enter(self, node: Node, loc: Loc) -> bool:
        """Open a node whose parts come next, or note why that must not be."""
        if id(node) in self._open:
            self._note(loc, "an alias here contains itself", node)
        elif len(self._open) > MAX_DEPTH:
            self._note(loc, f"nested more than {MAX_DEPTH} levels deep", node)
        else:
            self._open.add(id(node))
            return True
        return False

    def _pairs(self, node: MappingNode, loc: Loc) -> dict[str, tuple[Node, Node]]:
        """Give the mapping's keys with the nodes of key and value, merge keys resolved."""
        own: dict[str, tuple[Node, Node]] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        seen: dict[str, Node] = {}
        for key, value in cast("list[tuple[Node, Node]]", node.value):
            self._count()
            if not isinstance(key, ScalarNode):
                self._note(loc, "a key is one word, not a list or a mapping", key)
                continue
            # Keys are taken as written: `on:` and `1:` are the words `on` and `1`.
            name = cast("str", key.value)
            if name in seen:
                first = _spot(seen[name])
                where = "" if self._override else f", first on line {first.line}"
                self._note((*loc, name), f"the key is given twice{where}", key)
                continue
            seen[name] = key
            if key.tag == _MERGE:
                merged = self._merge(value, loc)
            else:
                own[name] = (key, value)
        return {**merged, **own}

    def _merge(self, value: Node, loc: Loc) -> dict[str, tuple[Node, Node]]:
        sources = cast("list[Node]", value.value) if isinstance(value, SequenceNode) else [value]
        merged: dict[str, tuple[Node, Node]] = {}
        for source in reversed(sources):  # the first of a list wins
            if not isinstance(source, MappingNode):
                self._note((*loc, "<<"), "`<<` merges mappings only", source)
            elif self._enter(source, (*loc, "<<")):
                merged.update(self._pairs(source, loc))
                self._open.discard(id(source))
        return merged

    def _scalar(self, node: ScalarNode, loc: Loc) -> Any:
        text, tag = cast("str", node.value), node.tag
        if tag in (_STR, "!", _MERGE) or (tag != _NULL and self._document.verbatim(loc)):
            return text
        if tag not in _WORDS:
            self._unknown_tag(node, loc)
        elif not _WORDS[tag][0].match(text):
            self._note(loc, f"{text[:40]!r} is not what its tag says", node)
        elif tag in (_INT, _FLOAT) and len(text) > 300:
            return text  # Python refuses to read longer ones; a model will say what it wants
        elif tag == _BOOL:
            return text.lower() == "true"
        elif tag == _INT:
            return int(text)
        elif tag == _FLOAT:
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return None

    def _unknown_tag(self, node: Node, loc: Loc) -> None:
        tag = node.tag.replace(_PREFIX, "!!")
        self._note(loc, f"the tag `{tag}` is not supported", node)

    def _note(self, loc: Loc, message: str, node: Node) -> None:
        label = ".".join(map(str, loc))
        self._document.note(
            f"{label}: {message}" if label else message, _spot(node), self._override
        )


def _spot(node: Node) -> Spot:
    mark = cast("Mark", node.start_mark)
    return Spot(mark.line + 1, mark.column + 1)


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _excerpt(lines: list[str], spot: Spot) -> str | None:
    if spot.column > 200:
        return None
    line = lines[spot.line - 1] if spot.line <= len(lines) else ""
    # One column for each character, or the caret points elsewhere; nothing that steers a terminal.
    return _UNPRINTABLE.sub(" ", line)[: max(120, spot.column + 40)].rstrip()


def _fits(text: str) -> bool:
    return len(text) <= MAX_CHARACTERS


_SYNTAX = (
    (r"'\t'", "a tab cannot indent YAML: use spaces"),
    ("that cannot start any token", "a text cannot start with this character: quote it"),
    ("found another document", "a config is one YAML document, and here begins another"),
    ("mapping values", "a `:` is not allowed here: quote the text, or check the indentation"),
    ("could not find expected ':'", "this is neither `key: value` nor part of what is above it"),
    ("expected <block end>", "this does not fit what is above it: check the indentation"),
    ("expected '<document start>'", "this does not fit what is above it: check the indentation"),
)
"""What the parser says, and what it means."""


def _explain(error: YAMLError) -> tuple[str, Spot | None]:
    """Say in plain words what a syntax error is, and where."""
    if isinstance(error, ReaderError):
        return f"the character #x{int(error.character):04x} is not allowed in YAML", None
    if not isinstance(error, MarkedYAMLError):
        return str(error), None
    problem, mark = error.problem or "not valid YAML", error.problem_mark
    if "quoted scalar" in (error.context or "") and "end of stream" in problem:
        problem, mark = "a quote is opened here and never closed", error.context_mark
    for symptom, wording in _SYNTAX:
        if symptom in problem:
            problem = wording
    return problem, Spot(mark.line + 1, mark.column + 1) if mark else None


def read(path: Path) -> str:
    """Give the file's text.

    Raises:
        ConfigError: it cannot be read or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(path, [Problem("no such file")]) from None
    except IsADirectoryError:
        message = "this is a directory; name a config file in it"
        raise ConfigError(path, [Problem(message)]) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(path, [Problem(f"cannot be read: {why}")]) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"not UTF-8: byte 0x{raw[error.start]:02x}; save the file as UTF-8"
        raise ConfigError(path, [Problem(message, line, column)]) from None


def compose(text: str, path: Path, verbatim: Callable[[Loc], bool]) -> Document:
    """Read a config's text.

    Raises:
        ConfigError: it is not YAML, not one mapping, or too large.
    """
    document = Document(path, text.splitlines(), verbatim)
    if not _fits(text):
        raise ConfigError(path, [Problem(f"larger than {MAX_CHARACTERS >> 20} MiB")])
    try:
        node = _Loader(text).get_single_node()
    except YAMLError as error:
        message, spot = _explain(error)
        if isinstance(error, ReaderError):
            before = text[: error.position]
            spot = Spot(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise ConfigError(path, [_syntax(message, spot, document.lines)]) from None
    if node is None or (isinstance(node, ScalarNode) and node.tag == _NULL):
        raise ConfigError(path, [Problem("the file is empty; a config needs a `target`")])
    if not isinstance(node, MappingNode):
        what = "a list" if isinstance(node, SequenceNode) else "a single value"
        message = f"a config is a mapping of `key: value` lines, not {what}"
        raise ConfigError(path, [_syntax(message, _spot(node), document.lines)])
    try:
        document.data = document.build(node)
    except _TooManyError as error:
        raise ConfigError(path, [Problem(str(error))]) from None
    return document


def _syntax(message: str, spot: Spot | None, lines: list[str]) -> Problem:
    if spot is None:
        return Problem(message)
    return Problem(message, spot.line, spot.column, _excerpt(lines, spot))
