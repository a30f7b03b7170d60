"""The files of a backtest: dated events, and what came of them. Read and checked.

They are files of JSON `lines`. Knows no candidate and no measure.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from ending import UsageError
from lines import Line, finite, lines, unique

Outcome = bool | str | float
EVENT, OUTCOME = ("id", "at", "given"), ("id", "outcome", "known_at")
NO, YES = "false", "true"
"""The labels of outcomes that are false and true."""
MOST = 1e100
"""Of an outcome or a forecast that is a number: its square can still be counted with."""


class Event(NamedTuple):
    """Something that was to come, with what could be known of it beforehand."""

    id: str
    at: datetime
    said_at: str
    """As the file has it; so it is shown to a candidate."""
    given: Mapping[str, Any]
    outcome: Outcome
    known_at: datetime
    """From the moment after this on the outcome is known to everybody."""

    @property
    def label(self) -> str:
        """The outcome as one of the labels."""
        return label_of(self.outcome)


class Field(NamedTuple):
    """All events, the oldest first, and what outcomes they can have."""

    events: Sequence[Event]
    labels: tuple[str, ...]
    """In order of the alphabet; none where the outcomes are numbers."""

    @property
    def binary(self) -> bool:
        """Tell whether the outcomes are true and false."""
        return isinstance(self.events[0].outcome, bool)


def label_of(outcome: Outcome) -> str:
    """Give the label that an outcome is."""
    return (NO, YES)[outcome] if isinstance(outcome, bool) else str(outcome)


def read(events: Path, outcomes: Path) -> Field:
    """Read events with their outcomes.

    Raises:
        UsageError: a file cannot be read, or a line of one is wrong.
    """
    known = {line.text("id"): line for line in _lines(outcomes, OUTCOME)}
    found: list[Event] = []
    for line in _lines(events, EVENT):
        result = known.pop(name := line.text("id"), None)
        if result is None:
            line.wrong(f"event `{name}` has no outcome in {outcomes}")
        event = _event(line, result)
        if found and event.at < found[-1].at:
            line.wrong(f"`{name}` is before the event of the line above it; sort them by `at`")
        found.append(event)
    if not found:
        raise UsageError(f"{events}: there is no event in it")
    for line in known.values():
        line.wrong(f"there is no event `{line.text('id')}` in {events}")
    return Field(found, _labels(found, outcomes))


def _event(line: Line, result: Line) -> Event:
    given, outcome = line.value.get("given"), result.value.get("outcome")
    if not isinstance(given, dict):
        line.wrong("`given` must be an object with the fields of the event")
    at = _time(line, "at")
    known_at = _time(result, "known_at") if "known_at" in result.value else at
    if known_at < at:
        result.wrong(f"`known_at` is before the event itself, which is at {line.text('at')}")
    if not finite(outcome) and (not isinstance(outcome, str) or not outcome.strip()):
        result.wrong("`outcome` must be true or false, a label, or a finite number")
    if not isinstance(outcome, str) and abs(cast("float", outcome)) > MOST:
        result.wrong(f"`outcome` is a number beyond {MOST:g}; measure it in another unit")
    plain = outcome if isinstance(outcome, bool | str) else float(cast("float", outcome))
    fields = cast("dict[str, Any]", given)
    return Event(line.text("id"), at, line.text("at"), fields, plain, known_at)


def _labels(events: Sequence[Event], outcomes: Path) -> tuple[str, ...]:
    kinds = {type(event.outcome) for event in events}
    if len(kinds) > 1:
        names = {bool: "true or false", str: "a label", float: "a number"}
        said = " and ".join(sorted(names[kind] for kind in kinds))
        raise UsageError(f"{outcomes}: one outcome is {said}; all must be of one kind")
    if kinds == {float}:
        return ()
    labels = {NO, YES} if kinds == {bool} else {event.label for event in events}
    if len(labels) < 2:
        raise UsageError(f"{outcomes}: every outcome is {labels.pop()!r}: nothing to foretell")
    return tuple(sorted(labels))


def moment(text: str) -> datetime:
    """Read a date or a time of ISO 8601; one without a zone is of UTC.

    Raises:
        ValueError: it is something else.
    """
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _time(line: Line, key: str) -> datetime:
    text = line.text(key)
    try:
        return moment(text)
    except ValueError:
        line.wrong(f"`{key}` must be as 2024-05-31 or 2024-05-31T18:00:00Z, not {text!r}")


def _lines(path: Path, keys: Sequence[str]) -> Iterator[Line]:
    """Read lines that have their own id, and no key but these."""
    for line in unique(lines(path)):
        line.known(keys)
        line.whole()
        yield line
