"""What can be said of a golden set: whether it can be used, and what it can tell apart. Pure.

Owns the figures, and the words of what is found. A difference in hit rate between two searches is
judged over the same queries, so all that counts is on how many of them the two differ: where none
got worse, `LEAST` must have got better before a sign test at 5 % believes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from swarm.formats.golden import Label

LEAST = 6
"""The least n with 2 * 0.5 ** n below 0.05."""
FEW = 60
"""With fewer queries than this the smallest difference to be seen is above a tenth."""
_NAMED = 8


class Finding(NamedTuple):
    """One thing to know about a golden set."""

    level: Literal["error", "warning"]
    kind: str
    message: str
    hint: str
    ids: tuple[str, ...] = ()


class Score(NamedTuple):
    """How a search does now."""

    command: str
    queries: int
    """Queries with a good answer that it has been asked."""
    hits: int
    mrr: float

    @property
    def hit_rate(self) -> float:
        """Give the share of queries with something relevant in the list."""
        return self.hits / self.queries


class Figures(NamedTuple):
    """A golden set in numbers."""

    queries: int
    answerable: int
    held_out: int
    counting: int
    """Queries with a good answer that are not held out: those that decide in a run."""

    @property
    def detectable(self) -> float | None:
        """Give the least difference in hit rate that is more than luck; None if there is none."""
        return LEAST / self.counting if self.counting >= LEAST else None


def figures(labels: Sequence[Label]) -> Figures:
    """Count."""
    return Figures(
        queries=len(labels),
        answerable=sum(label.answerable for label in labels),
        held_out=sum(label.held_out for label in labels),
        counting=sum(label.answerable and not label.held_out for label in labels),
    )


def score(
    command: str, labels: Sequence[Label], found: Mapping[str, Sequence[str]]
) -> Score | None:
    """Measure what a search finds; None if it has been asked nothing that has an answer."""
    ranks: list[int | None] = []
    for label in labels:
        if label.answerable and label.id in found:
            shown = enumerate(found[label.id], start=1)
            ranks.append(next((n for n, name in shown if label.relevant.get(name)), None))
    if not ranks:
        return None
    hits = [rank for rank in ranks if rank is not None]
    return Score(command, len(ranks), len(hits), fmean(1 / r if r else 0.0 for r in ranks))


def findings(
    labels: Sequence[Label],
    open_: Sequence[str],
    scores: Sequence[Score],
    failed: Mapping[str, Sequence[str]],
) -> list[Finding]:
    """Say what is wrong with a golden set, the worst first.

    Args:
        labels: all of it.
        open_: ids of queries that have no label yet.
        scores: of the searches, as far as they were asked.
        failed: by a search's command, ids of queries on which it failed.
    """
    found = [*_usable(labels), *_open(open_), *_failed(failed)]
    found += [*_few(figures(labels)), *_easy(scores)]
    return [*found, *_twice(labels), *_alike(labels)]


def _usable(labels: Sequence[Label]) -> list[Finding]:
    seen = figures(labels)
    found: list[Finding] = []
    if not seen.counting:
        what = "no query that is not held out has a good answer, so nothing can be measured"
        hint = "grade more queries, or hold fewer out"
        found.append(Finding("error", "nothing_counts", what, hint))
    elif seen.answerable == seen.counting:
        what = "no query with a good answer is held out, so nothing is left to confirm a gain with"
        hint = "set `held_out` of some lines to true, or label more queries"
        found.append(Finding("warning", "nothing_held_out", what, hint))
    if without := tuple(label.id for label in labels if not label.answerable):
        what = f"{counted_queries(len(without))} without a good answer: {_named(without)}"
        hint = "measures of rank leave them out; `--again ID` asks once more"
        found.append(Finding("warning", "unanswerable", what, hint, without))
    return found


def _open(open_: Sequence[str]) -> list[Finding]:
    if not open_:
        return []
    what = f"{counted_queries(len(open_))} not labelled: {_named(open_)}"
    return [Finding("warning", "unlabelled", what, "the same command asks them", tuple(open_))]


def _failed(failed: Mapping[str, Sequence[str]]) -> list[Finding]:
    found: list[Finding] = []
    for command, ids in failed.items():
        what = f"`{command}` failed on {counted_queries(len(ids))}: {_named(ids)}"
        hint = "they are not in its figures; the harness counts them as not found, or stops"
        found.append(Finding("warning", "search_failed", what, hint, tuple(ids)))
    return found


def _few(seen: Figures) -> list[Finding]:
    if not 0 < seen.counting < FEW:
        return []
    counting = f"{counted_queries(seen.counting)} decide" + ("s" if seen.counting == 1 else "")
    if seen.detectable is None:
        what = f"{counting}: too few to tell any two searches apart by their hit rate"
    else:
        what = (
            f"{counting}: a search must answer {LEAST} more of them and lose none, "
            f"{seen.detectable:+.2f} in hit rate, before that is more than luck"
        )
    hint = f"label more: {FEW} show {LEAST / FEW:.2g}, {2 * FEW} show {LEAST / FEW / 2:.2g}"
    return [Finding("warning", "few_queries", what, hint)]


def _easy(scores: Sequence[Score]) -> list[Finding]:
    found: list[Finding] = []
    hint = "add queries on which it fails"
    for each in scores:
        missed = each.queries - each.hits
        if each.mrr == 1:
            what = f"`{each.command}` has a good answer at rank 1 for all {each.queries}"
            found.append(Finding("warning", "too_easy", what, hint))
        elif missed < LEAST <= each.queries:
            what = (
                f"`{each.command}` hits {each.hits} of {each.queries}, and with only {missed} left "
                f"no gain in hit rate can be told from luck: that takes {LEAST}"
            )
            also = f"{hint}, or take ndcg for the metric, which sees ranks"
            found.append(Finding("warning", "little_room", what, also))
    return found


def _twice(labels: Sequence[Label]) -> list[Finding]:
    plain = {label.id: " ".join(label.query.split()).casefold() for label in labels}
    counts = Counter(plain.values())
    same = tuple(name for name, text in plain.items() if counts[text] > 1)
    if not same:
        return []
    what = f"the same query under several ids: {_named(same)}"
    return [Finding("warning", "duplicates", what, "remove all but one; each counts", same)]


def _alike(labels: Sequence[Label]) -> list[Finding]:
    found: list[Finding] = []
    each = {la.id: list(la.relevant.values()) for la in labels if la.answerable}
    flat = tuple(n for n, given in each.items() if len(given) > 1 and len(set(given)) == 1)
    if flat:
        what = (
            f"every result has the same grade, so their order makes no difference: {_named(flat)}"
        )
        found.append(
            Finding("warning", "all_alike", what, "tell good from near, as in 1=3 4=1", flat)
        )
    above = {grade for given in each.values() for grade in given if grade}
    if len(above) == 1 and any(sum(map(bool, given)) > 1 for given in each.values()):
        what = f"every relevant result has grade {above.pop()}: nDCG cannot tell good from near"
        found.append(Finding("warning", "one_grade", what, "grade what is only near with 1 or 2"))
    return found


def counted_queries(n: int) -> str:
    """Give a number of queries in words."""
    return f"{n} quer{'y' if n == 1 else 'ies'}"


def _named(ids: Sequence[str]) -> str:
    more = len(ids) - _NAMED
    return ", ".join(ids[:_NAMED]) + (f" and {more} more" if more > 0 else "")
