"""A candidate that is a program: its walls, its questions, its time, and its end.

Owns the process and what passes between the two: lines of JSON, one question and one answer at a
time. A question has a word that no one can guess, and the answer must repeat it: what is said
before it is asked is a breach. How it ended, at which event, and what it printed besides is only in
the `detail` of an error, as it has seen outcomes.
"""

import ctypes
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, cast

import walls
from ending import UsageError
from files import Field
from walk import BreachError, Forecast, NoAnswerError, Question, forecast

LINE = 2**20
"""Bytes of the longest answer."""
SHOWN = 2000
"""Characters of what a program printed."""
KEPT = ("SWARM_SEED", "SWARM_MEASUREMENT")
"""Of swarm's variables; by the second it finds what a measurement has left behind."""
DROPPED = ("PWD", "OLDPWD")
"""Where the harness itself works is none of the candidate's business."""
PR_SET_CHILD_SUBREAPER = 36
PLAYER = Path(__file__).resolve().parent / "player.py"
REFUSED = ("permission denied", "eacces")
SETTLE_S = 2.0
"""For a program to end when there are no more questions."""
ROUNDS = 200


@dataclass(frozen=True)
class Start:
    """How a program is started."""

    argv: tuple[str, ...]
    files: tuple[Path, ...]
    """What it may read of the working directory, and finds in its own."""
    timeout_s: float
    """For each answer, the first included."""
    read: tuple[Path, ...] = ()
    """What else of this machine it may read."""
    hidden: tuple[Path, ...] = ()
    """Files that it must not get at."""
    walled: bool = True


def function(name: str, hidden: Sequence[Path]) -> tuple[str, ...]:
    """Give the words that play a Python function, named `module:function`."""
    return (sys.executable, "-P", str(PLAYER), name, *(path.name for path in hidden))


def check(start: Start) -> None:
    """See whether a program can be started as it should be.

    Raises:
        UsageError: it cannot, or it would have the hidden files.
    """
    here = Path.cwd().resolve()
    if not start.files:
        raise UsageError("--files: name the files of the candidate; it gets no others")
    for option, paths in (("--files", start.files), ("--read", start.read)):
        if lost := next((path for path in paths if not path.exists()), None):
            raise UsageError(f"{option}: there is no {lost}")
    for path in start.files:
        if not path.resolve().is_relative_to(here) or path.resolve() == here:
            raise UsageError(f"--files: {path} must lie below the working directory")
    if start.walled and (why := walls.missing()):
        raise UsageError(
            f"nothing keeps a candidate from looking ahead: {why}; run it on Linux 6.2 "
            "or newer, or say --open to go on without walls, when nothing is proven"
        )
    open_to_it = [p.resolve() for p in (*start.files, *start.read, *map(Path, _granted()))]
    for hidden in start.hidden:
        if any(hidden.resolve().is_relative_to(path) for path in open_to_it):
            raise UsageError(f"{hidden} lies where the candidate may read; move it elsewhere")


def _granted() -> list[str]:
    """Give what a candidate may read beside its own files."""
    return [*walls.SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, str(PLAYER)]


def walk(start: Start, field: Field, questions: Sequence[Question]) -> list[Forecast]:
    """Ask a fresh process of the program one question after the other.

    Raises:
        BreachError: it broke a rule.
        NoAnswerError: it ended, or took too long.
    """
    with _process(start) as process:
        said = [forecast(process.ask(question, field), field, question.number)
                for question in questions]  # fmt: skip
        process.close()
    return said


class _Process:
    """The program at work."""

    def __init__(self, start: Start, popen: "subprocess.Popen[bytes]", errors: IO[bytes]) -> None:
        self.start, self.popen, self.errors = start, popen, errors
        self.questions = cast("IO[bytes]", popen.stdin)
        self.answers = cast("IO[bytes]", popen.stdout)
        os.set_blocking(self.questions.fileno(), False)
        self.rest = b""
        self.now = 0
        """The number of the question it is at."""

    def ask(self, question: Question, field: Field) -> Mapping[str, Any]:
        """Put one question and wait for its answer."""
        self.now = question.number
        if self.rest or select.select([self.answers], [], [], 0)[0]:
            self._early()
        turn, event = secrets.token_hex(8), question.event
        asked = {
            "turn": turn,
            "event": {"id": event.id, "at": event.said_at, "given": event.given},
            "labels": field.labels,
            "known": [{"id": each.id, "outcome": each.outcome} for each in question.known],
        }
        line = self._exchange(json.dumps(asked).encode() + b"\n")
        try:
            answer: object = json.loads(line)
        except (ValueError, RecursionError):
            self._breach("an answer is no line of JSON")
        if not isinstance(answer, dict):
            self._breach("an answer is no JSON object")
        fields = cast("dict[str, Any]", answer)
        if fields.get("turn") != turn:
            self._breach(
                "an answer does not repeat its `turn`: it was made for another question, or before "
                "there was one"
            )
        for path in self.start.hidden:
            if fields.get("looked") == [path.name]:
                self._breach(f"it tried to open {path.name}, which no candidate may read")
        return fields

    def _early(self) -> NoReturn:
        """Say what it means that there is something to be read before a question is put."""
        if not self.rest:
            self.rest = os.read(self.answers.fileno(), LINE)
            if not self.rest:
                self._ended()
        self._breach("it said something before it was asked")

    def _exchange(self, data: bytes) -> bytes:
        """Send a line and read one, in the time that there is."""
        deadline = time.monotonic() + self.start.timeout_s
        while b"\n" not in self.rest:
            left = deadline - time.monotonic()
            writes = [self.questions] if data else []
            can_read, can_write, _ = select.select([self.answers], writes, [], max(0.0, left))
            if can_write:
                try:
                    data = data[os.write(self.questions.fileno(), data) :]
                except BrokenPipeError:
                    self._ended()
            if can_read:
                part = os.read(self.answers.fileno(), LINE)
                if not part:
                    self._ended()
                self.rest += part
            if len(self.rest) > LINE:
                self._breach("an answer has no end")
            if left <= 0 and b"\n" not in self.rest:
                took = f"it took longer than {self.start.timeout_s:g} s for an answer"
                raise NoAnswerError(f"{took} (does it flush them?)", self._detail())
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def close(self) -> None:
        """Say that there are no more questions; nothing more may come."""
        self.now += 1
        self.questions.close()
        if self.rest or (
            select.select([self.answers], [], [], SETTLE_S)[0] and os.read(self.answers.fileno(), 1)
        ):
            self._breach("it went on after the last answer")

    def _ended(self) -> NoReturn:
        """Say how the program ended before its time."""
        try:
            status = self.popen.wait(self.start.timeout_s)
            how = f", with status {status}" if status >= 0 else f", by {_signal(-status)}"
        except subprocess.TimeoutExpired:
            how = ", and runs on without an output"
        refused = [li for li in self._said().splitlines() if any(w in li.lower() for w in REFUSED)]
        for path in self.start.hidden:
            if any(path.name in line for line in refused):
                self._breach(f"it ended over {path.name}, which no candidate may read")
        raise NoAnswerError("it ended before its last answer", self._detail(how))

    def _breach(self, what: str) -> NoReturn:
        raise BreachError(what, f"event {self.now}")

    def _detail(self, how: str = "") -> str:
        printed = self._said()[-SHOWN:].strip()
        return f"event {self.now}{how}" + (f"\nIt printed: {printed}" if printed else "")

    def _said(self) -> str:
        self.errors.seek(0, os.SEEK_END)
        self.errors.seek(max(0, self.errors.tell() - 64 * 1024))
        return self.errors.read().decode("utf-8", "replace")


def _signal(number: int) -> str:
    """Name a signal; those of real time have no names."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def _process(start: Start) -> Generator[_Process, None, None]:
    """Start the program in a place of its own, and end all that came of it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        top = Path(folder).resolve()
        work, home = top / "work", top / "home"
        home.mkdir()
        for path in start.files:
            copy(path, work / path.resolve().relative_to(Path.cwd().resolve()))
        spec = {
            "argv": start.argv,
            "walled": start.walled,
            "read": [str(work), *_granted(), *(str(path.resolve()) for path in start.read)],
            "write": [str(home)],
        }
        before = (sys.executable, "-S", "-E", "-I", walls.__file__, json.dumps(spec))
        with (top / "errors").open("wb+") as errors:
            popen = None
            try:
                popen = subprocess.Popen(
                    before,
                    cwd=work,
                    env=_environment(str(home)),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                    bufsize=0,
                )
                yield _Process(start, popen, errors)
            finally:  # also when a signal comes before it is known what has been started
                _end(popen)


def copy(path: Path, to: Path) -> None:
    """Copy a file or a folder; links stay links, and lead nowhere that may not be read."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        skip = shutil.ignore_patterns("__pycache__", ".git")
        shutil.copytree(path, to, symlinks=True, ignore=skip, dirs_exist_ok=True)
    else:
        shutil.copy2(path, to, follow_symlinks=False)


def _environment(home: str) -> dict[str, str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if (not name.startswith("SWARM_") or name in KEPT) and name not in DROPPED
    }
    # Texts hash the same in every process: what follows from their order is no chance.
    fixed = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    return {"SWARM_SEED": "0", **env, **fixed, "HOME": home, "TMPDIR": home}


def _end(popen: "subprocess.Popen[bytes] | None") -> None:
    """End the program and all that it started: nobody carries notes into another walk."""
    if popen is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(popen.pid, signal.SIGKILL)
        popen.wait()
        for stream in filter(None, (popen.stdin, popen.stdout)):
            stream.close()
    for _ in range(ROUNDS):
        orphans = list(_children())
        if not orphans:
            return
        for pid in orphans:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)
    raise NoAnswerError("it leaves processes behind that do not end", "after its last answer")


def _children() -> Iterator[int]:
    """Give the processes that are this one's: what the program left comes to it."""
    with suppress(OSError):
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
        yield from map(int, text.split())
