"""What proposing by models costs swarm: 4 `messages` agents and a scripted model over real HTTP.

Inline, with an evaluator of 5 ms. Prints, for the first and the last third of a run, what must not
grow with history: the coordinator's own CPU for each experiment, the bytes of a job to an agent,
those of the ledger, tokens and their share from the cache; then what a new agent is sent, and the
time to word a briefing, once all is over. The model and its server run in this process too, so
that experiments a second are a lower bound.

    python scripts/bench_proposers.py [--experiments 300]
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from swarm.actions import Propose
from swarm.agent import ProposeJob
from swarm.briefing import Briefing, render
from swarm.config import RunConfig, parse
from swarm.coordinator import Coordinator
from swarm.jobs import job_of
from swarm.launch import open_run
from swarm.repo import init_repository
from swarm.runtime import Inline
from swarm.state import RunState

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from messages_server import Json, MessagesServer, Reply, results, texts, turns

AGENTS = 4
CONFIG = """
target:
  repo: {top}
  scope: [parts/]
  program: Bring the loss down.
  run: "sleep 0.005; . parts/loss.sh"
  metric: {{name: loss, goal: minimize}}
  slot: {{count: 2}}
agents:
  - count: {agents}
    proposer: {{kind: messages, model: scripted, base_url: {url}, prices: {{input: 3, output: 15}}}}
judge: {{baseline: 2, confirm: 2}}
budget: {{experiments: {count}}}
"""


def model(request: Json) -> Reply:
    """Read a file, change a number to one nobody has tried, submit."""
    told = texts(request["messages"][0]["content"])
    turn, dice = turns(request), zlib.crc32(told.encode())
    if turn == 0:
        return Reply.calling("read_file", path="parts/loss.sh")
    if turn == 1:
        read_ = "\n".join(texts(result.get("content", "")) for result in results(request))
        found = re.search(r"echo METRIC loss=([\d.]+)", read_)
        assert found is not None
        value = float(found[1]) - 0.001 if dice % 10 == 0 else 2 + dice / 1e4
        new = f"echo METRIC loss={value:.4f}"
        return Reply.calling("edit_file", path="parts/loss.sh", old=found[0], new=new)
    edit = request["messages"][3]["content"][-1]["input"]
    summary = f"{edit['old'].split('=')[1]} -> {edit['new'].split('=')[1]} in loss.sh"
    return Reply.calling("submit", summary=summary, rationale="It is a number not tried so far.")


@dataclass
class Mark:
    """How far everything was at one moment."""

    decided: int
    cpu: float
    wall: float
    ledger: int
    requests: int


class Meter(Coordinator):
    """A coordinator that takes its own thread's CPU time, and looks at what it sends."""

    marks: list[Mark]
    sizes: list[tuple[int, int]]
    server: MessagesServer

    def look(self) -> None:
        """Note how far everything is."""
        decided = sum(sum(t.verdicts.values()) for t in self.state.targets.values())
        if not self.marks or decided > self.marks[-1].decided:
            asked = len(self.server.requests)
            size = self._dir.ledger.stat().st_size
            now = time.thread_time(), time.perf_counter()
            self.marks.append(Mark(decided, *now, size, asked))

    def _wait(self) -> None:
        self.look()
        super()._wait()


class Watched(Inline):
    """A runtime that weighs the jobs it carries."""

    def __init__(self, meter_sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self._sizes, self._count = meter_sizes, 0

    def propose(self, job: ProposeJob) -> None:
        """Weigh, then carry; packs of objects are counted too. Each agent's first is left out."""
        self._count += 1
        if self._count > AGENTS:
            self._sizes.append((self._count, len(pickle.dumps(job))))
        super().propose(job)


def mean(values: list[float]) -> float:
    """Give the mean, nothing for none."""
    return sum(values) / len(values) if values else 0.0


def measure(count: int) -> None:
    """Carry out one run and print the table."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, MessagesServer(model) as server:
        os.environ["SWARM_SCRATCH"] = f"{folder}/scratch"
        top = Path(folder, "repo")
        (top / "parts").mkdir(parents=True)
        (top / "parts" / "loss.sh").write_text("# The loss.\necho METRIC loss=1.0\n")
        for i in range(30):
            (top / f"module{i}.py").write_text(f"VALUE = {i}\n" * 40)
        init_repository(top, "base")
        text = CONFIG.format(top=top, url=server.url, agents=AGENTS, count=count)
        opened = open_run(parse(text, Path(folder, "bench.yaml")))
        sizes: list[tuple[int, int]] = []
        meter = Meter(
            opened.rundir,
            opened.config,
            Watched(sizes),
            prefixes=opened.prefixes,
            keys={"ANTHROPIC_API_KEY": "made-up-0123456789"},
        )
        meter.marks, meter.sizes, meter.server = [], sizes, server
        started = time.perf_counter()
        state = meter.run()
        meter.look()
        wall = time.perf_counter() - started
        table(meter, state, server, wall)
        after(meter, opened.config)


def table(meter: Meter, state: RunState, server: MessagesServer, wall: float) -> None:
    """Print what is to be flat."""
    done = meter.marks[-1].decided
    verdicts = ", ".join(
        f"{n} {v}" for t in state.targets.values() for v, n in sorted(t.verdicts.items())
    )
    print(f"{done} experiments ({verdicts}): {done / wall:.1f} a second, {wall:.0f} s")
    tokens = server.usage.requests
    thirds: list[list[float]] = []
    for part in (0, 2):
        low = next(m for m in meter.marks if m.decided >= done * part / 3)
        high = next(m for m in meter.marks if m.decided >= done * (part + 1) / 3)
        many = high.decided - low.decided
        asked = tokens[low.requests : high.requests]
        input_ = sum(t.input + t.cache_creation + t.cache_read for t in asked)
        jobs = [s for _, s in sizes_of(meter.sizes, part)]
        thirds.append(
            [
                1000 * (high.cpu - low.cpu) / many,
                many / (high.wall - low.wall),
                mean([float(s) for s in jobs]),
                (high.ledger - low.ledger) / many,
                sum(sum(t) for t in asked) / many,
                100 * sum(t.cache_read for t in asked) / input_,
            ]
        )
    names = (
        "coordinator CPU, ms each",
        "experiments a second",
        "job to an agent, bytes",
        "ledger, bytes each",
        "tokens each",
        "input from the cache, %",
    )
    print(f"{'':26} {'first third':>12} {'last third':>12} {'ratio':>6}")
    for name, first, last in zip(names, *thirds, strict=True):
        print(f"{name:26} {first:>12.1f} {last:>12.1f} {last / first:>6.2f}")


def sizes_of(sizes: list[tuple[int, int]], part: int) -> list[tuple[int, int]]:
    """Give one third of the jobs."""
    third = len(sizes) // 3
    return sizes[part * third : (part + 1) * third]


def after(meter: Meter, config: RunConfig) -> None:
    """Print what a new agent costs once all is over: it has to be told everything."""
    state = meter.state
    name, agent = next(iter(state.agents.items()))
    target = next(iter(state.targets.values()))
    loop = agent.loops[target.info.name]
    action = Propose(agent=name, target=target.info.name, base=loop.incumbent)
    started = time.perf_counter()
    job = job_of(state, config, action, sent=0, port=None)
    made = time.perf_counter() - started
    briefing = Briefing(
        run=state.run,
        agent=name,
        metric=target.info.metric,
        scope=config.targets[0].scope,
        program=job.program,
        seed=job.seed,
        incumbent=job.base,
        incumbent_mean=job.incumbent_mean,
        incumbent_se=job.incumbent_se,
        noise=job.noise,
        level=job.level,
        directive=job.directive,
        attempts=tuple({a.number: a for a in job.attempts}.values()),  # the last word on each
        others=job.others,
    )
    started = time.perf_counter()
    words = render(briefing).whole
    took = time.perf_counter() - started
    size = len(pickle.dumps(job))
    each = size / len(state.experiments)
    print(f"job after a restart: {size / 1024:.0f} KiB, {each:.0f} bytes for each experiment")
    print(f"made in {1000 * made:.1f} ms; briefing: {1000 * took:.1f} ms, {len(words)} characters")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=300)
    args = parser.parse_args()
    measure(args.experiments)


if __name__ == "__main__":
    main()
