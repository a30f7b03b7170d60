"""How busy the slots are: Ray, sleeping 1 s evaluations, proposals as slow, twice as many agents.

Busy is the time from export to cleanup, as each slot took it, over the time that the slots were
there: from when the last slot and agent had come up (starting processes takes seconds on two cores)
to the end of the budget. With --stragglers one evaluation in
ten takes five times as long; without a barrier that costs what the longer work itself costs.

    python scripts/bench_slots.py [--slots 8] [--seconds 30] [--stragglers]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from datetime import timedelta
from pathlib import Path

from bench_overhead import CONFIG

from swarm.cluster import RayRun
from swarm.config import parse
from swarm.launch import Opened, open_run
from swarm.ledger import read
from swarm.records import Draining, Measured, Started
from swarm.repo import init_repository

EVEN = "sleep 1; echo METRIC loss=$(cat value.txt)"
STRAGGLING = "sleep $(( $(cut -d. -f1 value.txt) % 10 ? 1 : 5 )); echo METRIC loss=$(cat value.txt)"


def run(slots: int, seconds: float, straggling: bool) -> Opened:
    """Make a target with patches that are never better, and run it to the end of its budget."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    os.environ["SWARM_SCRATCH"] = str(folder / "scratch")
    top, patches = folder / "repo", folder / "patches"
    top.mkdir()
    patches.mkdir()
    (top / "value.txt").write_text("1.0\n")
    init_repository(top, "base")
    count = int(slots * seconds / (1.4 if straggling else 1.0))
    for i in range(count + 4 * slots):
        patch = {"summary": f"try {i}", "files": {"value.txt": f"{2 + i}.0\n"}, "sleep": 1.0}
        (patches / f"{i:05d}.json").write_text(json.dumps(patch))
    command = STRAGGLING if straggling else EVEN
    text = CONFIG.format(
        top=top, run=command, slots=slots, agents=2 * slots, patches=patches, count=count
    )
    opened = open_run(parse(text, folder / "bench.yaml"))
    with RayRun(opened.rundir, opened.config, prefixes=opened.prefixes) as ray_run:
        while not ray_run.poll(0.5):
            pass
    return opened


def busy_share(opened: Opened, slots: int) -> tuple[float, float, int]:
    """Give busy share, the seconds it was taken over, and the candidates measured in them."""
    events = list(read(opened.rundir.ledger))
    drained = next(e.at for e in events if isinstance(e, Draining))
    begun = max(e.at for e in events if isinstance(e, Started) and e.at is not None)
    assert drained is not None
    taken = [e for e in events if isinstance(e, Measured)]
    spans = [(e.at - timedelta(seconds=e.busy_seconds), e.at) for e in taken if e.at is not None]
    inside = [(max(begun, start), min(drained, end)) for start, end in spans]
    busy = [(end - start).total_seconds() for start, end in inside if end > start]
    window = (drained - begun).total_seconds()
    return sum(busy) / (slots * window), window, len(busy)


def main() -> None:
    """Print one line for even and, if asked for, one for straggling evaluations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--stragglers", action="store_true")
    args = parser.parse_args()
    for straggling in (False, True) if args.stragglers else (False,):
        opened = run(args.slots, args.seconds, straggling)
        share, window, count = busy_share(opened, args.slots)
        kind = "stragglers" if straggling else "even"
        print(
            f"{args.slots} slots, {2 * args.slots} agents, {kind}: busy {share:.1%} "
            f"of {window:.0f} s, {count} measurements",
            flush=True,
        )
    print("to reach: >= 90 % with 8 slots; >= 95 % with 16")


if __name__ == "__main__":
    main()
