"""Whether two files say the same, whatever their form: comments, blanks and line breaks aside.

Python is compared by its syntax tree without docstrings, JSON and YAML by their values, other code
by its words without comments, and all other text by its lines without blanks at their ends.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

_HASH = (".sh", ".bash", ".toml", ".ini", ".cfg", ".rb", ".pl", ".r", ".mk")
_SLASH = (
    ".js", ".mjs", ".cjs", ".ts", ".tsx", ".jsx", ".c", ".h", ".cc", ".cpp", ".hpp", ".java",
    ".go", ".rs", ".kt", ".swift", ".scala", ".cs", ".php", ".css", ".scss", ".proto",
)  # fmt: skip
_STRINGS = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|`(?:\\.|[^`\\])*`'
_WORD = r"\w+|\S"


class Unreadable(Exception):
    """A file is not of the kind that its name says."""


class Piece(NamedTuple):
    """What is compared, and the line where it stood."""

    text: str
    line: int
    ends: bool = False
    """Here something ends, and nothing stands that could be shown."""


def difference(reference: str, text: str, name: str) -> str | None:
    """Say where a text says something else than the reference; None if it is the same.

    Raises:
        Unreadable: the reference is not of the kind that its name says.
    """
    read = _reader(name)
    wanted = read(reference)
    try:
        given = read(text)
    except Unreadable as error:
        return f"{name} {error}"
    for n, piece in enumerate(given):
        if n >= len(wanted):
            return f"{name} has more than the reference {_line(text, piece)}"
        if piece.text != wanted[n].text:
            if piece.ends:
                return f"{name} has less than the reference from line {piece.line} on"
            return f"{name} differs from the reference {_line(text, piece)}"
    if len(given) < len(wanted):
        return f"{name} has less than the reference: something is missing at its end"
    return None


def _line(text: str, piece: Piece) -> str:
    lines = text.splitlines()
    if 0 < piece.line <= len(lines):
        return f"at line {piece.line}: `{lines[piece.line - 1].strip()[:100]}`"
    return f"at `{piece.text[:100]}`"


def _reader(name: str) -> Callable[[str], list[Piece]]:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in (".py", ".pyi"):
        return _python
    if suffix == ".json":
        return _json
    if suffix in (".yaml", ".yml"):
        return _yaml
    if suffix in _HASH:
        return lambda text: _words(text, rf"(?P<skip>(?<!\S)#[^\n]*)|{_STRINGS}|\n|{_WORD}")
    if suffix in _SLASH:
        return lambda text: _words(text, rf"(?P<skip>//[^\n]*|/\*.*?\*/)|{_STRINGS}|{_WORD}")
    return _plain


def _python(text: str) -> list[Piece]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise Unreadable(f"is not Python: {error}") from None
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, holders) and ast.get_docstring(node, clean=False) is not None:
            node.body[:1] = [] if len(node.body) > 1 else [ast.Pass(lineno=node.body[0].lineno)]
    return list(_of_tree(tree, 1))


def _of_tree(node: ast.AST, line: int) -> list[Piece]:
    """Flatten a tree, parents first, with the lines where its nodes stand."""
    line = getattr(node, "lineno", line)
    found = [Piece(type(node).__name__, line)]
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "type_comment", "kind", "type_ignores"):
            continue
        for item in value if isinstance(value, list) else [value]:  # pyright: ignore[reportUnknownVariableType]
            if isinstance(item, ast.AST):
                found += _of_tree(item, line)
            else:
                found.append(Piece(f"{name}={item!r}", line))
        found.append(Piece(f"/{name}", line, ends=True))
    return found


def _json(text: str) -> list[Piece]:
    try:
        return _of_value(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"is not JSON: {error}") from None


def _yaml(text: str) -> list[Piece]:
    try:
        import yaml
    except ImportError:
        return _plain(text)
    try:
        return [p for value in yaml.safe_load_all(text) for p in _of_value(value)]
    except yaml.YAMLError as error:
        raise Unreadable(f"is not YAML: {' '.join(str(error).split())[:200]}") from None


def _of_value(value: Any) -> list[Piece]:
    match value:
        case Mapping():
            items: list[tuple[str, Any]] = sorted((repr(k), v) for k, v in value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            inner = [p for k, v in items for p in (Piece(k, 0), *_of_value(v))]
            return [Piece("{", 0), *inner, Piece("}", 0)]
        case list():
            inner = [p for v in value for p in _of_value(v)]  # pyright: ignore[reportUnknownVariableType]
            return [Piece("[", 0), *inner, Piece("]", 0)]
        case _:
            return [Piece(repr(value), 0)]


def _words(text: str, pattern: str) -> list[Piece]:
    found: list[Piece] = []
    for match in re.finditer(pattern, text, re.DOTALL):
        blank = match[0] == "\n" and (not found or found[-1].text == "\n")
        if match["skip"] is None and not blank:
            found.append(Piece(match[0], text.count("\n", 0, match.start()) + 1))
    while found and found[-1].text == "\n":
        found.pop()
    return found


def _plain(text: str) -> list[Piece]:
    lines = enumerate(text.splitlines(), start=1)
    return [Piece(" ".join(line.split()), n) for n, line in lines if line.strip()]
