"""What Python source says of itself: its public functions, imports, printed metrics, searches.

Pure: text in, facts out. Reads no file, imports nothing of what it looks at, and a file that does
not parse simply says nothing.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

TEXT, NUMBER, LIST, MAPPING, BYTES, UNKNOWN = "text", "number", "list", "mapping", "bytes", ""
"""What kind of value a parameter takes, as far as it can be seen."""

_ANNOTATED = {
    "str": TEXT,
    "int": NUMBER,
    "float": NUMBER,
    "bytes": BYTES,
    **dict.fromkeys(("list", "List", "Sequence", "Iterable", "Collection"), LIST),
    **dict.fromkeys(("dict", "Dict", "Mapping"), MAPPING),
}
_NAMED = (
    (
        re.compile(r"(text|string|str|s|word|name|query|q|line|title|sentence|phrase|path|term)"),
        TEXT,
    ),
    (re.compile(r"(n|k|count|limit|size|num|number|x|y|width|length|amount|value)"), NUMBER),
    (re.compile(r"(items|values|words|lines|xs|lst|numbers|seq|data|array|terms|tokens)"), LIST),
    (re.compile(r"(mapping|dct|options|settings|record|row)"), MAPPING),
)
QUERY = re.compile(r"(query|q|text|terms?|needle|phrase|keywords?|search|search_terms?|expression)")
_SEARCH_NAME = re.compile(r"(?:^|_)(?:search|query|find|lookup|match)(?:$|_|er$)")
_SEARCH_SQL = re.compile(r"\bMATCH\b|\bLIKE\b", re.IGNORECASE)
_OUTSIDE = frozenset(
    (
        *("subprocess", "shutil", "socket", "requests", "urllib", "httpx", "aiohttp", "ftplib"),
        *("smtplib", "webbrowser", "signal", "ctypes", "multiprocessing", "boto3", "paramiko"),
    )
)
"""Modules through which a function reaches beyond itself."""
_EFFECTS = frozenset(("open", "input", "exec", "eval", "exit", "quit", "breakpoint"))
_METHODS = re.compile(
    r"(unlink|rmdir|remove_tree|rmtree|removedirs|mkdir|makedirs|rename|replace_file|write_text"
    r"|write_bytes|system|popen|kill|truncate|chmod|chown|symlink_to|hardlink_to|touch|sleep)"
)
_DOES = re.compile(
    r"(delete|remove|rm|write|save|send|post|upload|download|fetch|run|exec|execute|main|kill|drop"
    r"|install|deploy|train|serve|start|stop|wait|sleep|exit|connect|open|close|publish|print)(_.*)?"
)
"""Functions of these names do things, and are not called to see what they answer."""
_NAME = r"([A-Za-z_][\w.]*)"
_PRINTED = re.compile(
    r"METRIC ([\w.]+)="
    rf"|^[ \t]*print\(\s*f?[\"']{_NAME}:?[ \t]+(?:\{{|[\"']\s*,|%|[\"']\s*%)"
    rf"|^[ \t]*print\(\s*f?[\"']{_NAME}:(?:\{{|[\"']\s*,|%)",
    re.MULTILINE,
)


class Parameter(NamedTuple):
    """A parameter that must be given."""

    name: str
    kind: str


class Function(NamedTuple):
    """A function or method of a module, as it can be called."""

    name: str
    parameters: tuple[Parameter, ...]
    """Those without a default; `self` left out."""
    line: int
    owner: str = ""
    """The class of a method."""
    quiet: bool = True
    """Whether it looks as if it only computed: no files, no processes, no network."""
    given: str = ""
    """The parameter that a search takes its query from."""


class Class(NamedTuple):
    """A class, and what making one of it asks for."""

    name: str
    parameters: tuple[Parameter, ...]


class Code(NamedTuple):
    """One module."""

    functions: tuple[Function, ...] = ()
    classes: tuple[Class, ...] = ()
    imports: tuple[str, ...] = ()
    """First parts of absolute imports at the top, the standard library's left out."""
    public: tuple[str, ...] = ()
    """Names that others may import: `__all__`, or what does not begin with an underscore."""
    searches: tuple[Function, ...] = ()
    has_main: bool = False
    tables: tuple[str, ...] = ()
    """`CREATE ... TABLE` statements."""


def read_code(text: str) -> Code:
    """Look at the source of a module."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return Code()
    functions: list[Function] = []
    classes: list[Class] = []
    searches: list[Function] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            functions.append(_function(node))
            searches += _search(node)
        elif isinstance(node, ast.ClassDef):
            methods = [m for m in node.body if isinstance(m, ast.FunctionDef)]
            begin = next((m for m in methods if m.name == "__init__"), None)
            classes.append(Class(node.name, _required(begin, method=True) if begin else ()))
            for method in methods:
                searches += _search(method, node.name)
    return Code(
        tuple(f for f in functions if not f.name.startswith("_")),
        tuple(classes),
        tuple(_imports(tree)),
        tuple(_public(tree)),
        tuple(searches),
        any(isinstance(n, ast.If) and "__main__" in ast.dump(n.test) for n in tree.body),
        tuple(_tables(tree)),
    )


def printed_metrics(text: str) -> tuple[str, ...]:
    """Name the metrics that a script prints in a form that swarm reads."""
    found = [m[1] or m[2] or m[3] for m in _PRINTED.finditer(text)]
    return tuple(dict.fromkeys(found))


def _function(node: ast.FunctionDef, owner: str = "", given: str = "") -> Function:
    quiet = not _DOES.fullmatch(node.name) and not any(map(_reaches_out, ast.walk(node)))
    required = _required(node, method=bool(owner))
    return Function(node.name, required, node.lineno, owner, quiet and not _needs_keys(node), given)


def _needs_keys(node: ast.FunctionDef) -> bool:
    return any(default is None for default in node.args.kw_defaults)


def _required(node: ast.FunctionDef, *, method: bool) -> tuple[Parameter, ...]:
    given = [*node.args.posonlyargs, *node.args.args]
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
    if method and not static:
        given = given[1:]
    count = len(given) - min(len(given), len(node.args.defaults))
    return tuple(Parameter(a.arg, _kind(a)) for a in given[:count])


def _kind(argument: ast.arg) -> str:
    note = argument.annotation
    if isinstance(note, ast.Constant) and isinstance(note.value, str):
        return _ANNOTATED.get(note.value.partition("[")[0], UNKNOWN)
    while isinstance(note, ast.Subscript):
        note = note.value
    if note is not None:
        name = note.attr if isinstance(note, ast.Attribute) else getattr(note, "id", "")
        return _ANNOTATED.get(str(name), UNKNOWN)
    return next((kind for names, kind in _NAMED if names.fullmatch(argument.arg)), UNKNOWN)


def _reaches_out(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name):
            return name in _EFFECTS or name in _OUTSIDE
        case ast.Attribute(attr=name):
            return _METHODS.fullmatch(name) is not None
        case ast.Global() | ast.Import() | ast.ImportFrom() | ast.Yield() | ast.YieldFrom():
            return True
        case _:
            return False


def _search(node: ast.FunctionDef, owner: str = "") -> Iterator[Function]:
    """Give a function that looks something up by words that a person has typed."""
    if node.name.startswith("_") and node.name != "__call__":
        return
    words = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
    sql = any(isinstance(w, str) and _SEARCH_SQL.search(w) and "?" in w for w in words)
    sql = sql or any(isinstance(w, str) and re.search(r"\bMATCH\b", w) for w in words)
    required = _required(node, method=bool(owner))
    named = [p.name for p in required if QUERY.fullmatch(p.name)]
    if named and (sql or _SEARCH_NAME.search(node.name)):
        yield _function(node, owner, named[0])


def _imports(tree: ast.Module) -> Iterator[str]:
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        found |= dict.fromkeys(name.partition(".")[0] for name in names)
    yield from (name for name in found if name not in sys.stdlib_module_names)


def _public(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.Assign(
                targets=[ast.Name(id="__all__")], value=ast.List() | ast.Tuple() as all_
            ):
                listed = [e.value for e in all_.elts if isinstance(e, ast.Constant)]
                yield from (name for name in listed if isinstance(name, str))
                return
            case _:
                pass
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names = [name]
            case ast.ImportFrom(level=level) if level > 0:
                names = [alias.asname or alias.name for alias in node.names]
            case _:
                names = []
        yield from (name for name in names if not name.startswith(("_", "*")))


def _tables(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from create_statements(node.value)


_CREATE = re.compile(
    r"CREATE\s+(?:VIRTUAL\s+|TEMP\s+|TEMPORARY\s+)?TABLE\b[^;]*", re.IGNORECASE | re.DOTALL
)


def create_statements(text: str) -> list[str]:
    """Give the statements of an SQL text that make tables."""
    return [m.group().strip() for m in _CREATE.finditer(text) if "(" in m.group()]
