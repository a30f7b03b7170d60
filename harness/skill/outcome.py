"""What one run of a case has left: its answer, its files, its doings and what it cost.

Owns the JSON in which an outcome goes from the stage that runs the model to the one that scores.
An outcome that was written there is a stranger's: its shape and its paths are checked before it is
used. It knows neither models nor checks.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, cast, get_args

Stopped = Literal["end", "max_turns", "max_tokens", "refusal", "timeout", "failed"]
SIZE_LIMIT = 32 * 2**20
OTHER = "other"
"""The step of all that belongs to none."""


class OutcomeError(Exception):
    """A file of the other stage is not what it should be."""


class Cost(NamedTuple):
    """What a step, or a whole run, has used."""

    input: int = 0
    output: int = 0
    cached: int = 0
    usd: float | None = 0.0
    """None: nobody says what it costs."""
    seconds: float = 0.0
    calls: int = 0

    @property
    def tokens(self) -> int:
        return self.input + self.output

    def plus(self, other: "Cost") -> "Cost":
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Cost(
            self.input + other.input,
            self.output + other.output,
            self.cached + other.cached,
            usd,
            self.seconds + other.seconds,
            self.calls + other.calls,
        )


class Called(NamedTuple):
    """A call of a tool."""

    name: str
    subject: str
    """The path or the command."""
    good: bool
    step: str = OTHER


class File(NamedTuple):
    """A file that is new or changed."""

    content: bytes
    executable: bool = False


@dataclass(frozen=True)
class Outcome:
    """One run of one case."""

    case: str
    repeat: int
    answer: str = ""
    """The model's last words."""
    stopped: Stopped = "end"
    problem: str | None = None
    """Why nothing of it counts, in words."""
    turns: int = 0
    steps: Mapping[str, Cost] = field(default_factory=dict[str, Cost])
    calls: Sequence[Called] = ()
    corrections: int = 0
    files: Mapping[str, File] = field(default_factory=dict[str, File])
    deleted: Sequence[str] = ()

    @property
    def cost(self) -> Cost:
        total = Cost()
        for step in self.steps.values():
            total = total.plus(step)
        return total

    @property
    def errors(self) -> int:
        """Calls that failed."""
        return sum(not call.good for call in self.calls)


# --- as JSON ----------------------------------------------------------------------------------


def name_of(case: str, repeat: int) -> str:
    """Give the file's name: readable, and told apart from all others."""
    slug = re.sub(r"[^A-Za-z0-9-]+", "-", case)[:60].strip("-") or "case"
    return f"{slug}.{hashlib.sha256(case.encode()).hexdigest()[:8]}.{repeat}.json"


def write(folder: Path, outcome: Outcome) -> None:
    """Write an outcome down."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_as_json(outcome), indent=1)
    (folder / name_of(outcome.case, outcome.repeat)).write_text(text, encoding="utf-8")


def read(folder: Path, case: str, repeat: int) -> Outcome | None:
    """Read an outcome; None if there is none.

    Raises:
        OutcomeError: it is not what `write` has written.
    """
    path = folder / name_of(case, repeat)
    if path.is_symlink() or not path.is_file():
        return None
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise ValueError(f"more than {SIZE_LIMIT} bytes")
        return _from_json(json.loads(path.read_text(encoding="utf-8")), case, repeat)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise OutcomeError(f"{path.name}: not an outcome: {error}") from None


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "case": outcome.case,
        "repeat": outcome.repeat,
        "answer": outcome.answer,
        "stopped": outcome.stopped,
        "problem": outcome.problem,
        "turns": outcome.turns,
        "steps": {name: cost._asdict() for name, cost in outcome.steps.items()},
        "calls": [call._asdict() for call in outcome.calls],
        "corrections": outcome.corrections,
        "files": {name: _packed(file) for name, file in outcome.files.items()},
        "deleted": list(outcome.deleted),
    }


def _packed(file: File) -> dict[str, Any]:
    try:
        return {"text": file.content.decode(), "executable": file.executable}
    except UnicodeDecodeError:
        packed = base64.b64encode(file.content).decode()
        return {"base64": packed, "executable": file.executable}


def _from_json(given: Any, case: str, repeat: int) -> Outcome:
    fields = _mapping(given)
    if fields["case"] != case or fields["repeat"] != repeat:
        raise ValueError("it is of another case")
    if fields["stopped"] not in get_args(Stopped):
        raise ValueError("`stopped` is none of the words")
    steps = {str(name): _cost(_mapping(c)) for name, c in _mapping(fields["steps"]).items()}
    calls = [
        Called(_text(c["name"]), _text(c["subject"]), c["good"] is True, _text(c["step"]))
        for c in map(_mapping, cast("list[Any]", fields["calls"]))
    ]
    files = {_path(n): _file(_mapping(f)) for n, f in _mapping(fields["files"]).items()}
    problem = fields["problem"]
    return Outcome(
        case=case,
        repeat=repeat,
        answer=_text(fields["answer"]),
        stopped=fields["stopped"],
        problem=None if problem is None else _text(problem),
        turns=int(_number(fields["turns"])),
        steps=steps,
        calls=calls,
        corrections=int(_number(fields["corrections"])),
        files=files,
        deleted=[_path(name) for name in cast("list[Any]", fields["deleted"])],
    )


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("a mapping is wanted")
    return cast("dict[str, Any]", value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is wanted")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise ValueError("a number from 0 up is wanted")
    return value


def _cost(given: dict[str, Any]) -> Cost:
    return Cost(
        input=int(_number(given["input"])),
        output=int(_number(given["output"])),
        cached=int(_number(given["cached"])),
        usd=None if given["usd"] is None else float(_number(given["usd"])),
        seconds=float(_number(given["seconds"])),
        calls=int(_number(given["calls"])),
    )


def _path(name: Any) -> str:
    path = PurePosixPath(_text(name))
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in str(name):
        raise ValueError(f"{name!r} leads out of the workspace")
    return str(path)


def _file(given: dict[str, Any]) -> File:
    if "text" in given:
        return File(_text(given["text"]).encode(), given.get("executable") is True)
    content = base64.b64decode(_text(given["base64"]), validate=True)
    return File(content, given.get("executable") is True)
