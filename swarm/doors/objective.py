"""Which way is better, and what the number is called, from an objective in a person's words.

Owns the verbs and nouns that tell it. Pure. Where the words do not tell, it says so: a wrong guess
would be a night of making things worse.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from swarm.records import Goal

_DOWN = (
    *("reduc", "lower", "minimi", "shrink", "decreas", "cut", "eliminat", "remov", "drop", "trim"),
    *("slim", "shorten", "lessen", "halv", "compress", "accelerat", "speed", "fix", "fixing"),
    *("below", "under", "fewer", "less", "smaller", "faster", "quicker"),
    *("cheaper", "lighter", "shorter", "leaner"),
)
_UP = (
    *("increas", "rais", "maximi", "boost", "grow", "gain", "lift", "above", "beyond"),
    *("more", "higher", "larger", "bigger", "greater"),
)
_EITHER = ("improv", "optimi", "tune", "enhanc", "better", "make", "get", "tweak", "push", "bring")
"""Verbs that leave it to the noun."""
_SOFT = ("fix", "fixing", "speed", "accelerat", "faster", "quicker")
"""Words for less, as long as the number is not itself one of which more is better."""
_COSTS = (
    *("latency", "loss", "bpb", "perplexity", "ppl", "error", "fail", "warning", "size", "time"),
    *(
        "duration",
        "runtime",
        "memory",
        "cost",
        "byte",
        "second",
        "rmse",
        "mse",
        "mae",
        "wer",
        "cer",
    ),
    *(
        "bundle",
        "complexity",
        "allocation",
        "violation",
        "issue",
        "bug",
        "lint",
        "footprint",
        "p50",
    ),
    *("p95", "p99", "overhead", "regret", "startup", "ms", "kb", "mb", "token", "usage", "price"),
)
_GOODS = (
    *("accuracy", "f1", "auc", "recall", "precision", "throughput", "score", "pass", "coverage"),
    *("qps", "rps", "ops", "bleu", "rouge", "reward", "mrr", "ndcg", "fps", "iou", "speedup"),
    *("hit", "r2"),
)
_TIME = re.compile(r"\b(?:speed|fast|quick|time|slow|durat|runtime|accelerat|second)", re.I)
_DULL = frozenset(
    (
        *("the", "a", "an", "of", "our", "my", "in", "on", "for", "to", "by", "all", "as", "is"),
        *("this", "that", "with", "and", "up", "down", "its", "it", "while", "please", "much"),
    )
)


class Direction(NamedTuple):
    """A goal, and the word that it comes from."""

    goal: Goal
    word: str


def direction(objective: str) -> Direction | None:
    """Tell which way is better; None where the words leave it open, or contradict each other."""
    words = _words(objective)
    for i, word in enumerate(words):
        if _is(word, _UP):
            return Direction("maximize", word)
        if _is(word, _DOWN):
            noun = next((_noun(w) for w in words[i + 1 :] if _noun(w)), None)
            if _is(word, _SOFT) and noun == "maximize":
                return None
            return Direction("minimize", word)
        # `improve latency`: the next noun that is known for a cost, or for its opposite.
        if goal := _noun(word):
            return Direction(goal, word)
    return None


def _words(objective: str) -> list[str]:
    return re.findall(r"[a-z][\w']*", objective.lower())


def _is(word: str, stems: tuple[str, ...]) -> bool:
    return any(word == stem or (len(stem) > 3 and word.startswith(stem)) for stem in stems)


def _noun(word: str) -> Goal | None:
    """Tell a cost from what there should be more of; `val_bpb` is a cost by its last part."""
    for part in reversed(word.split("_")):
        if _is(part, _COSTS) or part.rstrip("s") in _COSTS:
            return "minimize"
        if _is(part, _GOODS):
            return "maximize"
    return None


def metric_name(objective: str, measure: str) -> str:
    """Name the number: a word that both texts have, else the objective's own words."""
    if re.search(r"\bpytest\b", measure) and _TIME.search(objective):
        return "seconds"
    sought = set(re.findall(r"[a-z][\w]*", measure.lower()))
    # An identifier is a name already; of common words only those that a grep looks for.
    for word in _words(objective):
        if "_" in word and re.search(rf"\b{word}\b", measure.lower()):
            return word
    for word in _words(objective):
        if word in sought and _noun(word) and "grep" in sought:
            return word
    kept = [w for w in _words(objective) if w not in _DULL and not _is(w, (*_DOWN, *_UP, *_EITHER))]
    return "_".join(kept)[:40].strip("_'").replace("'", "") or "value"
