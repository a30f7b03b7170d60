"""What a model did, turn by turn, and what is made of it. Pure.

Owns what a step is and how costs are booked on it, what counts as a self-correction, and when an
answer asks a person instead of ending. Knows neither the Messages API nor any program: the runners
say what happened in the words of this module.

A *step* begins where the model writes its name in a heading, `## Explore` or `## 2. Explore: ...`,
or as `Step: explore`. What an answer costs is divided among its steps by the characters written in
each; what was read for it goes to the step that the answer begins in, and a call of a tool with its
time to the step in which it is made.

A *self-correction* is a failed call that the model put right by itself: the same tool succeeds
later on the same thing (path or command), or, after a failed command, a file that was changed
before it is changed again. Failures of one call in a row count once.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

from outcome import OTHER, Called, Cost, Stopped

CHANGING = frozenset({"write_file", "edit_file", "Write", "Edit", "MultiEdit", "NotebookEdit"})
COMMANDS = frozenset({"run", "Bash"})
SUBJECTS = ("path", "file_path", "notebook_path", "command", "skill", "name", "pattern", "url")
ASKING = re.compile(
    r"\b(?:please (?:confirm|clarify|specify|choose|decide|provide|tell me|let me know)|"
    r"(?:should|shall|may) i\b|waiting for (?:your|you)|let me know (?:which|whether|how you)|"
    r"(?:i need|i require) (?:your|you to)\b)",
    re.IGNORECASE,
)


class Said(NamedTuple):
    """A text."""

    text: str


class Did(NamedTuple):
    """A call of a tool, and what came of it."""

    name: str
    given: Mapping[str, Any]
    good: bool = True
    seconds: float = 0.0

    @property
    def subject(self) -> str:
        """The path or the command that it is about."""
        found = (self.given.get(key) for key in SUBJECTS)
        return next((" ".join(v.split()) for v in found if isinstance(v, str)), "")[:500]

    @property
    def size(self) -> int:
        """About how much was written to make it."""
        return len(self.name) + sum(len(str(value)) for value in self.given.values())


class Turn(NamedTuple):
    """One answer of the model."""

    parts: tuple[Said | Did, ...]
    input: int = 0
    output: int = 0
    cached: int = 0
    usd: float | None = None
    seconds: float = 0.0


class Transcript(NamedTuple):
    """All of one run."""

    turns: Sequence[Turn]
    stopped: Stopped = "end"
    problem: str | None = None
    answer: str | None = None
    """None: the text of the last turn."""

    @property
    def last_words(self) -> str:
        if self.answer is not None:
            return self.answer
        last = self.turns[-1].parts if self.turns else ()
        return "".join(part.text for part in last if isinstance(part, Said)).strip()


# --- steps ------------------------------------------------------------------------------------


class Booked(NamedTuple):
    """What each step has used, and the calls with the step that each was made in."""

    steps: dict[str, Cost]
    calls: list[Called]


def book(turns: Sequence[Turn], steps: Sequence[str]) -> Booked:
    """Put everything on the step to which it belongs."""
    found: dict[str, Cost] = {}
    calls: list[Called] = []
    now = OTHER

    def add(step: str, cost: Cost) -> None:
        found[step] = found.get(step, Cost()).plus(cost)

    for turn in turns:
        pieces: list[tuple[str, int]] = []
        for part in turn.parts:
            if isinstance(part, Said):
                for step, size in _pieces(part.text, steps, now):
                    pieces.append((step, size))
                    now = step
            else:
                pieces.append((now, part.size))
                add(now, Cost(seconds=part.seconds, calls=1))
                calls.append(Called(part.name, part.subject, part.good, now))
        pieces = [piece for piece in pieces if piece[1]] or [(now, 1)]
        for n, (step, cost) in enumerate(_divided(turn, pieces)):
            read = Cost(input=turn.input, cached=turn.cached) if n == 0 else Cost()
            add(step, cost.plus(read))
    return Booked(found, calls)


def _divided(turn: Turn, pieces: Sequence[tuple[str, int]]) -> Iterator[tuple[str, Cost]]:
    """Divide what was written by the sizes of the pieces, to the last token."""
    total = sum(size for _, size in pieces)
    marks = [0]
    for _, size in pieces:
        marks.append(marks[-1] + size)
    tokens = turn.input + turn.output
    for n, ((step, size), (low, high)) in enumerate(zip(pieces, pairwise(marks), strict=True)):
        output = turn.output * high // total - turn.output * low // total
        # Money follows the tokens: what was read is paid in the first piece.
        share = (output + (turn.input if n == 0 else 0)) / tokens if tokens else size / total
        usd = None if turn.usd is None else turn.usd * share
        yield step, Cost(output=output, usd=usd, seconds=turn.seconds * size / total)


def _pieces(text: str, steps: Sequence[str], now: str) -> Iterator[tuple[str, int]]:
    """Cut a text where steps begin."""
    if not steps:
        yield now, len(text)
        return
    size, fenced = 0, False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        step = None if fenced else step_of(line, steps)
        if step is not None:
            yield now, size
            now, size = step, 0
        size += len(line)
    yield now, size


def step_of(line: str, steps: Sequence[str]) -> str | None:
    """Give the step that a line begins, if it does."""
    names = "|".join(map(re.escape, steps))
    found = re.match(
        rf"\s{{0,3}}(?:#{{1,6}}[ \t]*(?:step\b[ \t]*)?(?:\d+[ \t]*[.):-]?[ \t]*)?[:-]?"
        rf"|[*_]{{0,2}}step\b[ \t]*\d*[ \t]*[:.-])"
        rf"[ \t*_`]*({names})[ \t*_`]*(?:$|[:.(—–-])",
        line.rstrip(),
        re.IGNORECASE,
    )
    return found[1].lower() if found else None


# --- signals ----------------------------------------------------------------------------------


def corrections(turns: Sequence[Turn]) -> int:
    """Count the failed calls that the model put right by itself."""
    count = 0
    failed: set[tuple[str, str]] = set()
    changed: set[str] = set()
    for turn in turns:
        for did in turn.parts:
            if isinstance(did, Said):
                continue
            key = (did.name, did.subject)
            if not did.good:
                failed.add(key)
                continue
            if key in failed:
                failed.remove(key)
                count += 1
            if did.name in CHANGING:
                commands = {k for k in failed if k[0] in COMMANDS}
                if did.subject in changed:
                    count += len(commands)
                    failed -= commands
                changed.add(did.subject)
    return count


def asks(answer: str) -> bool:
    """Tell whether an answer ends by asking a person something."""
    paragraphs = [part for part in re.split(r"\n\s*\n", answer.strip()) if part.strip()]
    if not paragraphs:
        return False
    last = paragraphs[-1].strip().rstrip("*_`\"'”’) \t")
    return last.endswith("?") or ASKING.search(last) is not None


def as_mapping(value: object) -> dict[str, Any]:
    """Give a value from elsewhere as a mapping, an empty one if it is none."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
