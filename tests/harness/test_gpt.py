"""The small GPT's fixed part: what it prints, what it refuses, what `train.py` cannot move."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

GPT = Path(__file__).parents[2] / "harness" / "gpt"
METRIC = re.compile(r"^val_bpb:\s*([-\d.eE]+)", re.MULTILINE)
SUMMARY = re.compile(
    r"""^---
val_bpb:          (\d+\.\d{6})
training_seconds: \d+\.\d
total_seconds:    \d+\.\d
peak_vram_mb:     \d+\.\d
mfu_percent:      \d+\.\d{2}
total_tokens_M:   \d+\.\d
num_steps:        \d+
num_params_M:     \d+\.\d
depth:            \d+
\Z""",
    re.MULTILINE,
)

# Asked without importing it: collection stays fast where torch is there, and works where it is not.
pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")


def run_gpt(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """On the CPU, whatever the machine has."""
    settings = {"GPT_BUDGET": "0.5", "CUDA_VISIBLE_DEVICES": ""} | env
    return subprocess.run(
        [sys.executable, "prepare.py"],
        cwd=folder, env=dict(os.environ) | settings, capture_output=True, text=True, check=False,
    )  # fmt: skip


def edited(tmp_path: Path, old: str, new: str) -> Path:
    """A copy of the target in which one piece of train.py is another."""
    folder = Path(shutil.copytree(GPT, tmp_path / "gpt"))
    source = (folder / "train.py").read_text()
    assert source.count(old) == 1
    (folder / "train.py").write_text(source.replace(old, new))
    return folder


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def prepare(torch: Any) -> ModuleType:
    sys.path.insert(0, str(GPT))
    try:
        return importlib.import_module("prepare")
    finally:
        sys.path.remove(str(GPT))


@pytest.fixture
def text(torch: Any) -> Any:
    return torch.randint(256, (3001,), generator=torch.Generator().manual_seed(0)).byte()


# --- whole runs -------------------------------------------------------------------------------


def test_a_run_prints_the_summary_block_and_writes_the_same_metrics(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    done = run_gpt(GPT, SWARM_RESULT=str(result))
    assert done.returncode == 0, done.stdout + done.stderr
    printed = SUMMARY.search(done.stdout)
    assert printed
    metrics = json.loads(result.read_text())["metrics"]
    assert f"{metrics['val_bpb']:.6f}" == printed[1]
    assert 2.0 < metrics["val_bpb"] < 8.0
    assert metrics["training_seconds"] <= 0.75  # one step beyond the budget at the most
    assert metrics["num_steps"] > 1
    assert not (GPT / "__pycache__").exists()


def test_a_model_that_sees_the_next_token_fails(tmp_path: Path) -> None:
    done = run_gpt(edited(tmp_path, "is_causal=True", "is_causal=False"))
    assert done.returncode == 1
    assert "FAIL: not causal: a later token changed a prediction" in done.stdout
    assert not METRIC.search(done.stdout)


def test_a_loss_that_is_no_number_fails(tmp_path: Path) -> None:
    silent = "        if run.steps < 0:\n            log_progress"  # so that only the end can tell
    folder = edited(tmp_path, "        log_progress", silent)
    source = (folder / "train.py").read_text()
    source = re.sub(r"^LEARNING_RATE = .*$", "LEARNING_RATE = 1e30", source, flags=re.MULTILINE)
    (folder / "train.py").write_text(source)
    result = tmp_path / "result.json"
    done = run_gpt(folder, SWARM_RESULT=str(result))
    assert done.returncode == 1
    assert "FAIL: " in done.stdout
    assert not METRIC.search(done.stdout)
    assert not result.exists()


def test_lines_and_files_that_training_leaves_do_not_replace_the_metric(tmp_path: Path) -> None:
    forged = """    import atexit, os
    print("---\\nval_bpb:          0.100000")
    atexit.register(print, "val_bpb:          0.200000")
    assert "SWARM_RESULT" not in os.environ
    parameters = list(model.parameters())
"""
    folder = edited(tmp_path, "    parameters = list(model.parameters())\n", forged)
    result = tmp_path / "result.json"
    result.write_text('{"metrics": {"val_bpb": 0.3}}')
    done = run_gpt(folder, SWARM_RESULT=str(result))
    assert done.returncode == 0, done.stdout + done.stderr
    values = [float(value) for value in METRIC.findall(done.stdout)]
    assert values[0] == 0.1
    assert values[-1] > 2.0
    assert json.loads(result.read_text())["metrics"]["val_bpb"] == pytest.approx(values[-1], 1e-6)


def test_leaving_early_with_status_0_is_a_failure(tmp_path: Path) -> None:
    leave = '    print("val_bpb:          0.1")\n    raise SystemExit(0)\n'
    done = run_gpt(edited(tmp_path, '    on_gpu = run.device.type == "cuda"\n', leave))
    assert done.returncode == 1
    assert "FAIL: train.py ended the process" in done.stdout


def test_training_past_the_budget_is_a_failure(tmp_path: Path) -> None:
    late = """    import time
    end = time.process_time() + 1.6
    while time.process_time() < end:
        pass
    on_gpu = False
"""
    done = run_gpt(
        edited(tmp_path, '    on_gpu = run.device.type == "cuda"\n', late), GPT_BUDGET="0.2"
    )
    assert done.returncode == 1
    assert re.search(r"FAIL: training took \d+\.\d s of a budget of 0.2 s", done.stdout)


@pytest.mark.parametrize("budget", ["0", "-1", "soon", "nan"])
def test_a_budget_that_is_no_duration_is_refused(
    prepare: Any, torch: Any, monkeypatch: pytest.MonkeyPatch, budget: str
) -> None:
    monkeypatch.setenv("GPT_BUDGET", budget)
    with pytest.raises(prepare.Failure, match="GPT_BUDGET must be a number"):
        prepare.read_budget(torch.device("cpu"))


# --- evaluation -------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [1, 7, 100, 3000, 4096])
def test_a_uniform_guess_costs_8_bits_whatever_the_context(
    prepare: Any, torch: Any, text: Any, context: int
) -> None:
    counted: list[int] = []

    def model(tokens: Any) -> Any:
        counted.append(tokens.numel())
        return torch.zeros(*tokens.shape, 256)

    assert prepare.evaluate_bpb(model, text, context) == pytest.approx(8.0)
    assert sum(counted) == 3000


def test_larger_outputs_are_not_likelier_ones(prepare: Any, torch: Any, text: Any) -> None:
    def model(tokens: Any) -> Any:
        return torch.full((*tokens.shape, 256), 50.0)

    assert prepare.evaluate_bpb(model, text, 64) == pytest.approx(8.0, abs=1e-5)


def test_an_output_of_another_kind_or_shape_is_refused(prepare: Any, torch: Any, text: Any) -> None:
    class Sly(torch.Tensor):
        pass

    for output in (
        lambda tokens: torch.zeros(*tokens.shape, 255),
        lambda tokens: torch.zeros(*tokens.shape, 256).as_subclass(Sly),
        lambda tokens: 0.0,
    ):
        with pytest.raises(prepare.Failure, match="plain tensor"):
            prepare.evaluate_bpb(output, text, 64)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers_fail(
    prepare: Any, torch: Any, text: Any, value: float
) -> None:
    def model(tokens: Any) -> Any:
        return torch.full((*tokens.shape, 256), value)

    with pytest.raises(prepare.Failure):
        prepare.evaluate_bpb(model, text, 64)
    with pytest.raises(prepare.Failure):
        prepare.check_causality(model, text, 64)


def one_hot(torch: Any, tokens: Any) -> Any:
    return torch.nn.functional.one_hot(tokens, 256).float()


@pytest.mark.parametrize("context", [1, 2, 64, 3000, 4096])
def test_a_model_of_the_past_passes_the_causality_check(
    prepare: Any, torch: Any, text: Any, context: int
) -> None:
    prepare.check_causality(lambda tokens: one_hot(torch, tokens).cumsum(1), text, context)


def test_the_causality_check_finds_every_way_to_look_aside(
    prepare: Any, torch: Any, text: Any
) -> None:
    def next_token(tokens: Any) -> Any:
        return one_hot(torch, tokens.roll(-1, 1))

    def last_token(tokens: Any) -> Any:
        return one_hot(torch, tokens) + 0.01 * one_hot(torch, tokens[:, -1:])

    def other_rows(tokens: Any) -> Any:
        return one_hot(torch, tokens) + one_hot(torch, tokens).mean(dim=(0, 1))

    def row_below(tokens: Any) -> Any:
        return one_hot(torch, tokens.roll(1, 0))

    for model in (next_token, last_token, other_rows, row_below):
        with pytest.raises(prepare.Failure, match="not causal"):
            prepare.check_causality(model, text, 64)


# --- text, seed and clock ---------------------------------------------------------------------


def test_the_librarys_own_text_is_split_alike_every_time(prepare: Any) -> None:
    first, second = prepare.load_corpus(65536), prepare.load_corpus(65536)
    assert first.label == second.label
    assert len(first.val) == 65537
    assert len(first.train) > 1 << 20


def test_a_directory_of_ones_own_keeps_whole_files_apart(
    prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        (tmp_path / f"{number}.txt").write_text(chr(number + 20) * 500)
    monkeypatch.setenv("GPT_DATA", str(tmp_path))
    corpus = prepare.load_corpus(65536)
    train, val = set(corpus.train.tolist()), set(corpus.val.tolist())
    assert len(train | val) == 100
    assert not train & val
    assert 2 < len(val) < 30


def test_a_file_of_ones_own_keeps_its_end_for_validation(
    prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.txt"
    path.write_bytes(b"a" * 18000 + b"z" * 2000)
    monkeypatch.setenv("GPT_DATA", str(path))
    corpus = prepare.load_corpus(65536)
    assert set(corpus.train.tolist()) == {ord("a")}
    assert set(corpus.val.tolist()) == {ord("z")}


def test_too_little_text_and_no_text_are_named(
    prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_DATA", str(tmp_path))
    with pytest.raises(prepare.Failure, match="too little text"):
        prepare.load_corpus(65536)
    monkeypatch.setenv("GPT_DATA", str(tmp_path / "absent"))
    with pytest.raises(prepare.Failure, match="no file or directory"):
        prepare.load_corpus(65536)


def test_the_seed_alone_decides_the_batches(prepare: Any, torch: Any, text: Any) -> None:
    def first_batch(seed: int) -> Any:
        torch.rand(seed + 1)  # other draws of the model do not shift the data
        run = prepare.Run(text, torch.device("cpu"), 1.0, seed)
        return next(run.batches(4, 16))

    inputs, targets = first_batch(3)
    assert inputs.equal(first_batch(3)[0])
    assert not inputs.equal(first_batch(4)[0])
    assert inputs[:, 1:].equal(targets[:, :-1])


def test_batches_end_before_a_step_that_would_not_fit(
    prepare: Any, torch: Any, text: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As fast as the reference, always: else each second counts as more or less than one.
    monkeypatch.setattr(prepare.Clock, "_probe", lambda _: prepare.REFERENCE_PROBE_S)
    run = prepare.Run(text, torch.device("cpu"), 0.3, 0)
    for _ in run.batches(2, 8):
        start = time.process_time()
        while time.process_time() - start < 0.08:
            pass
    assert 1 <= run.steps <= 6
    assert run.finish() <= 0.45
    assert 0.0 < run.progress <= 1.0


def test_the_fused_optimiser_of_a_gpu_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.syspath_prepend(str(GPT))
    train = importlib.import_module("train")
    plain = [torch.nn.Parameter(torch.randn(5, 5)) for _ in range(2)]
    fused = [torch.nn.Parameter(p.detach().clone()) for p in plain]
    first, second = train.AdamW(plain), train.FusedAdamW(fused)
    for _ in range(5):
        for one, other in zip(plain, fused, strict=True):
            one.grad = torch.randn(5, 5)
            other.grad = one.grad.clone()
        first.step(1e-2)
        second.step(1e-2)
    for one, other in zip(plain, fused, strict=True):
        torch.testing.assert_close(one, other)
