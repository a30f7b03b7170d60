"""How good a ranking is. Pure.

Each function takes what was found for one query, at most `k` results, and gives 0 to 1.
"""

import math
import random
from collections.abc import Mapping, Sequence
from statistics import fmean

from files import Found, Query, Result

NAMES = ("hit_rate", "mrr", "ndcg", "recall", "keywords", "snippets")
WEIGHTS: Mapping[str, float] = {"hit_rate": 0.4, "mrr": 0.3, "ndcg": 0.3}
"""What `combined` is made of, unless the command line says otherwise."""
DRAWS = 2000
"""Of the bootstrap."""


def grades_of(query: Query, shown: Sequence[Result]) -> list[int]:
    """Give the grade of each result; what nobody has looked at counts as not relevant."""
    return [query.relevant.get(result.id, 0) for result in shown]


def hit(grades: Sequence[int]) -> float:
    """Tell whether anything relevant is among them (success at k)."""
    return float(any(grades))


def reciprocal_rank(grades: Sequence[int]) -> float:
    """One over the rank of the first relevant result, 0 without any (Voorhees, 1999)."""
    return next((1 / rank for rank, grade in enumerate(grades, start=1) if grade), 0.0)


def recall(query: Query, grades: Sequence[int]) -> float:
    """Give the share of all relevant results that are among them."""
    return sum(1 for g in grades if g) / sum(1 for g in query.relevant.values() if g)


def ndcg(query: Query, grades: Sequence[int], k: int) -> float:
    """Discounted cumulative gain over the best that is possible in k places.

    With the logarithmic discount of Järvelin and Kekäläinen (2002), and the gain 2^grade - 1 of
    Burges et al. (2005).
    """
    best = sorted(query.relevant.values(), reverse=True)[:k]
    return _dcg(grades) / _dcg(best)


def _dcg(grades: Sequence[int]) -> float:
    return sum((2**grade - 1) / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def contained(wanted: Sequence[str], shown: Sequence[Result]) -> float:
    """Give the share of texts that some result contains; case and white space do not matter."""
    texts = [_plain(result.text) for result in shown]
    return sum(any(_plain(w) in text for text in texts) for w in wanted) / len(wanted)


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def of(query: Query, found: Found, k: int) -> dict[str, float]:
    """Give all measures of one query for which something is known."""
    shown = found.results[:k]
    scores: dict[str, float] = {}
    if query.answerable:
        grades = grades_of(query, shown)
        scores["hit_rate"] = hit(grades)
        scores["mrr"] = reciprocal_rank(grades)
        scores["ndcg"] = ndcg(query, grades, k)
        scores["recall"] = recall(query, grades)
    for name, wanted in (("keywords", query.keywords), ("snippets", query.snippets)):
        if wanted:
            scores[name] = contained(wanted, shown)
    return scores


def means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Give the mean of each measure, over the queries that have it."""
    held = {name: [each[name] for each in scores if name in each] for name in NAMES}
    return {name: fmean(values) for name, values in held.items() if values}


def combined(found: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Give the weighted mean of measures.

    Raises:
        KeyError: one that has a weight was not measured.
    """
    total = sum(weights.values())
    return sum(weight * found[name] for name, weight in weights.items()) / total


def interval(gains: Sequence[float]) -> tuple[float, float]:
    """Give a 95 % interval of a mean gain, if the queries are a sample of those to come.

    By the percentile bootstrap (Efron, 1979) over queries; from a fixed seed, so that it stays.
    """
    chance, count = random.Random(0), len(gains)
    means_ = sorted(fmean(chance.choices(gains, k=count)) for _ in range(DRAWS))
    return means_[round(0.025 * DRAWS)], means_[round(0.975 * DRAWS) - 1]
