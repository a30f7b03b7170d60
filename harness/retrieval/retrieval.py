"""How well a search finds what it should, and how varied a list of recommendations is.

    python retrieval.py ask queries.jsonl --out results.jsonl -- python -m search
    python retrieval.py score golden.jsonl results.jsonl
    python retrieval.py measure golden.jsonl -- python -m search       both in one
    python retrieval.py lists items.jsonl results.jsonl --golden golden.jsonl   or --queries
    python retrieval.py check golden.jsonl queries.jsonl
    python retrieval.py queries golden.jsonl > queries.jsonl
    python retrieval.py compare golden.jsonl before.jsonl after.jsonl

`ask` belongs into `run`, where the golden set is hidden, and the others into `score`. Writes the
metrics to the file named by SWARM_RESULT and prints them as METRIC lines.

It owns the command line, the names of the metrics, the feedback, and the exit status: 0 measured, 1
the system failed or what it left cannot be used, 2 the command line or a file cannot be used.
"""

import argparse
import io
import json
import math
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

sys.dont_write_bytecode = True  # the checkout may be read-only, and must stay clean when it is not
sys.path.append(str(Path(__file__).resolve().parent.parent / "checklist"))

import asking  # noqa: E402
import files  # noqa: E402
import lists  # noqa: E402
import measures  # noqa: E402
from ending import NoAnswerError, UsageError, leave_on, status_of  # noqa: E402
from files import Found, Query, Result  # noqa: E402

WORST = 8
"""Queries that the feedback names."""
KEPT = 100
"""Results of a query that `ask` keeps, so that more of them can be judged than are wanted today."""
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
    line: dict[str, object] = {"id": name, "results": shown, "seconds": found.seconds}
    return line | {"cut": k} if len(found.results) > k else line


def _kept(path: Path, k: int) -> dict[str, Found]:
    """Read what `ask` left; it must have k results where there were as many."""
    found = files.results(path)
    for name, one in found.items():
        if one.cut is not None and one.cut < k:
            what = f"only {one.cut} results were kept for query {name!r}, and --k is {k}"
            raise NoAnswerError(f"{path}: {what}; ask again with --k {k}")
    return found


def score(given: Given) -> None:
    """Judge what `ask` left."""
    _report(_golden(given), _kept(given.results, given.k), given)


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


def _ranked(given: Given) -> list[Query]:
    """Take the queries of that part that measures of rank are about."""
    if not (taken := [q for q in _golden(given) if q.answerable]):
        raise UsageError(f"{given.golden}: there is no query with a relevant result to judge by")
    return taken


def _report(golden: Sequence[Query], found: Mapping[str, Found], given: Given) -> None:
    weights = measures.WEIGHTS if given.weights is None else _weights(given.weights)
    if given.texts is not None:
        found = _trusted(found, files.texts(given.texts))
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


def _trusted(found: Mapping[str, Found], texts: Mapping[str, str]) -> dict[str, Found]:
    """Put the texts that are known in the place of those that the search has printed."""
    return {
        name: one._replace(results=tuple(Result(r.id, texts.get(r.id, "")) for r in one.results))
        for name, one in found.items()
    }


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
        grades = measures.grades_of(each.query, each.found.results[: given.k])
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
            raise UsageError(f"{given.queries}: query {query.id!r} is missing")
        if asked[query.id] != query.text:
            what = f"query {query.id!r} is another one in {given.golden}"
            raise UsageError(f"{given.queries}: {what}")


def queries(given: Given) -> None:
    """Print the queries of a golden set without their answers."""
    for query in files.golden(given.golden):
        print(json.dumps({"id": query.id, "query": query.text}, ensure_ascii=False))


def compare(given: Given) -> None:
    """Say whether a difference is more than the luck of the queries that were chosen."""
    golden = _ranked(given)
    before, after = (
        [measures.of(q, f, given.k)[given.metric] for q, f in _paired(golden, _kept(path, given.k))]
        for path in (given.before, given.after)
    )
    gains = [new - old for old, new in zip(before, after, strict=True)]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    print(f"{given.metric}: {fmean(before):.4f} -> {fmean(after):.4f}, {fmean(gains):+.4f}")
    print(f"better for {better} of {len(gains)} queries, worse for {worse}")
    if len(gains) < 2:
        print("95 % interval over queries: none, as one query says nothing of others")
    else:
        low, high = measures.interval(gains)
        print(f"95 % interval over queries: {low:+.4f} to {high:+.4f}")


# --- discovery --------------------------------------------------------------------------------


def discover(given: Given) -> None:
    """Judge lists of recommendations; one that is missing is an empty one."""
    items = files.items(given.items)
    found = _kept(given.results, given.k)
    if not found:
        raise NoAnswerError(f"{given.results} has no list")
    wanted = _wanted(given, found)
    metrics = {"lists": float(len(wanted))}
    metrics["unanswered"] = sum(q.id not in found for q in wanted)
    found = {q.id: one for q, one in _paired(wanted, found)}
    if given.golden is not None:
        per = [measures.of(q, found[q.id], given.k) for q in wanted]
        metrics["relevance"] = fmean(scores["ndcg"] for scores in per)
        metrics["hit_rate"] = fmean(scores["hit_rate"] for scores in per)
    shown = {name: [r.id for r in one.results[: given.k]] for name, one in found.items()}
    for name, ids in shown.items():
        if strange := next((each for each in ids if each not in items), None):
            what = f"list {name!r} has {strange!r}, which is no item"
            raise NoAnswerError(f"{given.results}: {what}")
    listed = [[items[name] for name in ids] for ids in shown.values()]
    each = [lists.of(one, given.radius) for one in listed]
    for name in ("diversity", "density"):
        metrics[name] = fmean(one[name] for one in each)
    if any(item.tags for item in items.values()):
        metrics["simpson"] = fmean(lists.simpson(one) for one in listed)
    metrics["coverage"] = lists.coverage(list(shown.values()), items)
    dullest = sorted(zip(each, shown, strict=True), key=lambda pair: pair[0]["diversity"])[:WORST]
    said = [f"{name!r}: diversity {one['diversity']:.3f}" for one, name in dullest]
    _emit(metrics, "" if given.held_out else "least varied: " + "; ".join(said), None)


def _wanted(given: Given, found: Mapping[str, Found]) -> list[Query]:
    """Give the queries for which there has to be a list."""
    if given.golden is not None:
        return _ranked(given)
    if given.held_out:
        raise UsageError("--held-out needs --golden, which says what is held out")
    wanted = files.queries(given.queries)
    known = {query.id for query in wanted}
    if strange := next((name for name in found if name not in known), None):
        raise NoAnswerError(f"{given.results}: there is a list for {strange!r}, which is no query")
    return wanted


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
        try:
            Path(place).write_text(json.dumps(told), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"SWARM_RESULT: {place} cannot be written: {error.strerror}") from None


def _weights(text: str) -> dict[str, float]:
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
        if name not in measures.NAMES or not 0 <= value < math.inf:
            raise UsageError(
                f"--weights: {part.strip()!r} is no weight; write {measures.NAMES[0]}=0.5, "
                f"with a name of {', '.join(measures.NAMES)}"
            )
        if name in found:
            raise UsageError(f"--weights: {name} is there twice")
        found[name] = value
    if not 0 < sum(found.values()) < math.inf:
        raise UsageError("--weights: their sum must be above 0, and no more than a number can be")
    return found


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    return _between(text, 1e9, "number of seconds above 0")


def _radius(text: str) -> float:
    return _between(text, 1.0, "distance above 0, of at most 1")


def _between(text: str, most: float, what: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no {what}")
    return found


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    top = argparse.ArgumentParser(prog="retrieval", description="How well a search finds.")
    modes = top.add_subparsers(required=True)

    usage = "retrieval ask [options] QUERIES -- COMMAND"
    told = "put queries to a search, and keep what it finds"
    asks = modes.add_parser("ask", usage=usage, help=told)
    asks.add_argument("queries", type=Path)
    asks.add_argument("--out", type=Path, default=Path("results.jsonl"))
    kept = f"results of a query that are kept [{KEPT}]"
    asks.add_argument("--k", type=_positive, default=KEPT, help=kept)
    _command(asks)
    asks.set_defaults(does=ask)

    scores = modes.add_parser("score", help="judge what `ask` kept")
    scores.add_argument("golden", type=Path)
    scores.add_argument("results", type=Path)
    _judged(scores)
    scores.set_defaults(does=score)

    usage = "retrieval measure [options] GOLDEN -- COMMAND"
    both = modes.add_parser("measure", usage=usage, help="ask and judge in one stage")
    both.add_argument("golden", type=Path)
    _judged(both)
    _command(both)
    both.set_defaults(does=measure)

    varied = modes.add_parser("lists", help="judge lists of recommendations")
    varied.add_argument("items", type=Path)
    varied.add_argument("results", type=Path)
    whose = varied.add_mutually_exclusive_group(required=True)
    whose.add_argument("--golden", type=Path, help="what is relevant on each list")
    whose.add_argument("--queries", type=Path, help="instead: the lists that there must be")
    varied.add_argument("--held-out", action="store_true", help="judge what is held out")
    varied.add_argument("--k", type=_positive, default=10, help="places that count [10]")
    near = "two items nearer than this are alike, for density [0.3]"
    varied.add_argument("--radius", type=_radius, default=lists.RADIUS, help=near)
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
    mode.add_argument("--timeout", type=_seconds, default=300.0, help="seconds for one start [300]")
    words = "one text for the shell, or a program and its words; may have {query} in it"
    mode.add_argument("command", nargs="+", metavar="COMMAND", help=words)


def _judged(mode: argparse.ArgumentParser) -> None:
    mode.add_argument("--k", type=_positive, default=10, help="results that count [10]")
    mode.add_argument("--held-out", action="store_true", help="judge what is held out instead")
    mode.add_argument("--weights", metavar="NAME=W,...", help="of `combined`")
    mode.add_argument("--cases", action="store_true", help="report each query as a case")
    true = "what is written in each result, for keywords and snippets; else what the search prints"
    mode.add_argument("--texts", type=Path, metavar="FILE", help=true)
    mode.add_argument("--tell", action="store_true", help="name the right answers in the feedback")


def main() -> int:
    """Do what the command line says."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Queries are in UTF-8 wherever this runs. Half a surrogate pair becomes the escape that
            # JSON has for it.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    given = parser().parse_args()
    leave_on(signal.SIGTERM)
    return status_of("retrieval", lambda: given.does(given))


if __name__ == "__main__":
    sys.exit(main())
