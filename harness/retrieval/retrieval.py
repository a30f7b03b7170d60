"""How well a search finds what it should, and how varied a list of recommendations is.

    python retrieval.py ask queries.jsonl --out results.jsonl -- python -m search
    python retrieval.py score golden.jsonl results.jsonl
    python retrieval.py measure golden.jsonl -- python -m search       both in one
    python retrieval.py lists items.jsonl results.jsonl --golden golden.jsonl
    python retrieval.py check golden.jsonl queries.jsonl
    python retrieval.py queries golden.jsonl > queries.jsonl
    python retrieval.py compare golden.jsonl before.jsonl after.jsonl

`ask` belongs into `run`, where the golden set is hidden, and the others into `score`. Writes the
metrics to the file named by SWARM_RESULT and prints them as METRIC lines.

It owns the command line, the names of the metrics, the feedback, and the exit status: 0 measured, 1
the system failed or what it left cannot be used, 2 the command line or a file cannot be used.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple, NoReturn

sys.dont_write_bytecode = True  # the checkout may be read-only, and must stay clean when it is not
sys.path.append(str(Path(__file__).resolve().parent.parent / "checklist"))

import asking  # noqa: E402
import files  # noqa: E402
import lists  # noqa: E402
import measures  # noqa: E402
from files import Found, NoAnswerError, Query, UsageError  # noqa: E402

WORST = 8
"""Queries that the feedback names."""
OWN = ("SWARM_RESULT", "SWARM_CASES")
"""Variables that are for the harness, and not for what it starts."""

Given = argparse.Namespace


class Judged(NamedTuple):
    """One query with its scores."""

    query: Query
    found: Found
    scores: Mapping[str, float]


# --- search -----------------------------------------------------------------------------------


def ask(given: Given) -> None:
    """Put the queries, and leave what was found."""
    found = _asked(files.queries(given.queries), given)
    lines = (json.dumps(_line(name, one, given.k)) + "\n" for name, one in found.items())
    try:
        given.out.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out: {given.out} cannot be written: {error.strerror}") from None
    print(f"{len(found)} queries answered, in {given.out}")


def _asked(queries: Sequence[Query], given: Given) -> dict[str, Found]:
    env = {name: value for name, value in os.environ.items() if name not in OWN}
    return asking.ask(queries, given.command, cwd=Path.cwd(), env=env, timeout_s=given.timeout)


def _line(name: str, found: Found, k: int) -> dict[str, object]:
    shown = [{"id": r.id, "text": r.text} for r in found.results[:k]]
    return {"id": name, "results": shown, "seconds": found.seconds}


def score(given: Given) -> None:
    """Judge what `ask` left."""
    _report(_golden(given), files.results(given.results), given)


def measure(given: Given) -> None:
    """Ask and judge in one."""
    golden = _golden(given)
    _report(golden, _asked(golden, given), given)


def _golden(given: Given) -> list[Query]:
    """Take the part that counts: what is held out is for the end of a run."""
    every = files.golden(given.golden)
    taken = [q for q in every if q.held_out == given.held_out]
    if not any(q.answerable or q.keywords or q.snippets for q in taken):
        which = "is held out and" if given.held_out else "is not held out and"
        raise UsageError(f"{given.golden}: there is no query that {which} has a known answer")
    return taken


def _report(golden: Sequence[Query], found: Mapping[str, Found], given: Given) -> None:
    weights = dict(measures.WEIGHTS)
    if given.weights is not None:
        weights = _weights(given.weights, measures.NAMES)
    judged = [Judged(q, f, measures.of(q, f, given.k)) for q, f in _paired(golden, found)]
    metrics = measures.means([each.scores for each in judged])
    if lacking := sorted(weights.keys() - metrics.keys()):
        raise UsageError(
            f"--weights: no query of {given.golden} has what `{lacking[0]}` needs; "
            "give other weights"
        )
    metrics["combined"] = measures.combined(metrics, weights)
    metrics["queries"] = sum(bool(each.scores) for each in judged)
    metrics["unanswered"] = sum(q.id not in found for q in golden)
    metrics |= _latency(found.values())
    ranked = [j for j in judged if j.query.answerable]
    cases = [{"id": j.query.id, "pass": bool(j.scores["hit_rate"])} for j in ranked]
    _emit(metrics, _feedback(judged, given), cases if given.cases else None)


def _paired(golden: Sequence[Query], found: Mapping[str, Found]) -> Iterator[tuple[Query, Found]]:
    """Give each query what was found for it: nothing, if it was not answered."""
    return ((query, found.get(query.id, Found())) for query in golden)


def _latency(found: Iterable[Found]) -> dict[str, float]:
    """Milliseconds for a query, as the stage has it that asked."""
    taken = [one.seconds for one in found if one.seconds is not None]
    return {"latency_ms": 1000 * median(taken)} if taken else {}


def _feedback(judged: Sequence[Judged], given: Given) -> str:
    """Name the worst queries. Not what would have been right: a candidate could learn it."""
    ranked = [j for j in judged if j.query.answerable]
    ranked.sort(key=lambda j: (j.scores["ndcg"], j.query.id))
    missed = sum(not j.scores["hit_rate"] for j in ranked)
    lines = [f"{len(ranked) - missed} of {len(ranked)} queries found something relevant"]
    if given.held_out:
        return lines[0]
    for each in ranked[:WORST]:
        grades = measures.gains(each.query, each.found.results[: given.k])
        first = next((rank for rank, grade in enumerate(grades, start=1) if grade), None)
        where = f"first relevant result at {first}" if first else "nothing relevant"
        text = f"{each.query.id} {each.query.text!r}: {where} in {len(grades)}"
        if given.tell:
            best = sorted(each.query.relevant, key=lambda name: -each.query.relevant[name])
            text += f"; best: {', '.join(name for name in best if each.query.relevant[name])}"
        lines.append(text)
    return "\n".join(lines)


def check(given: Given) -> None:
    """Say what a golden set has, and whether the queries are those of it."""
    golden = files.golden(given.golden)
    held = sum(q.held_out for q in golden)
    answerable = sum(q.answerable for q in golden)
    print(f"{len(golden)} queries, {held} of them held out, {answerable} with a relevant result")
    if given.queries is None:
        return
    asked = {q.id: q.text for q in files.queries(given.queries)}
    for query in golden:
        if query.id not in asked:
            raise UsageError(f"{given.queries}: query `{query.id}` is missing")
        if asked[query.id] != query.text:
            what = f"query `{query.id}` is another one in {given.golden}"
            raise UsageError(f"{given.queries}: {what}")


def queries(given: Given) -> None:
    """Print the queries of a golden set without their answers."""
    for query in files.golden(given.golden):
        print(json.dumps({"id": query.id, "query": query.text}, ensure_ascii=False))


def compare(given: Given) -> None:
    """Say whether a difference is more than the luck of the queries that were chosen."""
    golden = [q for q in _golden(given) if q.answerable]
    if not golden:
        raise UsageError(f"{given.golden}: there is no query with a relevant result to compare by")
    before, after = (
        [measures.of(q, f, given.k)[given.metric] for q, f in _paired(golden, files.results(path))]
        for path in (given.before, given.after)
    )
    gains = [new - old for old, new in zip(before, after, strict=True)]
    low, high = measures.interval(gains)
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    print(f"{given.metric}: {fmean(before):.4f} -> {fmean(after):.4f}, {fmean(gains):+.4f}")
    print(f"better for {better} of {len(gains)} queries, worse for {worse}")
    print(f"95 % interval over queries: {low:+.4f} to {high:+.4f}")


# --- discovery --------------------------------------------------------------------------------


def discover(given: Given) -> None:
    """Judge lists of recommendations."""
    items = files.items(given.items)
    found = files.results(given.results)
    if not found:
        raise NoAnswerError(f"{given.results} has no list")
    metrics = {"lists": float(len(found))}
    golden: list[Query] = []
    if given.golden is not None:
        golden = [q for q in _golden(given) if q.answerable]
        found = {q.id: one for q, one in _paired(golden, found)}
        metrics = {"lists": float(len(golden))}
        per = [measures.of(q, found[q.id], given.k) for q in golden]
        metrics["relevance"] = fmean(scores["ndcg"] for scores in per)
        metrics["hit_rate"] = fmean(scores["hit_rate"] for scores in per)
    shown = {name: [r.id for r in one.results[: given.k]] for name, one in found.items()}
    for name, ids in shown.items():
        if strange := next((each for each in ids if each not in items), None):
            raise NoAnswerError(f"{given.results}: list `{name}` has `{strange}`, which is no item")
    each = [lists.of([items[i] for i in ids], given.radius) for ids in shown.values()]
    for name in ("diversity", "density", "simpson"):
        if values := [one[name] for one in each if name in one]:
            metrics[name] = fmean(values)
    metrics["coverage"] = lists.coverage(list(shown.values()), items)
    dullest = sorted(zip(each, shown, strict=True), key=lambda pair: pair[0]["diversity"])[:WORST]
    said = [f"{name}: diversity {one['diversity']:.3f}" for one, name in dullest]
    _emit(metrics, "" if given.held_out else "least varied: " + "; ".join(said), None)


# --- the command line -------------------------------------------------------------------------


def _emit(metrics: Mapping[str, float], feedback: str, cases: object) -> None:
    for name, value in metrics.items():
        print(f"METRIC {name}={value:.6g}")
    if feedback:
        print(feedback)
    if place := os.environ.get("SWARM_RESULT"):
        told: dict[str, object] = {"metrics": metrics, "feedback": feedback}
        if cases is not None:
            told["cases"] = cases
        Path(place).write_text(json.dumps(told), encoding="utf-8")


def _weights(text: str, names: Sequence[str]) -> dict[str, float]:
    """Read `hit_rate=0.5,mrr=0.5`.

    Raises:
        UsageError: it is something else.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in names or not 0 <= value < float("inf"):
            raise UsageError(
                f"--weights: {part.strip()!r} is no weight; write {names[0]}=0.5, "
                f"with a name of {', '.join(names)}"
            )
        found[name] = value
    if not sum(found.values()):
        raise UsageError("--weights: all of them are 0")
    return found


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    top = argparse.ArgumentParser(prog="retrieval", description="How well a search finds.")
    modes = top.add_subparsers(required=True)

    asks = modes.add_parser("ask", help="put queries to a system, and keep what it finds")
    asks.add_argument("queries", type=Path)
    asks.add_argument("--out", type=Path, default=Path("results.jsonl"))
    asks.add_argument("--k", type=_positive, default=10, help="results that are kept [10]")
    _command(asks)
    asks.set_defaults(does=ask)

    scores = modes.add_parser("score", help="judge what `ask` kept")
    scores.add_argument("golden", type=Path)
    scores.add_argument("results", type=Path)
    _judged(scores)
    scores.set_defaults(does=score)

    both = modes.add_parser("measure", help="ask and judge in one stage")
    both.add_argument("golden", type=Path)
    _judged(both)
    _command(both)
    both.set_defaults(does=measure)

    varied = modes.add_parser("lists", help="judge lists of recommendations")
    varied.add_argument("items", type=Path)
    varied.add_argument("results", type=Path)
    varied.add_argument("--golden", type=Path, help="what is relevant on each list")
    varied.add_argument("--held-out", action="store_true", help="judge what is held out")
    varied.add_argument("--k", type=_positive, default=10, help="places that count [10]")
    near = "two items nearer than this are alike, for density [0.3]"
    varied.add_argument("--radius", type=float, default=lists.RADIUS, help=near)
    varied.set_defaults(does=discover)

    checks = modes.add_parser("check", help="read a golden set, and say what is wrong")
    checks.add_argument("golden", type=Path)
    checks.add_argument("queries", type=Path, nargs="?")
    checks.set_defaults(does=check)

    lone = modes.add_parser("queries", help="print the queries of a golden set without answers")
    lone.add_argument("golden", type=Path)
    lone.set_defaults(does=queries)

    pairs = modes.add_parser("compare", help="compare two files of results, query by query")
    for name in ("golden", "before", "after"):
        pairs.add_argument(name, type=Path)
    pairs.add_argument("--k", type=_positive, default=10, help="results that count [10]")
    ranked = ("hit_rate", "mrr", "ndcg", "recall")
    pairs.add_argument("--metric", choices=ranked, default="ndcg", help="compared by it [ndcg]")
    pairs.add_argument("--held-out", action="store_true", help="by what is held out instead")
    pairs.set_defaults(does=compare)
    return top


def _command(mode: argparse.ArgumentParser) -> None:
    mode.add_argument("--timeout", type=float, default=300.0, help="seconds for one start [300]")
    mode.add_argument("command", nargs="+", metavar="-- COMMAND")


def _judged(mode: argparse.ArgumentParser) -> None:
    mode.add_argument("--k", type=_positive, default=10, help="results that count [10]")
    mode.add_argument("--held-out", action="store_true", help="judge what is held out instead")
    mode.add_argument("--weights", metavar="NAME=W,...", help="of `combined`")
    mode.add_argument("--cases", action="store_true", help="report each query as a case")
    mode.add_argument("--tell", action="store_true", help="name the right answers in the feedback")


def main() -> int:
    """Do what the command line says."""
    given = parser().parse_args()
    signal.signal(signal.SIGTERM, leave)
    try:
        given.does(given)
    except UsageError as error:
        print(f"retrieval: {error}", file=sys.stderr)
        return 2
    except NoAnswerError as error:
        print(f"retrieval: no answer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def leave(number: int, _: object) -> NoReturn:
    """End by a signal, and all children first."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
