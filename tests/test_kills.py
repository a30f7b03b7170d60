"""A run that is killed again and again, at any moment, loses nothing and counts nothing twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from targets import check_nobody_left, make_repo
from test_ray import RUN_CONFIG, check, events_of, finish, launch


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_twelve_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    top = make_repo(tmp_path / "repo")
    text = RUN_CONFIG.replace("repo: .", "repo: repo").replace("SLEEP: '0.3'", "SLEEP: '0.1'")
    (tmp_path / "toy.yaml").write_text(text)
    moments = random.Random(7)
    before = events_of(top)
    for _ in range(12):
        process = launch(top, "--inline")
        time.sleep(1.0 + 2.5 * moments.random())
        os.kill(process.pid, signal.SIGKILL)
        finish(process)
        now = events_of(top)
        assert now[: len(before)] == before
        before = now
        if before and before[-1].kind == "finished":
            break
    else:
        code, _, err = finish(launch(top, "--inline"))
        assert code == 0, err
    check(top, before)
    check_nobody_left(within_s=10)
