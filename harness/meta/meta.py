"""Measures a program.md by what a search that follows it finds: short inner runs of swarm on a toy.

    python3 meta.py [--seeds 2] [--start 1] [--jobs 2] [--model NAME]

For each seed it makes a repository with the toy at a start of its own, launches `inner.yaml` there
(`swarm launch --inline`, as a process), and reads `swarm status --json`. The metric `gain` is the
mean over the seeds of the share of the way to the optimum that the inner run has come: 0 is where
it began, 1 the optimum. With `--model` the agent of the inner runs is that model, asked at
$SWARM_MODEL_URL with $SWARM_MODEL_TOKEN; else it is obey.py. It knows the toy, and of swarm its
command line only.
"""

import argparse
import json
import math
import os
import random
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
TOY = HERE.parent / "toy" / "measure.py"
INNER = ("inner.yaml", "program.md")
LIMIT_S = 400
TOKEN = "META_MODEL_TOKEN"
"""The token under a name that a config may give: those of swarm it may not."""
TAIL = 2_000


class Found(NamedTuple):
    """What one inner run has come to."""

    seed: int
    gain: float
    experiments: int
    keeps: int
    usd: float
    tokens: int


class Failed(Exception):
    """An inner run gave no result; the message says why."""


def main() -> int:
    """Measure, and give the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2, help="how many inner runs (2)")
    parser.add_argument("--start", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--jobs", type=int, default=2, help="inner runs at a time (2)")
    parser.add_argument("--model", help="a model as the inner agent, instead of obey.py")
    given = parser.parse_args()
    if given.seeds < 1 or given.jobs < 1:
        parser.error("--seeds and --jobs are at least 1")
    seeds = range(given.start, given.start + given.seeds)
    try:
        found = measure(seeds, given.jobs, agent(given.model))
    except Failed as error:
        print(f"meta: {error}", file=sys.stderr)
        return 1
    report(found)
    return 0


def agent(model: str | None) -> list[str]:
    """Give the options of `swarm launch` that make a model the agent of the inner runs.

    Raises:
        Failed: no model can be reached.
    """
    if model is None:
        return []
    url = os.environ.get("SWARM_MODEL_URL")
    if not url:
        raise Failed(
            "--model needs SWARM_MODEL_URL and SWARM_MODEL_TOKEN: `target.provider` sets them"
        )
    proposer = {
        "kind": "messages", "model": model, "base_url": url, "key": TOKEN,
        "max_turns": 12, "max_tokens": 2000, "timeout": "5m",
        # What it costs is counted by whoever stands behind the address.
        "prices": {"input": 0, "output": 0},
    }  # fmt: skip
    return ["--set", f"agents.0.proposer={json.dumps(proposer)}"]


def measure(seeds: range, jobs: int, options: list[str]) -> list[Found]:
    """Make an inner run for each seed.

    Raises:
        Failed: one of them gave no result.
    """
    swarm, env = find_swarm()
    with tempfile.TemporaryDirectory(prefix="meta-") as folder:

        def one(seed: int) -> Found:
            return inner(Path(folder), seed, swarm, env, options)

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, seeds))


# --- one inner run ------------------------------------------------------------------------------


def inner(
    folder: Path, seed: int, swarm: list[str], env: Mapping[str, str], options: list[str]
) -> Found:
    """Launch one inner run to its end.

    Raises:
        Failed: it did not end well.
    """
    place = folder / f"seed-{seed}"
    floor, start = make_toy(place / "repo", seed)
    for name in INNER:
        shutil.copyfile(HERE / name, place / name)
    own = {**env, "SWARM_SCRATCH": str(place / "scratch")}
    config = str(place / "inner.yaml")
    call([*swarm, "launch", config, "--inline", *options], place, own, seed)
    told = json.loads(
        call([*swarm, "status", "--json", "--dir", str(place / "repo")], place, own, seed)
    )
    target = told["targets"][0]
    baseline, best = target["baseline"]["mean"], target["best"]["mean"]
    if not math.isclose(baseline, start, rel_tol=1e-6):
        raise Failed(f"seed {seed}: the base measures as {baseline}, but the toy began at {start}")
    spend = told["spend"]
    return Found(
        seed=seed,
        gain=(baseline - best) / (baseline - floor),
        experiments=target["experiments"]["total"],
        keeps=target["experiments"]["keep"],
        usd=float(spend.get("usd") or 0),
        tokens=int(spend.get("tokens") or 0),
    )


def call(command: list[str], place: Path, env: Mapping[str, str], seed: int) -> str:
    """Run swarm and give its stdout."""
    try:
        done = subprocess.run(
            command, cwd=place, env=env, capture_output=True, text=True, timeout=LIMIT_S,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"seed {seed}: `{' '.join(command)}` took longer than {LIMIT_S} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout)[-TAIL:].strip()
        raise Failed(f"seed {seed}: `{' '.join(command)}` ended with {done.returncode}:\n{said}")
    return done.stdout


def make_toy(repo: Path, seed: int) -> tuple[float, float]:
    """Make the toy's repository, each number off its best by chance; give optimum and start."""
    if not TOY.exists():
        raise Failed(f"{TOY} is not there: copy harness/toy beside harness/meta")
    toy: dict[str, Any] = runpy.run_path(str(TOY))
    rng = random.Random(seed)
    values: dict[str, float | bool] = {}
    for name, (best, _) in toy["NUMBERS"].items():
        off = rng.choice((-1, 1)) * rng.uniform(0.8, 2.4)
        values[name] = float(f"{best * 2**off:.6g}")
    repo.mkdir(parents=True)
    # The switches are right from the start: the agent changes numbers.
    switches = {name: best for name, (best, _) in toy["SWITCHES"].items()}
    lines = [f"{name} = {value!r}\n" for name, value in (values | switches).items()]
    (repo / "params.py").write_text('"""The numbers."""\n\n' + "".join(lines), encoding="utf-8")
    shutil.copyfile(TOY, repo / "measure.py")
    shutil.copyfile(HERE / "obey.py", repo / "obey.py")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "toy"]):
        who = ["-c", "user.name=meta", "-c", "user.email=meta@example.invalid"]
        subprocess.run(["git", *who, *words], cwd=repo, check=True, capture_output=True)
    return float(toy["FLOOR"]), float(toy["loss_at"]({**values, **switches}, 0.0))


# --- swarm itself -------------------------------------------------------------------------------


def find_swarm() -> tuple[list[str], dict[str, str]]:
    """Find a `swarm` that starts, and the environment for it.

    Raises:
        Failed: there is none.
    """
    env = {k: v for k, v in os.environ.items() if k not in ("SWARM_RESULT", "SWARM_CASES")}
    top = HERE.parent.parent
    if "SWARM_MODEL_TOKEN" in env:
        env[TOKEN] = env["SWARM_MODEL_TOKEN"]
    if (top / "swarm" / "__init__.py").exists():
        # A clone: of the user's repository a sandbox shows only this copy.
        env["PYTHONPATH"] = str(top)
    tried: list[str] = []
    for words in programs():
        done = subprocess.run(
            [*words, "--version"], env=env, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return words, env
        tried.append(f"{' '.join(words)}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    listed = "\n  ".join(tried) or "none is on PATH"
    raise Failed(f"no `swarm` starts here; put one on PATH:\n  {listed}")


def programs() -> Iterator[list[str]]:
    """Give what may start swarm: on PATH, in this Python, and where its own files lie."""
    found = shutil.which("swarm")
    if found:
        yield [found]
    yield [sys.executable, "-m", "swarm"]
    bundled = Path(os.environ.get("SWARM_HARNESS", HERE))
    for parent in bundled.parents:
        for python in (parent / ".venv/bin/python", parent / "bin/python"):
            if python.exists():
                yield [str(python), "-m", "swarm"]


# --- what is said -------------------------------------------------------------------------------


def report(found: list[Found]) -> None:
    """Print the metrics, and write them where swarm looks for them."""
    mean = sum(f.gain for f in found) / len(found)
    lines = [
        f"seed {f.seed}: {f.gain:.1%} of the way, {f.keeps} of {f.experiments} experiments kept"
        for f in found
    ]
    metrics: dict[str, float] = {
        "gain": mean,
        "experiments": sum(f.experiments for f in found) / len(found),
        "keeps": sum(f.keeps for f in found) / len(found),
        "inner_usd": sum(f.usd for f in found),
        "inner_tokens": sum(f.tokens for f in found),
    }
    print("\n".join(lines))
    for name, value in metrics.items():
        print(f"METRIC {name}={value!r}")
    result = os.environ.get("SWARM_RESULT")
    if result:
        told = {"metrics": metrics, "feedback": "\n".join(lines)}
        Path(result).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
