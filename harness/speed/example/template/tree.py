"""A template as a tree of nodes that can be rendered."""

from dataclasses import dataclass
from typing import Any

from template.expression import Expression
from template.scope import Scope
from template.tokens import TemplateError, Token


@dataclass
class Text:
    """Text that stands for itself."""

    text: str

    def render(self, _: Scope) -> str:
        """Give the text."""
        return self.text


@dataclass
class Value:
    """An expression whose value is shown."""

    expression: Expression

    def render(self, scope: Scope) -> str:
        """Give the value as text."""
        return self.expression.evaluate(scope)


class Block:
    """Nodes one after another."""

    def __init__(self, nodes: "list[Node]") -> None:
        self.nodes = nodes

    def render(self, scope: Scope) -> str:
        """Give the text of all nodes."""
        text = ""
        for node in self.nodes:
            piece = node.render(scope)
            for letter in piece:
                text = text + letter
        return text


@dataclass
class If:
    """One of two blocks."""

    path: str
    negated: bool
    then: Block
    otherwise: Block

    def render(self, scope: Scope) -> str:
        """Give the text of the block that holds."""
        holds = bool(scope.lookup(self.path)) is not self.negated
        return self.then.render(scope) if holds else self.otherwise.render(scope)


@dataclass
class For:
    """A block for each item of a list."""

    name: str
    path: str
    body: Block
    otherwise: Block

    def render(self, scope: Scope) -> str:
        """Give the text of the block for all items, or of the other one if there is none."""
        text = ""
        count = 0
        items: list[Any] = scope.lookup(self.path) or []
        for item in items:
            count = count + 1
            inner = scope.inner({self.name: item, "loop": {"index": count}})
            text = text + self.body.render(inner)
        return text if count > 0 else self.otherwise.render(scope)


Node = Text | Value | If | For


def parse(tokens: list[Token]) -> Block:
    """Make a tree of the tokens of a whole template."""
    block, rest = parse_block(tokens)
    if rest:
        raise TemplateError(f"line {rest[0].line}: `{rest[0].text}` ends nothing")
    return block


def parse_block(tokens: list[Token]) -> tuple[Block, list[Token]]:
    """Read nodes up to an `else` or `end` that is not theirs; give what is left."""
    nodes: list[Node] = []
    while tokens and not (tokens[0].kind == "{%" and tokens[0].text in ("else", "end")):
        token, tokens = tokens[0], tokens[1:]
        if token.kind == "text":
            nodes = [*nodes, Text(token.text)]
        elif token.kind == "{{":
            nodes = [*nodes, Value(Expression(token.text, token.line))]
        else:
            node, tokens = parse_tag(token, tokens)
            nodes = [*nodes, node]
    return Block(nodes), tokens


def parse_tag(token: Token, tokens: list[Token]) -> tuple[If | For, list[Token]]:
    """Read what belongs to an `if` or a `for`."""
    words = token.text.split()
    body, tokens = parse_block(tokens)
    otherwise = Block([])
    if tokens and tokens[0].text == "else":
        otherwise, tokens = parse_block(tokens[1:])
    if not tokens or tokens[0].text != "end":
        raise TemplateError(f"line {token.line}: `{token.text}` has no end")
    if words[:1] == ["if"] and len(words) == 2:
        return If(words[1], False, body, otherwise), tokens[1:]
    if words[:2] == ["if", "not"] and len(words) == 3:
        return If(words[2], True, body, otherwise), tokens[1:]
    if words[:1] == ["for"] and len(words) == 4 and words[2] == "in":
        return For(words[1], words[3], body, otherwise), tokens[1:]
    raise TemplateError(f"line {token.line}: `{token.text}` is no tag")
