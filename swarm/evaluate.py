"""One measurement: the commands of the harness, and what `reading` makes of what they left.

Owns commands, environment, log, and which failure a bad ending is. Knows no git and no Ray: it is
handed a ready export and a sandbox, and it judges nothing.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import BinaryIO, NamedTuple

from swarm.reading import Aggregate, Bounds, MetricRule, Reading, plain, read_metrics
from swarm.records import Case, Failure, FailureKind, Sealed
from swarm.sandbox import Command, Outcome, Sandbox

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
    aggregate: Aggregate = "last"
    """What is made of several values of a metric in one measurement."""
    bounds: Bounds | None = None
    """Smallest and largest value of the metric that can be true."""
    final: str | tuple[str, ...] | None = None
    """Confirms the result at the end of a run."""


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


def _shown(command: str | tuple[str, ...]) -> str:
    text = command if isinstance(command, str) else shlex.join(command)
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."


# --- one measurement ---------------------------------------------------------------------------


def evaluate(
    harness: Harness,
    export: Path,
    prefix: str,
    *,
    sandbox: Sandbox,
    seed: int,
    label: str,
    log: Path,
    gpus: str,
    cases: tuple[str, ...] | None = None,
    final: bool = False,
    cancel: Event | None = None,
    guard_export: Callable[[], Path] | None = None,
    launcher: Mapping[str, str] | None = None,
) -> Result:
    """Measure what lies in `export`, once.

    `prefix` is the target's own directory in the export, `label` the value of SWARM_EXPERIMENT,
    `gpus` that of CUDA_VISIBLE_DEVICES. `cases` are those of a suite that are to be run, None for
    all. `final` asks for the harness's `final` after a good run. `guard_export` makes the export
    that the guards run in: what they leave must not reach the run. `launcher` is the environment
    to pass on from.
    """
    if harness.guard and guard_export is None:
        raise ValueError("a harness with a guard needs an export to run it in")
    own = {"SWARM_SEED": str(seed), "SWARM_EXPERIMENT": label, "CUDA_VISIBLE_DEVICES": gpus}
    env = environment(os.environ if launcher is None else launcher, harness.env, own)
    bench = _Bench(harness, sandbox, env, log, cancel)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    # A part of a suite is only run of a commit that has passed the guards with all of it.
    if harness.guard and guard_export is not None and cases is None:
        failure = bench.guard(guard_export() / prefix)
        if failure is not None:
            return Result({}, "", failure, 0.0, 0.0)
    ending = bench.run("run", harness.run, export / prefix, cases)
    reading, failure = bench.read(ending, partial=cases is not None)
    sealed = None
    if failure is None and final and harness.final is not None:
        sealed = bench.confirm(harness.final, export / prefix)
        if sealed.failure is not None and sealed.failure.kind == "aborted":
            # Our own doing, not that of `final`: the measurement is to be made again.
            reading, failure, sealed = Reading({}, "", None), sealed.failure, None
    taken = ending.outcome
    return Result(
        reading.values,
        reading.feedback,
        failure,
        taken.seconds,
        taken.peak_memory_mb,
        reading.cases,
        sealed,
    )


class _Ending(NamedTuple):
    """How one command of the harness ended; output and report are read if it went well."""

    outcome: Outcome
    failure: Failure | None
    output: str = ""
    report: str | None = None


@dataclass(frozen=True)
class _Bench:
    """What all commands of one measurement share."""

    harness: Harness
    sandbox: Sandbox
    env: Mapping[str, str]
    log: Path
    cancel: Event | None

    def guard(self, cwd: Path) -> Failure | None:
        """Run the guards up to the first that fails."""
        for command in self.harness.guard:
            ending = self.run("guard", command, cwd)
            if ending.failure is not None:
                return _of_guard(ending.failure, command)
        return None

    def confirm(self, command: str | tuple[str, ...], cwd: Path) -> Sealed:
        """Run `final`, and keep of it only what no proposer is ever shown.

        Its feedback is dropped; its values and its failure stand apart from those of `run`. They
        are of a measurement with the purpose `final`, which no briefing is made from.
        """
        reading, failure = self.read(self.run("final", command, cwd), partial=False)
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
        cwd: Path,
        cases: tuple[str, ...] | None = None,
    ) -> _Ending:
        """Run one command; `cases` are named to it in a file."""
        argv = ("/bin/sh", "-c", command) if isinstance(command, str) else command
        # Outside the export and with a name of its own: nobody can have written it beforehand.
        with TemporaryDirectory(
            prefix="result-", dir=self.sandbox.scratch, ignore_cleanup_errors=True
        ) as private:
            result, asked = Path(private, "result.json"), Path(private, "cases.txt")
            files = {"SWARM_RESULT": str(result)}
            if cases is not None:
                asked.write_text("".join(f"{case}\n" for case in cases), encoding="utf-8")
                files["SWARM_CASES"] = str(asked)
            start = _begin_stage(self.log, stage, command)
            outcome = self.sandbox.run(
                Command(
                    argv=argv,
                    cwd=cwd,
                    env={**self.env, **files},
                    timeout_s=self.harness.timeout_s,
                    log=self.log,
                    output_limit=self.harness.output_limit,
                    append=True,
                ),
                self.cancel,
            )
            bad = _bad_ending(outcome, self.harness.timeout_s)
            if bad is not None:
                return _Ending(
                    outcome, Failure(kind=bad[0], reason=bad[1], tail=log_tail(self.log))
                )
            report, problem = _read_result(result)
        if problem is not None and stage != "guard":
            return _Ending(
                outcome, Failure(kind="invalid", reason=problem, tail=log_tail(self.log))
            )
        try:
            return _Ending(outcome, None, _read_from(self.log, start), report)
        except OSError as error:
            reason = f"the log was tampered with: {error.strerror}"
            return _Ending(outcome, Failure(kind="invalid", reason=reason))


def _bad_ending(outcome: Outcome, timeout_s: float) -> tuple[FailureKind, str] | None:
    """Name the failure that an outcome is, or None for exit status 0."""
    if outcome.cancelled:
        return "aborted", "cancelled"
    if outcome.error is not None:
        # A program that is not there is the harness's or the candidate's doing, not the sandbox's.
        return ("crash" if outcome.unstarted else "aborted"), outcome.error
    if outcome.timed_out:
        return "timeout", f"timed out after {timeout_s:g} s"
    if outcome.status != 0:
        return "crash", _describe(outcome.status)
    return None


def _describe(status: int | None) -> str:
    if status is None:
        return "no exit status"
    # A shell reports the signal that ended its child as 128 + number.
    number = -status if status < 0 else status - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"exit status {status}"
    name += " (out of memory?)" if number == signal.SIGKILL else ""
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
