"""How good the verdicts are: our judge beside other rules, in worlds whose truth is known.

A campaign is a run of 400 measurements (300 runs of a suite) by one agent: of its proposals 5 % are
better by 0.5 to 2 %, 60 % do nothing, 35 % harm. The rules are those of `judge_rules`; ours is the
code of `swarm.judge`. Printed: keeps a campaign; false keeps, and those that harm, as shares of the
keeps; the share of good proposals missed; what `best` is truly worth at the end, on average and in
the worst tenth; measurements for each true keep; what the record of `best` claims beyond the truth,
and beyond the record of the base.

In brackets: the figures of earlier simulations, whose rule knew the noise exactly, while ours
learns it by `Spread` as in a run. `<` and `>` mark figures of this run that lie below or above by
more than three standard errors of both. Seeds are fixed. `--plan` drives the real `plan` through
campaigns of our rows, and counts those that end alike, figure for figure.

    python scripts/bench_judge.py [--campaigns N] [--world NAME] [--quick] [--plan] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.pool import Pool
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from judge_plan import planned_campaign
from judge_rules import (
    ByRate,
    McNemar,
    MeanOf,
    Oracle,
    Ours,
    OurSuite,
    PairedT,
    PooledZ,
    Welch,
)
from judge_worlds import Count, Rule, Scalar, Suite, scalar_campaign, suite_campaign

from swarm.rules import JudgeConfig

FULL, QUICK = 1500, 200
PLANNED = 10
"""Campaigns by the real plan."""
SUITE_SHARE = 0.2
"""Suites take longer, so that they get fewer campaigns."""
BATCH = 20
EARLIER = 4000
"""Campaigns behind the figures in brackets."""
MARK = 3.0


def ours(**keys: Any) -> JudgeConfig:
    """Give a config's `judge` section."""
    return JudgeConfig.model_validate(keys)


OURS: dict[str, JudgeConfig] = {
    "ours: default": ours(),
    "ours: explore": ours(preset="explore"),
    "ours: strict": ours(preset="strict"),
    "ours: window 5": ours(window=5),
    "ours: min_delta 0.2": ours(min_delta=0.2),
}
SCALAR: dict[str, Callable[[], Rule]] = {
    "oracle": Oracle,
    "1 run > best seen": MeanOf,
    "same, re-measured": lambda: MeanOf(again=True),
    "mean of 3 > best": lambda: MeanOf(3),
    "mean of 5 > best": lambda: MeanOf(5),
    "paired t, 5 pairs": PairedT,
    "Welch, 5 runs": Welch,
    **{name: lambda rule=rule: Ours(rule) for name, rule in OURS.items()},
}
SUITE: dict[str, Callable[[], Rule]] = {
    "1 run > best seen": lambda: ByRate(MeanOf()),
    "same, re-measured": lambda: ByRate(MeanOf(again=True)),
    "mean of 3 > best": lambda: ByRate(MeanOf(3)),
    "McNemar, 1 run": McNemar,
    "pooled z, 3 runs": PooledZ,
    "ours, on the pass rate": lambda: ByRate(Ours(ours())),
    "ours, from 1 and 2": lambda: OurSuite(ours()),
    "ours: default": lambda: OurSuite(ours(preset="suite")),
    "ours: llm-judged": lambda: OurSuite(ours(preset="llm-judged")),
}
HARD = ("1 run > best seen", "mean of 3 > best", "paired t, 5 pairs", "Welch, 5 runs")
HARD_OURS = ("ours: default", "ours: window 5", "ours: explore")

WORLDS: dict[str, Scalar | Suite] = {
    "sigma 0.3": Scalar(0.3),
    "sigma 1": Scalar(1.0),
    "sigma 3": Scalar(3.0),
    "sigma 0.6": Scalar(0.6),
    "sigma 0.6, 100 measurements": Scalar(0.6, budget=100),
    "sigma 1, 15 % good": Scalar(1.0, good=0.15, neutral=0.50),
    "sigma 0.6, 2 % good": Scalar(0.6, good=0.02, neutral=0.70),
    "sigma 1, heavy tails (t3)": Scalar(1.0, shape="t3"),
    "sigma 1, one-sided (lognormal)": Scalar(1.0, shape="lognormal"),
    "sigma 0.3, drift 2": Scalar(0.3, drift=2.0),
    "sigma 0.6, drift 1": Scalar(0.6, drift=1.0),
    "sigma 1, seeds share half": Scalar(1.0, shared=0.5),
    "null, sigma 1": Scalar(1.0, good=0.0, neutral=0.65),
    "suite of 40, 25 % flaky": Suite(),
    "suite of 40, 5 % flaky": Suite(flaky=0.05),
    "suite of 20, 25 % flaky": Suite(20),
    "suite of 100, 25 % flaky": Suite(100),
}
MAIN = ("sigma 0.3", "sigma 1", "sigma 3")


class Known(NamedTuple):
    """What earlier simulations gave; None where they did not say."""

    true: float | None = None
    false: float | None = None
    missed: float | None = None
    over: float | None = None
    claimed: float | None = None


def _known(text: str) -> dict[str, Known]:
    """Read lines of a rule and its figures: true gain, false keeps, missed, over; `-` for none."""
    found: dict[str, Known] = {}
    for line in text.strip().splitlines():
        name, figures = line.rsplit("|", 1)
        found[name.strip()] = Known(*(None if f == "-" else float(f) for f in figures.split()))
    return found


def _hard(figures: str) -> dict[str, Known]:
    """Read pairs of true gain and false keeps, in the order of `HARD` and `HARD_OURS`."""
    pairs = [pair.split("/") for pair in figures.split()]
    rules = (*HARD, *HARD_OURS)
    return {
        name: Known(float(true), float(false))
        for name, (true, false) in zip(rules, pairs, strict=True)
        if true != "-"
    }


KNOWN: dict[str, dict[str, Known]] = {
    "sigma 0.3": _known("""
        oracle              | 25.0 0 0 0
        1 run > best seen   | 23.4 65 9 .44
        same, re-measured   | 19.2 79 4 .22
        mean of 3 > best    | 8.1 66 1 .24
        mean of 5 > best    | 4.8 67 0 .18
        paired t, 5 pairs   | 2.4 39 3 .07
        Welch, 5 runs       | 4.8 19 4 .07
        ours: default       | 16.2 16 7 .06
        ours: explore       | 11.9 55 2 .12
        ours: strict        | 15.6 8 7 .03
        ours: min_delta 0.2 | 17.4 2 14 .03"""),
    "sigma 1": _known("""
        1 run > best seen   | 5.8 68 79 2.54
        same, re-measured   | 7.8 85 50 1.26
        mean of 3 > best    | 5.5 67 38 1.07
        mean of 5 > best    | 4.1 68 21 .72
        paired t, 5 pairs   | 1.4 56 50 .35
        Welch, 5 runs       | 2.0 24 66 .57
        ours: default       | 6.3 25 71 .35
        ours: explore       | 8.2 62 38 .48
        ours: strict        | 5.4 15 75 .28
        ours: min_delta 0.2 | 5.3 19 77 .32"""),
    "sigma 3": _known("""
        1 run > best seen   | 0.0 87 96 8.66
        same, re-measured   | -12.6 91 75 4.58
        mean of 3 > best    | 0.7 82 87 4.27
        mean of 5 > best    | 1.0 80 77 2.99
        paired t, 5 pairs   | 0.3 82 86 1.29
        Welch, 5 runs       | 0.2 70 96 1.70
        ours: default       | 0.7 73 96 1.02
        ours: explore       | 1.9 82 80 1.61"""),
    "sigma 0.6": _hard("15.2/65 7.4/66 2.0/44 3.9/19 12.2/18 12.0/21 10.7/57"),
    "sigma 0.6, 100 measurements": _hard("4.0/69 1.8/72 .5/44 .9/27 3.0/23 2.9/26 2.6/60"),
    "sigma 1, 15 % good": _hard("25.2/47 18.9/48 4.2/26 5.7/8 16.6/9 16.7/12 23.3/35"),
    "sigma 0.6, 2 % good": _hard("5.3/76 2.9/78 .8/70 1.6/34 5.0/35 4.9/42 4.3/76"),
    "sigma 1, heavy tails (t3)": _hard("2.9/73 5.0/68 1.6/47 2.8/19 6.4/30 6.7/34 8.7/55"),
    "sigma 1, one-sided (lognormal)": _hard("19.8/65 7.1/66 1.6/43 3.2/16 11.0/5 10.3/11 7.8/52"),
    "sigma 0.3, drift 2": _hard("6.4/75 2.3/80 2.3/40 1.1/77 4.5/43 8.2/42 6.7/59"),
    "sigma 0.6, drift 1": _hard("8.7/69 4.2/73 2.0/45 -/- 7.6/30 9.6/31 9.4/57"),
    "null, sigma 1": {
        "1 run > best seen": Known(claimed=2.67),
        "mean of 3 > best": Known(claimed=1.36),
        "Welch, 5 runs": Known(claimed=0.51),
        "ours: default": Known(claimed=0.30),
        "ours: window 5": Known(claimed=0.33),
        "ours: explore": Known(claimed=0.53),
    },
    "suite of 40, 25 % flaky": _known("""
        1 run > best seen      | 5.6 68 91
        same, re-measured      | 2.6 86 70
        mean of 3 > best       | 8.6 66 60
        McNemar, 1 run         | 0.8 60 99
        pooled z, 3 runs       | 1.1 18 96
        ours, on the pass rate | 8.1 30 87
        ours, from 1 and 2     | 11.5 37 81
        ours: llm-judged       | 14.9 43 63"""),
    "suite of 40, 5 % flaky": _known("""
        1 run > best seen      | 14.2 50 74
        same, re-measured      | 14.4 79 56
        mean of 3 > best       | 13.5 61 32
        McNemar, 1 run         | 1.3 11 99
        pooled z, 3 runs       | 2.2 2 93
        ours, on the pass rate | 17.1 17 64
        ours, from 1 and 2     | 18.4 22 57
        ours: llm-judged       | 18.9 36 39"""),
    "suite of 20, 25 % flaky": _known("""
        1 run > best seen      | 15.9 56 85
        same, re-measured      | 17.0 80 67
        mean of 3 > best       | 18.8 63 45
        McNemar, 1 run         | 1.9 25 99
        pooled z, 3 runs       | 6.1 8 88
        ours, on the pass rate | 20.4 22 78
        ours, from 1 and 2     | 22.5 28 72
        ours: llm-judged       | 24.6 39 50"""),
    "suite of 100, 25 % flaky": _known("""
        1 run > best seen      | 0.5 83 95
        same, re-measured      | -5.1 91 75
        mean of 3 > best       | 1.5 77 78
        McNemar, 1 run         | 0.1 82 99
        pooled z, 3 runs       | 0.1 46 99
        ours, on the pass rate | 1.0 59 95
        ours, from 1 and 2     | 1.6 59 93
        ours: llm-judged       | 3.1 58 82"""),
}
"""World -> rule -> the figures of November 2026, in per cent; gains of suites in points."""

# --- running -----------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Some campaigns of one rule in one world; crosses to a worker process."""

    world: str
    rule: str
    first: int
    past: int
    planned: bool


def work(batch: Batch) -> list[Count]:
    """Run a batch. The same campaign has the same seed under every rule."""
    world = WORLDS[batch.world]
    seeds = [f"{batch.world} {i}" for i in range(batch.first, batch.past)]
    if isinstance(world, Suite):
        return [suite_campaign(world, SUITE[batch.rule](), seed) for seed in seeds]
    if batch.planned:
        return [planned_campaign(world, OURS[batch.rule], seed) for seed in seeds]
    return [scalar_campaign(world, SCALAR[batch.rule](), seed) for seed in seeds]


def rules_of(world: str) -> tuple[str, ...]:
    """Give the rules that are tried in a world."""
    if isinstance(WORLDS[world], Suite):
        return tuple(SUITE)
    return tuple(SCALAR) if world in MAIN else (*HARD, *HARD_OURS)


def batches(worlds: list[str], campaigns: int, *, planned: bool) -> Iterator[Batch]:
    """Cut all that is to be done into pieces."""
    for world in worlds:
        suite = isinstance(WORLDS[world], Suite)
        count = max(10, round(campaigns * SUITE_SHARE)) if suite else campaigns
        for rule in rules_of(world):
            if planned and rule not in OURS:
                continue
            for first in range(0, count, BATCH):
                yield Batch(world, rule, first, min(count, first + BATCH), planned)


def compare_plans(worlds: list[str], campaigns: int, pool: Pool) -> bool:
    """Run the same campaigns by our schedule and by the real plan; tell whether all end alike."""
    real = list(batches(worlds, campaigns, planned=True))
    ours = [batch._replace(planned=False) for batch in real]
    same: Counter[tuple[str, str]] = Counter()
    tried: Counter[tuple[str, str]] = Counter()
    for batch, mine, theirs in zip(real, pool.imap(work, ours), pool.imap(work, real), strict=True):
        key = (batch.world, batch.rule)
        same[key] += sum(a == b for a, b in zip(mine, theirs, strict=True))
        tried[key] += len(mine)
    for (world, rule), count in tried.items():
        print(f"{world:32} {rule:20} {same[world, rule]} of {count} campaigns end alike")
    return same == tried


# --- figures -----------------------------------------------------------------------------------


class Figure(NamedTuple):
    """A number and its standard error."""

    value: float
    se: float


class Row(NamedTuple):
    """What came of one rule in one world."""

    campaigns: int
    kept: float
    false: Figure
    harmful: float
    missed: Figure
    true: Figure
    p10: float
    price: float | None
    """Measurements for each true keep; None if there was none."""
    over: Figure
    claimed: Figure
    fresh: Figure
    proposals: float


def share(parts: list[int], wholes: list[int]) -> Figure:
    """Give a ratio of sums in per cent, with its error from campaign to campaign."""
    whole = sum(wholes)
    if not whole:
        return Figure(0.0, 0.0)
    ratio = sum(parts) / whole
    square = sum((p - ratio * w) ** 2 for p, w in zip(parts, wholes, strict=True))
    return Figure(100 * ratio, 100 * math.sqrt(square) / whole)


def average(values: list[float]) -> Figure:
    """Give a mean over campaigns, with its error."""
    return Figure(fmean(values), pstdev(values) / math.sqrt(len(values)))


def row_of(counts: list[Count]) -> Row:
    """Sum campaigns up."""
    kept, n = [c.kept for c in counts], len(counts)
    won = sum(c.kept - c.false for c in counts)
    truths = sorted(c.true for c in counts)
    return Row(
        campaigns=n,
        kept=sum(kept) / n,
        false=share([c.false for c in counts], kept),
        harmful=share([c.harmful for c in counts], kept).value,
        missed=share([c.missed for c in counts], [c.good for c in counts]),
        true=average(truths),
        p10=truths[n // 10],
        price=sum(c.spent for c in counts) / won if won else None,
        over=average([c.over for c in counts]),
        claimed=average([c.claimed for c in counts]),
        fresh=average([c.fresh for c in counts]),
        proposals=sum(c.proposals for c in counts) / n,
    )


def against(figure: Figure, known: float | None, campaigns: int, digits: int) -> str:
    """Word what is known of a figure, and whether the two agree."""
    if known is None:
        return ""
    error = figure.se * math.sqrt(1 + campaigns / EARLIER)
    far = abs(figure.value - known) > MARK * error + 0.5 * 10**-digits
    mark = (">" if figure.value > known else "<") if far else ""
    return f"({known:.{digits}f}){mark}"


HEAD = (
    f"{'':24}{'kept':>5} {'false keeps':>17}{'harm':>6} {'missed':>13}{'true gain':>22}"
    f"{'p10':>7}{'price':>7} {'record - truth':>20} {'claimed':>18} {'tried':>5}"
)


def line(rule: str, row: Row, known: Known) -> str:
    """Word one row."""
    n = row.campaigns
    false = f"{row.false.value:.0f}±{row.false.se:.1f} {against(row.false, known.false, n, 0):6}"
    missed = f"{row.missed.value:.0f} {against(row.missed, known.missed, n, 0):6}"
    true = f"{row.true.value:+.2f}±{row.true.se:.2f} {against(row.true, known.true, n, 1):8}"
    over = f"{row.over.value:+.2f}±{row.over.se:.2f} {against(row.over, known.over, n, 2):8}"
    claimed = f"{row.claimed.value:+.2f} {against(row.claimed, known.claimed, n, 2):8}"
    price = "-" if row.price is None else f"{row.price:.0f}"
    return (
        f"{rule:24}{row.kept:5.1f} {false:>17}{row.harmful:6.0f} {missed:>13}{true:>22}"
        f"{row.p10:+7.1f}{price:>7} {over:>20} {claimed:>18} {row.proposals:5.0f}"
    )


def goals(rows: dict[tuple[str, str], Row]) -> Iterator[str]:
    """Say of each thing that is to be reached whether it is."""

    def said(met: bool, words: str) -> str:
        return f"{'reached' if met else 'MISSED '}  {words}"

    small, null = rows.get(("sigma 0.3", "ours: default")), "null, sigma 1"
    if small is not None:
        false, over = small.false.value, small.over.value / 0.3
        yield said(false <= 20, f"sigma 0.3: false keeps {false:.1f} %, at most 20 %")
        yield said(over <= 0.25, f"sigma 0.3: record - truth {over:.2f} sigma, at most 0.25")
    mine, naive = rows.get((null, "ours: default")), rows.get((null, "1 run > best seen"))
    if mine is not None and naive is not None:
        claim, theirs, fresh = mine.claimed, naive.claimed, mine.fresh
        words = f"{null}: {claim.value:.3f} ± {claim.se:.3f} % claimed, at most 0.4 %; "
        words += f"by the best run seen {theirs.value:.2f} %, at least 2.5 %"
        yield said(claim.value <= 0.4 and theirs.value >= 2.5, words)
        words = f"measured afresh, as `result` is, {fresh.value:+.3f} ± {fresh.se:.3f} %"
        yield f"         {null}: {words}"


def tables(worlds: list[str], campaigns: int, pool: Pool) -> Iterator[tuple[str, str, Row]]:
    """Run all rules in some worlds; give world, rule and row, as they are done."""
    counts: dict[tuple[str, str], list[Count]] = defaultdict(list)
    todo = list(batches(worlds, campaigns, planned=False))
    left = Counter((batch.world, batch.rule) for batch in todo)
    for batch, found in zip(todo, pool.imap(work, todo), strict=True):
        key = (batch.world, batch.rule)
        counts[key] += found
        left[key] -= 1
        if not left[key]:
            yield *key, row_of(counts.pop(key))


def main() -> None:
    """Run all worlds on all cores, and print a table for each."""
    words = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=words)
    parser.add_argument("--campaigns", type=int, help=f"for each row ({FULL}; suites a fifth)")
    parser.add_argument("--world", default="", help="only those whose names begin so")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} campaigns for each row")
    parser.add_argument("--plan", action="store_true", help="is this a real run's schedule?")
    parser.add_argument("--json", action="store_true", help="rows as JSON, one a line")
    args = parser.parse_args()
    worlds = [name for name in WORLDS if name.startswith(args.world)]
    if not worlds:
        parser.error(f"no world begins with {args.world!r}: {', '.join(WORLDS)}")
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        if args.plan:
            scalar = [name for name in worlds if isinstance(WORLDS[name], Scalar)]
            sys.exit(not compare_plans(scalar, args.campaigns or PLANNED, pool))
        campaigns = args.campaigns or (QUICK if args.quick else FULL)
        rows: dict[tuple[str, str], Row] = {}
        for world, rule, row in tables(worlds, campaigns, pool):
            rows[world, rule] = row
            show(world, rule, row, as_json=args.json)
    if not args.json:
        print("\n" + "\n".join(goals(rows)))


def show(world: str, rule: str, row: Row, *, as_json: bool) -> None:
    """Print one row; the first of a world under a heading."""
    if as_json:
        print(json.dumps({"world": world, "rule": rule, **row._asdict()}), flush=True)
        return
    if rule == rules_of(world)[0]:
        print(f"\n{world}: {row.campaigns} campaigns a row\n{HEAD}")
    print(line(rule, row, KNOWN.get(world, {}).get(rule, Known())), flush=True)


if __name__ == "__main__":
    main()
