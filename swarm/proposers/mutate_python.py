"""The mutation sites of Python code. The only importer of libcst.

libcst gives exact spans of tokens, commas and blanks, so that an edit is a splice and all
formatting stays; the standard library's `ast` answers the questions about names (what is used,
what a string is compared with), because it is ten times faster. Knows no history and no file
system: text in, sites out.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper

from swarm.proposers.mutate_names import (
    OPAQUE,
    PASSING,
    SHAPED,
    Names,
    Offsets,
    Place,
    callee,
    read_names,
)
from swarm.proposers.mutate_sites import (
    MEMBERS,
    Kind,
    Option,
    Site,
    comment_after,
    hint,
    is_choice,
    listed,
    number_site,
    relatives,
    unique_keys,
    whole_lines,
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
        # libcst loses a blank here and there (1.9: `except E :`), and all spans behind it are off.
        exact = spans[wrapper.module].length == len(body.encode())
        offsets = Offsets(body if exact else wrapper.module.code, body)
    except (cst.ParserSyntaxError, ValueError, RecursionError) as error:
        raise SyntaxError(str(error)) from error
    walk = _Walk(path, text, len(mark), offsets, spans, names)
    walk.block(wrapper.module.body, Place())
    return unique_keys(walk.found)


_SWAPS: dict[type[cst.CSTNode], tuple[str, str]] = {
    cst.LessThan: ("<", "<="),
    cst.LessThanEqual: ("<=", "<"),
    cst.GreaterThan: (">", ">="),
    cst.GreaterThanEqual: (">=", ">"),
    cst.Add: ("+", "-"),
    cst.Subtract: ("-", "+"),
    cst.Multiply: ("*", "/"),
    cst.Divide: ("/", "*"),
    cst.FloorDivide: ("//", "*"),
    cst.And: ("and", "or"),
    cst.Or: ("or", "and"),
}
_SKIPPED = re.compile(
    "Annotation|Import|ImportFrom|Decorator|Assert|Raise|Global|Nonlocal|Del|FormattedString|"
    "ConcatenatedString|EmptyLine|TrailingWhitespace|(?:Simple|Parenthesized)Whitespace"
)


class _Walk:
    """One pass over the tree; `found` collects the sites in order of appearance."""

    def __init__(
        self, path: str, text: str, shift: int, offsets: Offsets, spans: object, names: Names
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

    def _source(self, node: cst.CSTNode) -> str:
        return self._text[slice(*self._span(node))]

    def _emit(
        self,
        kind: Kind,
        name: str,
        span: tuple[int, int],
        value: str | bool,
        weight: float,
        options: Sequence[Option],
        label: str = "",
    ) -> None:
        if not options or weight <= 0:
            return
        site = Site(
            key=f"{self._path}:{name}",
            path=self._path,
            label=label or name,
            kind=kind,
            start=span[0],
            end=span[1],
            text=self._text[span[0] : span[1]],
            value=value,
            weight=weight,
            options=tuple(options),
        )
        self.found.append(site)

    def _operator(self, node: cst.CSTNode, place: Place, old: str, new: str, weight: float) -> None:
        start, end = self._span(node)
        start = self._text.index(old, start, end)  # the node owns the blanks around it
        name = f"{place.full} {old}"
        self._emit("operator", name, (start, start + len(old)), old, weight, [Option(new, new)])

    # --- statements ----------------------------------------------------------------------------

    def block(self, body: Sequence[cst.CSTNode], place: Place) -> None:
        for index, statement in enumerate(body):
            if isinstance(statement, cst.SimpleStatementLine):
                if index == 0 and _is_text(statement):
                    continue
                if place.removable and len(statement.body) == 1:
                    self._removal(statement, place, alone=len(body) == 1)
            self.visit(statement, place)

    def visit(self, node: cst.CSTNode, place: Place) -> None:
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
                self._assigned(node.targets[0].target, node.value, place)
            case cst.AnnAssign() if node.value is not None:
                self._assigned(node.target, node.value, place)
            case cst.For():
                self.visit(node.iter, place.named(self._source(node.target), factor=0.6))
                self.visit(node.body, place)
            case cst.AugAssign():
                short = callee(self._source(node.target))
                if not isinstance(node.value, cst.Integer):  # a counter
                    self.visit(node.value, place.named(short).part(0.4))
            case _:
                self._expression(node, place)

    def _assigned(self, target: cst.CSTNode, value: cst.BaseExpression, place: Place) -> None:
        if (
            isinstance(target, cst.Tuple)
            and isinstance(value, cst.Tuple)
            and len(target.elements) == len(value.elements)
        ):
            for left, right in zip(target.elements, value.elements, strict=True):
                self._assigned(left.value, right.value, place)
            return
        name = self._source(target)
        if not re.fullmatch(r"[\w.]+", name):
            found = re.fullmatch(r"""(\w+)\[["'](\w+)["']\]""", name)
            name = f"{found[1]}.{found[2]}" if found else callee(name)
        if name.startswith("__"):
            return
        # A constant at the top or a default of a class is meant to be turned; a local less so.
        central = 1.0 if "()" not in place.scope else 0.6
        self.visit(value, place.named(name.removeprefix("self."), callee(name), central))

    def _parameters(self, params: cst.Parameters, place: Place) -> None:
        for param in (*params.posonly_params, *params.params, *params.kwonly_params):
            if param.default is not None:
                self.visit(param.default, place.named(param.name.value))

    # --- expressions ---------------------------------------------------------------------------

    def _expression(self, node: cst.CSTNode, place: Place) -> None:
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
                    options = [Option(other, str(other))]
                    self._emit("bool", place.full, self._span(node), not other, weight, options)
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

    def visit_children(self, node: cst.CSTNode, place: Place) -> None:
        for child in _children(node):
            self.visit(child, place)

    def _number(self, node: cst.CSTNode, token: str, place: Place) -> None:
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

    def _string(self, node: cst.SimpleString, place: Place) -> None:
        value = node.evaluated_value
        if not place.choice or not isinstance(value, str) or not is_choice(value):
            return
        told = hint(place.short)
        if told is None or node.prefix:
            return
        certain, others = self._names.alternatives(place.short, value)
        if not certain:
            beside = listed(comment_after(self._text, self._span(node)[1]), value)
            certain, others = (True, beside) if beside else (False, others or relatives(value))
        quote = node.quote
        options = [Option(o, f"{quote}{o}{quote}") for o in others]
        weight = max(told.weight, 0.6) * place.factor * (1.0 if certain else 0.3)
        self._emit("choice", place.full, self._span(node), value, weight, options)

    def _member(self, node: cst.Attribute, place: Place) -> None:
        """`F.relu` may become `F.gelu`; the module before the dot stays."""
        self.visit(node.value, replace(place, choice=False))
        others = relatives(node.attr.value, MEMBERS) if place.short != "table" else []
        if others and isinstance(node.value, cst.Name | cst.Attribute):
            options = [Option(o, o) for o in others]
            word = node.attr.value
            name = f"{place.full}.{word}" if place.full else word
            self._emit("choice", name, self._span(node.attr), word, 0.35, options)

    def _dict(self, node: cst.Dict, place: Place) -> None:
        words: dict[str, cst.BaseExpression] = {}
        for element in node.elements[:64]:
            if isinstance(element, cst.DictElement) and isinstance(element.key, cst.SimpleString):
                words[str(element.key.evaluated_value)] = element.value
        # The values of a table of alternatives are the alternatives: changing one makes two equal.
        table = self._names.is_table(words)
        for word, value in words.items():
            if table:
                self.visit(value, place.named(place.name, "table").part(0.15))
            else:
                self.visit(value, place.named(f".{word}" if place.name else word, word, 0.9))

    def _operation(self, node: cst.BinaryOperation | cst.BooleanOperation, place: Place) -> None:
        literal = _is_literal(node)
        known = _SWAPS.get(type(node.operator))
        sides = (node.left, node.right)
        if known is not None and not literal and not any(_holds_text(side) for side in sides):
            self._operator(node.operator, place, *known, 0.03)
        factor = 0.7 if literal else 0.35
        if isinstance(node.operator, cst.Power):
            if not (isinstance(node.left, cst.Integer) and node.left.value in ("2", "10")):
                self.visit(node.left, place.part(factor))
            # An exponent that is not of a literal is a formula's own: x ** 2.
            self.visit(node.right, place.part(factor if literal else 0.2))
            return
        if isinstance(node.operator, cst.Modulo):
            factor *= 0.2
        for side in sides:
            self.visit(side, place.part(factor))

    def _comparison(self, node: cst.Comparison, place: Place) -> None:
        self.visit(node.left, place.part(0.3))
        for target in node.comparisons:
            known = _SWAPS.get(type(target.operator))
            if known is None:
                continue  # equality and membership: changing a side makes it dead code
            self._operator(target.operator, place, *known, 0.02)
            self.visit(
                target.comparator, place.named(callee(_dotted(node.left)) or "test").part(0.4)
            )

    # --- calls ---------------------------------------------------------------------------------

    def _call(self, node: cst.Call, place: Place) -> None:
        whole = _dotted(node.func)
        name = callee(whole) or "call"
        if isinstance(node.func, cst.Attribute):
            self.visit(node.func, place.part(0.5))
        if OPAQUE.fullmatch(name) or whole.startswith(
            ("logging.", "logger.", "warnings.", "os.path.")
        ):
            return
        if name == "add_argument":
            self._argument_parser(node, place)
            return
        self._calls[f"{place.scope}.{name}"] += 1
        count = self._calls[f"{place.scope}.{name}"]
        label = name if count == 1 else f"{name}#{count}"
        outer = replace(place, name=label)
        for index, arg in enumerate(node.args):
            if arg.keyword is not None:
                word = arg.keyword.value
                self.visit(arg.value, outer.named(f".{word}", word, 0.75))
                self._droppable(node, index, outer, name)
            elif not SHAPED.fullmatch(name) and not arg.star:
                factor = 0.3 if len(node.args) > 1 else 0.5
                short = place.short if PASSING.fullmatch(name) else name
                self.visit(arg.value, outer.named(f"[{index}]", short, factor))
            elif not isinstance(arg.value, cst.Integer | cst.UnaryOperation):
                self.visit(arg.value, outer.named(f"[{index}]", name, 0.3))

    def _argument_parser(self, node: cst.Call, place: Place) -> None:
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

    def _droppable(self, node: cst.Call, index: int, place: Place, called: str) -> None:
        """Dropping `bias=False` only flips it, so truth values stay; required arguments too."""
        arg = node.args[index]
        word = arg.keyword.value if arg.keyword is not None else ""
        value = self._source(arg.value)
        if value in ("True", "False", "None") or hint(word) is None:
            return
        if called in ("dict", "partial", "replace") or self._names.required(called, word):
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
        name = f"{place.full}.{word}-"
        label = f"{word}={value} of {called}(...)"
        gone = [Option(None, "")]
        self._emit("drop", name, (start, end), value, 0.08 * place.factor, gone, label)

    # --- removals ------------------------------------------------------------------------------

    def _removal(self, line: cst.SimpleStatementLine, place: Place, *, alone: bool) -> None:
        statement = line.body[0]
        start, end = self._span(statement)
        weight = self._names.removable(start - self._shift, self._text[start:end])
        if not weight:
            return
        code = self._text[start:end]
        new = "pass"
        if not alone:
            new = ""
            bounds = whole_lines(self._text, start, end)
            if bounds is None:
                return
            start, end = bounds
        stem = callee(code.split("(")[0]) if isinstance(statement, cst.Expr) else code.split("=")[0]
        name = f"{place.scope}." if place.scope else ""
        options = [Option(None, new)]
        self._emit("remove", f"{name}-{stem.strip()}", (start, end), code, weight, options, code)


def _children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    for name in _fields(type(node)):
        value = getattr(node, name)
        if isinstance(value, cst.CSTNode):
            if not _skipped(type(value)):
                yield value
        elif isinstance(value, (list, tuple)):
            for item in value:  # type: ignore[misc]
                if isinstance(item, cst.CSTNode) and not _skipped(type(item)):
                    yield item


@cache
def _skipped(kind: type[cst.CSTNode]) -> bool:
    return _SKIPPED.fullmatch(kind.__name__) is not None


@cache
def _fields(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    return tuple(
        f.name
        for f in dataclasses.fields(kind)
        if not f.name.startswith(("whitespace", "leading_", "lines_", "trailing_"))
        and f.name not in ("lpar", "rpar", "comma", "semicolon", "lbrace", "rbrace")
    )


def _dotted(node: cst.CSTNode) -> str:
    """Write a name or an attribute of one as code; empty for all else."""
    match node:
        case cst.Name():
            return node.value
        case cst.Attribute():
            inner = _dotted(node.value)
            return f"{inner}.{node.attr.value}" if inner else node.attr.value
        case _:
            return ""


def _is_text(line: cst.SimpleStatementLine) -> bool:
    first = line.body[0]
    return isinstance(first, cst.Expr) and isinstance(
        first.value, cst.SimpleString | cst.ConcatenatedString
    )


def _is_main_guard(test: cst.BaseExpression) -> bool:
    return isinstance(test, cst.Comparison) and _dotted(test.left) == "__name__"


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
