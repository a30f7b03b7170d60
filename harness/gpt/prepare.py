"""The fixed part of the small GPT: it trains `train.py` for a fixed budget and prints `val_bpb`.

It owns the text and its split, the tokens (plain bytes), the seed, the clock, the evaluation, the
printed summary and the result file. It does not know the model, the optimiser or the schedule:
those are `train.py`, the one file an experiment edits. What it asks of that file:

    build(vocab_size) -> model    an nn.Module with an int attribute `context`; called with a
                                  (rows, length <= context) tensor of tokens it returns logits
    train(model, run)             takes its batches from `run`, which ends them with the budget
    DEPTH                         optional, only shown in the summary

Run it with `python prepare.py`. Settings, all from the environment:

    GPT_BUDGET        seconds of training: CPU seconds of this process on a CPU (default 4), wall
                      seconds on a GPU (default 300)
    GPT_DATA          a text file or a directory of them; default: the Python library's sources
    SWARM_SEED        default 0
    SWARM_RESULT      a file that receives the metrics as JSON
    OMP_NUM_THREADS   default 1

The model and the evaluation share one process, so this is a guard against accidents and against
the easy cheats, not against a hostile `train.py`: docs/harness-gpt.md lists what stays open.
"""

# pyright: reportUnknownMemberType=false
# (torch's own annotations leave some of its functions partly unknown)

import hashlib
import importlib
import json
import math
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple, Protocol, cast

sys.dont_write_bytecode = True  # the checkout may be read-only, and must stay clean when it is not

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

VOCAB_SIZE = 256  # a token is a byte, so bits per token are bits per byte
CPU_BUDGET_S = 4.0
GPU_BUDGET_S = 300.0
REFERENCE_PROBE_S = 0.0025
PROBE_EVERY_S = 0.1
MAX_SPEED = 2.0  # no machine's seconds count more than twice, or less than half
GPU_WARMUP_STEPS = 10  # not on the clock: torch.compile works during the first steps

TRAIN_BYTES = 8 << 20
VAL_BYTES = {"cpu": 64 << 10, "cuda": 1 << 20}
VAL_BYTES_PER_FILE = 8 << 10  # so that the validation text is not one or two long files
SKIPPED_FOLDERS = {"__pycache__", "idlelib", "site-packages", "test", "tests"}

MAX_CONTEXT = 8192
MAX_LOSS = 100.0  # nats per byte; a uniform guess has 5.5
EVAL_TOKENS = 8192  # per forward pass, a bound on memory
CAUSAL_TOLERANCE = 1e-3  # nats

# Dense bfloat16 FLOP/s by a part of the device's name, from the makers' data sheets.
PEAK_FLOPS = {"B200": 2.25e15, "H200": 989e12, "H100": 989e12, "A100": 312e12, "4090": 165e12}


class Failure(Exception):
    """The measurement has no valid number; the message says why."""


class Corpus(NamedTuple):
    train: Tensor  # uint8, one dimension
    val: Tensor
    label: str


class Editable(Protocol):
    """What the fixed part uses of `train.py`."""

    def build(self, vocab_size: int) -> nn.Module: ...
    def train(self, model: nn.Module, run: "Run") -> None: ...


# --- text -------------------------------------------------------------------------------------


def load_corpus(val_bytes: int) -> Corpus:
    source = os.environ.get("GPT_DATA")
    root = Path(source).expanduser() if source else Path(sysconfig.get_paths()["stdlib"])
    if root.is_file():
        text = root.read_bytes()
        cut = len(text) - min(len(text) // 10, val_bytes + 1)
        train, val = text[:cut], text[cut:]
    elif root.is_dir():
        train, val = split_files(root, "" if source else ".py", val_bytes + 1)
    else:
        raise Failure(f"GPT_DATA: no file or directory {str(root)!r}")
    train, val = train[:TRAIN_BYTES], val[: val_bytes + 1]
    if len(train) <= MAX_CONTEXT or len(val) < 1024:
        raise Failure(f"too little text in {str(root)!r}: {len(train)} + {len(val)} bytes")
    digest = hashlib.sha256(train + val).hexdigest()[:12]
    label = f"{len(train)} train + {len(val)} val bytes, sha256 {digest}"
    return Corpus(as_tokens(train), as_tokens(val), label)


def split_files(root: Path, ending: str, val_bytes: int) -> tuple[bytes, bytes]:
    """Every tenth file, by the hash of its path, is for validation.

    Files come in the order of that hash too: the caps then take a fair sample of the tree, the
    same one wherever the tree lies.
    """
    paths: list[tuple[str, Path]] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        for path in (Path(folder, name) for name in files if name.endswith(ending)):
            name = path.relative_to(root).as_posix()
            paths.append((hashlib.sha256(name.encode()).hexdigest(), path))
    train, val = bytearray(), bytearray()
    for digest, path in sorted(paths):
        if int(digest[:8], 16) % 10 == 0:
            if len(val) < val_bytes:
                val += path.read_bytes()[:VAL_BYTES_PER_FILE]
        elif len(train) < TRAIN_BYTES:
            train += path.read_bytes()
    return bytes(train), bytes(val)


def as_tokens(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


# --- budget -----------------------------------------------------------------------------------


class Clock:
    """Seconds spent: wall seconds on a GPU; on a CPU, CPU seconds at a reference speed.

    CPU seconds (all threads, and children that ended), because a busy machine then costs an
    experiment time and no training. At a reference speed, because a CPU second itself holds less
    work while the neighbours use the caches: ten times a second a fixed piece of work is timed, off
    the clock, and the seconds since then count by how fast it went.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._counted = 0.0
        self._speed = 1.0
        if device.type == "cpu":
            # Numbers of their own, so that the seed's stream is the same without the probe.
            numbers = torch.Generator().manual_seed(0)
            self._probe_tokens = torch.randint(VOCAB_SIZE, (512,), generator=numbers)
            self._probe_weights = [
                torch.randn(shape, generator=numbers).mul_(0.1).requires_grad_()
                for shape in ((VOCAB_SIZE, 64), (64, 256), (256, 64), (64, VOCAB_SIZE))
            ]
        self._since = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return perf_counter()
        times = os.times()
        return process_time() + times.children_user + times.children_system

    def spent(self) -> float:
        return self._counted + (self._now() - self._since) * self._speed

    def restart(self) -> None:
        self._counted, self._since = 0.0, self._now()

    def calibrate(self) -> None:
        """Now and then, between two steps: count the seconds so far at their speed."""
        passed = self._now() - self._since
        if self.device.type == "cuda" or passed < PROBE_EVERY_S:
            return
        self._speed = min(MAX_SPEED, max(1 / MAX_SPEED, REFERENCE_PROBE_S / self._probe()))
        self._counted += passed * self._speed
        self._since = self._now()

    def _probe(self) -> float:
        """CPU seconds of one step of a small network: what training consists of."""
        before = process_time()
        table, up, down, head = self._probe_weights
        hidden = torch.relu(table[self._probe_tokens] @ up) @ down
        loss = nn.functional.cross_entropy(hidden @ head, self._probe_tokens)
        torch.autograd.grad(loss, self._probe_weights)
        return process_time() - before


class Run:
    """What `train.py` is given: batches until the budget is spent, and how far along it is."""

    def __init__(self, text: Tensor, device: torch.device, budget_s: float, seed: int) -> None:
        self.device = device
        self.budget_s = budget_s
        self.steps = 0
        self.tokens = 0
        self.progress = 0.0  # share of the budget spent, from 0 to 1
        self._text = text.to(device)
        # A generator of its own: a model that draws other numbers still sees the same batches.
        self._random = torch.Generator().manual_seed(seed)
        self._clock = Clock(device)
        self._logged = 0

    def batches(self, batch: int, context: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Random (inputs, targets), each (batch, context), until another step would not fit."""
        before = self._clock.spent()
        while True:
            self._clock.calibrate()
            if self.device.type == "cuda" and self.steps == GPU_WARMUP_STEPS:
                self._clock.restart()
                before = 0.0
            spent = self._clock.spent()
            if self.steps and spent + (spent - before) > self.budget_s:
                return
            before = spent
            if self.device.type != "cuda" or self.steps >= GPU_WARMUP_STEPS:
                self.progress = min(1.0, spent / self.budget_s)
            yield self._sample(batch, context)
            self.steps += 1
            self.tokens += batch * context

    def log(self, loss: Tensor) -> None:
        """Print the training loss ten times in a run; end the run when it is no number."""
        tenth = int(self.progress * 10)
        if tenth < self._logged:
            return
        self._logged = tenth + 1
        value = float(loss)
        print(f"step {self.steps:5d}  {self.progress:4.0%}  training loss {value:.4f}", flush=True)
        require_finite(value, "the training loss")

    def finish(self) -> float:
        """The seconds that were spent, when they are within the budget."""
        spent = self._clock.spent()
        if spent > 1.1 * self.budget_s + 0.5:
            raise Failure(f"training took {spent:.1f} s of a budget of {self.budget_s:g} s")
        return spent

    def _sample(self, batch: int, context: int) -> tuple[Tensor, Tensor]:
        last = len(self._text) - context - 1
        starts = torch.randint(last + 1, (batch, 1), generator=self._random)
        windows = self._text[(starts + torch.arange(context + 1)).to(self.device)].long()
        return windows[:, :-1], windows[:, 1:]


# --- evaluation -------------------------------------------------------------------------------


def require_finite(loss: float, what: str) -> None:
    if not math.isfinite(loss) or loss > MAX_LOSS:
        raise Failure(f"{what} is {loss}")


def log_probs(model: nn.Module, tokens: Tensor) -> Tensor:
    """Normalised here, whatever the model returns: a larger output is not a likelier one."""
    logits: object = model(tokens)
    if type(logits) is not Tensor or logits.shape != (*tokens.shape, VOCAB_SIZE):
        raise Failure(f"the model must return a plain tensor {(*tokens.shape, VOCAB_SIZE)}")
    return torch.log_softmax(logits.float(), dim=-1)


@torch.no_grad()
def check_causality(model: nn.Module, text: Tensor, context: int) -> None:
    """Fail when a prediction depends on a later token, or on another row of the batch.

    Five windows of the validation text are predicted twice. In four of them every token behind a
    cut is changed in between; nothing before the cut may move, and nothing in the fifth.
    """
    length = min(context, len(text) - 1)
    starts = torch.linspace(0, len(text) - length - 1, 5).long()
    windows = text[(starts[:, None] + torch.arange(length)).to(text.device)].long()
    cuts = [max(1, length * row // 5) for row in (1, 2, 3, 4)] + [length]
    changed = windows.clone()
    for row, cut in enumerate(cuts):
        shift = torch.randint(1, VOCAB_SIZE, (length - cut,)).to(text.device)
        changed[row, cut:] = (changed[row, cut:] + shift) % VOCAB_SIZE
    moved = (log_probs(model, windows) - log_probs(model, changed)).abs().amax(dim=-1)
    for row, cut in enumerate(cuts):
        worst = float(moved[row, :cut].max())
        if not worst <= CAUSAL_TOLERANCE:
            what = "a later token" if row < 4 else "another row of the batch"
            raise Failure(f"not causal: {what} changed a prediction by {worst:.3g} nats")


@torch.no_grad()
def evaluate_bpb(model: nn.Module, text: Tensor, context: int) -> float:
    """Bits per byte of `text`; every byte but the first counts once, whatever the context.

    A prediction sees what stands before it in its window of `context` bytes.
    """
    total = len(text) - 1
    inputs, targets = text[:-1].long(), text[1:].long()
    full = context * max(1, EVAL_TOKENS // context)
    nats, start = 0.0, 0
    while start < total:
        left = total - start
        size = min(full, left - left % context) or left  # whole windows, then what remains
        shape = (-1, min(context, size))
        window = inputs[start : start + size].view(shape)
        target = targets[start : start + size].view(shape)
        picked = log_probs(model, window).gather(-1, target[..., None])
        nats -= float(picked.double().sum())
        start += size
    require_finite(nats / total, "the validation loss")
    return nats / total / math.log(2)


# --- the run ----------------------------------------------------------------------------------


def read_context(model: nn.Module) -> int:
    context: object = getattr(model, "context", None)
    if type(context) is not int or not 1 <= context <= MAX_CONTEXT:
        raise Failure(f"model.context must be an int from 1 to {MAX_CONTEXT}, got {context!r}")
    return context


def read_budget(device: torch.device) -> float:
    text = os.environ.get("GPT_BUDGET")
    if not text:
        return GPU_BUDGET_S if device.type == "cuda" else CPU_BUDGET_S
    try:
        budget_s = float(text)
    except ValueError:
        budget_s = 0.0
    if not 0.0 < budget_s < math.inf:
        raise Failure(f"GPT_BUDGET must be a number of seconds above 0, got {text!r}")
    return budget_s


def mfu_percent(device: torch.device, parameters: int, run: Run, seconds: float) -> float:
    """Share of the device's peak, at 6 FLOP per parameter and token; 0 where it is unknown."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name()
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), 0.0)
    timed = run.tokens * max(0, run.steps - GPU_WARMUP_STEPS) / max(1, run.steps)
    return 100.0 * 6.0 * parameters * timed / seconds / peak if peak else 0.0


def measure(seed: int, started: float) -> dict[str, float]:
    """Train and evaluate; the metrics in the order of the summary."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    budget_s = read_budget(device)
    corpus = load_corpus(VAL_BYTES[device.type])
    print(f"{device.type}, budget {budget_s:g} s, seed {seed}, {corpus.label}", flush=True)
    torch.manual_seed(seed)
    run = Run(corpus.train, device, budget_s, seed)  # the clock runs from here
    editable = cast("Editable", importlib.import_module("train"))
    model = editable.build(VOCAB_SIZE).to(device)
    context = read_context(model)
    editable.train(model, run)
    seconds = run.finish()
    model.eval()
    val = corpus.val.to(device)
    check_causality(model, val, context)
    val_bpb = evaluate_bpb(model, val, context)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    peak_vram = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0.0
    return {
        "val_bpb": val_bpb,
        "training_seconds": seconds,
        "total_seconds": perf_counter() - started,
        "peak_vram_mb": peak_vram,
        "mfu_percent": mfu_percent(device, parameters, run, seconds),
        "total_tokens_M": run.tokens / 1e6,
        "num_steps": run.steps,
        "num_params_M": parameters / 1e6,
        "depth": int(getattr(editable, "DEPTH", 0)),
    }


SUMMARY_FORMATS = {
    "val_bpb": ".6f",
    "training_seconds": ".1f",
    "total_seconds": ".1f",
    "peak_vram_mb": ".1f",
    "mfu_percent": ".2f",
    "total_tokens_M": ".1f",
    "num_params_M": ".1f",
}


def print_summary(metrics: dict[str, float]) -> None:
    print("---")
    for name, value in metrics.items():
        print(f"{name + ':':<18}{value:{SUMMARY_FORMATS.get(name, 'd')}}")


def main() -> int:
    started = perf_counter()
    # Taken out of the environment, so that nothing writes there by mistake before the end.
    result = os.environ.pop("SWARM_RESULT", "")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        metrics = measure(int(os.environ.get("SWARM_SEED", "0")) % 2**63, started)
    except Failure as failure:
        print(f"FAIL: {failure}")
        return 1
    except SystemExit:
        print("FAIL: train.py ended the process")
        return 1
    print_summary(metrics)
    if result:
        Path(result).write_text(json.dumps({"metrics": metrics}) + "\n")
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Nothing that train.py left behind (an exit hook, a thread) runs or prints after the summary.
    os._exit(status)
