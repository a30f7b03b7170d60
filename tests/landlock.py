"""Whether a harness can put up walls of its own on this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_WALLS = Path(__file__).parents[1] / "harness" / "backtest" / "walls.py"


def _missing() -> str | None:
    spec = importlib.util.spec_from_file_location("backtest_walls", _WALLS)
    assert spec is not None
    assert spec.loader is not None
    walls = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(walls)
    return walls.missing()


MISSING = _missing()
walled = pytest.mark.skipif(MISSING is not None, reason=f"NO WALLS HERE: {MISSING}")
