"""What a run has learned: in a few lines for a briefing, and as a page for people. Pure.

Owns how experiments are summed up by what they are about. What an outcome means was decided by
others; nothing is concluded here that was not measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from swarm.formats.text import one_line, signed
from swarm.nearness import features, files
from swarm.records import Attempt

OFTEN = 3
"""So many tries without a keep are a lesson."""
TOPICS = 8
"""Most topics of one sort in a digest."""
_NO_TRY = (None, "invalid", "duplicate", "aborted")
_BROKEN = ("crash", "timeout", "guard_failed", "constraint_failed")


class Topic(NamedTuple):
    """What several experiments have in common, and how they ended."""

    name: str
    tries: int
    keeps: int
    broken: int
    """Crashed, timed out, or refused by a guard or a limit."""
    best: float | None
    """The largest gain, signed so that positive is better."""

    def line(self) -> str:
        """Say it in one line."""
        said = f"{self.name}: {self.keeps} of {self.tries} kept"
        if self.best is not None:
            said += f", best {signed(self.best, 3)}"
        return said + (f", {self.broken} did not run" if self.broken else "")


class Digest(NamedTuple):
    """The lessons of all experiments in a few lines each."""

    works: tuple[Topic, ...]
    fails: tuple[Topic, ...]
    untouched: tuple[str, ...]
    """Files that are named in the scope and were never changed."""


def digest(
    attempts: Iterable[Attempt], earlier: Iterable[Attempt] = (), scope: Sequence[str] = ()
) -> Digest:
    """Sum up what was tried, in this run and in an earlier one, by files and words.

    Args:
        attempts: experiments of this run.
        earlier: experiments of the run that this one was started from.
        scope: patterns of what may be changed.
    """
    tried = [a for a in (*attempts, *earlier) if a.verdict not in _NO_TRY]
    topics = _topics(tried)
    works = sorted((t for t in topics if t.keeps), key=lambda t: (-t.keeps / t.tries, -t.tries))
    fails = sorted((t for t in topics if not t.keeps and t.tries >= OFTEN), key=lambda t: -t.tries)
    touched = frozenset(name for a in tried for name in files(a))
    plain = [p for p in scope if not p.startswith("!") and not p.endswith("/")]
    named = [p for p in plain if not any(c in p for c in "*?[")]
    untouched = tuple(p for p in named if p not in touched) if touched else ()
    return Digest(tuple(works[:TOPICS]), tuple(fails[:TOPICS]), untouched)


def _topics(tried: Sequence[Attempt]) -> list[Topic]:
    """Give what at least two experiments are about; words that always go together are one."""
    of: dict[str, list[int]] = defaultdict(list)
    for place, attempt in enumerate(tried):
        for feature in sorted(features(attempt)):
            if not feature[0].isdigit():
                of[feature].append(place)
    together: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for feature, places in of.items():
        if len(places) > 1:
            together[tuple(places)].append(feature)
    found = [_topic(names, [tried[p] for p in places]) for places, names in together.items()]
    return sorted(found, key=lambda t: t.name)


def _topic(names: list[str], found: list[Attempt]) -> Topic:
    said = found[0].summary.lower()
    named = sorted(names, key=lambda n: (n.startswith("file "), said.find(n), n))
    gains = [a.gain for a in found if a.gain is not None]
    return Topic(
        one_line(" ".join(named[:6]), 80),
        len(found),
        sum(a.verdict == "keep" for a in found),
        sum(a.verdict in _BROKEN for a in found),
        max(gains, default=None),
    )
