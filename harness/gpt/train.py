"""The editable part of the small GPT: constants, model, optimiser, training loop.

This is the one file an experiment changes. `prepare.py` calls `build`, then `train`, and then
measures bits per byte on text that was held out. Data, budget, seed and evaluation are not here.
"""

# pyright: reportUnknownMemberType=false
# (torch's own annotations leave some of its functions partly unknown)

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from prepare import Run

# The model
DEPTH = 4
WIDTH = 64
HEADS = 8
CONTEXT = 64
EXPANSION = 4  # width of the hidden layer of an MLP, in widths of the model
ACTIVATION = "relu"  # relu | gelu | silu | relu_squared
DROPOUT = 0.1
INIT_STD = 0.02

# The optimiser and its schedule
BATCH = 8
LEARNING_RATE = 7e-4
WEIGHT_DECAY = 0.1
BETA1 = 0.9
BETA2 = 0.999
CLIP = 1.0  # largest norm of the gradient
SCHEDULE = "constant"  # constant | linear | cosine
WARMUP = 0.1  # share of the budget in which the learning rate rises

# On a GPU the same constants describe a model that is wider, with longer windows and batches.
SCALE = 8 if torch.cuda.is_available() else 1

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "relu_squared": lambda x: F.relu(x).square(),
}


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = max(1, width // heads)  # heads need not divide the width
        self.inputs = nn.Linear(width, 3 * heads * self.head_width, bias=False)
        self.output = nn.Linear(heads * self.head_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        shape = (rows, length, 3, self.heads, self.head_width)
        query, key, value = self.inputs(x).view(shape).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(rows, length, -1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, int(EXPANSION * width), bias=False)
        self.down = nn.Linear(int(EXPANSION * width), width, bias=False)
        self.activation = ACTIVATIONS[ACTIVATION]
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.down(self.activation(self.up(self.norm2(x)))))


class GPT(nn.Module):
    def __init__(self, vocab_size: int, width: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, HEADS) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=INIT_STD)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token(tokens) + self.position(positions)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class AdamW:
    """Adam with decoupled weight decay.

    Written out, because importing torch.optim costs as much CPU time as a third of the budget.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.means = [torch.zeros_like(parameter) for parameter in parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        self.steps += 1
        rate = learning_rate / (1 - BETA1**self.steps)
        unbias = math.sqrt(1 - BETA2**self.steps)
        for parameter, mean, square in zip(self.parameters, self.means, self.squares, strict=True):
            gradient = parameter.grad
            if gradient is None:
                continue
            parameter.mul_(1 - learning_rate * WEIGHT_DECAY)
            mean.lerp_(gradient, 1 - BETA1)
            square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            parameter.addcdiv_(mean, square.sqrt().div_(unbias).add_(1e-8), value=-rate)
            parameter.grad = None


class FusedAdamW:
    """The same in one kernel a step, for a GPU, where the import is not on the clock."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        from torch.optim import AdamW as Fused

        self.optimizer = Fused(
            parameters, betas=(BETA1, BETA2), weight_decay=WEIGHT_DECAY, fused=True
        )

    def step(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def build(vocab_size: int) -> nn.Module:
    return GPT(vocab_size, WIDTH * SCALE, CONTEXT * SCALE)


def learning_rate_at(progress: float) -> float:
    """`progress` is the share of the budget that is spent."""
    if progress < WARMUP:
        return LEARNING_RATE * progress / WARMUP
    left = (1 - progress) / (1 - WARMUP)
    share = {
        "constant": 1.0,
        "linear": left,
        "cosine": 0.5 - 0.5 * math.cos(math.pi * left),
    }[SCHEDULE]
    return LEARNING_RATE * share


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    on_gpu = inputs.device.type == "cuda"
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=on_gpu):
        logits: Tensor = model(inputs)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


@torch.no_grad()
def log_progress(model: nn.Module, inputs: Tensor, targets: Tensor, run: Run) -> None:
    """Log the loss as it is without dropout."""
    model.eval()
    run.log(loss_of(model, inputs, targets))
    model.train()


def train(model: nn.Module, run: Run) -> None:
    parameters = list(model.parameters())
    on_gpu = run.device.type == "cuda"
    optimizer = FusedAdamW(parameters) if on_gpu else AdamW(parameters)
    if on_gpu:
        model.compile()
    for inputs, targets in run.batches(BATCH * SCALE, CONTEXT * SCALE):
        loss = loss_of(model, inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step(learning_rate_at(run.progress))
        log_progress(model, inputs, targets, run)
