"""One question, one output, one answer with its reason.

Owns what each kind of question means. Code that is not known to end (a regular expression, a
schema, a command, a Python function) runs in a process of its own, so that a crash or a hang is a
failed case and not a failed harness.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import NamedTuple, cast

import processes
from answer import BROKEN
from form import Asks, Calls, Check, Contains, Exits, Length, Matches, Question, Schema
from model import Judge, Usage

ANSWER = Path(__file__).with_name("answer.py")


class QuestionError(Exception):
    """A question cannot be asked, of any output: the checklist is broken."""


class Answer(NamedTuple):
    """What one question found of one output."""

    yes: bool | None
    """None when there is no answer: its code crashed or took too long. That never passes."""
    reason: str
    usage: Usage = Usage()

    def passes(self, question: Question) -> bool:
        return self.yes is question.expect


class Room(NamedTuple):
    """Where questions are asked: what all of them share."""

    folder: Path
    env: Mapping[str, str]
    judge: Judge | None
    cancel: Event


def ask(question: Question, output: str, room: Room) -> Answer:
    """Ask a question of an output.

    Raises:
        QuestionError, ModelError: there can be no answer, and the output is not to blame.
    """
    match question.check:
        case Contains() as check:
            return _contains(check, output)
        case Length() as check:
            return _length(check, output)
        case Exits() as check:
            return _exits(question, check, output, room)
        case Asks() as check:
            assert room.judge is not None
            ruling = room.judge.ask(check, output)
            said = f"the judge says {'yes' if ruling.yes else 'no'} to {check.text!r}"
            return Answer(ruling.yes, said, ruling.usage)
        case Matches() | Schema() | Calls() as check:
            return _child(question, check, output, room)


def _contains(check: Contains, output: str) -> Answer:
    for text in check.texts:
        if (text in output) is not check.wanted:
            does = "does not contain" if check.wanted else "contains"
            return Answer(False, f"{does} {text!r}")
    return Answer(True, "")


def _length(check: Length, output: str) -> Answer:
    counts = {"words": len(output.split()), "chars": len(output)}
    for name, limit in check.limits.items():
        side, unit = name.split("_")
        if counts[unit] < limit if side == "min" else counts[unit] > limit:
            least = "at least" if side == "min" else "at most"
            return Answer(False, f"{counts[unit]} {unit}, and {least} {limit} are wanted")
    return Answer(True, "")


def _exits(question: Question, check: Exits, output: str, room: Room) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "output.txt")
        file.write_text(output, encoding="utf-8")
        ended = _run(question, check.command, output, room, {"OUTPUT": str(file)})
    if ended.status is None or ended.status < 0:
        return Answer(None, f"the command {ended.problem}")
    return Answer(ended.status == 0, ended.problem or "")


def _child(question: Question, check: Matches | Schema | Calls, output: str, room: Room) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        order = Path(folder, "order.json")
        order.write_text(json.dumps(_order(check)), encoding="utf-8")
        argv = (sys.executable, str(ANSWER), str(order))
        ended = _run(question, argv, output, room, {})
    if ended.status == BROKEN:
        raise QuestionError(f"question `{question.name}`: {ended.problem}")
    try:
        said = json.loads(ended.output)
        return Answer(cast("bool | None", said["yes"]), str(said["reason"]))
    except (ValueError, KeyError, TypeError):
        return Answer(None, f"no answer: its code {ended.problem or 'ended early'}")


def _order(check: Check) -> dict[str, object]:
    match check:
        case Matches(pattern, wanted):
            return {"kind": "matches", "pattern": pattern, "wanted": wanted}
        case Schema(schema):
            return {"kind": "schema", "schema": schema}
        case Calls(file, function):
            return {"kind": "calls", "file": str(file), "function": function}
        case _:
            raise AssertionError(check)


def _run(
    question: Question,
    command: processes.Command,
    output: str,
    room: Room,
    env: Mapping[str, str],
) -> processes.Ended:
    return processes.run(
        command,
        cwd=room.folder,
        env={**room.env, **env},
        stdin=output.encode(),
        timeout_s=question.timeout_s,
        cancel=room.cancel,
    )
