"""Which earlier experiments say most about the next one. Pure: by words, files and outcomes.

Owns what a change is about (`words`, `files`) and in which order experiments are told.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from swarm.records import Attempt, Verdict

RECENT = 40
"""Experiments after which the worth of a memory has halved."""
WEIGHT: dict[Verdict, float] = {
    "discard": 1.0,
    "constraint_failed": 0.9,
    "crash": 0.8,
    "timeout": 0.8,
    "guard_failed": 0.8,
    "keep": 0.6,
    "invalid": 0.1,
    "duplicate": 0.0,
}
"""What an outcome is worth to somebody who is about to try something: negatives above all."""
_WORD = re.compile(r"[^\W\d_]{2,}|\d+(?:\.\d+)?")
_NAMED_FILE = re.compile(r"(?<![\w./-])[\w./-]*[\w-]\.[a-zA-Z]\w*(?![\w/])")
_DIFF_FILE = re.compile(r"^(?:\+\+\+ b/|--- a/)(.+?)\t?$", re.M)
_EMPTY = frozenset(
    re.findall(
        r"\w+",
        "the and for with from into that this not but are was has its use used using set instead "
        "of in to by on at as is it an or be",
    )
)


@lru_cache(maxsize=8192)
def _files(diff: str) -> frozenset[str]:
    return frozenset(_DIFF_FILE.findall(diff))


def files(attempt: Attempt) -> frozenset[str]:
    """Give the files that an experiment changed, as far as its diff or its edit tells."""
    if attempt.diff:
        return _files(attempt.diff)
    edit = attempt.edit or {}
    found = edit.get("path", edit.get("file"))
    return frozenset([found]) if isinstance(found, str) else frozenset()


@lru_cache(maxsize=8192)
def words(text: str) -> frozenset[str]:
    """Give the telling words of a text in lower case, and the files that it names.

    Names are taken apart at `_`.
    """
    text = text[:2000]
    named = {f"file {name}" for name in _NAMED_FILE.findall(text)}
    rest = _NAMED_FILE.sub(" ", text)
    return (frozenset(_WORD.findall(rest.lower())) - _EMPTY) | named


def features(attempt: Attempt) -> frozenset[str]:
    """Give all that an experiment can be near to another by."""
    return words(attempt.summary) | {f"file {name}" for name in files(attempt)}


def by_nearness(
    attempts: Sequence[Attempt], focus: Iterable[str], noise: float | None
) -> list[Attempt]:
    """Order experiments by how much they tell somebody who is about to do `focus`.

    Shared words and files count by how rare they are; then recent ones, large effects in units of
    the noise, and negatives. Ties go to the newer.

    Args:
        attempts: decided experiments.
        focus: features of what is likely to be tried.
        noise: standard deviation of one measurement, where it is known.
    """
    found = [features(a) for a in attempts]
    seen = Counter(f for own in found for f in own)
    rarity = {f: math.log((1 + len(attempts)) / (0.5 + seen[f])) for f in sorted(frozenset(focus))}
    whole = sum(rarity.values()) or 1.0
    last = max((a.number for a in attempts), default=0)
    unit = 3 * noise if noise else _typical(attempts)

    def worth(a: Attempt, own: frozenset[str]) -> float:
        near = sum(rarity[f] for f in sorted(own & rarity.keys())) / whole
        recent = 0.5 ** ((last - a.number) / RECENT)
        effect = min(1.0, abs(a.gain or 0.0) / unit) if unit else 0.0
        return 3 * near + recent + 0.5 * effect + (WEIGHT.get(a.verdict, 0) if a.verdict else 0)

    worths = [worth(a, own) for a, own in zip(attempts, found, strict=True)]
    order = sorted(range(len(found)), key=lambda i: (-worths[i], -attempts[i].number, i))
    return [attempts[i] for i in order]


def _typical(attempts: Sequence[Attempt]) -> float:
    """Give a large effect among those seen, where the noise is not known."""
    sizes = sorted(abs(a.gain) for a in attempts if a.gain)
    return sizes[(3 * len(sizes)) // 4] if sizes else 0.0
