"""A small template engine: the part of the example that experiments change.

    render("Hello {{ who | upper }}!", {"who": "you"})

    {{ path | filter | filter:"text" }}       a value, made safe for HTML unless `raw` is a filter
    {% if path %} {% else %} {% end %}         `if not path` too; empty things are false
    {% for name in path %} {% else %} {% end %}  `loop.index` counts from 1; `else` if there is none
    {# a comment #}

Correct, tested, and written without a thought for speed. A path is names joined by dots, each a key
of a mapping or the index of a list. What is not there is the empty text, and false.
"""

from typing import Any

from template.scope import Scope
from template.tokens import TemplateError, tokenize
from template.tree import parse

__all__ = ["TemplateError", "render"]


def render(text: str, data: dict[str, Any]) -> str:
    """Fill a template in.

    Raises:
        TemplateError: it is not one; the message has the line.
    """
    return parse(tokenize(text)).render(Scope(data))
