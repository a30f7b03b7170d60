"""A query as an expression of the full-text search."""

import re


def expression(query: str) -> str:
    """Ask for chunks that have the words of a query."""
    words = re.findall(r"\w+", query.lower())
    return " AND ".join(f'"{word}"' for word in words)
