"""The way by vectors: the cosine between a query and each chunk."""

import sqlite3
from functools import cache
from pathlib import Path

import numpy as np
import vectors

from search.lexical import Hits


def search(db: sqlite3.Connection, query: str, limit: int) -> Hits:
    """Find the chunks whose vectors are nearest."""
    chunks, turn = learned(db.execute("PRAGMA database_list").fetchone()[2])
    row = vectors.hashed(vectors.pieces(query), lambda piece: weight(db, piece))
    near = chunks @ vectors.embed(row, turn)
    best = np.argsort(-near, kind="stable")[:limit]
    return [(int(number), float(near[number])) for number in best]


@cache
def learned(file: str) -> tuple[vectors.Vectors, vectors.Vectors]:
    """Read the vectors of all chunks, and what makes one of a query."""
    with np.load(Path(file).with_name("vectors.npz")) as kept:
        return kept["chunks"], kept["turn"]


def weight(db: sqlite3.Connection, piece: str) -> float:
    """Give what a piece tells."""
    row = db.execute("SELECT weight FROM pieces WHERE piece = ?", (piece,)).fetchone()
    return row[0] if row else 0.0
