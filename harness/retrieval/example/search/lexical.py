"""Words: BM25 of SQLite's FTS5."""

import re
import sqlite3

_COMMON = (
    "a an and are as at be by do does for from how i in into is it not of on or so that the their "
    "this to what where which with"
)
COMMON = frozenset(_COMMON.split())


class Lexical:
    """An index of names, first sentences and texts."""

    def __init__(self, chunks):
        self._chunks = chunks
        self._db = sqlite3.connect(":memory:")
        self._db.execute(
            "CREATE VIRTUAL TABLE chunks USING fts5(name, summary, text, tokenize='porter')"
        )
        self._db.executemany(
            "INSERT INTO chunks (rowid, name, summary, text) VALUES (?, ?, ?, ?)",
            ((n, c["name"], c["summary"], c["text"]) for n, c in enumerate(chunks)),
        )

    def find(self, query, most):
        """Give the best chunks and their scores, best first."""
        asked = expression(query)
        if not asked:
            return []
        rows = self._db.execute(
            f"SELECT rowid, -{rank()} AS score FROM chunks WHERE chunks MATCH ? "
            "ORDER BY score DESC, rowid LIMIT ?",
            (asked, most),
        )
        found = [(n, score * boost(query, self._chunks[n])) for n, score in rows]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))


def words(query):
    """Give the words of a query that say something."""
    return [w for w in re.findall(r"[a-z0-9]+", query.lower()) if w not in COMMON]


def expression(query):
    """Say it in the language of FTS5."""
    return " AND ".join(f'"{word}"' for word in words(query))


def rank():
    """How FTS5 ranks what it finds; less is better."""
    return "bm25(chunks)"


def boost(query, chunk):
    """Give what the score of a chunk is multiplied by."""
    return 1.0
