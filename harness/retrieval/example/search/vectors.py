"""Likeness: vectors of names and first sentences, learned from the corpus itself.

Latent semantic analysis (Deerwester et al., 1990), by a randomised decomposition (Halko, Martinsson
and Tropp, 2011): words that occur together come to lie together. Nothing is downloaded.
"""

import re
from collections import Counter

import numpy as np

from search.lexical import COMMON

SIZE = 500
RARE = 2
"""Words in fewer chunks than this are left out."""
ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ied", "es", "ed", "s", "e")


class Vectors:
    """An index of names and first sentences together."""

    def __init__(self, chunks):
        counts = [Counter(stems(f"{chunk['name']} {chunk['summary']}")) for chunk in chunks]
        seen = Counter(stem for count in counts for stem in count)
        known = [stem for stem, n in seen.items() if n >= RARE]
        self._place = {stem: n for n, stem in enumerate(known)}
        rarity = [np.log((len(chunks) + 1) / seen[stem]) for stem in known]
        self._rarity = np.array(rarity, dtype=np.float32)
        table = np.stack([self._row(count) for count in counts])
        table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)
        self._axes = axes(table)
        self._rows = normed(table @ self._axes)

    def find(self, query, most):
        """Give the best chunks and their cosines, best first."""
        asked = normed((self._row(Counter(stems(query))) @ self._axes)[None, :])[0]
        likeness = self._rows @ asked
        best = np.argsort(-likeness, kind="stable")[:most]
        return [(int(n), float(likeness[n])) for n in best]

    def _row(self, count):
        row = np.zeros(len(self._place), dtype=np.float32)
        for stem, n in count.items():
            if (place := self._place.get(stem)) is not None:
                row[place] = (1 + np.log(n)) * self._rarity[place]
        return row


def axes(table):
    """Give the directions in which the rows of a table differ most, as columns."""
    chance = np.random.default_rng(0)
    rough = table @ chance.standard_normal((table.shape[1], SIZE + 10), dtype=np.float32)
    for _ in range(2):
        base, _ = np.linalg.qr(rough)
        rough = table @ (table.T @ base)
    base, _ = np.linalg.qr(rough)
    _, _, directions = np.linalg.svd(base.T @ table, full_matrices=False)
    return directions[:SIZE].T


def normed(rows):
    """Give all rows the length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def stems(text):
    """Give the words that say something, without their endings."""
    for word in re.findall(r"[a-z0-9]+", text.lower()):
        if word not in COMMON:
            ending = next((e for e in ENDINGS if word.endswith(e) and len(word) - len(e) >= 3), "")
            yield word.removesuffix(ending) if ending else word
