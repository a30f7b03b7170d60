"""Every decision of a run of a suite, with costs, limits, points and a sealed command, in worlds
that lose slots, agents and themselves.
"""

from __future__ import annotations

from typing import Any

import pytest
import world
from hypothesis import given, settings
from hypothesis import strategies as st
from world import Habits, KilledError, Landscape, Table, World, check_end, config

from swarm.records import CASES, Decided, Failed, Finished, Measured
from swarm.state import RunState


def shares(*values: float) -> st.SearchStrategy[float]:
    return st.sampled_from(values)


POINTS: list[Any] = ["cases", {"improves": "cost"}]
RULES: list[dict[str, Any]] = [
    {},
    {"runs": 1},
    {"preset": "llm-judged"},
    {"preset": "explore", "baseline": 2},
    {"preset": "strict", "runs": 3, "control_every": 1},
    {"min_delta": "10%"},
    {"max_gain": 0.3},
    {"must_pass": ["c0"]},
    {"points": POINTS},
    {"points": POINTS, "runs": 2},
    {"points": {"of": POINTS, "trade": "literal"}},
    {"drop_below": -5, "keep_above": -1, "once": -1},
]
LIMITS: list[list[dict[str, Any]]] = [
    [],
    [{"metric": "cost", "max": 10.5}],
    [{"metric": "cost", "max_regression": "5%"}],
]


@st.composite
def any_suite(draw: st.DrawFn) -> World:
    """A run of a suite with anything in it; `World` itself checks every step."""
    seed = draw(st.integers(0, 2**32))
    settled = config(
        agents=draw(st.sampled_from([1, 2, 4])),
        experiments=draw(st.sampled_from([1, 6, 15])),
        lookahead=draw(st.integers(0, 1)),
        judge=draw(st.sampled_from(RULES)),
        constraints=draw(st.sampled_from(LIMITS)),
        metric=CASES,
        final=draw(st.sampled_from([None, "true"])),
    )
    landscape = Landscape(
        seed=seed,
        sites=draw(st.sampled_from([2, 6])),
        levels=draw(st.sampled_from([3, 6])),
        cases=draw(st.sampled_from([1, 5, 12])),
        flaky=draw(st.booleans()),
        deaf=draw(st.booleans()),
        cost_sigma=draw(shares(0.0, 0.3)),
        silent=draw(shares(0.0, 0.4)),
        failing=draw(shares(0.0, 0.1)),
    )
    habits = Habits(
        duplicate=draw(shares(0.0, 0.2)),
        crowding=draw(shares(0.0, 0.5)),
        lose_slot=draw(shares(0.0, 0.2)),
        lose_agent=draw(shares(0.0, 0.2)),
        kill=draw(shares(0.0, 0.05)),
        interrupt=draw(shares(0.0, 0.01)),
        thinks=draw(st.booleans()),
    )
    kinds = [("cpu",), ("cpu",) * 4, ("cpu", "gpu")]
    return World(settled, landscape, habits, seed=seed, machines=draw(st.sampled_from(kinds)))


@settings(max_examples=100, deadline=None)
@given(any_suite())
def test_every_run_of_a_suite_ends_and_everything_in_it_adds_up(run: World) -> None:
    run.live()
    for _ in range(30):
        if isinstance(run.over, Finished):
            break
        assert isinstance(run.over, Failed) or run.habits.interrupt
        run.launch()
        run.live()
    check_end(run)
    assert world.same(run.state, RunState(run.events)), "nothing but the ledger was needed"
    asked = [m.measurement for m in run.of(Measured) if m.measurement.asked is not None]
    assert all(CASES not in m.values for m in asked)


def test_a_limit_on_what_is_reported_only_once_does_not_measure_for_ever() -> None:
    """The candidate tells its cost in its first run alone, and it is a little too much."""

    class Silent(Table):
        def cost(self, tree: world.Tree, machine: str, index: int) -> float | None:
            if any(tree):
                return None if index else 10.6
            return 10.0 + 0.5 * (-1) ** index

    settled = config(agents=1, experiments=1, constraints=[{"metric": "cost", "max": 10.5}])
    landscape = Silent(sigma=0.1, worths={(0, 1): 50.0})
    run = World(settled, landscape, machines=("cpu",), orders={"a1": [(0, 1)]}).live()
    assert [e.verdict for e in run.of(Decided)] == ["constraint_failed"]
    assert len(run.measured("candidate")) == settled.rule().runs


def test_a_limit_within_the_noise_is_decided_by_the_mean_at_the_cap() -> None:
    class Hot(Table):
        def cost(self, tree: world.Tree, machine: str, index: int) -> float | None:
            wobble = 0.5 * (-1) ** index
            return 10.0 + wobble + (0.3 if tree[0] else 0.0) + (0.8 if tree[1] else 0.0)

    settled = config(agents=1, experiments=2, constraints=[{"metric": "cost", "max": 10.5}])
    landscape = Hot(sigma=0.1, worths={(0, 1): 50.0, (1, 1): 50.0})
    run = World(settled, landscape, machines=("cpu",), orders={"a1": [(1, 1), (0, 1)]}).live()
    first, second = run.of(Decided)
    assert (first.verdict, second.verdict) == ("constraint_failed", "keep")
    assert len(run.measured("candidate", 2)) == 2, "over the limit at first, below it by its mean"


@pytest.mark.parametrize("metric", ["score", CASES])
def test_a_case_that_must_pass_and_does_not_exist_ends_the_run(metric: str) -> None:
    settled = config(metric=metric, judge={"must_pass": ["c1", "nobody"]})
    landscape = Landscape(cases=3 if metric == CASES else 0)
    run = World(settled, landscape, machines=("cpu",)).live()
    assert isinstance(run.over, Failed)
    assert "judge.must_pass names cases that the harness does not report" in run.over.error
    assert run.over.error.endswith("nobody" if metric == CASES else "c1, nobody")
    there = "c0, c1, c2" if metric == CASES else "none"
    assert (run.over.hint or "").endswith(f"reported for the base: {there}")
    assert len(run.of(Measured)) <= 2


def test_controls_run_the_cases_that_the_candidate_ran() -> None:
    settled = config(agents=2, experiments=12, metric=CASES)
    parts = 0
    for seed in range(6):
        landscape = Landscape(seed=seed, cases=20, flaky=True)
        run = World(settled, landscape, seed=seed, machines=("cpu",)).live()
        check_end(run)
        for number in run.state.experiments:
            ran = [m.measurement.asked for m in run.measured("candidate", number)][1:]
            controls = [m.measurement.asked for m in run.measured("control", number)]
            pairs = list(zip(ran, controls, strict=False))
            assert all(one == other for one, other in pairs), (seed, number)
            parts += sum(one is not None for one, _ in pairs)
    assert parts > 5


# --- resume -------------------------------------------------------------------------------------


class Steady(World):
    """What is under way comes to its end in one fixed order; it is killed before one event."""

    kill_at: int | None = None

    def record(self, *events: Any) -> None:
        for event in events:
            if len(self.events) == self.kill_at:
                self.kill_at = None
                raise KilledError
            super().record(event)

    def happen(self) -> None:
        orders = {name: list(left) for name, left in (self.orders or {}).items()}
        try:
            self.finish(min([*self.crew.measuring, *self.crew.proposing]))
        except KilledError:
            self.orders = orders  # nobody has ever seen what it proposed
            raise


def steady(judge: dict[str, Any], seed: int) -> Steady:
    settled = config(agents=1, lookahead=0, judge=judge, metric=CASES, experiments=6)
    landscape = Landscape(seed=seed, sites=3, cases=8, flaky=True, deaf=True, cost_sigma=0.3)
    orders = {"a1": [(site, level) for level in (1, 2) for site in range(3)]}
    return Steady(settled, landscape, machines=("cpu",), orders=orders)


@pytest.mark.parametrize("judge", [{}, {"points": POINTS, "runs": 3}, {"preset": "llm-judged"}])
def test_a_resume_after_a_kill_before_any_event_gives_the_same_verdicts(
    judge: dict[str, Any],
) -> None:
    def told(run: World) -> list[tuple[object, ...]]:
        return [(e.number, e.verdict, e.z, e.gain, e.fixed, e.broken) for e in run.of(Decided)]

    for seed in (1, 2):
        whole = steady(judge, seed)
        whole.live()
        assert len(told(whole)) == 6
        for at in range(len(whole.events)):
            run = steady(judge, seed)
            run.kill_at = at
            check_end(run.live())
            assert told(run) == told(whole), at
