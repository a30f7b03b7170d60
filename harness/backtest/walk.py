"""Walk-forward: one event at a time, with the outcomes that are known by then and no other.

Owns the order of things, what counts as a forecast, and the base rate of each moment. Pure: who
answers is handed in. An outcome is known to an event if its `known_at` is earlier than the event's
`at`: events of one moment know nothing of each other.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, cast

from files import MOST, NO, YES, Event, Field, finite
from scores import Chances, Guessed, Judged

SUM_TOLERANCE = 1e-3
"""Probabilities that are written with three digits rarely add up to 1 exactly."""
SAME = 1e-9


class WalkError(Exception):
    """A walk came to a bad end.

    Its text has nothing in it that the candidate said or chose, not even at which event it ended:
    it has seen outcomes, and could tell them to whoever reads this.
    """

    def __init__(self, what: str, detail: str) -> None:
        super().__init__(what)
        self.detail = detail
        """The event, and what was printed: to be shown where nothing is secret, in a rehearsal."""


class NoAnswerError(WalkError):
    """The candidate failed: exit 1."""


class BreachError(WalkError):
    """The candidate broke a rule of the walk: its measurement is invalid."""


class Question(NamedTuple):
    """One event, as a candidate meets it."""

    number: int
    """From 1 up."""
    event: Event
    known: tuple[Event, ...]
    """Whose outcomes have become known since the question before."""
    past: int
    """How many outcomes are known by then."""


Forecast = Chances | float | None
"""Probabilities, a number, or nothing said."""
Walk = Callable[[Sequence[Question]], Sequence[Forecast]]
"""Answers questions in order, each with no more than it and those before it have told."""


def questions(events: Sequence[Event]) -> list[Question]:
    """Give the events as they are met."""
    waiting = sorted(events, key=lambda event: event.known_at)
    found: list[Question] = []
    seen = 0
    for number, event in enumerate(events, start=1):
        upto = seen
        while waiting[upto].known_at < event.at:
            upto += 1
        found.append(Question(number, event, tuple(waiting[seen:upto]), upto))
        seen = upto
    return found


def forecast(answer: Mapping[str, Any], field: Field, number: int) -> Forecast:
    """Take the forecast out of an answer.

    Raises:
        BreachError: it is none.
    """

    def wrong(what: str) -> NoReturn:
        raise BreachError(f"an answer {what}", f"event {number}")

    key = "p" if field.labels else "value"
    if key not in answer:
        wrong(f"has no `{key}`")
    said = answer[key]
    if said is None:
        return None
    if not field.labels:
        if not _finite(said) or abs(said) > MOST:
            wrong(f"has a `value` that is no number up to {MOST:g}")
        return float(said)
    if field.binary and _finite(said):
        said = {YES: said, NO: 1 - said}
    if not isinstance(said, dict):
        wrong("has a `p` that is neither {label: probability} nor, of true and false, a number")
    chances = dict.fromkeys(field.labels, 0.0)
    for name, p in cast("dict[str, Any]", said).items():
        if name not in chances:
            wrong("has a probability of a label that there is not")
        if not _finite(p) or not -SAME <= p <= 1 + SUM_TOLERANCE:
            wrong("has a probability that is no number from 0 to 1")
        chances[name] = max(0.0, float(p))
    total = sum(chances.values())
    if abs(total - 1) > SUM_TOLERANCE:
        wrong("has probabilities that do not add up to 1")
    return {name: p / total for name, p in chances.items()}


def _finite(value: Any) -> bool:
    return finite(value) and not isinstance(value, bool)


def compare(first: Sequence[Forecast], again: Sequence[Forecast]) -> None:
    """Compare a walk with the beginning of it, walked once more.

    Raises:
        BreachError: a forecast is another one.
    """
    for number, (one, other) in enumerate(zip(first, again, strict=False), start=1):
        if not _alike(one, other):
            raise BreachError(
                "walked again, it says something else: a forecast may depend on nothing but what "
                "was given, and SWARM_SEED",
                f"event {number}",
            )


def _alike(one: Forecast, other: Forecast) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(abs(p - other[name]) <= SAME for name, p in one.items())
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=SAME)
    return one is None and other is None


def judged(
    field: Field, walked: Sequence[Question], said: Sequence[Forecast]
) -> Iterator[Judged | Guessed]:
    """Put each forecast beside what came, and beside what the past alone would have said.

    Where nothing was said, the base rate counts: to be silent about what is hard is no way out.
    """
    counts = dict.fromkeys(field.labels, 1)  # as if each had come once, so that none is impossible
    total, seen = 0.0, 0
    for question, one in zip(walked, said, strict=True):
        for event in question.known:
            seen += 1
            if field.labels:
                counts[event.label] += 1
            else:
                total += float(event.outcome)
        if field.labels:
            base = {name: n / sum(counts.values()) for name, n in counts.items()}
            chances = cast("Chances | None", one)
            yield Judged(chances or base, base, question.event.label, one is not None)
        else:
            mean = total / seen if seen else 0.0
            value = mean if one is None else cast("float", one)
            yield Guessed(value, mean, float(question.event.outcome), one is not None)
