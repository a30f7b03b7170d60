"""What takes without end, in the strongest sandbox: it ends in time and says why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import rungs

from swarm.evaluate import Harness, Result, Room, Stage, evaluate
from swarm.reading import MetricRule
from swarm.sandbox import WORK, Command, Limits, Mount, Sandbox, View

TIMEOUT_S, LATE_S = 3.0, 2.0
# A bomb comes to some times as many processes as are allowed: here for tests beside this one, too.
LIMITS = Limits(memory=200 * 2**20, processes=16, file_size=20 * 2**20, tmp=20 * 2**20)
OUTPUT = 2**20
NAP = f"77777.{os.getpid()}"
"""Seconds of a daemon's nap, by which it is found; other workers have their own."""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs namespaces")

FORKS = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
ALONE = FORKS.replace("os.fork()", "os.fork() or os.setsid()")
MEMORY = "held = []\nwhile True: held.append(bytearray(b'x' * 10**7))"
SHARED = "import mmap\nm = mmap.mmap(-1, 10**10)\nwhile True: m.write(b'x' * 10**7)"
DAEMON = f"trap '' TERM HUP INT; setsid sh -c \"trap '' TERM HUP INT; sleep {NAP}; sleep {NAP}\" &"

BOMBS = {
    "forks": ((sys.executable, "-S", "-c", FORKS), "crash", r"more than 16 processes"),
    "forks that leave their session": (
        *((sys.executable, "-S", "-c", ALONE), "crash", r"more than 16 processes"),
    ),
    "memory": ((sys.executable, "-S", "-c", MEMORY), "crash", r"more than 200 MiB of memory"),
    "shared memory": ((sys.executable, "-S", "-c", SHARED), "crash", r"200 MiB of memory"),
    "a file of 10 GB": ("exec head -c 10G /dev/zero > big", "crash", r"SIGXFSZ .*file_size"),
    "a /tmp of 10 GB": (
        "for i in $(seq 1000); do head -c 10M /dev/zero > /tmp/$i || exit 7; done",
        *("crash", r"exit status 7"),
    ),
    "10 GB of output": ("yes | head -c 10G; sleep 1000", "timeout", r"timed out after 3 s"),
    "a daemon": (f"{DAEMON} sleep {NAP}", "timeout", r"timed out after 3 s"),
    "a daemon that closes its output": (
        *(f"exec >&- 2>&-; {DAEMON} exit 4", "crash", r"exit status 4"),
    ),
}
"""What is run, which failure it is, and what is said of it."""

Measure = Callable[[str | tuple[str, ...]], Result]


@pytest.fixture
def measure(tmp_path: Path) -> Iterator[Measure]:
    """Measure in one sandbox, each time in a fresh directory."""
    made = 0

    def room(_: Stage) -> Room:
        nonlocal made
        made += 1
        export = tmp_path / f"export-{made}"
        export.mkdir()
        return Room(export, View((Mount(export, WORK, writable=True),)))

    with Sandbox(rungs.rung("bubblewrap"), scratch=tmp_path / "scratch", limits=LIMITS) as box:

        def run(command: str | tuple[str, ...]) -> Result:
            harness = Harness(
                run=command,
                metric=MetricRule("loss", "minimize"),
                timeout_s=TIMEOUT_S,
                output_limit=OUTPUT,
            )
            log = tmp_path / "log"
            return evaluate(
                harness,
                room,
                "",
                harnesses=tmp_path,
                sandbox=box,
                seed=1,
                label="e1",
                log=log,
                gpus="",
            )

        yield run
    assert not (tmp_path / "scratch").exists()


def _napping() -> list[int]:
    return [process.pid for process in psutil.process_iter() if NAP in _words(process)]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_ends_in_time_and_says_why(measure: Measure, tmp_path: Path, bomb: str) -> None:
    command, kind, said = BOMBS[bomb]
    start = time.monotonic()
    failure = measure(command).failure
    took = time.monotonic() - start
    assert failure is not None
    assert failure.kind == kind, failure
    assert re.search(said, failure.reason), failure
    assert took < TIMEOUT_S + LATE_S
    assert (tmp_path / "log").stat().st_size < 1.2 * OUTPUT
    assert _napping() == []
    written = [p.stat().st_size for p in tmp_path.glob("export-*/*")]
    assert sum(written) <= (LIMITS.file_size or 0)
    after = measure("echo METRIC loss=0.5")
    assert (after.values, after.failure) == ({"loss": 0.5}, None)


@pytest.mark.parametrize("name", ["bubblewrap", "process"])
def test_a_crowd_at_its_memory_limit_does_not_hold_up_who_ends_it(
    tmp_path: Path, name: rungs.RungName
) -> None:
    """Reading how much it takes can wait for its forks, and being in its cgroup for its memory."""
    limits = Limits(memory=200 * 2**20, processes=100)
    with (
        _busy(),
        Sandbox(rungs.rung(name), scratch=tmp_path / "scratch", limits=limits) as box,
    ):
        if box._cgroup is None:
            pytest.skip("NO CGROUP CAN BE MADE HERE")
        for _ in range(6):
            argv = (sys.executable, "-S", "-c", FORKS)
            fell = box.run(Command(argv, tmp_path, {}, 30, tmp_path / "log"))
            assert (fell.over in ("processes", "memory"), fell.error) == (True, None)
            assert fell.seconds < 10


@contextmanager
def _busy() -> Iterator[None]:
    """Give this machine other work."""
    spin = [sys.executable, "-S", "-c", "while True: pass"]
    busy = [subprocess.Popen(spin) for _ in range(2)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.parametrize("bomb", [FORKS, ALONE], ids=["one group", "a group each"])
def test_without_walls_a_bomb_ends_too_on_a_busy_machine(tmp_path: Path, bomb: str) -> None:
    """What cuts it down competes with it, and with others, for the processor."""
    with _busy(), Sandbox(rungs.PROCESS, scratch=tmp_path / "scratch", limits=LIMITS) as box:
        for _ in range(4):
            argv = (sys.executable, "-S", "-c", bomb, str(tmp_path))
            fell = box.run(Command(argv, tmp_path, {}, TIMEOUT_S, tmp_path / "log"))
            assert (fell.over in ("processes", "memory"), fell.error) == (True, None)
            after = box.run(Command(("true",), tmp_path, {}, TIMEOUT_S, tmp_path / "log"))
            assert (after.status, after.error) == (0, None)
    assert not [p for p in psutil.process_iter() if str(tmp_path) in _words(p)]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
