"""What swarm itself costs: inline, scripted, deterministic, one stage, 50 files, a 25 ms evaluator.

Prints experiments a second, the coordinator's own CPU for each experiment at several lengths of a
run (flat means that nothing grows with history), and the same evaluator run bare for comparison.

    python scripts/bench_overhead.py [--lengths 200,1000,3000] [--slots 4]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from swarm.config import parse
from swarm.coordinator import Coordinator
from swarm.launch import open_run
from swarm.repo import init_repository
from swarm.runtime import Inline
from swarm.state import RunState

EVALUATOR = "sleep 0.025; echo METRIC loss=$(cat value.txt)"
CONFIG = """
target:
  repo: {top}
  scope: [value.txt]
  run: "{run}"
  metric: {{name: loss, goal: minimize}}
  slot: {{count: {slots}}}
agents: [{{count: {agents}, proposer: {{kind: scripted, patches: {patches}}}}}]
budget: {{experiments: {count}}}
"""


def make_target(top: Path, patches: Path, count: int) -> None:
    """Make a repository of 50 files and `count` patches, none of which is an improvement."""
    for i in range(49):
        file = top / f"package{i % 7}" / f"module{i}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"VALUE = {i}\n" * 40)
    (top / "value.txt").write_text("1.0\n")
    init_repository(top, "base")
    patches.mkdir()
    for i in range(count):
        patch = {"summary": f"try {i}", "files": {"value.txt": f"{2 + i}.0\n"}}
        (patches / f"{i:05d}.json").write_text(json.dumps(patch))


class Meter(Coordinator):
    """A coordinator that takes its own thread's CPU time."""

    cpu_seconds = 0.0
    wall_seconds = 0.0

    def run(self) -> RunState:
        """Run, and take the time of it."""
        started, cpu = time.perf_counter(), time.thread_time()
        try:
            return super().run()
        finally:
            self.wall_seconds = time.perf_counter() - started
            self.cpu_seconds = time.thread_time() - cpu


def measure(count: int, slots: int) -> tuple[float, float]:
    """Give seconds of wall time and of the coordinator's CPU for a run of `count` experiments."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ["SWARM_SCRATCH"] = f"{folder}/scratch"
        top, patches = Path(folder, "repo"), Path(folder, "patches")
        make_target(top, patches, count + 50)
        text = CONFIG.format(
            top=top, run=EVALUATOR, slots=slots, agents=slots, patches=patches, count=count
        )
        opened = open_run(parse(text, Path(folder, "bench.yaml")))
        meter = Meter(opened.rundir, opened.config, Inline(), prefixes=opened.prefixes)
        state = meter.run()
        decided = sum(sum(t.verdicts.values()) for t in state.targets.values())
        if decided < count:
            sys.exit(f"only {decided} of {count} experiments were decided: {state.reason}")
        return meter.wall_seconds, meter.cpu_seconds


def bare(count: int) -> float:
    """Give the seconds that the evaluator alone takes, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "value.txt").write_text("1.0\n")
        started = time.perf_counter()
        for _ in range(count):
            subprocess.run(
                ["/bin/sh", "-c", EVALUATOR], cwd=folder, capture_output=True, check=True
            )
        return time.perf_counter() - started


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", default="200,1000,3000")
    parser.add_argument("--slots", type=int, default=4)
    args = parser.parse_args()
    alone = bare(40) / 40
    print(f"{os.cpu_count()} cores; evaluator alone: {1000 * alone:.1f} ms")
    print(f"{'experiments':>11} {'a second':>9} {'coordinator CPU ms each':>24} {'ratio':>6}")
    first: float | None = None
    for count in (int(n) for n in args.lengths.split(",")):
        wall, cpu = measure(count, args.slots)
        each = 1000 * cpu / count
        first = first or each
        print(f"{count:>11} {count / wall:>9.1f} {each:>24.2f} {each / first:>6.2f}", flush=True)
    print("to reach: >= 25 a second; <= 5 ms of coordinator CPU each; ratio flat (about 1)")


if __name__ == "__main__":
    main()
