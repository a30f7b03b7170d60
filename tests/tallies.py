"""Records of suites and of costs, written as patterns: `110-` is one run of four cases.

`1` is a case that passed, `0` one that failed, `-` one that was not run.
"""

from __future__ import annotations

from swarm.judge import Noise, Record, Sample, Spread
from swarm.records import CASES, MetricSpec

SUITE = MetricSpec(name=CASES, goal="maximize")


def tally(*runs: str, **costs: list[float]) -> Record:
    """Give the record of these runs of a suite, and of values of other metrics."""
    record = Record()
    for run in runs:
        again(record, run)
    for name, values in costs.items():
        record.others[name] = sample(*values)
    return record


def again(record: Record, run: str) -> None:
    """Take one more run into a record."""
    found = {f"c{i}": mark == "1" for i, mark in enumerate(run, 1) if mark != "-"}
    record.runs += 1
    record.attempts += 1
    record.whole_last = "-" not in run
    record.take_cases(found)
    if record.whole_last:
        record.primary.add(sum(found.values()) / len(found))


def sample(*values: float) -> Sample:
    taken = Sample()
    for value in values:
        taken.add(value)
    return taken


def spread(sigma: float, freedom: int = 4) -> Spread:
    return Spread(squares=sigma * sigma * freedom, freedom=freedom, agreed=sigma == 0)


def noise(cases: float = 0.1, **costs: float) -> Noise:
    """Give the spreads of a suite and of some costs; 0.0 means that repeats always agreed."""
    return {CASES: spread(cases), **{name: spread(sigma) for name, sigma in costs.items()}}
