"""What the names of a Python file say: alternatives of strings, required arguments, dead weight.

Built on the standard library's `ast`; pure. Also names places in the structure, which is what the
keys of sites are made of. Knows no tokens: `mutate_python` does.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate

_TELLING = re.compile(
    r"synchronize|empty_cache|collect|sleep|log_|_log|report|check|validate|evaluate|debug|"
    r"detect_anomaly|profile|record|plot|save|copy|clone|assert|verify|histogram|summar"
)
_ESSENTIAL = re.compile(r"(?:^|\.)(?:step|backward|zero_grad|train|main|run|fit|build|update)\(")
_NEVER = re.compile(
    r"(?:^|\.)(?:__\w+__|print|exit|add_argument|set_defaults|parse_args|basicConfig|dump|write|"
    r"info|debug|warning|error|manual_seed|seed|simplefilter|filterwarnings|flush|close|chdir)\("
)

# Calls whose arguments are text for people, places on disk, seeds, or shapes that must fit.
OPAQUE = re.compile(
    "print|input|open|Path|join|exists|mkdir|exit|isinstance|issubclass|getattr|setattr|hasattr|"
    "delattr|super|TypeVar|NewType|namedtuple|getenv|get_logger|getLogger|seed|manual_seed|"
    "manual_seed_all|default_rng|Random|RandomState|PRNGKey|set_seed|warn|debug|info|warning|"
    "error|exception|critical|log|format|strftime|strptime|load|save|read_csv|findall|sub|match|"
    "search|fullmatch|finditer|split|rsplit|startswith|endswith|replace|encode|decode|insert|pop|"
    "get|import_module"
)
SHAPED = re.compile(
    "view|reshape|permute|transpose|squeeze|unsqueeze|size|shape|flatten|unflatten|movedim|chunk|"
    "expand|repeat|stack|cat|concat|concatenate|swapaxes|select|narrow|gather|scatter|"
    "index_select|enumerate|round|int|float|len|iter|next"
)
# Calls that pass a value on: its name is that of what it is assigned to.
PASSING = re.compile("int|float|bool|str|max|min|abs|tuple|list|sorted|sum|field|Field|range")


def callee(code: str) -> str:
    """Give the last name of a dotted expression: `nn.Linear` is called `Linear`."""
    found = re.search(r"(\w+)\W*$", code)
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the walk is: the enclosing definitions, the name a value goes by, how central it is."""

    scope: str = ""
    name: str = ""
    """What the value is called: `LEARNING_RATE`, `Linear#2.bias`."""
    short: str = ""
    """The last word of it, for the hints: `bias`."""
    factor: float = 1.0
    choice: bool = False
    """Whether a string here is a value of its own rather than part of an expression."""
    removable: bool = True

    @property
    def full(self) -> str:
        return ".".join(part for part in (self.scope, self.name) if part)

    def named(self, name: str, short: str | None = None, factor: float = 1.0) -> Place:
        joined = name if not self.name or not name.startswith(("[", ".")) else self.name + name
        return replace(
            self,
            name=joined,
            short=name if short is None else short,
            factor=self.factor * factor,
            choice=True,
        )

    def part(self, factor: float) -> Place:
        return replace(self, factor=self.factor * factor, choice=False)

    def within(self, definition: str) -> Place:
        scope = f"{self.scope}.{definition}" if self.scope else definition
        return Place(scope=scope, factor=1.0)


class Offsets:
    """Offsets in the UTF-8 bytes of `code` -> offsets in the characters of `text`.

    `code` is what a parser gives back of `text`: the same but for a few blanks that it lost.

    Raises:
        ValueError: they differ in more than blanks.
    """

    def __init__(self, code: str, text: str) -> None:
        sizes = (len(c.encode()) for c in code)
        self._starts = None if code.isascii() else list(accumulate(sizes, initial=0))
        self._places = None if code == text else _aligned(code, text)

    def __getitem__(self, offset: int) -> int:
        index = offset if self._starts is None else bisect_left(self._starts, offset)
        if self._places is None:
            return index
        return self._places[min(index, len(self._places) - 1)]


def _aligned(code: str, text: str) -> list[int]:
    places: list[int] = []
    at = 0
    for char in code:
        while at < len(text) and text[at] != char and text[at].isspace():
            at += 1
        if at == len(text) or text[at] != char:
            raise ValueError("not the same program")
        places.append(at)
        at += 1
    return [*places, at]


class Names:
    """The answers for one file."""

    def __init__(self, tree: ast.Module, line_starts: list[int]) -> None:
        self._starts = line_starts
        self._groups: dict[str, set[str]] = defaultdict(set)
        self._tables: dict[str, tuple[str, ...]] = {}
        self._sets: set[tuple[str, ...]] = set()
        self._looked_up: set[tuple[str, str]] = set()
        self._needed: dict[str, set[str]] = {}
        self._statements: dict[int, float] = {}
        self._loaded = {
            n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
        }
        self._loaded |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        self._defined = {
            n.name
            for n in ast.walk(tree)
            if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }
        for node in ast.walk(tree):
            self._read(node)
        for table, subject in self._looked_up:
            if table in self._tables:
                self._groups[subject] |= set(self._tables[table])
        self._removals(tree.body, inside=False, bound=set())

    # --- alternatives --------------------------------------------------------------------------

    def alternatives(self, name: str, value: str) -> tuple[bool, list[str]]:
        """Give what a string called `name` may become instead, and whether the code says so.

        Certain: something of that name is compared with or looked up among the alternatives.
        Otherwise any set of alternatives that holds the value is a guess.
        """
        group = self._groups.get(_plain(name), set())
        if value in group and len(group) > 1:
            return True, sorted(group - {value})
        held = [g for g in self._sets if value in g]
        held += [tuple(sorted(g)) for g in self._groups.values() if value in g]
        others = dict.fromkeys(o for g in sorted(held) for o in g if o != value)
        return False, list(others)

    def is_table(self, keys: Iterable[str]) -> bool:
        """Tell whether a dict of these keys is a table that some name chooses from."""
        words = set(keys)
        return len(words) > 1 and any(words <= group for group in self._groups.values())

    def _read(self, node: ast.AST) -> None:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                self._compared(left, op, right)
            case ast.Assign(targets=[target], value=ast.Dict() as table):
                self._table(target, table)
            case ast.AnnAssign(target=target, value=ast.Dict() as table):
                self._table(target, table)
            case ast.Subscript(value=ast.Dict() as table, slice=index):
                self._groups[_subject(index)] |= set(_keys(table))
            case ast.Subscript(value=ast.Name() | ast.Attribute() as table, slice=index):
                if callee(ast.unparse(table)) == "Literal":
                    self._sets.add(tuple(_strings(index)))
                else:
                    self._looked_up.add((_subject(table), _subject(index)))
            case ast.Call(func=ast.Attribute(value=table, attr="get"), args=[index, *_]):
                self._looked_up.add((_subject(table), _subject(index)))
            case (
                ast.AnnAssign(annotation=ast.Subscript() as kind)
                | ast.arg(annotation=ast.Subscript() as kind)
            ):
                if callee(ast.unparse(kind.value)) == "Literal":
                    named = node.arg if isinstance(node, ast.arg) else _subject(node.target)  # type: ignore[attr-defined]
                    self._groups[_plain(named)] |= set(_strings(kind.slice))
            case ast.Match(subject=subject, cases=cases):
                patterns = [p for case in cases for p in ast.walk(case.pattern)]
                values = [p.value for p in patterns if isinstance(p, ast.MatchValue)]
                self._groups[_subject(subject)] |= {s for v in values for s in _strings(v)}
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._needed[node.name] = _required(node.args)
            case ast.ClassDef():
                self._class(node)
            case ast.Call(func=ast.Attribute(attr="add_argument"), args=args, keywords=words):
                self._flag(args, words)
            case _:
                pass

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> None:
        if isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            if isinstance(left, ast.Constant) and isinstance(op, ast.Eq | ast.NotEq):
                left, right = right, left
            subject = _subject(left)
            if isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.Name | ast.Attribute):
                self._looked_up.add((_subject(right), subject))
            elif subject:
                self._groups[subject] |= set(_strings(right))

    def _table(self, target: ast.expr, table: ast.Dict) -> None:
        keys = _keys(table)
        if len(keys) >= 2:
            self._tables[_subject(target)] = keys

    def _flag(self, args: list[ast.expr], words: list[ast.keyword]) -> None:
        flags = [s for a in args for s in _strings(a)]
        for word in words:
            if flags and word.arg == "choices":
                self._groups[_plain(flags[-1])] |= set(_strings(word.value))

    # --- arguments -----------------------------------------------------------------------------

    def required(self, name: str, keyword: str) -> bool:
        """Tell whether a function of this file cannot be called without the argument."""
        return keyword in self._needed.get(name, ())

    def _class(self, node: ast.ClassDef) -> None:
        fields: set[str] = set()
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                fields |= _required(item.args)
            elif isinstance(item, ast.AnnAssign) and item.value is None:
                fields.add(_subject(item.target))
        self._needed[node.name] = fields

    # --- removals ------------------------------------------------------------------------------

    def removable(self, offset: int, code: str) -> float:
        """Give how promising it is to remove the statement that starts there; 0: it must stay."""
        return self._statements.get(offset, 0.0)

    def _removals(self, body: list[ast.stmt], *, inside: bool, bound: set[str]) -> None:
        """Walk the statements in order; `bound` are the names that have a value by then."""
        for node in body:
            weight = self._worth(node, inside, bound)
            if weight:
                self._statements[self._starts[node.lineno - 1] + node.col_offset] = weight
            bound |= {
                n.id
                for n in ast.walk(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    params = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
                    self._removals(node.body, inside=True, bound=params)
                case ast.ClassDef():
                    self._removals(node.body, inside=False, bound=set())
                case _:
                    for part in ("body", "orelse", "finalbody"):
                        inner: list[ast.stmt] = getattr(node, part, [])
                        # What one branch binds may be unbound in another: a copy for each.
                        self._removals(inner, inside=inside, bound=set(bound))
                    for handler in getattr(node, "handlers", []):
                        self._removals(handler.body, inside=inside, bound=set(bound))

    def _worth(self, node: ast.stmt, inside: bool, bound: set[str]) -> float:
        match node:
            case ast.Expr(value=ast.Call() | ast.Await() as value):
                code = ast.unparse(value)
                name = code.removeprefix("await ").split("(")[0]
                if _NEVER.search(code.split("(")[0] + "(") or code.startswith("super()"):
                    return 0.0
                if re.match(r"(logging|logger|log|warnings|sys|os)\.", name):
                    return 0.0
                if not inside and name in self._defined:
                    return 0.0  # a script that no longer calls its main part
                if _ESSENTIAL.search(name + "("):
                    return 0.02
                return 0.5 if _TELLING.search(name) else 0.1
            case ast.AugAssign(value=ast.Constant(value=int())):
                return 0.0  # a counter: without it a loop may not end
            case ast.AugAssign(target=ast.Name()) if inside:
                return 0.05
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if inside:
                if name not in self._loaded:
                    return 0.3  # nothing reads it
                uses = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
                return 0.12 if name in uses and name in bound else 0.0
            case ast.Assign(targets=[ast.Attribute(value=ast.Attribute())]):
                return 0.08  # a switch of a library: torch.backends.cudnn.benchmark = False
            case _:
                return 0.0


def read_names(text: str) -> Names:
    """Read a file's names.

    Raises:
        SyntaxError: the text is not Python.
        ValueError: the text holds null bytes.
    """
    tree = ast.parse(text)
    starts = [0]
    for line in re.findall(r"[^\r\n]*(?:\r\n|\r|\n)", text):
        starts.append(starts[-1] + len(line))
    starts.append(len(text))
    return Names(tree, starts)


def _plain(name: str) -> str:
    return name.lower().lstrip("-_").replace("-", "_").rsplit(".", 1)[-1]


def _subject(node: ast.expr) -> str:
    """Name what an expression stands for: `self.activation`, `config["activation"]`."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return _plain(name)
        case ast.Subscript(slice=ast.Constant(value=str() as name)):
            return _plain(name)
        case ast.Call(func=ast.Attribute(value=inner, attr="lower" | "strip" | "upper")):
            return _subject(inner)
        case _:
            return ""


def _strings(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=str() as value):
            return [value]
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return [s for part in parts for s in _strings(part)]
        case _:
            return []


def _keys(table: ast.Dict) -> tuple[str, ...]:
    keys: Iterable[ast.expr | None] = table.keys
    words = [k.value for k in keys if isinstance(k, ast.Constant) and isinstance(k.value, str)]
    return tuple(words) if len(words) == len(table.keys) else ()


def _required(args: ast.arguments) -> set[str]:
    plain = [*args.posonlyargs, *args.args]
    needed = {a.arg for a in plain[: len(plain) - len(args.defaults)]}
    pairs = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    return needed | {a.arg for a, default in pairs if default is None}


def compiles(path: str, text: str) -> bool:
    """Tell whether the text is still a program."""
    try:
        compile(text.removeprefix("\ufeff"), path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True
