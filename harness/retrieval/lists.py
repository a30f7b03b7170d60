"""How varied lists of recommendations are. Pure.

`diversity` is the intra-list diversity of Smyth and McClave (2001) and Ziegler et al. (2005): the
mean distance of two items of one list. `density` is the density of the list as a graph: the share
of its pairs that lie nearer to each other than a radius. `coverage` is catalogue coverage (Ge et
al., 2010).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean

from files import Item

RADIUS = 0.3


def distance(one: Item, other: Item) -> float:
    """Jaccard distance of tags, or one minus the cosine of vectors, cut to 0 to 1."""
    if one.tags or other.tags:
        return 1 - len(one.tags & other.tags) / len(one.tags | other.tags)
    cosine = sum(a * b for a, b in zip(one.vector, other.vector, strict=True))
    return min(1.0, max(0.0, 1 - cosine))


def of(listed: Sequence[Item], radius: float) -> dict[str, float]:
    """Give the measures of one list; one of fewer than two items has no variety."""
    between = [distance(a, b) for a, b in combinations(listed, 2)]
    if not between:
        return {"diversity": 0.0, "density": 1.0}
    near = sum(d < radius for d in between)
    return {"diversity": fmean(between), "density": near / len(between)}


def simpson(listed: Sequence[Item]) -> float:
    """The Gini-Simpson index: how likely two draws from the tags of a list differ; 0 if empty."""
    counts = Counter(tag for item in listed for tag in item.tags)
    total = sum(counts.values())
    return 1 - sum((n / total) ** 2 for n in counts.values()) if total else 0.0


def coverage(lists: Sequence[Sequence[str]], items: Mapping[str, Item]) -> float:
    """Give the share of all items that are on some list."""
    return len({name for each in lists for name in each}) / len(items)
