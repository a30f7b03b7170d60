"""The toy landscape: its optimum, its switches, and that both layouts are one landscape."""

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOY = Path(__file__).parents[2] / "harness" / "toy"
BEST = {
    "rate": 0.05, "decay": 0.9, "width": 64.0, "depth": 6.0, "reach": 0.8, "scale": 1.0,
    "gain": 3.0, "offset": 0.2, "warm": True,
}  # fmt: skip
BEST_TEXT = "".join(f"{name} = {value}\n" for name, value in BEST.items())


def run_toy(folder: Path = TOY, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name[:4] not in ("TOY_", "SWAR")}
    command = [sys.executable, "-S", "-E", "measure.py", *args]
    return subprocess.run(
        command, cwd=folder, env=clean | env, capture_output=True, text=True, check=False
    )


def loss_of(folder: Path = TOY, *args: str, **env: str) -> float:
    done = run_toy(folder, *args, **env)
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[-1]
    assert line.startswith("METRIC loss=")
    return float(line.removeprefix("METRIC loss="))


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TOY, tmp_path / "toy"))


def test_shipped_loss_is_the_documented_one_in_both_layouts() -> None:
    assert loss_of() == loss_of(TOY, "parts") == pytest.approx(3.1908, abs=1e-4)


def test_the_documented_optimum_is_the_floor_with_and_without_coupling(toy: Path) -> None:
    (toy / "params.py").write_text(BEST_TEXT)
    assert loss_of(toy) == 1.0
    assert loss_of(toy, TOY_COUPLING="0.5") == 1.0


@pytest.mark.parametrize("name", BEST)
def test_each_parameter_can_be_improved_alone(toy: Path, name: str) -> None:
    before = loss_of(toy)
    with (toy / "params.py").open("a") as file:
        file.write(f"{name} = {BEST[name]}\n")
    assert loss_of(toy) < before - 0.05


def test_gains_of_parts_add_up_and_coupling_makes_them_lean_on_each_other(toy: Path) -> None:
    def loss_with(*names: str, coupling: str) -> float:
        for part, name in (("a", "rate"), ("c", "reach")):
            text = (TOY / "parts" / f"{part}.py").read_text()
            override = f"{name} = {BEST[name]}\n" if name in names else ""
            (toy / "parts" / f"{part}.py").write_text(text + override)
        return loss_of(toy, "parts", TOY_COUPLING=coupling)

    def surplus(coupling: str) -> float:
        none, a, c, both = (
            loss_with(*names, coupling=coupling)
            for names in ((), ("rate",), ("reach",), ("rate", "reach"))
        )
        return (none - both) - (none - a) - (none - c)

    assert surplus("0") == pytest.approx(0.0, abs=1e-12)
    assert abs(surplus("0.1")) > 0.1


def test_noise_has_its_standard_deviation_and_follows_seed_and_numbers(toy: Path) -> None:
    quiet = loss_of(toy)
    noise = [loss_of(toy, TOY_NOISE="0.1", SWARM_SEED=str(seed)) - quiet for seed in range(40)]
    assert statistics.mean(noise) == pytest.approx(0.0, abs=0.06)
    assert statistics.stdev(noise) == pytest.approx(0.1, rel=0.4)
    assert loss_of(toy, TOY_NOISE="0.1", SWARM_SEED="7") - quiet == noise[7]
    (toy / "params.py").write_text(BEST_TEXT)
    assert loss_of(toy, TOY_NOISE="0.1", SWARM_SEED="7") - 1.0 != pytest.approx(noise[7])


def test_crashes_come_at_their_rate_without_a_metric() -> None:
    runs = [run_toy(TOY, TOY_CRASH="0.5", SWARM_SEED=str(seed)) for seed in range(40)]
    crashed = [done for done in runs if done.returncode]
    assert 8 <= len(crashed) <= 32
    assert all(done.returncode == 1 and "METRIC" not in done.stdout for done in crashed)


def test_sleep_costs_wall_time_and_stragglers_ten_times_it() -> None:
    started = time.perf_counter()
    loss_of(TOY, TOY_SLEEP="0.1")
    assert time.perf_counter() - started >= 0.1
    started = time.perf_counter()
    loss_of(TOY, TOY_SLEEP="0.1", TOY_STRAGGLERS="1")
    assert time.perf_counter() - started >= 1.0


def test_cpu_switch_burns_cpu_time() -> None:
    before = os.times()
    loss_of(TOY, TOY_CPU="0.3")
    after = os.times()
    assert after.children_user + after.children_system >= (
        before.children_user + before.children_system + 0.28
    )


def test_result_file_holds_the_printed_loss(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    loss = loss_of(TOY, SWARM_RESULT=str(result))
    assert json.loads(result.read_text()) == {"metrics": {"loss": loss}}


@pytest.mark.parametrize("value", ["0", "-1.0", "float('nan')", "float('inf')", "'wide'"])
def test_a_number_outside_the_landscape_fails_and_names_itself(toy: Path, value: str) -> None:
    with (toy / "params.py").open("a") as file:
        file.write(f"width = {value}\n")
    done = run_toy(toy)
    assert done.returncode == 1
    assert "width must be a number above 0" in done.stderr
    assert "METRIC" not in done.stdout


def test_measuring_leaves_nothing_behind_and_works_from_a_read_only_place(toy: Path) -> None:
    before = sorted(toy.rglob("*"))
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert math.isfinite(loss_of(toy, "parts"))
        assert sorted(toy.rglob("*")) == before
    finally:
        for path in (path for path in before if path.is_dir()):
            path.chmod(0o755)
