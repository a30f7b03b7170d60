"""A Python function measured from outside: another process runs it, and this one has the clock.

Owns the inputs, the clock, the repeats and the checking of outputs. Never imports what is measured:
the candidate cannot reach the clock, the generator of inputs, or what checks its outputs. Between
the two go lines of JSON and nothing that could be code.
"""

import importlib
import json
import math
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from figures import NoAnswerError, UsageError
from yardstick import Beside, Took, fixed_work

Arguments = list[Any]

MOST_CALLS = 1_000_000
GROWTH = 10
"""At most so many times the calls from one step of calibration to the next."""
ERRORS = 2000
"""Characters of what the candidate printed that are shown when it fails."""
SHORT_S = 0.002
"""A repeat below this is timed badly: a message between two processes takes some 50 µs."""
MTRACE = "libc_malloc_debug.so.0"


@dataclass(frozen=True)
class Job:
    """What is measured, and how thoroughly."""

    name: str
    """`module:function`, imported from the working directory."""
    inputs: Callable[[random.Random], object] | None
    arguments: Arguments
    """Of every call, where there are no `inputs`."""
    prepare: str | None
    check: Callable[[Arguments, Any], bool] | None
    """Says whether an output is right."""
    seed: int
    calls: int | None
    """In one repeat; None: as many as take `least_s`."""
    least_s: float
    repeats: int
    warmup: int
    gc: bool
    memory_calls: int
    profile: int
    timeout_s: float


class Repeat(NamedTuple):
    """Calls that were timed together."""

    number: int
    calls: int
    took: Beside
    """All of them."""
    outputs: list[Any]
    """Empty where nobody asks for them."""

    @classmethod
    def read(cls, kept: Any) -> "Repeat":
        """Read one from JSON, where all of this is a list."""
        number, calls, took, outputs = kept
        return cls(number, calls, Beside(*(Took(*each) for each in took)), outputs)


class Memory(NamedTuple):
    """What one call needs, by the mean of some; None where it cannot be counted."""

    allocations: float | None
    allocated_kb: float | None
    peak_kb: float


class Row(NamedTuple):
    """A function of the candidate, as a profiler sees it."""

    place: str
    function: str
    calls: int
    share: float
    """Of the time, without what it calls."""


class Measured(NamedTuple):
    """All that was found."""

    repeats: list[Repeat]
    memory: Memory | None
    profile: list[Row]


def measure(job: Job, outputs: bool) -> Measured:
    """Measure a function.

    Raises:
        NoAnswerError: it fails, or gives a wrong output.
        UsageError: the inputs cannot be used.
    """
    with process(job, {}) as subject:
        calls = job.calls or calibrated(job, subject)
        for number in range(job.warmup):
            subject.take(inputs(job, f"warm-up {number}", calls))
            subject.go()
            fixed_work()
        repeats = [repeat(job, subject, n, calls, outputs) for n in range(job.repeats)]
        rows: list[Row] = []
        if job.profile:
            subject.take(inputs(job, "profile", calls))
            rows = [Row(*row) for row in subject.ask("profile", job.profile)]
    found = Measured(repeats, memory(job) if job.memory_calls else None, rows)
    stay_apart(job.name, "a function of the harness")  # it may have been imported late
    return found


def inputs(job: Job, purpose: str, calls: int) -> list[Arguments]:
    """Make the arguments of some calls: always the same from one seed, no two the same."""
    if job.inputs is None:
        return [job.arguments] * calls
    chance = random.Random(f"{job.seed} {purpose}")
    return [made(job.inputs, chance) for _ in range(calls)]


def made(function: Callable[[random.Random], object], chance: random.Random) -> Arguments:
    try:
        given = function(chance)
    except Exception as error:
        raise UsageError(f"--inputs: fails: {type(error).__name__}: {error}") from error
    if not isinstance(given, list | tuple):
        what = f"a list of arguments is wanted, not {given!r:.60}"
        raise UsageError(f"--inputs: {what}")
    return list(cast("Sequence[Any]", given))


def calibrated(job: Job, subject: "Process") -> int:
    """Find how many calls take long enough to be timed; this also warms up."""
    calls = 1
    while calls < MOST_CALLS:
        subject.take(inputs(job, "calibration", calls))
        seconds = subject.go().seconds
        if seconds >= job.least_s:
            break
        wanted = math.ceil(1.1 * calls * job.least_s / max(seconds, 1e-9))
        calls = min(MOST_CALLS, GROWTH * calls, max(calls + 1, wanted))
    return calls


def repeat(job: Job, subject: "Process", number: int, calls: int, wanted: bool) -> Repeat:
    """Time some calls, and check what came out of them."""
    given = inputs(job, f"repeat {number}", calls)
    subject.take(given)
    took = Beside(fixed_work(), subject.go(), fixed_work())
    outputs = subject.outputs() if job.check or wanted else []
    check(job, given, outputs, f"repeat {number + 1}")
    return Repeat(number, calls, took, outputs if wanted else [])


def check(job: Job, given: Sequence[Arguments], outputs: Sequence[Any], where: str) -> None:
    """Have each output checked.

    Raises:
        NoAnswerError: one is wrong.
    """
    if job.check is None:
        return
    if len(outputs) != len(given):
        raise NoAnswerError(f"`{job.name}`: {len(outputs)} outputs of {len(given)} calls")
    for number, (arguments, output) in enumerate(zip(given, outputs, strict=True), 1):
        try:
            right = job.check(arguments, output)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            said = f"is wrong, says --check ({why})"
        else:
            said = "is wrong, says --check"
            if right:
                continue
        raise NoAnswerError(
            f"`{job.name}`: the output of call {number} of {where} {said}\n"
            f"  arguments: {short(arguments)}\n  output: {short(output)}"
        )


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-90:]}"


# --- memory -----------------------------------------------------------------------------------


def memory(job: Job) -> Memory:
    """Count what single calls allocate: in a process of its own, as counting is slow."""
    given = inputs(job, "memory", job.memory_calls)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "mtrace")
        env = {"LD_PRELOAD": MTRACE, "MALLOC_TRACE": str(log), "PYTHONMALLOC": "malloc"}
        with process(job, env if sys.platform == "linux" else {}) as subject:
            # The first calls fill what is filled once: imports, compiled expressions.
            subject.take(inputs(job, "warm-up for memory", 2))
            subject.go()
            subject.take(given)
            counts = [counted(log) for n in range(len(given)) if subject.ask("count", n)]
            if counts:
                outputs = subject.outputs() if job.check else []
                check(job, given, outputs, "the memory pass")
            subject.take(given)
            peaks = [int(subject.ask("peak", n)) for n in range(len(given))]
    peak_kb = max(peaks) / 1024
    if not counts:
        return Memory(None, None, peak_kb)
    blocks, sizes = zip(*counts, strict=True)
    return Memory(sum(blocks) / len(blocks), sum(sizes) / len(sizes) / 1024, peak_kb)


def counted(log: Path) -> tuple[int, int]:
    """Read from a log of mtrace how many blocks were asked for, new or resized, and their bytes."""
    blocks = size = 0
    # `@ caller + address size`; a block that is resized has a line `<` and then one `>`.
    try:
        with log.open("rb") as lines:  # some 60 bytes for each allocation: not all at once
            for line in lines:
                words = line.split()
                if len(words) >= 4 and words[-3] in (b"+", b">"):
                    blocks += 1
                    size += int(words[-1], 16)
    except (OSError, ValueError) as error:
        raise NoAnswerError(f"the log of allocations cannot be read: {error}") from None
    return blocks, size


# --- the other process ------------------------------------------------------------------------


class Process:
    """The process that runs the candidate."""

    def __init__(self, job: Job, commands: int, replies: int, printed: Path, pid: int) -> None:
        self.job = job
        self.commands = commands
        self.replies = replies
        self.printed = printed
        self.pid = pid
        self.rest = b""

    def take(self, arguments: list[Arguments]) -> None:
        """Give the arguments of the next calls."""
        try:
            self.ask("take", arguments)
        except (TypeError, ValueError) as error:
            what = f"an argument is no JSON value: {error}"
            raise UsageError(f"--inputs: {what}; make it from one with --prepare") from None

    def go(self) -> Took:
        """Have all calls made, and give how long it took by the clocks of this process."""
        busy = self._busy()
        started = time.perf_counter()
        self._send(b'"go"\n')
        line = self._line()
        seconds = time.perf_counter() - started
        busy_after = self._busy()
        self._value(line)
        return Took(seconds, None if busy is None or busy_after is None else busy_after - busy)

    def _busy(self) -> float | None:
        """Ask the kernel for the processor time of the other process."""
        if sys.platform != "linux":
            return None
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return None

    def outputs(self) -> list[Any]:
        """Give what came out of the calls."""
        return self.ask("give")

    def ask(self, name: str, *arguments: Any) -> Any:
        """Have something done, and give what came back."""
        self._send(json.dumps([name, *arguments]).encode() + b"\n")
        return self._value(self._line())

    def _send(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self.commands, data) :]
        except BrokenPipeError:
            raise NoAnswerError(self._said("ended before it was done")) from None

    def _line(self) -> bytes:
        parts = [self.rest]
        while b"\n" not in parts[-1]:
            if not select.select([self.replies], [], [], self.job.timeout_s)[0]:
                raise NoAnswerError(self._said(f"took longer than {self.job.timeout_s:g} s"))
            part = os.read(self.replies, 2**20)
            if not part:
                raise NoAnswerError(self._said("ended before it was done"))
            parts.append(part)
        line, _, self.rest = b"".join(parts).partition(b"\n")
        return line

    def _value(self, line: bytes) -> Any:
        try:
            answer = json.loads(line)
            error = answer.get("error")
        except (ValueError, AttributeError):
            raise NoAnswerError(self._said(f"answered {line[:60]!r}")) from None
        if error is not None:
            raise NoAnswerError(self._said(str(error)))
        return answer.get("value")

    def _said(self, what: str) -> str:
        printed = self.printed.read_text("utf-8", "replace")[-ERRORS:].strip()
        return f"`{self.job.name}`: {what}" + (f"\nIt printed: {printed}" if printed else "")


@contextmanager
def process(job: Job, env: dict[str, str]) -> Generator[Process, None, None]:
    """Start a process with the candidate loaded, and end it with all that it started."""
    mine_in, theirs_out = os.pipe()
    theirs_in, mine_out = os.pipe()
    withheld = {"SWARM_RESULT", "SWARM_CASES", "SWARM_SEED"}
    clean = {name: value for name, value in os.environ.items() if name not in withheld}
    # Texts hash the same in every process: what follows from their order is no noise.
    whole = {**clean, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", **env}
    program = Path(__file__).resolve().parent / "subject.py"
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder, "printed")
        # What the candidate prints must not be read as a metric: nobody sees it unless it fails.
        with printed.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-P", str(program), str(theirs_in), str(theirs_out)],
                pass_fds=(theirs_in, theirs_out),
                env=whole,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            subject = Process(job, mine_out, mine_in, printed, child.pid)
            subject.ask("load", job.name, job.prepare, job.gc)
            yield subject
        finally:
            os.close(mine_out)
            os.close(mine_in)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


# --- what belongs to the harness --------------------------------------------------------------


def own(name: str, option: str, measured: str) -> Callable[..., Any]:
    """Import a function of the harness's own into this process, where the clock is.

    Raises:
        UsageError: it cannot be imported, or brings what is measured along.
    """
    module, _, function = name.partition(":")
    if not module or not function.isidentifier():
        raise UsageError(f"{option}: `module:function` is wanted, not {name!r}")
    settle(os.getcwd())
    try:
        value = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UsageError(f"{option}: `{name}` cannot be imported: {error}") from None
    stay_apart(measured, f"{option}: `{name}`")
    if not callable(value):
        raise UsageError(f"{option}: `{name}` is no function")
    return value


def stay_apart(measured: str, who: str) -> None:
    """Refuse to go on with what is measured in this process."""
    module = measured.partition(":")[0]
    if module in sys.modules:
        what = f"imports `{module}`, which is what is measured, into the process that has the clock"
        raise UsageError(f"{who} {what}")


def settle(here: str) -> None:
    """Look for modules in the working directory, but last: no file there may pass for Python's."""
    program = str(Path(__file__).resolve().parent)
    rest = [entry for entry in sys.path if entry not in ("", program, here)]
    system = [e for e in rest if e.startswith((sys.base_prefix, sys.prefix))]
    sys.path[:] = [*system, *(e for e in rest if e not in system), here]


def recheck(job: Job, repeats: Sequence[Repeat]) -> None:
    """Check outputs that were kept in a file."""
    for each in repeats:
        given = inputs(job, f"repeat {each.number}", each.calls)
        check(job, given, each.outputs, f"repeat {each.number + 1}")
