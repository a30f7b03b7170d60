"""Forecasts and outcomes in, figures out. Pure: starts nothing and reads no file.

Log-loss is the mean of -ln(p of what happened), with p at least `EPS`. The Brier score is the mean
squared distance: of labels over all of them, as Brier (1950) has it, from 0 to 2; of true and false
over the one probability, from 0 to 1, as is usual now. Its skill is 1 - Brier / Brier of the base
rate. The calibration error (ECE) is that of Guo et al. (2017): ten equal bins of the highest
probability, mean |share that came true - mean probability|, weighted by their events.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

EPS = 1e-6
BINS = 10
TIE = 1e-9
LEAST_SKILL = -1e100
"""Where the base is so good that no float could hold the quotient."""

Chances = Mapping[str, float]


class Judged(NamedTuple):
    """One event that counts: what was said of it, and what came."""

    chances: Chances
    """Of every label; the base rate where nothing was said."""
    base: Chances
    """By how often each label had come until then."""
    label: str
    answered: bool = True


class Guessed(NamedTuple):
    """The same for an outcome that is a number."""

    value: float
    base: float
    """The mean until then."""
    outcome: float
    answered: bool = True


class Bin(NamedTuple):
    """Events with about the same highest probability."""

    events: int
    said: float
    """The mean of that probability."""
    came: float
    """The share that came true."""


def of(judged: Sequence[Judged], binary: bool) -> dict[str, float]:
    """Give all figures of forecasts with probabilities."""
    losses = [log_loss(each.chances, each.label) for each in judged]
    brier = fmean(squares(each.chances, each.label, binary) for each in judged)
    base = fmean(squares(each.base, each.label, binary) for each in judged)
    total = len(judged)
    return {
        "log_loss": fmean(losses),
        "log_loss_se": _error(losses),
        "brier": brier,
        "skill": _skill(brier, base),
        "accuracy": fmean(right(each.chances, each.label) for each in judged),
        "ece": sum(b.events * abs(b.came - b.said) for b in bins(judged)) / total,
        "coverage": fmean(each.answered for each in judged),
        "events": total,
        "base_log_loss": fmean(log_loss(each.base, each.label) for each in judged),
        "base_brier": base,
    }


def of_numbers(guessed: Sequence[Guessed]) -> dict[str, float]:
    """Give all figures of forecasts that are numbers."""
    errors = [abs(each.value - each.outcome) for each in guessed]
    squared = fmean(error * error for error in errors)
    base = fmean((each.base - each.outcome) ** 2 for each in guessed)
    return {
        "absolute_error": fmean(errors),
        "absolute_error_se": _error(errors),
        "squared_error": squared,
        "bias": fmean(each.value - each.outcome for each in guessed),
        "skill": _skill(squared, base),
        "coverage": fmean(each.answered for each in guessed),
        "events": len(guessed),
        "base_absolute_error": fmean(abs(each.base - each.outcome) for each in guessed),
        "base_squared_error": base,
    }


def log_loss(chances: Chances, label: str) -> float:
    """Give what one forecast loses; one that was sure and wrong loses 13.8."""
    return -math.log(min(1.0, max(EPS, chances[label])))


def squares(chances: Chances, label: str, binary: bool) -> float:
    """Give the squared distance between one forecast and what came."""
    if binary:
        return (1.0 - chances[label]) ** 2
    return sum((p - (name == label)) ** 2 for name, p in chances.items())


def right(chances: Chances, label: str) -> float:
    """Give 1 if the most probable label came; labels that share the first place share the 1."""
    most = max(chances.values())
    first = [name for name, p in chances.items() if p >= most - TIE]
    return 1 / len(first) if label in first else 0.0


def bins(judged: Sequence[Judged]) -> list[Bin]:
    """Sort events by their highest probability; empty bins are left out."""
    groups: dict[int, list[Judged]] = {}
    for each in judged:
        most = max(each.chances.values())
        groups.setdefault(min(BINS - 1, int(most * BINS)), []).append(each)
    return [
        Bin(
            len(group),
            fmean(max(each.chances.values()) for each in group),
            fmean(right(each.chances, each.label) for each in group),
        )
        for _, group in sorted(groups.items())
    ]


def _skill(mine: float, base: float) -> float:
    return max(LEAST_SKILL, 1 - mine / base) if base else 0.0


def _error(values: Sequence[float]) -> float:
    """Give the standard error of a mean."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
