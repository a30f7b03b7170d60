"""The judge's part of a config: when a candidate counts as better, and the presets of that.

Owns the keys and their meaning as numbers; what they lead to is `judge`'s. Knows no record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import BeforeValidator, Field, model_validator

from swarm.quantities import (
    Margin,
    MetricName,
    Number,
    Text,
    Whole,
    WholeOrAll,
    show,
    some,
    wrong,
    wrong_at,
)
from swarm.records import Goal, MetricSpec
from swarm.sections import Section

Preset = Literal["default", "suite", "explore", "strict", "llm-judged"]

PRESETS: Mapping[Preset, Mapping[str, float | int]] = {
    "default": {},
    "explore": {"drop_below": 0.0, "keep_above": 1.0},
    "strict": {"keep_above": 2.5},
    "suite": {"drop_below": 0.25, "keep_above": 2.5, "runs": 12},
    "llm-judged": {"drop_below": 0.25, "runs": 12},
}
"""What each preset changes; a key that is given wins."""


class Limit(NamedTuple):
    """A limit on the mean of a metric. The numbers are in the metric's unit."""

    metric: str
    maximum: float | None = None
    minimum: float | None = None
    max_regression: float | None = None
    """Share of the baseline's magnitude (0.05) by which it may be worse."""
    goal: Goal | None = None
    """Which way is better, if it was said."""

    def worse(self, own: MetricSpec) -> int:
        """Give the sign of what is worse: more, as for all costs, unless it is said, or unless it
        is the target's own metric and that is to be maximized.
        """
        if self.goal is not None:
            return -1 if self.goal == "maximize" else 1
        return -own.sign if self.metric == own.name else 1


class ImprovesConfig(Section):
    """One point for less of a cost than the incumbent has."""

    improves: MetricName
    """Name of the cost, as the harness reports it, or `seconds` or `peak_memory_mb`."""

    @property
    def name(self) -> str:
        """The metric that is compared."""
        return self.improves


def _part(value: Any) -> Any:
    # Told apart here, since the errors of a union would name all that was tried.
    if isinstance(value, dict):
        return ImprovesConfig.model_validate(value)
    if value == "cases" or isinstance(value, ImprovesConfig):
        return cast("object", value)
    raise wrong(f"`cases` or `{{improves: name}}` is wanted, not {show(value)}")


PointsPart = Annotated[Literal["cases"] | ImprovesConfig, BeforeValidator(_part)]


class PointsConfig(Section):
    """Scoring by points: one for each passed case, one for less of each cost. A list of the parts
    is short for `{of: list}`.
    """

    of: Annotated[tuple[PointsPart, ...], some()]
    """What gives points: `cases`, and `{improves: name}` for a cost."""
    trade: Literal["lexicographic", "literal"] = "lexicographic"
    """`lexicographic` looks at a part only when all before it are equal, so that no lost case is
    ever bought by speed; `literal` adds the points up."""

    @model_validator(mode="after")
    def _each_once(self) -> PointsConfig:
        names = [part if isinstance(part, str) else part.improves for part in self.of]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise wrong(f"{show(twice)} is counted twice")
        return self


def _by_parts(value: Any) -> Any:
    return {"of": cast("object", value)} if isinstance(value, list | tuple) else value


def _bounds(value: Any) -> Any:
    pair = cast("list[object]", value) if isinstance(value, list | tuple) else []
    if len(pair) != 2:
        what = "two numbers are wanted, [lowest, highest], null for no bound"
        raise wrong(f"{what}, not {show(cast('object', value))}")
    return tuple(pair)


Bounds = Annotated[
    tuple[Number | None, Number | None],
    BeforeValidator(
        _bounds,
        json_schema_input_type=Annotated[list[float | None], Field(min_length=2, max_length=2)],
    ),
]


class JudgeConfig(Section):
    """When a candidate counts as better. z is the gain over the noise, positive for better."""

    preset: Preset = "default"
    """Where the other keys start from. `suite` is taken where the metric is `cases` and no other is
    given: repeats of a few cases are cheap, so it is patient and asks for more; `llm-judged` asks
    for less, for cases so noisy that little would be kept. `explore` keeps more and faster, half of
    it without effect; `strict` keeps less."""
    baseline: Annotated[Whole, Field(ge=2)] = 5
    """Measurements of the untouched base, to learn the noise."""
    runs: Annotated[Whole, Field(ge=1)] = 5
    """Most measurements of a candidate while it is undecided."""
    confirm: Annotated[Whole, Field(ge=1)] = 5
    """Fresh measurements of base and of best at the end of a run."""
    min_delta: Margin = 0.0
    """Smallest gain worth keeping, in the metric's unit or as a percentage of the incumbent's
    value."""
    drop_below: Number = 1.0
    """Discard below this z."""
    keep_above: Number = 2.0
    """Keep from this z, after two measurements at least."""
    once: Number = 3.0
    """From this z a candidate is beyond doubt: it is measured once more before it is kept, its
    incumbent is not."""
    control_every: Annotated[Whole, Field(ge=1)] = 8
    """Measure the incumbent again after this many candidates."""
    window: WholeOrAll = "all"
    """How many of an incumbent's last measurements count; 5 where the machine drifts, as timings
    do."""
    aggregate: Literal["last", "min", "max", "mean", "median"] = "last"
    """What is made of several values of the metric in one measurement; `min` for timings."""
    keep_if_equal: Literal["never", "simpler"] = "never"
    """`simpler` keeps a change that removes more lines than it adds if it measures as equal."""
    bounds: Bounds | None = None
    """Smallest and largest value of the metric that can be true; a measurement beyond is invalid.
    null for no bound."""
    max_gain: Margin | None = None
    """A gain beyond this, in the metric's unit or as a percentage, is not believed before a second
    look."""
    points: (
        Annotated[
            PointsConfig,
            BeforeValidator(_by_parts, json_schema_input_type=PointsConfig | list[PointsPart]),
        ]
        | None
    ) = None
    """Score by points instead of the share of passed cases."""
    must_pass: tuple[Text, ...] = ()
    """Cases that no change may break: one that always passed may not fail twice."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = cast("dict[str, Any]", data)
        # A preset that is unknown is reported as such, by its field.
        known = [start for name, start in PRESETS.items() if name == given.get("preset")]
        return {**(known[0] if known else {}), **given}

    @model_validator(mode="after")
    def _can_be(self) -> JudgeConfig:
        found: list[tuple[str, str]] = []
        low_bound, high_bound = self.bounds or (None, None)
        if low_bound is not None and high_bound is not None and low_bound >= high_bound:
            found.append(("bounds", f"the lowest, {low_bound:g}, is not below the highest"))
        if self.max_gain in (0.0, "0%"):
            found.append(("max_gain", "it must be above 0, or null for none"))
        if found:
            raise wrong_at(found)
        return self


def disorder(rule: JudgeConfig) -> tuple[str, str] | None:
    """Give a key whose value contradicts another's, and why; None if all are in order.

    Not looked at in each section, for a target's own keys stand in place of some of the run's.
    """
    for low, high in (("drop_below", "keep_above"), ("keep_above", "once")):
        a, b = getattr(rule, low), getattr(rule, high)
        if a > b:
            at = high if high in rule.model_fields_set else low
            return at, f"`{low}` ({a:g}) must not be above `{high}` ({b:g})"
    return None
