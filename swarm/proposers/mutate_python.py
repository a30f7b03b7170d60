"""The mutation sites of Python code. The only importer of libcst.

libcst gives exact spans of tokens, commas and blanks, so that an edit is a splice and all
formatting stays; the standard library's `ast` answers the questions about names (what is used,
what a string is compared with), because it is ten times faster. Knows no history and no file
system: text in, sites out.
"""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper

from swarm.proposers.mutate_names import Names, callee, read_names
from swarm.proposers.mutate_sites import (
    MEMBERS,
    Option,
    Site,
    hint,
    is_choice,
    number_site,
    relatives,
    unique_keys,
)


def sites(path: str, text: str) -> list[Site]:
    """Find every token of a Python file that may be changed.

    Raises:
        SyntaxError: the text is no Python that both parsers accept.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    body = text[len(mark) :]
    try:
        names = read_names(body)
        wrapper = MetadataWrapper(cst.parse_module(body), unsafe_skip_copy=True)
        spans = wrapper.resolve(ByteSpanPositionProvider)
    except (cst.ParserSyntaxError, ValueError, RecursionError) as error:
        raise SyntaxError(str(error)) from error
    walk = _Walk(path, text, len(mark), _Offsets(body), spans, names)
    walk.block(wrapper.module.body, _Place())
    return unique_keys(walk.found)


def compiles(path: str, text: str) -> bool:
    """Tell whether the text is still a program."""
    try:
        compile(text.removeprefix("\ufeff"), path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


class _Offsets:
    """Byte offsets of UTF-8 text -> offsets in characters."""

    def __init__(self, text: str) -> None:
        self._starts = (
            None if text.isascii() else list(accumulate((len(c.encode()) for c in text), initial=0))
        )

    def __getitem__(self, offset: int) -> int:
        return offset if self._starts is None else bisect_left(self._starts, offset)


@dataclass(frozen=True, slots=True)
class _Place:
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

    def named(self, name: str, short: str | None = None, factor: float = 1.0) -> _Place:
        joined = name if not self.name or not name.startswith(("[", ".")) else self.name + name
        return replace(
            self,
            name=joined,
            short=name if short is None else short,
            factor=self.factor * factor,
            choice=True,
        )

    def part(self, factor: float) -> _Place:
        return replace(self, factor=self.factor * factor, choice=False)

    def within(self, definition: str) -> _Place:
        scope = f"{self.scope}.{definition}" if self.scope else definition
        return _Place(scope=scope, factor=1.0)


# Calls whose arguments are text for people, places on disk, seeds, or shapes that must fit.
_OPAQUE = re.compile(
    "print|input|open|Path|join|exists|mkdir|exit|isinstance|issubclass|getattr|setattr|hasattr|"
    "delattr|super|TypeVar|NewType|namedtuple|getenv|get_logger|getLogger|seed|manual_seed|"
    "manual_seed_all|default_rng|Random|RandomState|PRNGKey|set_seed|warn|debug|info|warning|"
    "error|exception|critical|log|format|strftime|strptime|load|save|read_csv|findall|sub|match|"
    "search|fullmatch|finditer|split|rsplit|startswith|endswith|replace|encode|decode|insert|pop|"
    "get|import_module"
)
_SHAPED = re.compile(
    "view|reshape|permute|transpose|squeeze|unsqueeze|size|shape|flatten|unflatten|movedim|chunk|"
    "expand|repeat|stack|cat|concat|concatenate|swapaxes|select|narrow|gather|scatter|"
    "index_select|enumerate|round|int|float|len|iter|next"
)
# Calls that pass a value on: its name is that of what it is assigned to.
_PLAIN = re.compile("int|float|bool|str|max|min|abs|tuple|list|sorted|sum|field|Field")
_COMPARISONS: dict[type[cst.BaseCompOp], tuple[str, str]] = {
    cst.LessThan: ("<", "<="),
    cst.LessThanEqual: ("<=", "<"),
    cst.GreaterThan: (">", ">="),
    cst.GreaterThanEqual: (">=", ">"),
}
_OPERATORS: dict[type[cst.BaseBinaryOp | cst.BaseBooleanOp], tuple[str, tuple[str, ...]]] = {
    cst.Add: ("+", ("-",)),
    cst.Subtract: ("-", ("+",)),
    cst.Multiply: ("*", ("/",)),
    cst.Divide: ("/", ("*",)),
    cst.FloorDivide: ("//", ("*",)),
    cst.And: ("and", ("or",)),
    cst.Or: ("or", ("and",)),
}
_SKIPPED = (
    cst.Annotation,
    cst.Import,
    cst.ImportFrom,
    cst.Decorator,
    cst.Assert,
    cst.Raise,
    cst.Global,
    cst.Nonlocal,
    cst.Del,
    cst.FormattedString,
    cst.ConcatenatedString,
    cst.BaseParenthesizableWhitespace,
    cst.TrailingWhitespace,
    cst.EmptyLine,
    cst.MatchPattern,
    cst.ImportAlias,
)


class _Walk:
    """One pass over the tree; `found` collects the sites in order of appearance."""

    def __init__(
        self,
        path: str,
        text: str,
        shift: int,
        offsets: _Offsets,
        spans: object,
        names: Names,
    ) -> None:
        self.found: list[Site] = []
        self._path = path
        self._text = text
        self._shift = shift
        self._offsets = offsets
        self._spans = spans
        self._names = names
        self._calls: Counter[str] = Counter()

    # --- places --------------------------------------------------------------------------------

    def _span(self, node: cst.CSTNode) -> tuple[int, int]:
        span = self._spans[node]  # type: ignore[index]
        start, length = span.start, span.length  # type: ignore[union-attr]
        begin = self._offsets[start] + self._shift
        return begin, self._offsets[start + length] + self._shift

    def _add(
        self,
        node: cst.CSTNode,
        place: _Place,
        kind: str,
        value: str | bool,
        options: Sequence[Option],
        weight: float,
        stem: str = "",
    ) -> None:
        start, end = self._span(node)
        # An operator's node owns the blanks around it.
        while start < end and self._text[start].isspace():
            start += 1
        while end > start and self._text[end - 1].isspace():
            end -= 1
        name = place.full + stem
        if options and weight > 0:
            self.found.append(
                Site(
                    key=f"{self._path}:{name}",
                    path=self._path,
                    label=name,
                    kind=kind,  # type: ignore[arg-type]
                    start=start,
                    end=end,
                    text=self._text[start:end],
                    value=value,
                    weight=weight,
                    options=tuple(options),
                )
            )

    # --- statements ----------------------------------------------------------------------------

    def block(self, body: Sequence[cst.CSTNode], place: _Place) -> None:
        for index, statement in enumerate(body):
            if isinstance(statement, cst.SimpleStatementLine):
                if index == 0 and _is_text(statement):
                    continue
                if place.removable and len(statement.body) == 1:
                    self._removal(statement, place, alone=len(body) == 1)
            self.visit(statement, place)

    def visit(self, node: cst.CSTNode, place: _Place) -> None:
        """Find the sites at and below a node."""
        match node:
            case cst.FunctionDef():
                inner = place.within(f"{node.name.value}()")
                self._parameters(node.params, replace(inner, factor=0.8))
                self.visit(node.body, inner)
            case cst.ClassDef():
                self.visit(node.body, place.within(node.name.value))
            case cst.IndentedBlock():
                self.block(node.body, place)
            case cst.If():
                if _is_main_guard(node.test):
                    place = replace(place, removable=False)
                else:
                    self.visit(node.test, place.part(0.3))
                self.visit(node.body, place)
                if node.orelse is not None:
                    self.visit(node.orelse, place)
            case cst.Assign():
                for target in node.targets:
                    self._assigned(target.target, node.value, place)
                    break  # `a = b = 1` has one value
            case cst.AnnAssign() if node.value is not None:
                self._assigned(node.target, node.value, place)
            case cst.AugAssign():
                short = callee(_code(node.target))
                if not isinstance(node.value, cst.Integer):  # a counter
                    self.visit(node.value, place.named(short).part(0.4))
            case _:
                self._expression(node, place)

    def _assigned(self, target: cst.CSTNode, value: cst.BaseExpression, place: _Place) -> None:
        if (
            isinstance(target, cst.Tuple)
            and isinstance(value, cst.Tuple)
            and len(target.elements) == len(value.elements)
        ):
            for left, right in zip(target.elements, value.elements, strict=True):
                self._assigned(left.value, right.value, place)
            return
        name = _code(target)
        if not re.fullmatch(r"[\w.]+", name):
            found = re.fullmatch(r"""(\w+)\[["'](\w+)["']\]""", name)
            name = f"{found[1]}.{found[2]}" if found else callee(name)
        if name.startswith("__"):
            return
        # A constant at the top or a default of a class is meant to be turned; a local less so.
        central = 1.0 if "()" not in place.scope else 0.6
        self.visit(value, place.named(name.removeprefix("self."), callee(name), central))

    def _parameters(self, params: cst.Parameters, place: _Place) -> None:
        for param in (*params.posonly_params, *params.params, *params.kwonly_params):
            if param.default is not None:
                self.visit(param.default, place.named(param.name.value))

    # --- expressions ---------------------------------------------------------------------------

    def _expression(self, node: cst.CSTNode, place: _Place) -> None:
        match node:
            case cst.Integer() | cst.Float():
                self._number(node, node.value, place)
            case cst.UnaryOperation(
                operator=cst.Minus(), expression=cst.Integer() | cst.Float() as number
            ) if not number.lpar:
                self._number(node, f"-{number.value}", place)
            case cst.Name(value="True" | "False"):
                told = hint(place.short)
                if told is not None:
                    other = node.value == "False"
                    weight = 0.9 * told.weight * place.factor
                    self._add(node, place, "bool", not other, [Option(other, str(other))], weight)
            case cst.SimpleString():
                self._string(node, place)
            case cst.Attribute():
                self._member(node, place)
            case cst.Call():
                self._call(node, place)
            case cst.Subscript():
                self.visit(node.value, place)
            case cst.Dict():
                self._dict(node, place)
            case cst.Tuple() | cst.List() | cst.Set():
                few = 1.0 if len(node.elements) <= 8 else 0.2
                if len(node.elements) <= 64:
                    for index, element in enumerate(node.elements):
                        self.visit(element.value, place.named(f"[{index}]", place.short, few))
            case cst.BinaryOperation() | cst.BooleanOperation():
                self._operation(node, place)
            case cst.Comparison():
                self._comparison(node, place)
            case cst.Return() | cst.Expr():
                self.visit_children(node, place.named("return").part(0.4))
            case cst.IfExp():
                self.visit(node.test, place.part(0.2))
                self.visit(node.body, replace(place, factor=place.factor * 0.4))
                self.visit(node.orelse, replace(place, factor=place.factor * 0.4))
            case _:
                self.visit_children(node, place)

    def visit_children(self, node: cst.CSTNode, place: _Place) -> None:
        for child in _children(node):
            self.visit(child, place)

    def _number(self, node: cst.CSTNode, token: str, place: _Place) -> None:
        span = self._span(node)
        site = number_site(
            f"{self._path}:{place.full}",
            self._path,
            place.full,
            place.short or place.name,
            span,
            token,
            place.factor * (0.2 if "()" in place.scope and token in ("0", "1", "-1") else 1.0),
        )
        if site is not None and self._text[span[0] : span[1]] == token and place.factor > 0.02:
            self.found.append(site)

    def _string(self, node: cst.SimpleString, place: _Place) -> None:
        value = node.evaluated_value
        if not place.choice or not isinstance(value, str) or not is_choice(value):
            return
        told = hint(place.short)
        if told is None or node.prefix:
            return
        certain, others = self._names.alternatives(place.short, value)
        if not certain:
            start = self._span(node)[1]
            listed = _listed_in_comment(self._text, start, value)
            certain, others = (True, listed) if listed else (False, others or relatives(value))
        quote = node.quote
        options = [Option(o, f"{quote}{o}{quote}") for o in others]
        weight = max(told.weight, 0.6) * place.factor * (1.0 if certain else 0.3)
        self._add(node, place, "choice", value, options, weight)

    def _member(self, node: cst.Attribute, place: _Place) -> None:
        """`F.relu` may become `F.gelu`; the module before the dot stays."""
        self.visit(node.value, replace(place, choice=False))
        others = relatives(node.attr.value, MEMBERS) if place.short != "table" else []
        if others and isinstance(node.value, cst.Name | cst.Attribute):
            options = [Option(o, o) for o in others]
            stem = f".{node.attr.value}" if place.name else node.attr.value
            stem = "." + stem if place.scope and not place.name else stem
            member = replace(place, name=place.name or "")
            self._add(node.attr, member, "choice", node.attr.value, options, 0.35, stem)

    def _dict(self, node: cst.Dict, place: _Place) -> None:
        # The values of a table of alternatives are the alternatives: changing one makes two equal.
        table = self._names.is_table(
            [e.key.evaluated_value for e in node.elements if _is_string_key(e)]  # type: ignore[union-attr]
        )
        if len(node.elements) > 64:
            return
        for element in node.elements:
            if not isinstance(element, cst.DictElement):
                continue
            key = element.key
            if table:
                self.visit(element.value, place.named(place.name, "table").part(0.15))
            elif isinstance(key, cst.SimpleString) and isinstance(key.evaluated_value, str):
                word = key.evaluated_value
                stem = f".{word}" if place.name else word
                self.visit(element.value, place.named(stem, word, 0.9))

    def _operation(self, node: cst.BinaryOperation | cst.BooleanOperation, place: _Place) -> None:
        literal = _is_literal(node)
        operator = node.operator
        known = _OPERATORS.get(type(operator))
        sides = (node.left, node.right)
        if known is not None and not literal and not any(_holds_text(side) for side in sides):
            old, others = known
            options = [Option(o, o) for o in others]
            self._add(operator, place, "operator", old, options, 0.03, f" {old}")
        power = isinstance(operator, cst.Power)
        factor = 0.7 if literal else 0.35
        if power:
            if not (isinstance(node.left, cst.Integer) and node.left.value in ("2", "10")):
                self.visit(node.left, place.part(factor))
            # An exponent that is not of a literal is a formula's own: x ** 2.
            self.visit(node.right, place.part(factor if literal else 0.2))
            return
        if isinstance(operator, cst.Modulo):
            factor *= 0.2
        for side in sides:
            self.visit(side, place.part(factor))

    def _comparison(self, node: cst.Comparison, place: _Place) -> None:
        self.visit(node.left, place.part(0.3))
        for target in node.comparisons:
            known = _COMPARISONS.get(type(target.operator))
            if known is None:
                continue  # equality and membership: changing a side makes it dead code
            old, new = known
            self._add(target.operator, place, "operator", old, [Option(new, new)], 0.02, f" {old}")
            self.visit(target.comparator, place.named(_name_of(node.left)).part(0.4))

    # --- calls ---------------------------------------------------------------------------------

    def _call(self, node: cst.Call, place: _Place) -> None:
        whole = _code(node.func) if isinstance(node.func, cst.Name | cst.Attribute) else ""
        name = callee(whole) or "call"
        if isinstance(node.func, cst.Attribute):
            self.visit(node.func, place.part(0.5))
        if _OPAQUE.fullmatch(name) or whole.startswith(
            ("logging.", "logger.", "warnings.", "os.path.")
        ):
            return
        scoped = place.scope
        if name == "add_argument":
            self._argument_parser(node, place)
            return
        count = self._calls[f"{scoped}.{name}"] = self._calls[f"{scoped}.{name}"] + 1
        label = name if count == 1 else f"{name}#{count}"
        outer = replace(place, name=label)
        for index, arg in enumerate(node.args):
            if arg.keyword is not None:
                word = arg.keyword.value
                self.visit(arg.value, outer.named(f".{word}", word, 0.75))
                self._droppable(node, index, outer, name)
            elif not _SHAPED.fullmatch(name) and not arg.star:
                factor = 0.3 if len(node.args) > 1 or name == "range" else 0.5
                inner = outer.named(
                    f"[{index}]", place.short if _PLAIN.fullmatch(name) else name, factor
                )
                self.visit(arg.value, inner)
            elif not isinstance(arg.value, cst.Integer | cst.UnaryOperation):
                self.visit(arg.value, outer.named(f"[{index}]", name, 0.3))

    def _argument_parser(self, node: cst.Call, place: _Place) -> None:
        """`add_argument("--lr", default=1e-3)` is a constant of the name `--lr`."""
        flags = [
            a.value.evaluated_value
            for a in node.args
            if a.keyword is None and isinstance(a.value, cst.SimpleString)
        ]
        flag = next((f for f in reversed(flags) if isinstance(f, str)), None)
        for arg in node.args:
            if flag and arg.keyword is not None and arg.keyword.value == "default":
                top = replace(place, factor=1.0)
                self.visit(arg.value, top.named(flag, flag.lstrip("-").replace("-", "_")))

    def _droppable(self, node: cst.Call, index: int, place: _Place, name: str) -> None:
        """Dropping `bias=False` only flips it, so truth values stay; required arguments too."""
        arg = node.args[index]
        word = arg.keyword.value if arg.keyword is not None else ""
        value = _code(arg.value)
        if value in ("True", "False", "None") or hint(word) is None:
            return
        if name in ("dict", "partial", "replace") or self._names.required(name, word):
            return
        start, end = self._span(arg)
        if index + 1 < len(node.args):
            end = self._span(node.args[index + 1])[0]
        elif index > 0:
            start = self._span(node.args[index - 1])[1]
        elif isinstance(arg.comma, cst.Comma):
            return
        text = self._text[start:end]
        if "#" in text:
            return  # a comment would go along
        self.found.append(
            Site(
                key=f"{self._path}:{place.full}.{word}-",
                path=self._path,
                label=f"{word}={value} of {name}(...)",
                kind="drop",
                start=start,
                end=end,
                text=text,
                value=value,
                weight=0.08 * place.factor,
                options=(Option(None, ""),),
            )
        )

    # --- removals ------------------------------------------------------------------------------

    def _removal(self, line: cst.SimpleStatementLine, place: _Place, *, alone: bool) -> None:
        statement = line.body[0]
        start, end = self._span(statement)
        weight = self._names.removable(start - self._shift, self._text[start:end])
        if not weight:
            return
        code = self._text[start:end]
        new = "pass"
        if not alone:
            new = ""
            bounds = _whole_lines(self._text, start, end)
            if bounds is None:
                return
            start, end = bounds
        stem = callee(code.split("(")[0]) if isinstance(statement, cst.Expr) else code.split("=")[0]
        name = f"{place.scope}." if place.scope else ""
        self.found.append(
            Site(
                key=f"{self._path}:{name}-{stem.strip()}",
                path=self._path,
                label=code,
                kind="remove",
                start=start,
                end=end,
                text=self._text[start:end],
                value=code,
                weight=weight,
                options=(Option(None, new),),
            )
        )


def _children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    for name in _fields(type(node)):
        value = getattr(node, name)
        if isinstance(value, cst.CSTNode):
            if not isinstance(value, _SKIPPED):
                yield value
        elif isinstance(value, (list, tuple)):
            for item in value:  # type: ignore[misc]
                if isinstance(item, cst.CSTNode) and not isinstance(item, _SKIPPED):
                    yield item


@cache
def _fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    return tuple(
        f.name
        for f in dataclasses.fields(kind)
        if not f.name.startswith(("whitespace", "leading_", "lines_", "trailing_"))
        and f.name not in ("lpar", "rpar", "comma", "semicolon", "lbrace", "rbrace")
    )


_EMPTY = cst.Module(body=[])


def _code(node: cst.CSTNode) -> str:
    return _EMPTY.code_for_node(node)


def _is_text(line: cst.SimpleStatementLine) -> bool:
    first = line.body[0]
    return isinstance(first, cst.Expr) and isinstance(
        first.value, cst.SimpleString | cst.ConcatenatedString
    )


def _is_main_guard(test: cst.BaseExpression) -> bool:
    return isinstance(test, cst.Comparison) and _code(test.left) == "__name__"


def _is_literal(node: cst.BaseExpression) -> bool:
    match node:
        case cst.Integer() | cst.Float():
            return True
        case cst.BinaryOperation():
            return _is_literal(node.left) and _is_literal(node.right)
        case cst.UnaryOperation():
            return _is_literal(node.expression)
        case _:
            return False


def _holds_text(node: cst.BaseExpression) -> bool:
    if isinstance(node, cst.BaseString | cst.FormattedString | cst.List | cst.Tuple | cst.ListComp):
        return True
    return isinstance(node, cst.BinaryOperation) and (
        _holds_text(node.left) or _holds_text(node.right)
    )


def _is_string_key(element: cst.BaseDictElement) -> bool:
    return isinstance(element, cst.DictElement) and isinstance(element.key, cst.SimpleString)


def _name_of(node: cst.BaseExpression) -> str:
    return callee(_code(node)) if isinstance(node, cst.Name | cst.Attribute) else "test"


def _listed_in_comment(text: str, start: int, value: str) -> list[str]:
    """Read the alternatives that a comment beside the value lists: `# relu | gelu | silu`."""
    line = re.compile(r"[^\r\n]*").match(text, start)
    _, mark, comment = (line.group() if line else "").partition("#")
    if not mark:
        return []
    for listed in re.findall(r"[\w.+-]+(?:\s*[|/]\s*[\w.+-]+)+", comment.replace('"', "")):
        words = re.split(r"\s*[|/]\s*", listed)
        if value in words:
            return [w for w in dict.fromkeys(words) if w != value and is_choice(w)]
    return []


def _whole_lines(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Widen a statement to its whole lines, the newline included; None if it shares them."""
    begin = max(text.rfind("\n", 0, start), text.rfind("\r", 0, start)) + 1
    rest = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?:\r\n|\r|\n|$)").match(text, end)
    if text[begin:start].strip(" \t\f\ufeff") or rest is None:
        return None
    return begin, rest.end()
