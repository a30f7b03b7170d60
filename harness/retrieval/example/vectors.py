"""Texts as vectors, without a model: latent semantic analysis of words and of pieces of words.

A text is counted by its words and by their pieces of four letters, the rare ones counting for more.
That long row of numbers is hashed to a shorter one, and this is turned so that what mostly occurs
together falls together (Deerwester et al. 1990). `learn` finds the turn, `embed` applies it.

It is out of scope: vectors of two makes cannot be compared.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Weigh = Callable[[str], float]
"""Gives how much a piece tells; 0 for nothing."""

HASHED = 4096
DIMENSIONS = 300
PIECE = 4
COMMON = 0.3
"""What a larger share of the texts has tells nothing."""


def pieces(text: str) -> Counter[str]:
    """Count the words of a text, twice, and their pieces."""
    found: Counter[str] = Counter()
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        found["=" + word] += 2
        edged = f"<{word}>"
        found.update(edged[n : n + PIECE] for n in range(len(edged) - PIECE + 1))
    return found


def weights(texts: Sequence[Counter[str]]) -> dict[str, float]:
    """Give how much each piece tells: the logarithm of how rare it is."""
    having: Counter[str] = Counter()
    for each in texts:
        having.update(each.keys())
    most = COMMON * len(texts)
    return {p: math.log(len(texts) / n) for p, n in having.items() if 1 < n < most}


def hashed(counts: Counter[str], weigh: Weigh) -> Vectors:
    """Make one row of a text, of length 1."""
    row = np.zeros(HASHED, np.float32)
    for piece, count in counts.items():
        code = zlib.crc32(piece.encode())
        # By the sign, two pieces at one place rather cancel out than add up.
        sign = 1 if code >> 31 else -1
        row[code % HASHED] += sign * (1 + math.log(count)) * weigh(piece)
    return unit(row)


def learn(rows: Vectors) -> Vectors:
    """Find the directions in which rows differ most, by subspace iteration from a fixed start."""
    chance = np.random.default_rng(0)
    start = chance.standard_normal((HASHED, DIMENSIONS + 20)).astype(np.float32)
    span = np.linalg.qr(rows @ start)[0]
    for _ in range(4):
        span = np.linalg.qr(rows @ (rows.T @ span))[0]
    return np.linalg.svd(span.T @ rows, full_matrices=False)[2][:DIMENSIONS].T.copy()


def embed(rows: Vectors, turn: Vectors) -> Vectors:
    """Turn rows, or one, into vectors of length 1."""
    return unit(rows @ turn)


def unit(rows: Any) -> Vectors:
    """Give rows, or one, the length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)
