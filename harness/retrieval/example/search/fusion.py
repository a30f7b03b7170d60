"""From two rankings to one."""

LEXICAL = 0.5
"""The weight of words; the rest is that of likeness."""


def fuse(words, likeness):
    """Merge two rankings of (chunk, score), best first, into one."""
    merged = {}
    for ranking, weight in ((words, LEXICAL), (likeness, 1 - LEXICAL)):
        for chunk, score in ranking:
            merged[chunk] = merged.get(chunk, 0.0) + weight * score
    return sorted(merged.items(), key=lambda pair: (-pair[1], pair[0]))
