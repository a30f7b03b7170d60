"""The result files of other tools, written beside a measurement that is made by hand.

Owns their shapes: Anthropic's `grading.json` and `benchmark.json`, and the skill loops'
`results.tsv`, `results.json` and `changelog.md`. A folder grows by one experiment with each
measurement; the first is the baseline, and what is not better than the best is discarded.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple, cast

from form import FormError
from results import Graded, Result, excerpt
from suite import Suite

HEADER = ("experiment", "score", "max_score", "pass_rate", "status", "description")


class Experiment(NamedTuple):
    """A line of results.tsv."""

    experiment: int
    score: int
    max_score: int
    pass_rate: str
    status: str
    description: str


def write(
    folder: Path,
    suite: Suite,
    found: Sequence[Result],
    graded: Mapping[str, Sequence[Graded]],
    metrics: Mapping[str, float],
    *,
    description: str,
    without: bool,
) -> None:
    """Write all files of one measurement.

    Raises:
        FormError: what lies in the folder is not what this module writes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "grading.json", grading(graded, metrics))
    benchmark(folder / "benchmark.json", found, metrics, without=without)
    if without:
        return  # no experiment: nothing was under test
    earlier = _earlier(folder / "results.tsv")
    score, most = sum(result.passed for result in found), len(found)
    best = max((e.score / e.max_score for e in earlier if e.max_score), default=None)
    status = "baseline" if best is None else "keep" if score / most > best else "discard"
    rate = f"{100 * score / most:.1f}%"
    said = excerpt(description) or ("baseline" if best is None else "-")
    number = earlier[-1].experiment + 1 if earlier else 0
    done = [*earlier, Experiment(number, score, most, rate, status, said)]
    lines = [HEADER, *done]
    text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
    (folder / "results.tsv").write_text(text, encoding="utf-8")
    _save(folder / "results.json", _results(suite, done, found))
    _log(folder / "changelog.md", done[-1], found)


# --- Anthropic --------------------------------------------------------------------------------


def grading(graded: Mapping[str, Sequence[Graded]], metrics: Mapping[str, float]) -> dict[str, Any]:
    """Give every check of every run as an expectation."""
    expectations: list[dict[str, Any]] = []
    for case, runs in graded.items():
        for run in runs:
            ruled = [*(run.checks or ()), *run.questions.values()]
            expectations += [
                {
                    "text": f"{case}: {rule.label}",
                    "passed": rule.holds,
                    "evidence": excerpt(rule.reason or run.outcome.answer),
                }
                for rule in ruled
            ]
    passed = sum(e["passed"] for e in expectations)
    total = len(expectations)
    summary = {
        "passed": passed,
        "failed": total - passed,
        "total": total,
        "pass_rate": passed / total if total else 0.0,
    }
    kept = ("tool_calls", "errors", "tokens", "seconds")
    return {
        "expectations": expectations,
        "summary": summary,
        "execution_metrics": {name: metrics[name] for name in kept},
    }


def benchmark(
    path: Path, found: Sequence[Result], metrics: Mapping[str, float], *, without: bool
) -> None:
    """Add this measurement to those with and without what is under test, and sum them up."""
    said = _load(path)
    runs = cast("list[dict[str, Any]]", said.get("runs", []))
    if not isinstance(said.get("runs", []), list):
        raise FormError(f"{path}: `runs` is no list; move the file away")
    rate = sum(result.passed for result in found) / len(found)
    result = {
        "pass_rate": rate,
        "time_seconds": metrics["seconds"],
        "tokens": metrics["tokens"],
        "errors": metrics["errors"],
    }
    name = "without_skill" if without else "with_skill"
    run: dict[str, Any] = {"configuration": name, "run_number": len(runs) + 1, "result": result}
    runs = [*runs, run]
    summary: dict[str, Any] = {}
    for kind in ("with_skill", "without_skill"):
        own = [r["result"] for r in runs if r["configuration"] == kind]
        if own:
            keys = ("pass_rate", "time_seconds", "tokens")
            summary[kind] = {key: _spread([r[key] for r in own]) for key in keys}
    _save(path, {"runs": runs, "run_summary": summary})


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "mean": fmean(values),
        "stddev": stdev(values) if len(values) > 1 else 0.0,
        "min": min(values),
        "max": max(values),
    }


# --- skill loops ------------------------------------------------------------------------------


def _earlier(path: Path) -> list[Experiment]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    found: list[Experiment] = []
    for n, line in enumerate(lines[1:], start=2):
        words = line.split("\t")
        try:
            number, score, most = (int(word) for word in words[:3])
            found.append(Experiment(number, score, most, words[3], words[4], words[5]))
        except (ValueError, IndexError):
            raise FormError(
                f"{path}:{n}: not a line of {', '.join(HEADER)}; move the file away"
            ) from None
    return found


def _results(suite: Suite, done: Sequence[Experiment], found: Sequence[Result]) -> dict[str, Any]:
    rates = [100 * e.score / e.max_score for e in done]
    questions = dict.fromkeys(result.question or "checks" for result in found)
    breakdown: list[dict[str, Any]] = []
    for name in questions:
        own = [result for result in found if (result.question or "checks") == name]
        count = sum(result.passed for result in own)
        breakdown.append({"name": name, "pass_count": count, "total": len(own)})
    listed = [
        {"id": e.experiment, **{k: v for k, v in e._asdict().items() if k != "experiment"}}
        | {"pass_rate": rate}
        for e, rate in zip(done, rates, strict=True)
    ]
    return {
        "skill_name": suite.under.name,
        "status": "idle",
        "current_experiment": done[-1].experiment,
        "baseline_score": rates[0],
        "best_score": max(rates),
        "experiments": listed,
        "eval_breakdown": breakdown,
    }


def _log(path: Path, last: Experiment, found: Sequence[Result]) -> None:
    failed = [result for result in found if not result.passed]
    outputs = [f"- {r.id}: {excerpt('; '.join(r.reasons))}" for r in failed] or ["- none"]
    entry = [
        f"## Experiment {last.experiment} — {last.status}",
        "",
        f"**Score:** {last.score}/{last.max_score} ({last.pass_rate})",
        f"**Change:** {last.description}",
        f"**Result:** {last.status}",
        "**Failing outputs:**",
        *outputs,
        "",
        "",
    ]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(entry))


def _load(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormError(f"{path}: not JSON: {error}; move the file away") from None
    if not isinstance(value, dict):
        raise FormError(f"{path}: a JSON object is wanted; move the file away")
    return cast("dict[str, Any]", value)


def _save(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
