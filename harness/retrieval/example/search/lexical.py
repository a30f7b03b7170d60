"""The way by words: BM25, as SQLite's FTS5 has it."""

import sqlite3

from search.words import expression

Hits = list[tuple[int, float]]
"""Numbers of chunks with a score, best first."""


def search(db: sqlite3.Connection, query: str, limit: int) -> Hits:
    """Find chunks by the words of a query."""
    match = expression(query)
    if not match:
        return []
    ask = """
        SELECT rowid, -bm25(words) AS score FROM words WHERE words MATCH ?
        ORDER BY score DESC, rowid LIMIT ?
    """
    return db.execute(ask, (match, limit)).fetchall()
