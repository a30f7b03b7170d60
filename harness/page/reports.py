"""Lighthouse's reports in, metrics and findings out.

Starts nothing and reads no file.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple, cast

from ending import NoAnswerError

CATEGORIES = {
    "performance": "performance",
    "accessibility": "accessibility",
    "best_practices": "best-practices",
    "seo": "seo",
}
"""From our name to Lighthouse's; 0 to 100 here, 0 to 1 there."""
AUDITS = {
    "fcp": "first-contentful-paint",
    "lcp": "largest-contentful-paint",
    "tbt": "total-blocking-time",
    "si": "speed-index",
    "cls": "cumulative-layout-shift",
    "bytes": "total-byte-weight",
}
"""From our name to the audit whose number it is: milliseconds, a sum of shifts, and bytes."""
SCORED = (*CATEGORIES, "fcp", "lcp", "tbt", "si", "cls")
"""What `composite` may be made of: each has a score of 0 to 100, larger is better."""

Report = Mapping[str, Any]


class Finding(NamedTuple):
    """An audit that the page does not pass."""

    category: str
    title: str
    shown: str
    """What Lighthouse says of it in figures, or nothing."""
    places: Sequence[str]
    lost: float
    """Points of the category's 100; 0 for an audit that only informs."""


def category(name: str) -> str:
    """Give the category of Lighthouse's in which a score or a number is measured."""
    return name if name in CATEGORIES else "performance"


def metrics(reports: Sequence[Report], weights: Mapping[str, float]) -> dict[str, float]:
    """Give each metric that was measured as the median of all runs, and `composite`.

    Raises:
        NoAnswerError: Lighthouse could not measure the page, or a part of it.
    """
    each = [_one(report, weights) for report in reports]
    return {name: median(numbers[name] for numbers in each) for name in each[0]}


def _one(report: Report, weights: Mapping[str, float]) -> dict[str, float]:
    if error := report.get("runtimeError"):
        raise NoAnswerError(f"Lighthouse: {error.get('code')}: {error.get('message')}")
    _check(report)
    numbers = {
        ours: _number(report["categories"][theirs], "score", ours) * 100
        for ours, theirs in CATEGORIES.items()
        if theirs in report["categories"]
    }
    scores = dict(numbers)
    if "performance" in scores:
        audits = {ours: report["audits"].get(theirs) for ours, theirs in AUDITS.items()}
        numbers |= {n: _number(audit, "numericValue", n) for n, audit in audits.items()}
        timed = weights.keys() & audits.keys()
        scores |= {name: _number(audits[name], "score", name) * 100 for name in timed}
    total = sum(weights.values())
    composite = sum(scores[name] * weight for name, weight in weights.items()) / total
    return {"composite": composite, **numbers}


def _check(report: Report) -> None:
    """Fail by the first audit that failed: the score of its category is gone with it."""
    for ours, theirs in CATEGORIES.items():
        for ref in report["categories"].get(theirs, {}).get("auditRefs", ()):
            audit = report["audits"].get(ref["id"], {})
            if ref["weight"] and audit.get("scoreDisplayMode") == "error":
                name = next(
                    (name for name, audit_id in AUDITS.items() if audit_id == ref["id"]), ref["id"]
                )
                why = audit.get("errorMessage") or "it failed"
                raise NoAnswerError(f"`{ours}`: Lighthouse's audit `{name}`: {why}")


def _number(holder: Mapping[str, Any] | None, key: str, name: str) -> float:
    value = (holder or {}).get(key)
    if not isinstance(value, int | float) or not math.isfinite(value):
        why = (holder or {}).get("errorMessage") or "Lighthouse has no number"
        raise NoAnswerError(f"`{name}`: {why}")
    return float(value)


def spread(reports: Sequence[Report], weights: Mapping[str, float]) -> dict[str, float]:
    """Give the distance from least to most of each metric that differs between the runs."""
    each = [_one(report, weights) for report in reports]
    wide = {name: max(n[name] for n in each) - min(n[name] for n in each) for name in each[0]}
    return {name: width for name, width in wide.items() if width > 0}


def findings(report: Report) -> list[Finding]:
    """Give what the page does not pass, what costs most first."""
    found: list[Finding] = []
    for ours, theirs in CATEGORIES.items():
        refs = report["categories"].get(theirs, {"auditRefs": ()})["auditRefs"]
        total = sum(ref["weight"] for ref in refs) or 1
        for ref in refs:
            audit = report["audits"][ref["id"]]
            score = audit.get("score")
            if score is None or score >= 0.9:
                continue
            lost = 100 * ref["weight"] * (1 - score) / total
            shown = str(audit.get("displayValue") or "")
            found.append(Finding(ours, audit["title"], shown, list(_places(audit)), lost))
    return sorted(found, key=lambda finding: -finding.lost)


def _places(audit: Mapping[str, Any]) -> Iterable[str]:
    """Name what an audit points at: elements and files."""
    details = cast("dict[str, Any]", audit.get("details") or {})
    for item in cast("list[dict[str, Any]]", details.get("items") or []):
        node = cast("dict[str, Any]", item.get("node") or {})
        place = node.get("snippet") or item.get("url")
        if isinstance(place, str):
            yield place[:160]
