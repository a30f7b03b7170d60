"""A machine that drifts is noticed and said once; one that does not is hardly ever suspected."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from tallies import sample, spread
from world import Landscape, World, check_end, config

from swarm.actions import Measure
from swarm.judge import Spread, drifted, parted
from swarm.plan import DRIFT
from swarm.records import Measured, Warned

SIGMA = 0.3


@dataclass
class Drifting(World):
    """A world whose machine gets slower and faster by and by: an AR(1) process."""

    far: float = 0.0
    """Standard deviation of where it drifts to."""
    tau: float = 40.0
    """Measurements after which it has forgotten most of where it was."""
    at: float = field(default=0.0, init=False)

    def measure(self, action: Measure, *, lost: bool = False) -> Measured:
        """Make a measurement, and drift on."""
        keep = math.exp(-1 / self.tau)
        self.at = keep * self.at + self.random.gauss(0.0, self.far) * math.sqrt(1 - keep * keep)
        event = super().measure(action, lost=lost)
        values = {name: value + self.at for name, value in event.measurement.values.items()}
        result = event.measurement.model_copy(update={"values": values})
        return event.model_copy(update={"measurement": result})


def lived(
    seed: int, far: float, *, good: float = 0.05, experiments: int = 60, **judge: Any
) -> World:
    settled = config(agents=2, experiments=experiments, judge=judge)
    landscape = Landscape(seed=seed, sites=12, levels=30, sigma=SIGMA, good=good, equal=0.6)
    run = Drifting(settled, landscape, seed=seed, machines=("cpu",), far=far).live()
    check_end(run)
    return run


def warned(run: World) -> list[str]:
    return [e.message for e in run.of(Warned) if e.limit == DRIFT]


def test_a_drifting_machine_is_said_at_most_once() -> None:
    """Not always: by then the machine may be back where it was, or `best` still be the base."""
    told = [warned(lived(seed, far=2.0)) for seed in range(24)]
    assert max(len(words) for words in told) == 1
    said = [words[0] for words in told if words]
    assert len(said) >= 8
    assert all("set judge.window to 5" in words for words in said)


def test_with_a_window_nothing_is_said() -> None:
    assert not any(warned(lived(seed, far=2.0, window=5)) for seed in range(4))


def test_a_static_machine_is_hardly_ever_suspected() -> None:
    suspected = [s for s in range(100) if warned(lived(s, far=0.0, good=0.1 * (s % 2)))]
    assert len(suspected) <= 2, suspected


@pytest.mark.parametrize(
    ("values", "after", "noticed"),
    [
        ([0, 1, 0, -1, 0], 0, False),
        ([0, 1, 0, -1, 0, 9, 9], 0, False),  # two are too few
        ([0, 1, 0, -1, 0, 9, 9, 9], 0, True),
        ([0, 1, 0, -1, 0, -9, -9, -9], 0, True),
        ([0, 1, 0, -1, 0, 1, -1, 1], 0, False),
        ([0, 1, 0, -1, 0, 9, 9, 9, 0, 1, 0], 0, False),  # it came back
        ([9, 9, 9, 0, 1, 0, -1, 0, 1, 0, -1], 3, False),  # it was chosen for its first values
        ([9, 9, 9, 0, 1, 0, -1, 0, 9, 9, 9], 3, True),
    ],
)
def test_the_last_values_are_compared_with_the_first(
    values: list[float], after: int, noticed: bool
) -> None:
    own = sample(*values)
    others = spread(1.0, freedom=20)
    others.squares += own.m2
    others.freedom += own.n - 1
    assert (drifted(own, others, 5, after=after) is not None) == noticed


def test_a_commit_with_a_spread_of_its_own_says_nothing_of_the_machine() -> None:
    own = sample(0, 1, 0, -1, 0, 9, 9, 9)
    own.foreign = True
    assert drifted(own, spread(1.0, freedom=20), 5) is None


def test_the_end_of_a_run_is_compared_with_its_beginning() -> None:
    around = Spread(squares=20.0, steps=20.0, freedom=20)
    assert parted([0, 1, -1, 0, 0], [0, 1, 0, -1, 0], around) is None
    apart = parted([0, 1, -1, 0, 0], [5, 4, 6, 5, 5], around)
    assert apart is not None
    assert math.isclose(apart, 5 / math.sqrt(2 / 5))
    assert parted([0, 1, -1, 0, 0], [9], around) is None, "one value is none"
    assert parted([0, 0], [9, 9], Spread(freedom=2)) is None, "without spread it is no drift"
