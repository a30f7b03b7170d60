"""One measurement: the commands of the harness, and what `reading` makes of what they left.

Owns the stages, commands, environment, log, and which failure a bad ending is. `guard` and `run`
are the candidate's; `score` and `final` are trusted, and see of it what `artefacts` lets through.
Knows no git and no Ray: it is handed a sandbox and a way to get exports, and it judges nothing.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import BinaryIO, Literal, NamedTuple

from swarm.artefacts import TooManyError, carry
from swarm.bundled import HARNESS
from swarm.reading import Aggregate, Bounds, MetricRule, Reading, plain, read_metrics
from swarm.records import Case, Failure, FailureKind, Sealed
from swarm.sandbox import OUT, Command, Door, Limits, Mount, Outcome, Sandbox, View
from swarm.scope import Scope

TAIL_LINES = 40
TAIL_CHARS = 8_000
RESULT_LIMIT = 8 * 2**20
"""Bytes of the result file; a larger one is refused."""


@dataclass(frozen=True, kw_only=True)
class Harness:
    """The fixed program that measures a target. A string is run by `/bin/sh -c`, a list is argv."""

    run: str | tuple[str, ...]
    guard: tuple[str | tuple[str, ...], ...] = ()
    metric: MetricRule
    timeout_s: float = 600.0
    """For each command on its own."""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    output_limit: int = 16 * 2**20
    also: tuple[str, ...] = ()
    """Metrics that constraints name: their `name: value` lines are read too."""
    patterns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Metrics that constraints find by a regex with one group."""
    aggregate: Aggregate = "last"
    """What is made of several values of a metric in one measurement."""
    bounds: Bounds | None = None
    """Smallest and largest value of the metric that can be true."""
    score: str | tuple[str, ...] | None = None
    """Computes the metric from what `run` has left; then nothing that `run` says counts."""
    artefacts: tuple[str, ...] = ("*",)
    """What of it `score` and `final` get."""
    final: str | tuple[str, ...] | None = None
    """Confirms the result at the end of a run."""

    @property
    def commands(self) -> tuple[str | tuple[str, ...], ...]:
        """All that is run of it."""
        found = (self.run, *self.guard, self.score, self.final)
        return tuple(command for command in found if command is not None)


Stage = Literal["guard", "run", "score"]


class Room(NamedTuple):
    """A fresh directory for one stage, and what may be seen from it."""

    export: Path
    view: View


class Way(NamedTuple):
    """How a measurement reaches models."""

    url: str
    token: str
    door: Door | None = None
    """Where the candidate has no network to reach it by."""


class Result(NamedTuple):
    """One measurement. With a `failure` there are no values."""

    values: dict[str, float]
    feedback: str
    failure: Failure | None
    seconds: float
    """Wall time of `run`."""
    peak_memory_mb: float
    cases: tuple[Case, ...] = ()
    sealed: Sealed | None = None
    """What `final` said, where it was asked for."""


# --- the environment of a measurement ----------------------------------------------------------

_PASSED = re.compile(r"PATH|LANG|LC_[A-Z]+|TZ")


def environment(
    launcher: Mapping[str, str], given: Mapping[str, str], own: Mapping[str, str]
) -> dict[str, str]:
    """Build what a candidate sees: an allow-list of the launcher's, the config's, swarm's own.

    Everything else is dropped: keys, GIT_*, PYTHON* (PYTHONPATH would put foreign code in
    front), RAY_* and the OMP_NUM_THREADS=1 that Ray sets, which would change what is measured.
    HOME and TMPDIR come from the sandbox.
    """
    env = {name: value for name, value in launcher.items() if _PASSED.fullmatch(name)}
    env.setdefault("PATH", os.defpath)
    venv = launcher.get("VIRTUAL_ENV")
    if venv and os.path.join(venv, "bin") in env["PATH"].split(os.pathsep):
        env["VIRTUAL_ENV"] = venv
    return env | dict(given) | dict(own)


# --- the log -----------------------------------------------------------------------------------


def open_log(path: Path) -> BinaryIO:
    """Open a log for reading, unless a candidate has put a link, or a pipe that blocks, there.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(fd, "rb")


def log_tail(path: Path, lines: int = TAIL_LINES) -> str:
    """Give the last lines of a log, without control sequences and overwritten progress lines."""
    try:
        with open_log(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    # A progress bar is one line of the log, and only its last state is worth showing.
    shown = [plain(line.rstrip("\r").rsplit("\r", 1)[-1]) for line in text.split("\n")]
    last = "\n".join("\n".join(shown).rstrip().split("\n")[-lines:])
    return last if len(last) <= TAIL_CHARS else "..." + last[-TAIL_CHARS:]


def _begin_stage(log: Path, stage: str, command: str | tuple[str, ...]) -> int:
    """Write the line that heads a stage; give the offset at which its output begins."""
    with log.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(f"=== swarm: {stage}: {_shown(command)} ===\n".encode("utf-8", "replace"))
        return file.tell()


def command_words(command: str | tuple[str, ...]) -> list[str]:
    """Give the words of a command, as far as a text for the shell has any."""
    if not isinstance(command, str):
        return list(command)
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _shown(command: str | tuple[str, ...]) -> str:
    text = command if isinstance(command, str) else shlex.join(command)
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."


# --- one measurement ---------------------------------------------------------------------------


def evaluate(
    harness: Harness,
    rooms: Callable[[Stage], Room],
    prefix: str,
    *,
    harnesses: Path,
    sandbox: Sandbox,
    seed: int,
    label: str,
    log: Path,
    gpus: str,
    cases: tuple[str, ...] | None = None,
    guarded: bool = False,
    final: bool = False,
    cancel: Event | None = None,
    launcher: Mapping[str, str] | None = None,
    way: Way | None = None,
) -> Result:
    """Measure one commit, once.

    Args:
        harness: what is run.
        rooms: makes the directory of a stage, anew: what one leaves reaches no other by itself.
        prefix: the target's own directory in an export.
        harnesses: the value of SWARM_HARNESS.
        sandbox: where commands are run.
        seed: the value of SWARM_SEED.
        label: the value of SWARM_EXPERIMENT.
        log: all that is printed.
        gpus: the value of CUDA_VISIBLE_DEVICES.
        cases: those of a suite that are to be run, None for all.
        guarded: whether the commit has passed its guards before; then they are not run again.
        final: whether the harness's `final` is asked for, after a good run.
        cancel: ends it.
        launcher: the environment to pass on from.
        way: how models are reached, if they may be.
    """
    own = {
        "SWARM_SEED": str(seed),
        "SWARM_EXPERIMENT": label,
        HARNESS: str(harnesses),
        "CUDA_VISIBLE_DEVICES": gpus,
    }
    env = environment(os.environ if launcher is None else launcher, harness.env, own)
    bench = _Bench(harness, rooms, prefix, sandbox, env, log, cancel, way)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    if harness.guard and not guarded:
        failure = bench.guard()
        if failure is not None:
            return Result({}, "", failure, 0.0, 0.0)
    return bench.measure(cases, final=final and harness.final is not None)


@dataclass(frozen=True)
class _Ending:
    """How one command of the harness ended; output and report are read if it went well."""

    outcome: Outcome
    failure: Failure | None
    output: str = ""
    report: str | None = None


@dataclass(frozen=True)
class _Bench:
    """What all commands of one measurement share."""

    harness: Harness
    rooms: Callable[[Stage], Room]
    prefix: str
    sandbox: Sandbox
    env: Mapping[str, str]
    log: Path
    cancel: Event | None
    way: Way | None

    def guard(self) -> Failure | None:
        """Run the guards up to the first that fails."""
        room = self.rooms("guard")
        for command in self.harness.guard:
            ending = self.run("guard", command, room)
            if ending.failure is not None:
                return _of_guard(ending.failure, command)
        return None

    def measure(self, cases: tuple[str, ...] | None, *, final: bool) -> Result:
        """Run, score, and confirm, as far as it goes well."""
        harness, room = self.harness, self.rooms("run")
        ran = ending = self.run("run", harness.run, room, cases)
        trusted: Room | None = None
        if ending.failure is None and (harness.score is not None or final):
            trusted, ending = self._hand_over(room, ending)
        if trusted is not None and harness.score is not None:
            ending = self.run("score", harness.score, trusted, cases)
        reading, failure = self.read(ending, partial=cases is not None)
        sealed = None
        if failure is None and trusted is not None and final and harness.final is not None:
            sealed = self.confirm(harness.final, trusted)
            if sealed.failure is not None and sealed.failure.kind == "aborted":
                # Our own doing, not that of `final`: the measurement is to be made again.
                reading, failure, sealed = Reading({}, "", None), sealed.failure, None
        taken = ran.outcome
        return Result(
            reading.values,
            reading.feedback,
            failure,
            taken.seconds,
            taken.peak_memory_mb,
            reading.cases,
            sealed,
        )

    def _hand_over(self, room: Room, ending: _Ending) -> tuple[Room | None, _Ending]:
        """Make the room of the trusted stages, with what may come along of what `run` left."""
        # `*` alone is all there is, in whatever folder: elsewhere a star stays within one.
        globs = ("**" if glob == "*" else glob for glob in self.harness.artefacts)
        trusted, wanted = self.rooms("score"), Scope(globs, guarded=False)
        try:
            carry(room.export / self.prefix, trusted.export / self.prefix, wanted)
        except TooManyError as error:
            failure = Failure(kind="invalid", reason=str(error), tail=log_tail(self.log))
            return None, replace(ending, failure=failure)
        return trusted, ending

    def confirm(self, command: str | tuple[str, ...], room: Room) -> Sealed:
        """Run `final`, and keep of it only what no proposer is ever shown.

        Its feedback is dropped; its values and its failure stand apart from those of the search.
        They are of a measurement with the purpose `final`, which no briefing is made from.
        """
        reading, failure = self.read(self.run("final", command, room), partial=False)
        return Sealed(values=reading.values, failure=failure)

    def read(self, ending: _Ending, *, partial: bool) -> tuple[Reading, Failure | None]:
        """Read what a command left, if it ended well."""
        if ending.failure is not None:
            return Reading({}, "", None), ending.failure
        reading = read_metrics(
            self.harness.metric,
            ending.output,
            ending.report,
            self.harness.also,
            patterns=self.harness.patterns,
            aggregate=self.harness.aggregate,
            bounds=self.harness.bounds,
            partial=partial,
        )
        if reading.problem is None:
            return reading, None
        cut = " (output beyond the limit was cut)" if ending.outcome.truncated else ""
        tail = log_tail(self.log)
        return reading, Failure(kind="invalid", reason=reading.problem + cut, tail=tail)

    def run(
        self,
        stage: str,
        command: str | tuple[str, ...],
        room: Room,
        cases: tuple[str, ...] | None = None,
    ) -> _Ending:
        """Run one command; `cases` are named to it in a file."""
        argv = ("/bin/sh", "-c", command) if isinstance(command, str) else command
        # Outside the export and with a name of its own: nobody can have written it beforehand.
        with TemporaryDirectory(
            prefix="result-", dir=self.sandbox.scratch, ignore_cleanup_errors=True
        ) as private:
            view = self._view(room, Path(private), stage)
            result, asked = Path(private, "result.json"), Path(private, "cases.txt")
            env = {**self.env, "SWARM_RESULT": self.sandbox.inside(result, view)}
            if cases is not None:
                asked.write_text("".join(f"{case}\n" for case in cases), encoding="utf-8")
                env["SWARM_CASES"] = self.sandbox.inside(asked, view)
            if self.way is not None and stage != "guard":
                env |= {"SWARM_MODEL_URL": self.way.url, "SWARM_MODEL_TOKEN": self.way.token}
            start = _begin_stage(self.log, stage, command)
            outcome = self.sandbox.run(
                Command(
                    argv=argv,
                    cwd=room.export / self.prefix,
                    env=env,
                    timeout_s=self.harness.timeout_s,
                    log=self.log,
                    output_limit=self.harness.output_limit,
                    append=True,
                    view=view,
                ),
                self.cancel,
            )
            bad = _bad_ending(outcome, self.harness.timeout_s, self.sandbox.limits)
            if bad is not None:
                return _Ending(
                    outcome, Failure(kind=bad[0], reason=bad[1], tail=log_tail(self.log))
                )
            report, problem = _read_result(result)
        # Where a scorer follows, what the candidate reports is nobody's business.
        scored = stage == "run" and self.harness.score is not None
        if problem is not None and stage != "guard" and not scored:
            return _Ending(
                outcome, Failure(kind="invalid", reason=problem, tail=log_tail(self.log))
            )
        try:
            return _Ending(outcome, None, _read_from(self.log, start), report)
        except OSError as error:
            reason = f"the log was tampered with: {error.strerror}"
            return _Ending(outcome, Failure(kind="invalid", reason=reason))

    def _view(self, room: Room, private: Path, stage: str) -> View:
        """Give what a command sees: its room, a place for its result, and the door to models."""
        mounts = (*room.view.mounts, Mount(private, OUT, writable=True))
        door = self.way.door if self.way is not None and stage != "guard" else None
        return replace(room.view, mounts=mounts, door=door)


def _bad_ending(
    outcome: Outcome, timeout_s: float, limits: Limits
) -> tuple[FailureKind, str] | None:
    """Name the failure that an outcome is, or None for exit status 0."""
    if outcome.cancelled:
        return "aborted", "cancelled"
    if outcome.error is not None:
        # A program that is not there is the harness's or the candidate's doing, not the sandbox's.
        return ("crash" if outcome.unstarted else "aborted"), outcome.error
    if outcome.timed_out:
        return "timeout", f"timed out after {timeout_s:g} s"
    if outcome.over == "memory":
        most = (limits.memory or 0) / 2**20
        return "crash", f"took more than {most:,.0f} MiB of memory (sandbox.memory)"
    if outcome.over == "processes":
        return "crash", f"had more than {limits.processes} processes (sandbox.processes)"
    if outcome.status != 0:
        return "crash", _describe(outcome.status)
    return None


_USUAL = {
    "SIGKILL": " (out of memory?)",
    "SIGXFSZ": " (it wrote a file larger than sandbox.file_size)",
}


def _describe(status: int | None) -> str:
    if status is None:
        return "no exit status"
    # A shell reports the signal that ended its child as 128 + number.
    number = -status if status < 0 else status - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"exit status {status}"
    name += _USUAL.get(name, "")
    return f"killed by {name}" if status < 0 else f"exit status {status}: killed by {name}"


def _of_guard(failure: Failure, command: str | tuple[str, ...]) -> Failure:
    reason = f"guard `{_shown(command)}`: {failure.reason}"
    kind: FailureKind = "aborted" if failure.kind == "aborted" else "guard_failed"
    return Failure(kind=kind, reason=reason, tail=failure.tail)


def _read_result(path: Path) -> tuple[str | None, str | None]:
    """Give the text of the result file, if it was written, or the problem with it."""
    try:
        # A candidate can put anything here: a link to elsewhere, a pipe that blocks its reader.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"SWARM_RESULT cannot be read: {error.strerror}"
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None, "SWARM_RESULT is not a regular file"
    with open(fd, "rb") as file:
        data = file.read(RESULT_LIMIT + 1)
    if len(data) > RESULT_LIMIT:
        return None, f"SWARM_RESULT is larger than {RESULT_LIMIT // 2**20} MiB"
    return data.decode("utf-8", "replace"), None


def _read_from(log: Path, start: int) -> str:
    with open_log(log) as file:
        file.seek(start)
        return file.read().decode("utf-8", "replace")
