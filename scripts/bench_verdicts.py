"""Whether verdicts hold: keeps of real noisy targets, measured again 20 times on each side.

Two targets on cores that other processes load in bursts: a timing (the least of fifty in each
measurement), and a suite of 40 cases of which ten race against the clock and are flaky. Scripted
patches with known effects: some help, most do nothing, some harm. Each keep is then compared with
the commit it was kept against by 20 + 20 fresh measurements, alternating, outside of swarm, under
the same load. It counts as confirmed when the fresh difference is at least two of its own standard
errors above zero; `above zero` counts those that are merely positive.

    python scripts/bench_verdicts.py [--experiments 60] [--fresh 20] [--quiet-cores]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swarm.config import parse
from swarm.coordinator import Coordinator
from swarm.launch import Opened, open_run
from swarm.repo import init_repository
from swarm.runtime import Inline
from swarm.state import RunState

BURST = """
import random, time
while True:
    end = time.perf_counter() + random.expovariate(4.0)
    while time.perf_counter() < end:
        pass
    time.sleep(random.expovariate(6.0))
"""
"""What loads a core: on average a quarter of a second of work, then a sixth of rest."""

TIMING = """
import glob, time
knobs = [int(open(name).readline().split()[0]) for name in sorted(glob.glob("knobs/*"))]
def work():
    for loops in knobs:
        total = 0
        for i in range(loops):
            total += i * i
work()
for _ in range(50):
    start = time.perf_counter()
    work()
    print(f"METRIC ms={1000 * (time.perf_counter() - start)}")
"""

SUITE = """
import glob, json, os, threading, time
asked = os.environ.get("SWARM_CASES")
asked = None if asked is None else set(open(asked).read().split())
def race(ms):
    rung = threading.Event()
    bell = threading.Timer(ms / 1000, rung.set)
    bell.start()
    passed = rung.wait(0.004)
    bell.join()
    return passed
cases = []
for name in sorted(glob.glob("cases/*")):
    case = os.path.basename(name)
    if asked is None or case in asked:
        kind, value = open(name).readline().split()[:2]
        passed = value == "right" if kind == "solid" else race(float(value))
        cases.append({"id": case, "pass": passed})
json.dump({"cases": cases}, open(os.environ["SWARM_RESULT"], "w"))
"""

CONFIG = """
target:
  repo: {top}
  scope: [{scope}]
  run: {python} measure.py
  metric: {metric}
  slot: {{count: 2}}
agents: [{{count: 2, proposer: {{kind: scripted, patches: {patches}}}}}]
judge: {judge}
budget: {{experiments: {count}}}
"""


@dataclass
class Case:
    """A target with patches whose effects are known."""

    name: str
    program: str
    scope: str
    metric: str
    judge: str
    files: dict[str, str]
    patches: list[tuple[str, dict[str, str]]]
    """What a patch does (`helps`, `nothing`, `harms`) and the files it writes."""
    sign: int


def timing(count: int, chance: random.Random) -> Case:
    """Make the timing target: knobs that each take a share of the whole time."""
    knobs = {f"knobs/k{i:02d}": 4_000 if i < 16 else 800 for i in range(40)}
    patches: list[tuple[str, dict[str, str]]] = []
    heavy = [name for name, loops in knobs.items() if loops > 800]
    for i in range(count):
        name = heavy[i % len(heavy)]
        kind = chance.choices(("helps", "nothing", "harms"), (25, 50, 25))[0]
        share = {"helps": chance.uniform(0.0, 0.4), "nothing": 1.0, "harms": 1.5}[kind]
        patches.append((kind, {name: f"{int(knobs[name] * share)} try {i}\n"}))
    files = {name: f"{loops}\n" for name, loops in knobs.items()}
    judge = "{aggregate: min, window: 5}"
    metric = "{name: ms, goal: minimize}"
    return Case("timing", TIMING, "knobs/", metric, judge, files, patches, -1)


def suite(count: int, chance: random.Random) -> Case:
    """Make the suite: solid cases, half of them failing, and races that are won now and then."""
    solid = {f"cases/s{i:02d}": "right" if i % 2 else "wrong" for i in range(30)}
    races = {f"cases/r{i:02d}": f"race {chance.uniform(3.6, 4.2):.2f}" for i in range(10)}
    files = {**{n: f"solid {v}" for n, v in solid.items()}, **races}
    patches: list[tuple[str, dict[str, str]]] = []
    wrong, right = ([n for n, v in solid.items() if v == word] for word in ("wrong", "right"))
    for i in range(count):
        kind = chance.choices(("helps", "nothing", "harms"), (25, 50, 25))[0]
        if kind == "helps":
            found = dict.fromkeys(chance.sample(wrong, chance.randint(1, 3)), "solid right")
        elif kind == "harms":
            found = dict.fromkeys(chance.sample(right, chance.randint(1, 3)), "solid wrong")
        else:
            name = chance.choice(list(races))
            found = {name: races[name]}
        patches.append((kind, {n: f"{text} try {i}\n" for n, text in found.items()}))
    metric = "{name: cases, goal: maximize}"
    whole = {n: f"{text}\n" for n, text in files.items()}
    return Case("flaky suite", SUITE, "cases/", metric, "{}", whole, patches, 1)


@contextmanager
def loaded(processes: int) -> Generator[None]:
    """Keep the cores busy in bursts."""
    burners = [subprocess.Popen([sys.executable, "-c", BURST]) for _ in range(processes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def search(case: Case, folder: Path) -> tuple[Opened, RunState]:
    """Launch the case's target and run it to its end."""
    top, patches = folder / "repo", folder / "patches"
    for name, text in {**case.files, "measure.py": case.program}.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    init_repository(top, "base")
    patches.mkdir()
    for i, (kind, files) in enumerate(case.patches):
        patch = {"summary": f"{kind}: {i}", "files": files}
        (patches / f"{i:04d}.json").write_text(json.dumps(patch))
    text = CONFIG.format(
        top=top,
        scope=case.scope,
        python=sys.executable,
        metric=case.metric,
        judge=case.judge,
        patches=patches,
        count=len(case.patches),
    )
    opened = open_run(parse(text, folder / "bench.yaml"))
    return opened, Coordinator(
        opened.rundir, opened.config, Inline(), prefixes=opened.prefixes
    ).run()


def check_out(hub: Path, commit: str, folder: Path) -> Path:
    """Put a commit's files into a folder."""
    folder.mkdir()
    tar = subprocess.run(
        ["git", "--git-dir", str(hub), "archive", commit], capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=tar.stdout, check=True)
    return folder


def value(folder: Path) -> float:
    """Measure what lies in a folder, once."""
    result = folder.parent / "result.json"
    env = {"PATH": os.environ["PATH"], "SWARM_RESULT": str(result)}
    command = [sys.executable, "measure.py"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    lines = [line.split("=")[1] for line in done.stdout.splitlines() if line.startswith("METRIC")]
    if lines:
        return min(map(float, lines))
    cases = json.loads(result.read_text())["cases"]
    return sum(c["pass"] for c in cases) / len(cases)


def again(hub: Path, base: str, commit: str, fresh: int, folder: Path) -> tuple[float, float]:
    """Give the difference of two commits and its standard error, by fresh measurements."""
    before, after = check_out(hub, base, folder / "base"), check_out(hub, commit, folder / "new")
    pairs = [(value(before), value(after)) for _ in range(fresh)]
    olds, news = [p[0] for p in pairs], [p[1] for p in pairs]
    variance = (statistics.variance(olds) + statistics.variance(news)) / fresh
    return statistics.fmean(news) - statistics.fmean(olds), variance**0.5


def judge(case: Case, fresh: int) -> None:
    """Search, measure every keep again, and print what held."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        os.environ["SWARM_SCRATCH"] = f"{name}/scratch"
        started = time.perf_counter()
        opened, state = search(case, Path(name))
        print(f"{case.name}, {time.perf_counter() - started:.0f} s: {_told(state)}")
        above, sure, keeps = 0, 0, [e for e in state.experiments.values() if e.verdict == "keep"]
        for e in keeps:
            with tempfile.TemporaryDirectory(dir=name) as place:
                commit = e.proposal.commit or ""
                by, se = again(opened.rundir.hub, e.base, commit, fresh, Path(place))
            by *= case.sign
            above, sure = above + (by > 0), sure + (by >= 2 * se)
            held = "confirmed" if by >= 2 * se else "above zero" if by > 0 else "NOT confirmed"
            z = "   --" if e.z is None else f"{e.z:+5.1f}"
            line = f"  #{e.number:<3} {e.proposal.summary:12} z {z}  gain {e.gain:+9.4f}"
            print(f"{line}  fresh {by:+9.4f} ± {se:.4f}  {held}", flush=True)
        share = sure / len(keeps) if keeps else 0.0
        line = f"  confirmed at 2 standard errors: {sure} of {len(keeps)} ({share:.0%})"
        print(f"{line}; above zero: {above}; to reach: 80 %", flush=True)


def _told(state: RunState) -> str:
    found = list(state.experiments.values())
    helping = [e for e in found if e.proposal.summary.startswith("helps")]
    kept = sum(e.verdict == "keep" for e in found)
    missed = sum(e.verdict == "discard" for e in helping)
    counted = f"{len(found)} experiments, {state.spend.measurements} measurements"
    return f"{counted}; {kept} kept, {missed} of {len(helping)} helpful ones discarded"


def main() -> None:
    """Print what held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=60)
    parser.add_argument("--fresh", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("timing", "suite"))
    parser.add_argument("--quiet-cores", action="store_true", help="do not load the cores")
    args = parser.parse_args()
    makers: dict[str, Callable[[int, random.Random], Case]] = {"timing": timing, "suite": suite}
    with loaded(0 if args.quiet_cores else os.cpu_count() or 1):
        for name, make in makers.items():
            if args.only in (None, name):
                judge(make(args.experiments, random.Random(args.seed)), args.fresh)


if __name__ == "__main__":
    main()
