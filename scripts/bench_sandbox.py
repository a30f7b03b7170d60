"""What the sandbox adds to the start of a command: medians of interleaved starts of /bin/true.

Each rung in full, as a measurement has it: limits, an export, a place for results, a private /tmp.
`bare` is the same supervisor without any wall, `popen` Python's own way to start a process.

    python scripts/bench_sandbox.py [--starts 30] [--python]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from swarm.sandbox import OUT, WORK, Command, Limits, Mount, Rung, Sandbox, View, holds, probe
from swarm.sandbox.ladder import OPEN, RungName

LIMITS = Limits(memory=8 * 2**30, processes=512, file_size=2 * 2**30, tmp=2 * 2**30)
PAUSE_S = 0.05
RUNGS: tuple[RungName, ...] = ("process", "landlock", "bubblewrap")


def rungs() -> list[Rung]:
    """Give the rungs that hold here, and say why others do not."""
    found: list[Rung] = []
    for name in RUNGS:
        rung = probe("auto") if name == "bubblewrap" else Rung(name, OPEN[name])
        why = holds(rung) if rung.name == name else rung.why
        if why is None:
            found.append(rung)
        else:
            print(f"{name}: not here ({why})")
    return found


def starter(
    stack: ExitStack, root: Path, name: str, rung: Rung, limits: Limits, argv: tuple[str, ...]
) -> Callable[[], None]:
    """Give a function that runs one command to its end in a sandbox."""
    place = root / name
    work, out = place / "work", place / "out"
    for folder in (work, out):
        folder.mkdir(parents=True)
    box = stack.enter_context(Sandbox(rung, scratch=place / "box", limits=limits))
    view = View((Mount(work, WORK, writable=True), Mount(out, OUT, writable=True)))
    env = {"PATH": os.environ["PATH"]}

    def run() -> None:
        outcome = box.run(Command(argv, work, env, 20, place / "log", view=view))
        assert outcome.status == 0, outcome

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=30)
    parser.add_argument("--python", action="store_true", help="start Python instead of /bin/true")
    given = parser.parse_args()
    argv = (sys.executable, "-I", "-c", "pass") if given.python else ("/bin/true",)
    with ExitStack() as stack, tempfile.TemporaryDirectory() as root:
        ways: dict[str, Callable[[], None]] = {
            "popen": lambda: subprocess.run(argv, check=True) and None,
            "bare": starter(stack, Path(root), "bare", Rung("off", ()), Limits(), argv),
        }
        for rung in rungs():
            ways[rung.name] = starter(stack, Path(root), rung.name, rung, LIMITS, argv)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.starts + 2):
            for name, run in ways.items():
                # The kernel takes the last one's network apart meanwhile, as during an export.
                time.sleep(PAUSE_S)
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    bare = statistics.median(times["bare"][2:])
    print(f"start of {' '.join(argv)}, median of {given.starts}, interleaved:")
    for name, taken in times.items():
        median = statistics.median(taken[2:])
        print(f"  {name:10}  {1000 * median:6.1f} ms   {1000 * (median - bare):+6.1f} ms over bare")


if __name__ == "__main__":
    main()
