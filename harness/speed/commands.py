"""A command in any language, measured from its start to its end, again and again.

Owns processes: their time on the wall, their processor time and memory as the kernel counts them, a
fresh home and seed for each run, what they printed, and their end. Knows no metric's name.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from figures import NoAnswerError
from yardstick import Beside, Took, fixed_work

ROUNDS = 40
"""Of fixed work, about 20 ms: commands take longer than functions."""
SEED_STEP = 1_000_003
"""Between the seeds of runs, so that they do not meet those of other measurements."""
KB = 1 if sys.platform != "darwin" else 1024
"""What the kernel counts memory in: kilobytes, but bytes on macOS."""


@dataclass(frozen=True)
class Job:
    """What is run, and how often."""

    argv: Sequence[str]
    repeats: int
    warmup: int
    seed: int
    stdin: Path | None
    expect: Path | None
    """A file that holds what it must print."""
    check: str | None
    """A command for the shell that gets the output on stdin and exits with 0 if it is right."""
    timeout_s: float


class Run(NamedTuple):
    """One run that ended well."""

    took: Beside
    """Processor time is that of the command and of those descendants that it waited for."""
    rss_kb: float
    """Of the largest process."""


def measure(job: Job) -> list[Run]:
    """Run a command some times and give all but the first, which warm up.

    Raises:
        NoAnswerError: a run fails, takes too long, or prints something wrong.
    """
    fixed_work(ROUNDS)
    runs = [once(job, number) for number in range(job.warmup + job.repeats)]
    return runs[job.warmup :]


def once(job: Job, number: int) -> Run:
    """Run it once: with a seed of its own, as what was found before must be of no use."""
    # Files and no pipes: nobody here has to read, and a pipe may be held open by a grandchild.
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as out:
        env = environment(Path(folder), job.seed + SEED_STEP * number)
        with tempfile.TemporaryFile() as err, (job.stdin or Path(os.devnull)).open("rb") as given:
            before = fixed_work(ROUNDS)
            started = time.perf_counter()
            try:
                child = subprocess.Popen(
                    job.argv, env=env, stdin=given, stdout=out, stderr=err, start_new_session=True
                )
            except OSError as error:
                raise NoAnswerError(f"`{job.argv[0]}` cannot be started: {error}") from None
            status, usage, late = ended(child, job.timeout_s)
            seconds = time.perf_counter() - started
            took = Took(seconds, usage.ru_utime + usage.ru_stime)
            beside = Beside(before, took, fixed_work(ROUNDS))
            if late:
                raise NoAnswerError(f"`{job.argv[0]}` took longer than {job.timeout_s:g} s")
            if status != 0:
                how = f"exit {status}" if status > 0 else f"killed by signal {-status}"
                raise NoAnswerError(f"`{job.argv[0]}`: {how}{last_line(err)}")
        out.seek(0)
        check(job, out.read(), env)
    return Run(beside, usage.ru_maxrss / KB)


def environment(folder: Path, seed: int) -> dict[str, str]:
    """Give a run a home of its own, empty, and no way to the result."""
    withheld = {"SWARM_RESULT", "SWARM_CASES"}
    clean = {name: value for name, value in os.environ.items() if name not in withheld}
    return {**clean, "HOME": str(folder), "TMPDIR": str(folder), "SWARM_SEED": str(seed)}


def ended(
    child: "subprocess.Popen[bytes]", timeout_s: float
) -> tuple[int, resource.struct_rusage, bool]:
    """Wait for the end; give the status, what it used, and whether it had to be ended."""
    late = threading.Event()

    def end() -> None:
        late.set()
        kill(child.pid)

    timer = threading.Timer(timeout_s, end)
    timer.start()
    try:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    finally:
        timer.cancel()
        timer.join()
        kill(child.pid)
        child.wait()
    return child.returncode, usage, late.is_set()


def kill(group: int) -> None:
    """End whoever is left of a group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def last_line(err: IO[bytes]) -> str:
    """Give the last line that a command complained with."""
    err.seek(0)
    lines = [line for line in err.read(2**20).splitlines() if line.strip()]
    return f": {excerpt(lines[-1])}" if lines else ""


def check(job: Job, output: bytes, env: dict[str, str]) -> None:
    """Compare what a command printed with what it must print.

    Raises:
        NoAnswerError: it is wrong.
    """
    if job.expect is not None and output != job.expect.read_bytes():
        raise NoAnswerError(
            f"`{job.argv[0]}` printed something else than {job.expect} says: {excerpt(output)}"
        )
    if job.check is None:
        return
    with tempfile.TemporaryFile() as given:
        given.write(output)
        given.seek(0)
        try:
            asked = subprocess.run(
                ["/bin/sh", "-c", job.check],
                env=env,
                stdin=given,
                capture_output=True,
                timeout=job.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NoAnswerError(f"--check took longer than {job.timeout_s:g} s") from None
    if asked.returncode != 0:
        why = excerpt(asked.stderr[-300:]) if asked.stderr.strip() else f"exit {asked.returncode}"
        seed = env["SWARM_SEED"]
        what = f"the output of `{job.argv[0]}` with SWARM_SEED={seed} is wrong, says --check"
        raise NoAnswerError(f"{what} ({why}): {excerpt(output)}")


def excerpt(data: bytes) -> str:
    """Give the beginning of some output on one line."""
    text = data[:200].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text).strip() or "nothing"
