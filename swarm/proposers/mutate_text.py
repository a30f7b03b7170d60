"""The mutation sites of YAML, TOML, JSON and, by token, of any other text.

Every site is one scalar, spliced by offset, so that format and comments survive. Knows no history
and no file system: text in, sites out. A key path names a site where the format has one; in plain
text the words before a number do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

import yaml

from swarm.proposers.mutate_sites import (
    Option,
    Site,
    comment_after,
    hint,
    is_choice,
    listed,
    number_site,
    read_number,
    relatives,
    unique_keys,
)

PROSE = frozenset(
    {"md", "markdown", "mdc", "mdx", "txt", "prompt", "rst", "adoc", "tex", "org", "html"}
)
LONG = 16
"""A list of more numbers than this is data, not settings."""


class _Token(NamedTuple):
    """A scalar of the text: where it stands, and its key path."""

    start: int
    end: int
    keys: tuple[str, ...]
    near: str = ""
    """The comment on its line, which may list the alternatives."""


def sites(path: str, text: str) -> list[Site]:
    """Find every scalar of a text that may be changed; falls back to loose numbers."""
    suffix = path.rsplit("/", 1)[-1].rpartition(".")[2].lower() if "." in path else ""
    readers: dict[str, Callable[[str], Iterator[_Token]]] = {
        "json": _json,
        "jsonc": _json,
        "json5": _json,
        "yaml": _yaml,
        "yml": _yaml,
        "toml": _toml,
    }
    reader = readers.get(suffix)
    if reader is not None:
        try:
            return _settings(path, text, list(reader(text)))
        except (yaml.YAMLError, ValueError, RecursionError):
            pass
    return _loose(path, text, prose=suffix in PROSE)


def _settings(path: str, text: str, tokens: list[_Token]) -> list[Site]:
    crowds = Counter(token.keys[:-1] for token in tokens if _is_index(token.keys))
    found: list[Site] = []
    for token in tokens:
        crowd = crowds[token.keys[:-1]] if _is_index(token.keys) else 1
        if crowd <= LONG and token.keys:
            site = _scalar(path, text, token)
            if site is not None:
                found.append(site)
    return unique_keys(found)


def _is_index(keys: tuple[str, ...]) -> bool:
    return bool(keys) and keys[-1].startswith("[")


def _scalar(path: str, text: str, token: _Token) -> Site | None:
    raw = text[token.start : token.end]
    dotted = ".".join(token.keys).replace(".[", "[")
    name = next((key for key in reversed(token.keys) if not key.startswith("[")), "")
    if read_number(raw) is not None:
        span = (token.start, token.end)
        return number_site(f"{path}:{dotted}", path, dotted, name, span, raw, 0.9)
    told = hint(name)
    options, value, kind = _options(raw, token.near)
    if told is None or not options:
        return None
    sure = 0.8 if kind == "bool" else 0.3 if not token.near else 1.0
    return Site(
        key=f"{path}:{dotted}",
        path=path,
        label=dotted,
        kind="bool" if kind == "bool" else "choice",
        start=token.start,
        end=token.end,
        text=raw,
        value=value,
        weight=told.weight * 0.9 * sure,
        options=tuple(options),
    )


_FLIPS = {"true": "false", "false": "true", "yes": "no", "no": "yes", "on": "off", "off": "on"}


def _options(raw: str, near: str) -> tuple[list[Option], str | bool, str]:
    other = _FLIPS.get(raw.lower())
    if other is not None:
        new = other.upper() if raw.isupper() else other.title() if raw[0].isupper() else other
        yes = raw.lower() in ("true", "yes", "on")
        return [Option(not yes, new)], yes, "bool"
    quote = raw[0] if raw[:1] in ("'", '"') else ""
    word = raw[len(quote) : len(raw) - len(quote)]
    if not is_choice(word):
        return [], word, "choice"
    others = listed(near, word) or relatives(word)
    return [Option(o, f"{quote}{o}{quote}") for o in others], word, "choice"


# --- JSON --------------------------------------------------------------------------------------

_JSON = re.compile(
    r'(?P<skip>//[^\n]*|/\*.*?\*/|[\s]+)|(?P<string>"(?:[^"\\\n]|\\.)*")'
    r"|(?P<mark>[{}\[\]:,])|(?P<word>[^\s{}\[\]:,\"]+)",
    re.DOTALL,
)


def _json(text: str) -> Iterator[_Token]:
    # The path to where the scanner stands; None is an object that waits for a key.
    keys: list[str | int | None] = []
    position = 0
    while position < len(text):
        found = _JSON.match(text, position)
        if found is None:
            raise ValueError("not JSON")
        position = found.end()
        token = found.group()
        if found.lastgroup == "skip":
            continue
        if found.lastgroup == "mark":
            _json_mark(keys, token)
        elif found.lastgroup == "string" and keys and keys[-1] is None:
            keys[-1] = token[1:-1]
        else:
            path = tuple(f"[{k}]" if isinstance(k, int) else str(k) for k in keys)
            yield _Token(found.start(), found.end(), path)
    if keys:
        raise ValueError("not JSON: a bracket is open")


def _json_mark(keys: list[str | int | None], mark: str) -> None:
    match mark:
        case "{":
            keys.append(None)
        case "[":
            keys.append(0)
        case "}" | "]" if keys:
            keys.pop()
        case "," if keys:
            last = keys[-1]
            keys[-1] = last + 1 if isinstance(last, int) else None
        case ":":
            pass
        case _:
            raise ValueError("not JSON")


# --- YAML --------------------------------------------------------------------------------------


def _yaml(text: str) -> Iterator[_Token]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if text.startswith("\ufeff"):
        raise ValueError("marks are off by one behind a byte order mark")
    seen: set[int] = set()
    compose: Callable[..., Iterator[yaml.Node | None]] = yaml.compose_all  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    for document in compose(text, Loader=loader):
        yield from _yaml_node(text, document, (), seen)


def _yaml_node(
    text: str, node: yaml.Node | None, keys: tuple[str, ...], seen: set[int]
) -> Iterator[_Token]:
    if node is None or id(node) in seen:
        return  # an alias: its anchor has been read
    seen.add(id(node))
    match node:
        case yaml.MappingNode():
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    yield from _yaml_node(text, value, (*keys, str(key.value)), seen)
        case yaml.SequenceNode():
            for index, item in enumerate(node.value):
                yield from _yaml_node(text, item, (*keys, f"[{index}]"), seen)
        case yaml.ScalarNode():
            start, end = node.start_mark.index, node.end_mark.index
            raw = text[start:end]
            # A tag or an anchor before the scalar belongs to the node's span: leave those alone.
            if raw == node.value or raw[1:-1] == node.value:
                yield _Token(start, end, keys, comment_after(text, end))
        case _:
            pass


# --- TOML --------------------------------------------------------------------------------------

_TOML = re.compile(
    r'(?P<skip>\#[^\r\n]*|[ \t]+)|(?P<block>"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\')'
    r'|(?P<string>"(?:[^"\\\r\n]|\\.)*"|\'[^\'\r\n]*\')'
    r"|(?P<line>\r\n|\r|\n)|(?P<mark>[\[\]{},=])|(?P<word>[^\s\[\]{},=\#\"']+)",
    re.DOTALL,
)
_HEADER = re.compile(r"[ \t]*\[\[?[ \t]*([^\[\]\r\n]+?)[ \t]*\]\]?[ \t]*(?:\#[^\r\n]*)?")


def _toml(text: str) -> Iterator[_Token]:
    table: tuple[str, ...] = ()
    position = 0
    while position < len(text):
        header = _HEADER.match(text, position)
        if header is not None:
            table, position = (_bare(header[1]),), header.end()
            continue
        position = yield from _toml_line(text, position, table)


def _toml_line(text: str, position: int, table: tuple[str, ...]) -> Generator[_Token, None, int]:
    """Read `key = value` to its end, over several lines while a bracket is open."""
    keys: list[str] = [*table]
    depth: list[str | int] = []
    pending = ""
    while position < len(text):
        found = _TOML.match(text, position)
        if found is None:
            raise ValueError("not TOML")
        position, token = found.end(), found.group()
        if found.lastgroup == "line" and not depth:
            break
        if found.lastgroup in ("skip", "line"):
            continue
        if found.lastgroup == "mark":
            pending = _toml_mark(token, keys, depth, pending, len(table))
        elif len(keys) == len(table) or (depth and depth[-1] == "{"):
            pending += token  # still before the `=`: a key, perhaps dotted
        elif found.lastgroup != "block":
            path = (*keys, *(f"[{d}]" for d in depth if isinstance(d, int)))
            yield _Token(found.start(), found.end(), path, comment_after(text, found.end()))
    return position


def _toml_mark(mark: str, keys: list[str], depth: list[str | int], pending: str, top: int) -> str:
    match mark:
        case "=":
            keys.append(_bare(pending))
            if depth and depth[-1] == "{":
                depth[-1] = "="
        case "[":
            depth.append(0)
        case "{":
            depth.append("{")
        case "]" | "}" if depth:
            if depth.pop() == "=":
                keys.pop()
        case ",":
            last = depth[-1] if depth else ""
            if isinstance(last, int):
                depth[-1] = last + 1
            elif last == "=":
                depth[-1] = "{"
                keys.pop()
        case _:
            raise ValueError("not TOML")
    return ""


def _bare(key: str) -> str:
    return re.sub(r"[\"'\s]", "", key)


# --- any other text ----------------------------------------------------------------------------

_LOOSE = re.compile(
    r"(?<![\w.+/:#@$%\\-])-?\d[\d_]*(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w/:\\-]|[.,]\d)"
)
_NAMED = re.compile(r"(-{0,2}[A-Za-z_][\w.-]*)[\"']?\s*(?::=|[:=]|\s)\s*[\"']?$")
_SETTING = re.compile(r"^[ \t]*[\w.-]+\s*[:=]\s*$|(?:--[\w-]+[ =])$|[:=]\s*$")
_FLAG = re.compile(r"(?:^|(?<=[\s=:]))(?:true|false|True|False)(?=\s*(?:[;,#\r\n]|//|$))", re.M)
_COMMENTS = re.compile(r"^\s*(?:#(?!define)|//|;|--\s|\*|/\*|<!--)")


def _loose(path: str, text: str, *, prose: bool) -> list[Site]:
    """Take numbers, and truth values that are assigned, line by line."""
    found: list[Site] = []
    offset = 0
    fenced = False
    for line in text.splitlines(keepends=True):
        if prose and line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not _passed_over(line, prose=prose):
            weight = 0.2 if prose and fenced else 0.3 if prose else 0.6
            found += _line_sites(path, text, line, offset, weight, prose=prose)
        offset += len(line)
    return unique_keys(found)


def _passed_over(line: str, *, prose: bool) -> bool:
    if prose:
        return line.lstrip().startswith("#")  # a heading, or a comment of a fenced script
    return _COMMENTS.match(line) is not None or '"""' in line


def _line_sites(
    path: str, text: str, line: str, offset: int, weight: float, *, prose: bool
) -> Iterator[Site]:
    code = line if prose else re.split(r"\s(?:#(?!define)|//)", line)[0]
    for match in _LOOSE.finditer(code):
        before = code[: match.start()]
        if prose and not before.strip():
            continue  # the number of a list item
        setting = _SETTING.search(before) is not None
        named = _NAMED.search(before)
        near = re.findall(r"[A-Za-z_]\w*", before)[-2:]
        name = named[1].lstrip("-") if named else near[-1] if near else ""
        key = name if setting else " ".join(near).lower() or "number"
        factor = weight if setting else weight * 0.3
        span = (offset + match.start(), offset + match.end())
        site = number_site(f"{path}:{key}", path, key, name, span, match.group(), factor)
        if site is not None:
            yield site
    if prose:
        return
    for match in _FLAG.finditer(code):
        named = _NAMED.search(code[: match.start()])
        span = (offset + match.start(), offset + match.end())
        if named is not None:
            site = _scalar(path, text, _Token(*span, (named[1].lstrip("-"),)))
            if site is not None:
                yield site
