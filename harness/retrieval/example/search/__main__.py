"""Answers queries: one a line on stdin, one line of results each on stdout.

python -m search index/chunks.db < queries.jsonl
"""

import json
import sqlite3
import sys

from search import lexical, merge, vector
from search.settings import FETCH, SHOWN


def main(file: str) -> None:
    """Answer all queries."""
    db = sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps({"id": asked["id"], "results": answer(db, asked["query"])}))
    db.close()


def answer(db: sqlite3.Connection, query: str) -> list[dict[str, object]]:
    """Find the best chunks for a query, best first."""
    found = merge.merged(lexical.search(db, query, FETCH), vector.search(db, query, FETCH))
    return [shown(db, number, score) for number, score in found[:SHOWN]]


def shown(db: sqlite3.Connection, number: int, score: float) -> dict[str, object]:
    """Give a chunk as a result."""
    ask = "SELECT id, text FROM chunks WHERE number = ?"
    name, text = db.execute(ask, (number,)).fetchone()
    return {"id": name, "text": text, "score": round(score, 6)}


if __name__ == "__main__":
    main(sys.argv[1])
