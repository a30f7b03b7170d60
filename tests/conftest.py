"""What every test gets: a clean environment and a scratch of its own."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# The same examples every time: a change is judged by its own failures, not by luck.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a script starts what it puts behind
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOGETHER = {
    "tests/attacks/test_attacks.py": "attacks",
    "tests/attacks/test_bombs.py": "attacks",
    "tests/test_ray.py": "ray",
    "tests/test_keys.py": "keys",
    "tests/test_search.py": "search",
    "tests/test_example_skills.py": "examples",
    "tests/test_agents_skill.py": "agents",
}
"""Files whose tests run in one worker: they share a run, or start a cluster."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Group by file. (Of pytest 9.2 the marks of `--dist loadgroup` are not seen.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER.get(nodeid.partition("::")[0], nodeid)

    return Grouped(config, log)


def pytest_collection_finish() -> None:
    """Load what a test would load later.

    Hypothesis makes examples of the constants of all modules that are loaded: they would depend on
    which tests this worker had before.
    """
    for name in ("cluster", "importing", "inline_run"):
        importlib.import_module(f"swarm.{name}")


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Nothing of the developer's own environment may decide a test."""
    for name in list(os.environ):
        if name.startswith(("SWARM_", "RAY_", "GIT_", "CUDA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SWARM_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
    monkeypatch.setenv("NO_COLOR", "1")
    proxies = [f"{name}_proxy" for name in ("http", "https", "all")]
    shown = ("FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES")
    for name in (*shown, *proxies, *(name.upper() for name in proxies)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def weird_path(tmp_path: Path) -> Path:
    """A directory whose name has all that shells and parsers trip over."""
    path = tmp_path / "a dir with 'quotes' \"and\" ünïcode"
    path.mkdir()
    return path
