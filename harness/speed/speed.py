"""How fast something is, and how much it allocates: a Python function, any command, an export.

    python speed.py call module:function --inputs module:function --check module:function
    python speed.py command --expect expected.txt -- ./program --flag
    python speed.py hyperfine times.json            or: --run COMMAND
    python speed.py pytest-benchmark times.json

Writes its figures to the file named by SWARM_RESULT and prints them as METRIC lines. Least and
median of some repeats, after a warm-up; the spread (`seconds_mad`) tells how far to trust them.

It owns the command line, the names of the metrics, and the exit status: 0 measured, 1 the
candidate failed or its output is wrong, 2 the command line, the inputs or a file cannot be used.
The clock and the checks are in this process, and what is measured runs in another one.

    SWARM_SEED      what inputs are made from
    SWARM_RESULT    receives the metrics and the feedback, as JSON
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

sys.dont_write_bytecode = True  # the checkout may be read-only, and must stay clean when it is not

import callables  # noqa: E402
import commands  # noqa: E402
import exports  # noqa: E402
import figures  # noqa: E402
import yardstick  # noqa: E402
from figures import NoAnswerError, UsageError  # noqa: E402

Given = argparse.Namespace


# --- a Python function ------------------------------------------------------------------------


def call(given: Given) -> None:
    """Measure a function."""
    job = job_of(given)
    found = callables.measure(job, outputs=given.save is not None)
    numbers = yardstick.of([each.took for each in found.repeats], found.repeats[0].calls)
    if found.memory is not None:
        needs = found.memory._asdict()
        numbers.update({name: value for name, value in needs.items() if value is not None})
    if given.save is not None:
        kept = {"repeats": found.repeats, "metrics": numbers}
        try:
            given.save.write_text(json.dumps(kept), encoding="utf-8")
        except OSError as error:
            what = f"{given.save} cannot be written: {error.strerror}"
            raise UsageError(f"--save: {what}") from None
    count = found.repeats[0].calls
    notes = [f"{len(found.repeats)} repeats of {count} call{'s' * (count != 1)}"]
    report(numbers, [*notes, *warnings(job, found), *profile(found)])


def job_of(given: Given) -> callables.Job:
    """Make of the command line what is measured."""
    name: str = given.function
    module, _, function = name.partition(":")
    if not module or not function:
        raise UsageError(f"`module:function` is wanted, not {name!r}")
    if given.inputs and given.args is not None:
        raise UsageError("--inputs and --args: give one of them")
    return callables.Job(
        name=name,
        inputs=callables.own(given.inputs, "--inputs", name) if given.inputs else None,
        arguments=arguments(given.args) if given.args is not None else [],
        prepare=given.prepare,
        check=checker(given),
        seed=seed(given.seed),
        calls=given.calls,
        least_s=given.least,
        repeats=given.repeats,
        warmup=given.warmup,
        gc=given.gc == "on",
        memory_calls=given.memory,
        profile=given.profile,
        timeout_s=given.timeout,
    )


def arguments(text: str) -> list[Any]:
    """Read the arguments of every call."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--args: not JSON: {error}") from None
    if not isinstance(value, list):
        raise UsageError(f"--args: a JSON list of arguments is wanted, not {text!r:.60}")
    return cast("list[Any]", value)


def checker(given: Given) -> Callable[[list[Any], Any], bool] | None:
    """Give what says whether an output is right."""
    if given.check and given.reference:
        raise UsageError("--check and --reference: give one of them")
    if given.check:
        return callables.own(given.check, "--check", given.function)
    if given.reference:
        reference = callables.own(given.reference, "--reference", given.function)
        return lambda each, output: json.loads(json.dumps(reference(*each))) == output
    return None


def warnings(job: callables.Job, found: callables.Measured) -> list[str]:
    """Say what makes these figures worth less than they could be."""
    said: list[str] = []
    if job.check is None:
        said.append("outputs are not checked: give --check or --reference")
    if job.inputs is None:
        said.append(
            "all calls have the same input: remembering it would pass for speed; give --inputs"
        )
    if found.memory is not None and found.memory.allocations is None:
        said.append("`allocations` cannot be counted here (it needs glibc 2.34); `peak_kb` can")
    if min(each.took.it.seconds for each in found.repeats) < callables.SHORT_S:
        said.append("a repeat is too short to be timed well: give more --calls")
    return said


def profile(found: callables.Measured) -> list[str]:
    """Say where the time goes."""
    rows = [f"  {e.share:4.0%}  {e.calls:>8}  {e.function}  {e.place}" for e in found.profile]
    return ["share of the time, calls, function, as a profiler sees it:", *rows] if rows else []


def score(given: Given) -> None:
    """Check outputs that `call --save` left, where the candidate does not run."""
    job = job_of(given)
    if job.check is None or job.calls is None:
        raise UsageError("score: --calls, and --check or --reference, are needed")
    try:
        kept = json.loads(given.file.read_text("utf-8"))
        repeats = [callables.Repeat.read(each) for each in kept["repeats"]]
        numbers = {**kept["metrics"], **yardstick.of([each.took for each in repeats], job.calls)}
    except OSError as error:
        raise NoAnswerError(f"{given.file}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        what = f"not what `call --save` writes ({type(error).__name__}: {error})"
        raise NoAnswerError(f"{given.file}: {what}") from None
    if [(each.number, each.calls) for each in repeats] != [
        (number, job.calls) for number in range(job.repeats)
    ]:
        what = f"other repeats than {job.repeats} of {job.calls} calls"
        raise NoAnswerError(f"{given.file}: {what}; give `score` the options of `call`")
    callables.recheck(job, repeats)
    report(numbers, [f"{len(repeats)} repeats of {job.calls} calls, all outputs right"])


# --- commands and exports ---------------------------------------------------------------------


def command(given: Given) -> None:
    """Measure a command."""
    for option, file in (("--stdin", given.stdin), ("--expect", given.expect)):
        if file is not None and not file.is_file():
            raise UsageError(f"{option}: there is no file {file}")
    job = commands.Job(
        argv=given.argv,
        repeats=given.repeats,
        warmup=given.warmup,
        seed=seed(given.seed),
        stdin=given.stdin,
        expect=given.expect,
        check=given.check,
        timeout_s=given.timeout,
    )
    runs = commands.measure(job)
    numbers = {
        **yardstick.of([run.took for run in runs]),
        "rss_kb": max(run.rss_kb for run in runs),
    }
    notes = [f"{len(runs)} runs"]
    if job.expect is None and job.check is None:
        notes.append("outputs are not checked: give --expect or --check")
    report(numbers, notes)


def hyperfine(given: Given) -> None:
    """Read what hyperfine has measured, or have it measure."""
    if (given.file is None) == (not given.run):
        raise UsageError("hyperfine: give a file that it has exported, or --run COMMAND")
    if given.file is not None:
        export(given.file, exports.hyperfine, given.select)
        return
    program = shutil.which("hyperfine")
    if program is None:
        what = "hyperfine is not installed; `speed.py command` needs nothing"
        raise UsageError(f"hyperfine: {what}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "times.json")
        options = [f"--runs={given.repeats}", f"--warmup={given.warmup}", "--style=none"]
        shell = ["--shell=none"] if given.no_shell else []
        asked = [program, *options, *shell, f"--export-json={file}", *given.run]
        withheld = {"SWARM_RESULT", "SWARM_CASES"}
        env = {name: value for name, value in os.environ.items() if name not in withheld}
        done = subprocess.run(asked, env=env, capture_output=True, check=False)
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise NoAnswerError("hyperfine: " + (lines or [f"exit {done.returncode}"])[0])
        export(file, exports.hyperfine, given.select)


def pytest_benchmark(given: Given) -> None:
    """Read what pytest-benchmark has measured."""
    export(given.file, exports.pytest_benchmark, given.select)


def export(
    path: Path, read: Callable[[Path], list[exports.Benchmark]], select: Sequence[str]
) -> None:
    """Report the benchmarks of a file as one."""
    benchmarks = exports.chosen(read(path), select, path)
    each = [f"{b.names[0]}: {figures.shown(b.figures['seconds_median'])}" for b in benchmarks]
    what = "geometric mean of all" if len(benchmarks) > 1 else "one benchmark"
    report(figures.together([b.figures for b in benchmarks]), [f"{what}, by median:", *each])


# --- what comes out ---------------------------------------------------------------------------


def report(numbers: Mapping[str, float], notes: Sequence[str]) -> None:
    """Print the metrics, and write them where swarm looks for them."""
    for name, value in numbers.items():
        print(f"METRIC {name}={value:.9g}")
    print("\n".join(f"# {line}" for line in notes))
    file = os.environ.get("SWARM_RESULT")
    if file:
        result = {"metrics": numbers, "feedback": "\n".join(notes)}
        Path(file).write_text(json.dumps(result), encoding="utf-8")


def seed(given: int | None) -> int:
    """Give the seed: of the command line, else of swarm."""
    if given is not None:
        return given
    text = os.environ.get("SWARM_SEED", "0")
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"SWARM_SEED: a whole number is wanted, not {text!r}") from None


# --- the command line -------------------------------------------------------------------------


def from_(least: int) -> Callable[[str], int]:
    """Read a whole number, `least` or more."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{least} or more is wanted, not {text}")
        return int(text)

    return whole_number


def seconds(text: str) -> float:
    """Read a duration above 0."""
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds above 0 is wanted, not {text}")
    return float(text)


def parser() -> argparse.ArgumentParser:
    """Give all that can be typed."""
    top = argparse.ArgumentParser(prog="speed", description="How fast, and how much memory.")
    modes = top.add_subparsers(dest="mode", required=True)

    def repeated(mode: argparse.ArgumentParser, repeats: int, warmup: int) -> None:
        add = mode.add_argument
        add("--repeats", type=from_(1), default=repeats, help=f"how often it is timed [{repeats}]")
        add("--warmup", type=from_(0), default=warmup, help=f"repeats before, not timed [{warmup}]")

    def checked(mode: argparse.ArgumentParser) -> None:
        add = mode.add_argument
        add("--seed", type=int, help="what inputs are made from [$SWARM_SEED, else 0]")
        add("--timeout", type=seconds, default=300.0, help="seconds for one repeat [300]")

    def function(mode: argparse.ArgumentParser) -> None:
        add = mode.add_argument
        add("function", metavar="MODULE:FUNCTION", help="what is measured")
        add("--inputs", metavar="M:F", help="f(random.Random) gives the arguments of a call")
        add("--args", metavar="JSON", help="a list: the same arguments for every call")
        add("--prepare", metavar="M:F", help="f(*arguments) gives the arguments really used")
        add("--check", metavar="M:F", help="f(arguments, output) is true if the output is right")
        add("--reference", metavar="M:F", help="f(*arguments) gives the right output")
        add("--calls", type=from_(1), help="calls in one repeat [as many as --least needs]")
        add("--least", type=seconds, default=0.01, help="seconds that a repeat takes [0.01]")
        add("--gc", choices=("off", "on"), default="off", help="the cycle collector [off]")
        add("--memory", type=from_(0), default=5, help="calls whose memory is counted [5]")
        add("--profile", type=from_(0), default=0, help="slowest functions in the feedback [0]")

    calls = modes.add_parser("call", help="measure a Python function")
    function(calls)
    repeated(calls, 50, 5)
    checked(calls)
    calls.add_argument("--save", type=Path, help="keep times and outputs for `score`")
    calls.set_defaults(does=call)

    scores = modes.add_parser("score", help="check what `call --save` kept, with its options")
    scores.add_argument("file", type=Path)
    function(scores)
    repeated(scores, 50, 5)
    checked(scores)
    scores.set_defaults(does=score)

    runs = modes.add_parser("command", help="measure a command, in any language")
    repeated(runs, 10, 1)
    checked(runs)
    runs.add_argument("--stdin", type=Path, help="a file that it reads")
    runs.add_argument("--expect", type=Path, help="a file with what it must print")
    runs.add_argument("--check", metavar="COMMAND", help="exits with 0 if its stdin is right")
    runs.add_argument("argv", nargs="+", metavar="-- ARGV")
    runs.set_defaults(does=command)

    fine = modes.add_parser("hyperfine", help="read what hyperfine exported, or have it run")
    fine.add_argument("file", type=Path, nargs="?")
    fine.add_argument("--run", action="append", default=[], metavar="COMMAND")
    fine.add_argument("--no-shell", action="store_true", help="start commands without a shell")
    fine.add_argument("--select", action="append", default=[], metavar="NAME")
    repeated(fine, 10, 1)
    fine.set_defaults(does=hyperfine)

    tests = modes.add_parser("pytest-benchmark", help="read what pytest-benchmark exported")
    tests.add_argument("file", type=Path)
    tests.add_argument("--select", action="append", default=[], metavar="NAME")
    tests.set_defaults(does=pytest_benchmark)
    return top


def main() -> int:
    """Do what the command line says."""
    given = parser().parse_args()
    signal.signal(signal.SIGTERM, leave)
    try:
        given.does(given)
    except UsageError as error:
        print(f"speed: {error}", file=sys.stderr)
        return 2
    except NoAnswerError as error:
        print(f"speed: no answer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def leave(number: int, _: object) -> NoReturn:
    """End by a signal, and all children first."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
