"""One measurement: guard, run, and the number in what they left.

Owns the harness contract: commands, environment, where a metric may stand in the output, and
which failure a bad ending is. The parsing is pure and at the top. Knows no git and no Ray: it is
handed a ready export and a sandbox, and it judges nothing.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shlex
import signal
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, BinaryIO, NamedTuple, cast

from swarm.records import Failure, FailureKind, Goal
from swarm.sandbox import Command, Outcome, Sandbox

TAIL_LINES = 40
TAIL_CHARS = 8_000
FEEDBACK_CHARS = 20_000
RESULT_LIMIT = 8 * 2**20
"""Bytes of the result file; a larger one is refused."""
MOST_METRICS = 100
"""Each measurement goes to the ledger as one line: metrics beyond this many are left out."""


@dataclass(frozen=True)
class MetricRule:
    """The primary metric and where its value stands when `SWARM_RESULT` does not have it."""

    name: str
    goal: Goal
    pattern: str | None = None
    """A regex with one group, multiline; its last match wins."""
    json_path: str | None = None
    """Keys and indices joined by dots (`results.0.p95`), into the last JSON line that has it."""

    def __post_init__(self) -> None:
        if self.name == "cases":
            raise ValueError("the metric `cases` is not supported yet")
        if self.pattern is not None and re.compile(self.pattern).groups != 1:
            raise ValueError(f"metric.pattern {self.pattern!r} must have exactly one group")


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


class Reading(NamedTuple):
    """What a run says of itself. `problem` is why there is no primary value, or None."""

    values: dict[str, float]
    feedback: str
    problem: str | None


class Result(NamedTuple):
    """One measurement. With a `failure` there are no values."""

    values: dict[str, float]
    feedback: str
    failure: Failure | None
    seconds: float
    """Wall time of `run`."""
    peak_memory_mb: float


# --- reading the metric ------------------------------------------------------------------------

# The text is the candidate's and may be huge: no expression here takes more than linear time.
_NUMBER = r"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan)"
_IS_NUMBER = re.compile(_NUMBER, re.IGNORECASE)
_METRIC_LINE = re.compile(r"^METRIC[ \t]+([^\s=]+)=(\S+)[ \t]*$", re.MULTILINE)
_SUMMARY_LINE = re.compile(
    rf"^([^\W\d][\w.µ-]*):[ \t]*({_NUMBER})[ \t]*$", re.MULTILINE | re.IGNORECASE
)
_RULER = re.compile(r"^---[ \t]*$", re.MULTILINE)
# Colours and cursor movements (CSI), titles and links (OSC), other escapes, control characters.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def read_metrics(
    rule: MetricRule, output: str, result_json: str | None, also: Collection[str] = ()
) -> Reading:
    """Find the metrics in the output of a run and in the result file it wrote, if it did.

    The primary metric is taken from the first of these that has it: the result file; the pattern
    or JSON path of the rule; lines of the output. The last match wins, and when that one is no
    finite number there is no value. Other metrics are kept where they are finite.
    """
    text = plain(output)
    report = _Report({}, "", None)
    if result_json is not None:
        report = _read_report(result_json)
        if report.problem is not None:
            return Reading({}, report.feedback, report.problem)
    values = dict(_secondary(text, also))
    values |= {k: v for k, v in report.metrics.items() if isinstance(v, float) and math.isfinite(v)}
    if len(values) > MOST_METRICS:
        named = {k: v for k, v in values.items() if k in also}
        values = dict(islice((named | values).items(), MOST_METRICS))
    place, token = _primary(rule, text, report.metrics)
    if place is None:
        return Reading({}, report.feedback, _absent(rule, result_json is not None))
    number = _number(token)
    if number is None or not math.isfinite(number):
        what = "a finite number" if number is not None else "a number"
        return Reading({}, report.feedback, f"`{rule.name}` from {place} is not {what}: {token!r}")
    values[rule.name] = number
    return Reading(values, report.feedback, None)


def plain(text: str) -> str:
    r"""Drop control sequences; `\r`, which a progress bar ends its lines with, ends a line."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def _primary(
    rule: MetricRule, text: str, metrics: Mapping[str, float | str]
) -> tuple[str | None, float | str]:
    """Give the place where the primary metric was found, or None, and what stands there."""
    if rule.name in metrics:
        return "SWARM_RESULT", metrics[rule.name]
    if rule.pattern is not None:
        token = _last(re.finditer(rule.pattern, text, re.MULTILINE))
        if token is not None:
            return f"metric.pattern {rule.pattern!r}", token
    if rule.json_path is not None:
        found = _from_json_lines(rule.json_path, text)
        if found is not None:
            return f"metric.json `{rule.json_path}`", found
    name = re.escape(rule.name)
    lines = (
        rf"^(?:METRIC[ \t]+{name}=(?P<metric>\S+)|SCORE:[ \t]*(?P<score>\S+)"
        rf"|{name}:[ \t]*(?P<line>(?i:{_NUMBER})))[ \t]*$"
    )
    last = None
    for match in re.finditer(lines, text, re.MULTILINE):
        last = match
    if last is None:
        return None, ""
    return f"the line {_short(last.group())!r}", last.group(cast("str", last.lastgroup))


def _last(matches: Iterator[re.Match[str]]) -> str | None:
    token = None
    for match in matches:
        # A group that took no part in the match says as little as no match.
        token = match.group(1) if match.group(1) is not None else token
    return token


def _secondary(text: str, also: Collection[str]) -> Iterator[tuple[str, float]]:
    """Give the finite metrics of the lines, the weakest form first."""
    ruler = -1
    for match in _RULER.finditer(text):
        ruler = match.end()
    for match in _SUMMARY_LINE.finditer(text):
        name, token = match.groups()
        if (0 <= ruler < match.start() or name in also) and math.isfinite(number := float(token)):
            yield name, number
    for match in _METRIC_LINE.finditer(text):
        number = _number(match.group(2))
        if number is not None and math.isfinite(number):
            yield match.group(1), number


def _from_json_lines(path: str, text: str) -> float | str | None:
    for line in reversed(text.split("\n")):
        if line.lstrip()[:1] not in ("{", "["):
            continue
        try:
            found = _descend(json.loads(line), path)
        except (ValueError, RecursionError):
            continue
        if found is not None:
            return found
    return None


def _descend(value: Any, path: str) -> float | str | None:
    for part in path.split("."):
        if isinstance(value, dict):
            value = cast("dict[str, Any]", value).get(part)
        elif isinstance(value, list) and part.isascii() and part.isdigit():
            items = cast("list[Any]", value)
            value = items[int(part)] if int(part) < len(items) else None
        else:
            return None
    return None if value is None else _scalar(value)


def _scalar(value: Any) -> float | str:
    """Give a JSON number as a float and anything else as the text to show."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):
            return float(value)
        return math.inf
    return json.dumps(value)[:80]


def _number(token: float | str) -> float | None:
    if not isinstance(token, str):
        return token
    return float(token) if _IS_NUMBER.fullmatch(token.strip()) else None


def _absent(rule: MetricRule, reported: bool) -> str:
    where = [f"`{rule.name}` in SWARM_RESULT" + ("" if reported else " (not written)")]
    if rule.pattern is not None:
        where.append(f"metric.pattern {rule.pattern!r}")
    if rule.json_path is not None:
        where.append(f"metric.json `{rule.json_path}` in a JSON line")
    where.append(f"a line `METRIC {rule.name}=...`, `SCORE: ...` or `{rule.name}: ...`")
    return f"no metric: looked for {'; '.join(where)}"


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


class _Report(NamedTuple):
    metrics: dict[str, float | str]
    feedback: str
    problem: str | None


def _read_report(text: str) -> _Report:
    """Read the result file. A malformed one is a problem, not something to guess around."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _Report({}, "", f"SWARM_RESULT is not JSON: {error}")
    if not isinstance(data, dict):
        return _Report({}, "", "SWARM_RESULT is not a JSON object")
    fields = cast("dict[str, Any]", data)
    metrics, cases = fields.get("metrics", {}), fields.get("cases", [])
    feedback = fields.get("feedback") or ""
    if not isinstance(feedback, str):
        return _Report({}, "", "`feedback` in SWARM_RESULT is not a string")
    feedback = plain(feedback)[:FEEDBACK_CHARS]
    if not isinstance(metrics, dict):
        return _Report({}, feedback, "`metrics` in SWARM_RESULT is not an object")
    if (problem := _check_cases(cases)) is not None:
        return _Report({}, feedback, problem)
    named = cast("dict[str, Any]", metrics)
    return _Report({name: _scalar(value) for name, value in named.items()}, feedback, None)


def _check_cases(cases: Any) -> str | None:
    if not isinstance(cases, list):
        return "`cases` in SWARM_RESULT is not a list"
    seen: set[str] = set()
    for case in cast("list[Any]", cases):
        name = cast("dict[str, Any]", case).get("id") if isinstance(case, dict) else None
        if not isinstance(name, str):
            return "a case in SWARM_RESULT has no `id` that is a string"
        if name in seen:
            return f"the case id {_short(name)!r} is twice in SWARM_RESULT"
        seen.add(name)
    return None


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
    return _short(" ".join(text.split()))


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
    cancel: Event | None = None,
    guard_export: Callable[[], Path] | None = None,
    launcher: Mapping[str, str] | None = None,
) -> Result:
    """Measure what lies in `export`, once.

    `prefix` is the target's own directory in the export, `label` the value of SWARM_EXPERIMENT,
    `gpus` that of CUDA_VISIBLE_DEVICES. `guard_export` makes the export that the guards run in:
    what they leave must not reach the run. `launcher` is the environment to pass on from.
    """
    if harness.guard and guard_export is None:
        raise ValueError("a harness with a guard needs an export to run it in")
    own = {"SWARM_SEED": str(seed), "SWARM_EXPERIMENT": label, "CUDA_VISIBLE_DEVICES": gpus}
    env = environment(os.environ if launcher is None else launcher, harness.env, own)
    bench = _Bench(harness, sandbox, env, log, cancel)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    if harness.guard and guard_export is not None:
        cwd = guard_export() / prefix
        for command in harness.guard:
            ending = bench.run("guard", command, cwd)
            if ending.failure is not None:
                failure = _of_guard(ending.failure, command)
                return Result({}, "", failure, 0.0, 0.0)
    ending = bench.run("run", harness.run, export / prefix)
    reading = Reading({}, "", None)
    failure = ending.failure
    if failure is None:
        reading = read_metrics(harness.metric, ending.output, ending.report, harness.also)
        if reading.problem is not None:
            cut = " (output beyond the limit was cut)" if ending.outcome.truncated else ""
            failure = Failure(kind="invalid", reason=reading.problem + cut, tail=log_tail(log))
    taken = ending.outcome
    return Result(reading.values, reading.feedback, failure, taken.seconds, taken.peak_memory_mb)


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

    def run(self, stage: str, command: str | tuple[str, ...], cwd: Path) -> _Ending:
        argv = ("/bin/sh", "-c", command) if isinstance(command, str) else command
        # Outside the export and with a name of its own: nobody can have written it beforehand.
        with TemporaryDirectory(
            prefix="result-", dir=self.sandbox.scratch, ignore_cleanup_errors=True
        ) as private:
            result = Path(private, "result.json")
            start = _begin_stage(self.log, stage, command)
            outcome = self.sandbox.run(
                Command(
                    argv=argv,
                    cwd=cwd,
                    env={**self.env, "SWARM_RESULT": str(result)},
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
        if problem is not None and stage == "run":
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
