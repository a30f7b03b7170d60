"""Try a worked example without a key: a skill is improved, measured by a model that obeys its text.

    python scripts/try_skill.py copy|coding|three [--slips 0.05] [more words for `swarm launch`]

Starts the obedient model (tests/obedient_model.py) on loopback, launches configs/skill-*.yaml with
its address, and prints what became of each experiment, what base and best take step by step, and
what the tokens would cost with the models that the config names. Leaves a run directory, and no
process. With a key none of this is needed: see docs/skill-examples.md.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from messages_server import MessagesServer, Tokens  # noqa: E402
from obedient_model import answer, slipping  # noqa: E402

from swarm.entities import Target  # noqa: E402
from swarm.ledger import read  # noqa: E402
from swarm.prices import price_at  # noqa: E402
from swarm.state import RunState  # noqa: E402

CONFIGS = {"copy": "skill-copy.yaml", "coding": "skill-coding.yaml", "three": "skills.yaml"}
WHOLE = ("tokens", "seconds", "length", "tool_calls", "errors", "self_corrections", "aborts")
"""Metrics of a whole measurement; those of a step are named `tokens.explore` and so on."""


class Given(NamedTuple):
    """The command line."""

    example: str
    slips: float
    seed: int
    rest: list[str]


def main() -> int:
    """Run the example and tell what came of it."""
    given = arguments()
    config = ROOT / "configs" / CONFIGS[given.example]
    before = runs()
    script = slipping(given.slips, given.seed) if given.slips else answer
    with MessagesServer(script) as server:
        words = ["launch", str(config), *overrides(given, server.url), *given.rest]
        status = launched([sys.executable, "-m", "swarm", *words])
        used = server.usage.by_model
    made = sorted(runs() - before, key=lambda path: path.stat().st_mtime)
    if status or not made:
        return status
    state = RunState(read(made[-1] / "ledger.jsonl"))
    for target in state.targets.values():
        print(f"\n{target.info.name}\n" + "\n".join(told(state, target)))
    print("\n" + "\n".join(bill(used, state)))
    return 0


def launched(argv: list[str]) -> int:
    """Run swarm to its end. Signals are its to answer: the model must stay until it is done."""
    process = subprocess.Popen(argv, cwd=ROOT)
    # A terminal sends Ctrl-C to both; what is sent to this process alone is passed on.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    return process.wait()


def arguments() -> Given:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Try a worked example without a key.")
    parser.add_argument("example", choices=sorted(CONFIGS))
    parser.add_argument("--slips", type=float, default=0.0, help="share of sentences overlooked")
    parser.add_argument("--seed", type=int, default=0, help="which sentences")
    known, rest = parser.parse_known_args()
    return Given(known.example, known.slips, known.seed, rest)


def overrides(given: Given, url: str) -> Iterator[str]:
    """Give the keys of the config that are set: where the model is."""
    targets = ["target"] if given.example != "three" else [f"targets.{n}" for n in range(3)]
    for target in targets:
        yield from ("--set", f"{target}.provider.base_url={url}")


def runs() -> set[Path]:
    """Find the runs of this clone."""
    return set((ROOT / ".swarm/runs").glob("*"))


def told(state: RunState, target: Target) -> Iterator[str]:
    """Tell of the experiments of a target, and what base and best take."""
    for number, experiment in sorted(state.experiments.items()):
        if experiment.target == target.info.name:
            verdict = experiment.verdict or "open"
            yield f"  {number:>3}  {verdict:<10} {experiment.proposal.summary}"
    base, best = (metrics(target, commit) for commit in (target.info.base, target.best))
    yield f"  {'':24}{'base':>10}{'best':>10}"
    for name in ("cases", *WHOLE, *(name for name in best if "." in name)):
        if name in base or name in best:
            yield f"  {name:24}{shown(base.get(name))}{shown(best.get(name))}"


def shown(value: float | None) -> str:
    """Write a mean into a column."""
    digits = ",.0f" if value is not None and value == round(value) else ",.3g"
    return f"{'-' if value is None else format(value, digits):>10}"


def metrics(target: Target, commit: str) -> dict[str, float]:
    """Give the means of all metrics of a commit."""
    kind = target.machine(commit)
    if kind is None:
        return {}
    record = target.record(commit, kind)
    means = {name: sample.mean for name, sample in record.others.items() if sample.n}
    return means | ({"cases": record.primary.mean} if record.primary.n else {})


def bill(used: Mapping[str, Tokens], state: RunState) -> Iterator[str]:
    """Tell what was used, and what it would have cost with the models that were named.

    As if nothing had come from a cache: providers keep no prompts as short as these.
    """
    total = 0.0
    for model, tokens in sorted(used.items()):
        told = sum(tokens) - tokens.output
        yield f"{model}: {told:,} tokens read, {tokens.output:,} written"
        price = price_at(model, "")
        total += price.usd(input=told, output=tokens.output) if price else 0.0
    count, every = len(state.experiments), sum(sum(tokens) for tokens in used.values())
    own = sum(experiment.tokens for experiment in state.experiments.values())
    if count and every:
        yield f"the whole run: {every:,} tokens, USD {total:.3f} at the listed prices"
        usd = total * own / every / count
        yield f"an experiment, measuring included: {own / count:,.0f} tokens, USD {usd:.4f}"


if __name__ == "__main__":
    sys.exit(main())
