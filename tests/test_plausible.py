"""Numbers that cannot be true, and changes that a person should look at."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets import launch_inline, make_config, make_patches, make_repo

from swarm.grounds import remarks, slow_first
from swarm.judge import Record
from swarm.judge.clock import contradiction
from swarm.novelty import only_seeds
from swarm.records import MetricSpec

SECONDS = MetricSpec(name="seconds", goal="minimize")


def record(told: float, wall: float) -> Record:
    made = Record()
    made.primary.add(told)
    made.clock.add(wall)
    return made


# --- clocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "wall", "found"),
    [
        (0.0001, 1.1, True),  # the clock stands still
        (0.01, 1.4, True),
        (0.0001, 0.15, False),  # it really is that fast
        (0.5, 0.6, False),
        (0.5, 1.1, False),  # half of it may have moved out of what is timed
        (1.2, 1.3, False),  # slower
        (0.99, 1.1, False),
    ],
)
def test_a_clock_that_stands_still_is_noticed(told: float, wall: float, found: bool) -> None:
    assert (contradiction(record(told, wall), record(1.0, 1.1), SECONDS) is not None) == found


@pytest.mark.parametrize(
    ("metric", "scale"),
    [
        (MetricSpec(name="p95_ms", goal="minimize"), 1000),
        (MetricSpec(name="latency", goal="minimize", unit="ms"), 1000),
        (MetricSpec(name="wall_s", goal="minimize"), 1),
        (MetricSpec(name="time", goal="minimize", unit="seconds"), 1),
    ],
)
def test_times_are_known_by_unit_or_name(metric: MetricSpec, scale: float) -> None:
    base, fake = record(1.0 * scale, 1.1), record(0.001 * scale, 1.1)
    assert "by swarm's clock" in (contradiction(fake, base, metric) or "")


@pytest.mark.parametrize(
    "metric",
    [
        MetricSpec(name="val_loss", goal="minimize"),
        MetricSpec(name="seconds", goal="maximize"),
        MetricSpec(name="seconds", goal="minimize", unit="bpb"),
        MetricSpec(name="tokens_s", goal="minimize", unit="1/s"),
    ],
)
def test_what_is_no_time_to_be_made_less_is_left_alone(metric: MetricSpec) -> None:
    assert contradiction(record(0.001, 1.1), record(1.0, 1.1), metric) is None


def test_a_number_that_covers_little_of_the_command_says_nothing() -> None:
    assert contradiction(record(0.0001, 1.1), record(0.4, 1.1), SECONDS) is None


BENCH = """
import time
from work import work
start = time.perf_counter()
work()
print(f"seconds: {time.perf_counter() - start:.6f}")
"""
SLOW = "import time\ndef work(): time.sleep(1.5)\n"
FAKE = "import time\ntime.perf_counter = lambda: 7.0\ndef work(): time.sleep(1.5)\n"
FAST = "import time\ndef work(): time.sleep(0.2)\n"
CONFIG = """
target:
  repo: repo
  scope: [work.py]
  run: python3 -S bench.py
  metric: {name: seconds, goal: minimize}
  timeout: 20s
  slot: {count: 1}
agents: [{count: 1, proposer: {kind: scripted, patches: patches}}]
judge: {baseline: 2, confirm: 2}
budget: {experiments: 2}
"""


def test_a_candidate_that_patches_the_clock_is_invalid_and_an_honest_one_is_kept(
    tmp_path: Path,
) -> None:
    make_repo(tmp_path / "repo", {"bench.py": BENCH, "work.py": SLOW})
    patches = [{"summary": n, "files": {"work.py": t}} for n, t in (("fake", FAKE), ("fast", FAST))]
    make_patches(tmp_path / "patches", patches)
    _, state = launch_inline(make_config(tmp_path, CONFIG))
    fake, fast = state.experiments[1], state.experiments[2]
    assert fake.verdict == "invalid"
    assert "by swarm's clock" in fake.reason
    assert fast.verdict == "keep"


# --- remarks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("diff", "found"),
    [
        ("-SEED = 1\n+SEED = 2\n", True),
        ("-    random_state=0x1f,\n+    random_state=7,\n", True),
        ("-seed = 1\n-rng = Random(3)\n+seed = 2\n+rng = Random(4)\n", True),
        ("-SEED = 1\n+SEED = 2\n+LR = 0.1\n", False),
        ("-SEED = 1\n-LR = 0.1\n+SEED = 2\n+LR = 0.2\n", False),
        ("-SEED = 1\n+SEEDS = 2\n", False),
        ("-LR = 1\n+LR = 2\n", False),
        ("+SEED = 2\n", False),
        ("", False),
    ],
)
def test_a_change_of_seeds_only(diff: str, found: bool) -> None:
    head = "diff --git a/t.py b/t.py\n--- a/t.py\n+++ b/t.py\n@@ -1,2 +1,2 @@\n"
    assert only_seeds(head + diff if diff else "") == found


def test_remarks_are_made_on_keeps_alone(tmp_path: Path) -> None:
    make_repo(
        tmp_path / "repo",
        {"bench.py": "import work\n", "work.py": "SEED = 5\nprint('seconds:', SEED)\n"},
    )
    files = {"work.py": "SEED = 4\nprint('seconds:', SEED)\n"}
    make_patches(tmp_path / "patches", [{"summary": "another seed", "files": files}])
    _, state = launch_inline(make_config(tmp_path, CONFIG, "budget.experiments=1"))
    kept, target = state.experiments[1], state.targets["main"]
    rule = make_config(tmp_path, CONFIG).rule()
    assert kept.verdict == "keep"
    (said,) = remarks(target, kept, rule)
    assert "nothing but seeds" in said
    # A first run that is much slower than all later ones.
    clock = target.record(kept.proposal.commit or "", kept.machine or "").clock
    clock.values[:] = [5.0, 0.2, 0.3]
    assert "its first run took 5 s" in (slow_first(target, kept) or "")
    clock.values[:] = [0.5, 0.2, 0.1]
    assert slow_first(target, kept) is None
    kept.verdict = "discard"
    assert remarks(target, kept, rule) == []
