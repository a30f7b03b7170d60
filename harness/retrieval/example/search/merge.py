"""One list of two."""

from search.lexical import Hits

WORDS, VECTORS = 0.5, 0.5
"""How much each way counts."""


def merged(by_words: Hits, by_vectors: Hits) -> Hits:
    """Add up the scores, each as a share of the highest of its list."""
    scores: dict[int, float] = {}
    for weight, hits in ((WORDS, by_words), (VECTORS, by_vectors)):
        for number, score in hits:
            scores[number] = scores.get(number, 0.0) + weight * score / hits[0][1]
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))
