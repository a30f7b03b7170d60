"""Cuts a template's text into tokens."""

from typing import NamedTuple

CLOSERS = {"{{": "}}", "{%": "%}", "{#": "#}"}


class TemplateError(ValueError):
    """A template that cannot be used."""


class Token(NamedTuple):
    """Plain text, or what stands between an opener and its closer."""

    kind: str
    """`text`, or the opener: `{{` or `{%`."""
    text: str
    line: int


def tokenize(text: str) -> list[Token]:
    """Cut the text; comments are dropped."""
    tokens: list[Token] = []
    plain = ""
    position = 0
    while position < len(text):
        opener = text[position : position + 2]
        if opener not in CLOSERS:
            plain = plain + text[position]
            position = position + 1
            continue
        line = text[:position].count("\n") + 1
        end = closing(text, position + 2, CLOSERS[opener])
        if end < 0:
            raise TemplateError(f"line {line}: `{opener}` is never closed")
        if plain != "":
            tokens = [*tokens, Token("text", plain, line)]
        plain = ""
        if opener != "{#":
            tokens = [*tokens, Token(opener, text[position + 2 : end].strip(), line)]
        position = end + 2
    if plain != "":
        tokens = [*tokens, Token("text", plain, text.count("\n") + 1)]
    return tokens


def closing(text: str, start: int, closer: str) -> int:
    """Find where a tag ends; quoted text may hold anything."""
    quoted = False
    for position in range(start, len(text)):
        if text[position] == '"':
            quoted = not quoted
        if not quoted and text[position : position + 2] == closer:
            return position
    return -1
