"""The rungs of the sandbox, as far as this machine has them."""

from __future__ import annotations

from functools import lru_cache

import pytest

from swarm.sandbox import Rung, holds, probe
from swarm.sandbox.ladder import OPEN, RungName

PROCESS = Rung("process", OPEN["process"])
NAMES: tuple[RungName, ...] = ("bubblewrap", "landlock", "process")


@lru_cache
def _found(name: RungName) -> tuple[Rung, str | None]:
    if name == "bubblewrap":
        best = probe("auto")
        return best, None if best.name == name else best.why
    rung = Rung(name, OPEN[name])
    return rung, holds(rung)


def rung(name: RungName) -> Rung:
    """Give a rung, or skip the test and say why it does not hold here."""
    found, why = _found(name)
    if why is not None:
        pytest.skip(f"NO {name.upper()} HERE: {why}")
    return found
