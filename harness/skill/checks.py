"""What each check finds of one run: whether it holds, and if not, why.

Owns what the checks of a suite mean. Texts are questioned by the checklist's own code. Code that a
model has made runs in a fresh copy of what it left, in a process group of its own, within a time,
and sees neither the result file nor the way to models; that it crashes or hangs fails the check.
"""

import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import NamedTuple

import processes
import questions
import same
from form import Asks, Question
from model import Judge, Usage
from outcome import Outcome
from questions import Answer
from suite import (
    REQUEST,
    Calls,
    Case,
    Check,
    Created,
    Exact,
    Exits,
    SameAs,
    Says,
    Scores,
    Suite,
    Unchanged,
    Within,
)
from tools import environment
from workspace import TooMuch, fits, inside, rebuild

FILES_LIMIT = 60_000
"""Characters of changed files that a question may be asked of."""
SHOWN = 300
"""Characters of a command's last words that are told."""


class Room(NamedTuple):
    """Where checks are made: what all of them share."""

    suite: Suite
    judge: Judge | None
    cancel: Event
    keys: frozenset[str | None]
    """Variables that hold keys."""


class Ruling(NamedTuple):
    """What one check has found."""

    holds: bool
    reason: str = ""
    usage: Usage = Usage()
    score: float | None = None


def check(what: Check, case: Case, outcome: Outcome, room: Room) -> Ruling:
    """Make one check of one run.

    Raises:
        QuestionError, ModelError: there can be no answer, and the run is not to blame.
    """
    match what.what:
        case Says(question, file, with_files):
            return _says(question, file, case, outcome, room, with_files=with_files)
        case Exact(wanted, file, expect):
            return _exact(wanted, file, expect, case, outcome, room)
        case Exits() as exits:
            return _exits(exits, case, outcome, room)
        case Scores() as scores:
            return _scores(scores, case, outcome, room)
        case SameAs() as reference:
            return _same_as(reference, case, outcome, room)
        case Created(globs):
            new = outcome.files.keys() - _before(case, room)
            missing = [g for g in globs if not any(fits(name, g) for name in new)]
            return Ruling(not missing, f"not created: {', '.join(missing)}" if missing else "")
        case Unchanged(globs):
            touched = [*outcome.files, *outcome.deleted]
            found = [name for name in touched if any(fits(name, g) for g in globs)]
            return Ruling(not found, f"changed: {', '.join(found[:5])}" if found else "")
        case Calls() as calls:
            return _calls(calls, outcome)
        case Within(limits):
            return _within(limits, outcome)


def ask(question: Question, case: Case, outcome: Outcome, room: Room) -> Ruling:
    """Ask a question of all cases of the answer of one run."""
    return _says(question, None, case, outcome, room)


def left(case: Case, outcome: Outcome, room: Room, place: Path) -> Path:
    """Make a fresh copy of what a run has left."""
    rebuild(place, case, room.suite.under, outcome)
    return place


# --- texts ------------------------------------------------------------------------------------


class _Missing(Exception):
    """There is no such file."""


def _text(file: str | None, case: Case, outcome: Outcome, room: Room) -> str:
    if file is None:
        return outcome.answer
    if file in outcome.files:
        return outcome.files[file].content.decode("utf-8", "replace")
    with tempfile.TemporaryDirectory() as folder:
        place = left(case, outcome, room, Path(folder, "work"))
        path = place / file
        if not path.is_file() or not inside(place, path):
            raise _Missing(f"there is no file {file}")
        return path.read_bytes().decode("utf-8", "replace")


def _says(
    question: Question,
    file: str | None,
    case: Case,
    outcome: Outcome,
    room: Room,
    *,
    with_files: bool = False,
) -> Ruling:
    try:
        text = _text(file, case, outcome, room)
    except _Missing as error:
        return Ruling(False, str(error))
    if with_files:
        text = _with_files(text, outcome)
    if isinstance(question.check, Asks):
        asked = question.check.text.replace(REQUEST, case.request)
        question = replace(question, check=Asks(asked))
    if not text.strip() and isinstance(question.check, Asks):
        return Ruling(False, "there is no text to be judged")
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder, "request.txt")
        request.write_text(case.request, encoding="utf-8")
        env = {**environment(Path(folder), Path(folder), set(room.keys)), "INPUT": str(request)}
        here = questions.Room(room.suite.folder, env, room.judge, room.cancel)
        answer = questions.ask(question, text, here)
    return Ruling(answer.passes(question), _reason(question, answer), answer.usage)


def _with_files(text: str, outcome: Outcome) -> str:
    parts = [text]
    room = FILES_LIMIT
    for name, file in outcome.files.items():
        try:
            shown = file.content.decode()[:room]
        except UnicodeDecodeError:
            shown = f"({len(file.content)} bytes that are no text)"
        room -= len(shown)
        parts.append(f"--- the file {name} ---\n{shown}")
    return "\n\n".join(parts)


def _reason(question: Question, answer: Answer) -> str:
    if answer.passes(question):
        return ""
    if answer.yes is not None and not question.expect:
        return answer.reason or "the answer is yes, and no is wanted"
    return answer.reason or "the answer is no"


def _exact(
    wanted: str, file: str | None, expect: bool, case: Case, outcome: Outcome, room: Room
) -> Ruling:
    try:
        text = _text(file, case, outcome, room)
    except _Missing as error:
        return Ruling(False, str(error))
    what = "the answer" if file is None else file
    if (text.strip() == wanted.strip()) is expect:
        return Ruling(True)
    return Ruling(False, f"{what} is {'not ' if expect else ''}exactly {_short(wanted)!r}")


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}..."


def _same_as(wanted: SameAs, case: Case, outcome: Outcome, room: Room) -> Ruling:
    try:
        text = _text(wanted.file, case, outcome, room)
    except _Missing as error:
        return Ruling(False, str(error))
    reference = wanted.reference.read_bytes().decode("utf-8", "replace")
    try:
        found = same.difference(reference, text, wanted.file)
    except same.Unreadable as error:
        raise questions.QuestionError(f"{wanted.reference} {error}") from None
    return Ruling(found is None, found or "")


# --- what was done ----------------------------------------------------------------------------


def _before(case: Case, room: Room) -> set[str]:
    own = {*room.suite.under.files, *case.files}
    if case.workspace is None:
        return own
    below = (p.relative_to(case.workspace).as_posix() for p in case.workspace.rglob("*"))
    return own | set(below)


def _calls(wanted: Calls, outcome: Outcome) -> Ruling:
    count = sum(call.name in wanted.names for call in outcome.calls)
    names = ", ".join(wanted.names)
    if count < wanted.least:
        return Ruling(False, f"{count} calls of {names}, and at least {wanted.least} are wanted")
    if wanted.most is not None and count > wanted.most:
        return Ruling(False, f"{count} calls of {names}, and at most {wanted.most} are wanted")
    return Ruling(True)


def _within(limits: Mapping[str, float], outcome: Outcome) -> Ruling:
    cost = outcome.cost
    used: dict[str, float | None] = {
        "tokens": cost.tokens,
        "output_tokens": cost.output,
        "tool_calls": cost.calls,
        "turns": outcome.turns,
        "seconds": cost.seconds,
        "usd": cost.usd,
    }
    for name, most in limits.items():
        value = used[name]
        if value is None:
            raise questions.QuestionError("`within: {usd: ...}` needs `runner.usd_per_mtok`")
        if value > most:
            return Ruling(
                False, f"{value:g} {name.replace('_', ' ')}, and at most {most:g} are wanted"
            )
    return Ruling(True)


# --- commands ---------------------------------------------------------------------------------


def _run(
    command: processes.Command,
    seconds: float,
    case: Case,
    outcome: Outcome,
    room: Room,
    at: Path | None,
) -> processes.Ended:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        try:
            place = left(case, outcome, room, top / "work")
        except TooMuch as error:
            return processes.Ended("", None, str(error), 0.0)
        (top / "home").mkdir()
        (top / "output.txt").write_text(outcome.answer, encoding="utf-8")
        env = {
            **environment(place, top / "home", set(room.keys)),
            "WORKSPACE": str(place),
            "OUTPUT": str(top / "output.txt"),
            "SUITE": str(room.suite.folder.resolve()),
            "CASE": case.id,
        }
        joined = f"exec 2>&1\n{command}" if isinstance(command, str) else command
        return processes.run(
            joined,
            cwd=at or place,
            env=env,
            stdin=outcome.answer.encode(),
            timeout_s=seconds,
            cancel=room.cancel,
        )


def _exits(wanted: Exits, case: Case, outcome: Outcome, room: Room) -> Ruling:
    ended = _run(wanted.command, wanted.timeout_s, case, outcome, room, None)
    if ended.problem is None:
        return Ruling(True)
    return Ruling(False, f"{ended.problem}{_tail(ended.output)}")


def _scores(wanted: Scores, case: Case, outcome: Outcome, room: Room) -> Ruling:
    ended = _run(wanted.command, wanted.timeout_s, case, outcome, room, room.suite.folder)
    if ended.problem is not None:
        return Ruling(False, f"no score: {ended.problem}{_tail(ended.output)}", score=0.0)
    lines = [line for line in ended.output.splitlines() if line.strip()]
    score = _number(lines[-1]) if lines else math.nan
    if not 0 <= score <= 100:
        said = _tail(ended.output) or ": nothing"
        return Ruling(False, f"no score from 0 to 100 in its last line{said}", score=0.0)
    if score < wanted.least:
        told = _tail("\n".join(lines[:-1]))
        return Ruling(
            False, f"score {score:g}, and at least {wanted.least:g} is wanted{told}", score=score
        )
    return Ruling(True, score=score)


def _number(line: str) -> float:
    """Read the last number of a line, as in `87`, `SCORE: 87` and `87/100`."""
    line = re.sub(r"(\d)\s*(?:/|out of)\s*100\W*$", r"\1", line)
    numbers = re.findall(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", line)
    return float(numbers[-1]) if numbers else math.nan


def _tail(output: str) -> str:
    said = " | ".join(line.strip() for line in output.splitlines() if line.strip())
    return f": {said[-SHOWN:]}" if said else ""
