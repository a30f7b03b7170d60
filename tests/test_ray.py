"""Whole runs on a real Ray cluster, and what survives when its processes are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from targets import CONFIG, check_nobody_left, git, make_repo

from swarm.ledger import read
from swarm.records import AnyEvent, Decided, Launched, Proposed, Started
from swarm.rundir import RunDir

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280)]

EXPERIMENTS = 14
RUN_CONFIG = CONFIG.replace("timeout: 20s", "timeout: 20s\n  env: {SLEEP: '0.3'}").replace(
    "experiments: 12", f"experiments: {EXPERIMENTS}"
)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A repository with a config beside it; afterwards nothing of the run may be alive."""
    top = make_repo(tmp_path / "repo")
    (tmp_path / "toy.yaml").write_text(RUN_CONFIG.replace("repo: .", "repo: repo"))
    yield top
    check_nobody_left()


def launch(top: Path, *more: str) -> subprocess.Popen[str]:
    """Start `swarm launch` as a user would, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "swarm", "launch", str(top.parent / "toy.yaml"), *more],
        cwd=top,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def events_of(top: Path) -> list[AnyEvent]:
    ledger = RunDir(top / ".swarm" / "runs" / "toy").ledger
    return list(read(ledger)) if ledger.exists() else []


def await_decisions(top: Path, process: subprocess.Popen[str], count: int) -> None:
    """Wait until `count` experiments of a running launch are decided."""
    deadline = time.monotonic() + 90
    while sum(isinstance(e, Decided) for e in events_of(top)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def pid_of(role: str) -> Callable[[Path, subprocess.Popen[str]], int]:
    """Find the process of a role as the ledger tells it."""

    def find(top: Path, _: subprocess.Popen[str]) -> int:
        stamps = [e.process for e in events_of(top) if isinstance(e, Launched | Started)]
        return [s.pid for s in stamps if s.role == role][-1]

    return find


def raylet(_: Path, process: subprocess.Popen[str]) -> int:
    children = psutil.Process(process.pid).children(recursive=True)
    return next(c.pid for c in children if c.name() == "raylet")


def check(top: Path, before: list[AnyEvent]) -> None:
    """Nothing decided is missing or doubled, `best` only ever got better, git is sound."""
    after = events_of(top)
    assert after[: len(before)] == before
    proposed = [e.number for e in after if isinstance(e, Proposed)]
    decided = [e.number for e in after if isinstance(e, Decided)]
    assert sorted(decided) == sorted(set(decided)) == sorted(proposed)
    counted = [e for e in after if isinstance(e, Decided) and e.verdict != "aborted"]
    assert len(counted) == EXPERIMENTS
    hub = RunDir(top / ".swarm" / "runs" / "toy").hub
    git(hub, "fsck", "--strict")
    git(top, "fsck")
    for number in proposed:
        git(hub, "rev-parse", "--verify", f"refs/swarm/toy/experiments/{number}")
    promoted = [e for e in after if e.kind == "promoted"]
    assert git(top, "rev-list", "--count", "main..swarm/toy/best") == str(len(promoted))
    assert git(top, "status", "--porcelain") == ""


def status(top: Path) -> dict[str, Any]:
    words = [sys.executable, "-m", "swarm", "status", "toy", "--json"]
    done = subprocess.run(words, cwd=top, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def await_start(top: Path, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Give how things stand when the launch has said that it starts Ray."""
    assert process.stderr is not None
    while "being started" not in process.stderr.readline():
        assert process.poll() is None
    return status(top)


def test_a_launch_on_ray_ends_with_a_summary(target: Path) -> None:
    process = launch(target)
    assert await_start(target, process)["state"] == "running"
    code, out, err = finish(process)
    assert code == 0, err
    assert "=== Autoresearch Summary ===" in out
    assert "Traceback" not in err
    check(target, [])
    assert status(target)["state"] == "finished"


@pytest.mark.parametrize(
    "role", [*(pytest.param(role, marks=pytest.mark.slow) for role in ("s1", "a1")), "coordinator"]
)
def test_a_killed_actor_is_replaced_and_the_run_goes_on(target: Path, role: str) -> None:
    process = launch(target)
    await_decisions(target, process, 3)
    before = events_of(target)
    os.kill(pid_of(role)(target, process), signal.SIGKILL)
    code, _, err = finish(process)
    assert code == 0, err
    check(target, before)


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(raylet, id="raylet", marks=pytest.mark.slow),
        pytest.param(lambda _, process: process.pid, id="launch"),
    ],
)
def test_a_killed_launch_or_raylet_is_made_good_by_the_next_launch(
    target: Path, victim: Callable[[Path, subprocess.Popen[str]], int]
) -> None:
    process = launch(target)
    await_decisions(target, process, 3)
    before = events_of(target)
    os.kill(victim(target, process), signal.SIGKILL)
    code, _, err = finish(process)
    assert code in (4, -signal.SIGKILL), err
    process = launch(target)
    starting, so_far = await_start(target, process), events_of(target)
    assert starting["state"] == "running"
    ran = (so_far[-1].at - so_far[0].at).total_seconds()
    assert starting["spend"]["seconds"] <= ran, "nobody ran it between the two launches"
    code, _, err = finish(process)
    assert code == 0, err
    check(target, before)


def test_ctrl_c_leaves_a_run_that_can_be_resumed(target: Path) -> None:
    process = launch(target)
    await_decisions(target, process, 3)
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130, err
    before = events_of(target)
    assert before[-1].kind == "interrupted"
    assert status(target)["state"] == "interrupted"
    process = launch(target)
    assert await_start(target, process)["state"] == "running"
    code, _, err = finish(process)
    assert code == 0, err
    check(target, before)
