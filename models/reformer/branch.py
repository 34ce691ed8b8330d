"""What the reversible trunk is made of: branches, each a function of one stream that is added to the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.config import ReformerConfig


@dataclass(frozen=True)
class Context:
    """What a pass knows besides its activations. positions: int64 [length]; documents: int [batch, length] or
    None; dropout_seed: None without dropout. Handed on whole, so that a replay sees exactly the same."""

    positions: Tensor
    documents: Tensor | None = None
    dropout_seed: int | None = None


class Branch(nn.Module, ABC):
    """A sub-layer. pointwise: positions do not meet, so the trunk may run it on slices of the length."""

    pointwise = False

    @abstractmethod
    def forward(self, x: Tensor, context: Context, routing: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x: [batch, length, d_model] -> (what to add, routing). A replay hands the routing (buckets) back in."""

    def start(self, batch: int) -> Any:
        """What decoding keeps between tokens; None for a branch without memory."""
        return None

    def step(self, x: Tensor, positions: Tensor, state: Any) -> Tensor:
        """What to add for new tokens x [batch, new, d_model], given the state of those before; updates it."""
        return self(x, Context(positions))[0]


def make_norm(config: ReformerConfig, width: int) -> Callable[[Tensor], Tensor]:
    """RMSNorm without parameters (arXiv 1910.07467), or LayerNorm as published."""
    if config.norm == "layer":
        return nn.LayerNorm(width, eps=1e-12)
    return _RMSNorm(width)


class _RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.width,))


class FeedForward(Branch):
    """norm, widen, non-linearity, narrow. squared_relu: arXiv 2109.08668; swiglu: arXiv 2002.05202."""

    pointwise = True

    def __init__(self, config: ReformerConfig) -> None:
        super().__init__()
        d_ff = config.d_ff or 4 * config.d_model
        biases = config.norm == "layer"
        self.kind = config.feed_forward
        self.norm = make_norm(config, config.d_model)
        self.widen = nn.Linear(config.d_model, d_ff * (2 if self.kind == "swiglu" else 1), bias=biases)
        self.output = nn.Linear(d_ff, config.d_model, bias=biases)

    def forward(self, x: Tensor, context: Context, routing: Tensor | None = None) -> tuple[Tensor, None]:
        h = self.widen(self.norm(x))
        if self.kind == "squared_relu":
            h = F.relu(h).square()
        elif self.kind == "swiglu":
            gate, h = h.chunk(2, -1)
            h = F.silu(gate) * h
        else:
            h = F.relu(h) if self.kind == "relu" else F.gelu(h)
        return self.output(h), None


def in_slices(function: nn.Module, x: Tensor, size: int) -> Tensor:
    """function(x) over slices of at most `size` tokens of x [batch, length, d], joined along dimension -2.

    In backward each slice is computed once more and differentiated while it is there: what a projection needs
    inside never exists for the whole length. Short inputs take the direct way.
    """
    if x.shape[0] * x.shape[1] <= size:
        out: Tensor = function(x)
        return out
    step = max(1, size // x.shape[0])
    joined: Tensor = _InSlices.apply(function, step, x, *function.parameters())
    return joined


class _InSlices(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: nn.Module, step: int, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.function, ctx.step = function, step
        ctx.save_for_backward(x, *parameters)
        joined = None
        for start in range(0, x.shape[1], step):
            part = function(x[:, start : start + step])
            if joined is None:
                joined = part.new_empty(*part.shape[:-2], x.shape[1], part.shape[-1])
            joined[..., start : start + step, :] = part
        assert joined is not None
        return joined

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        wanted = [p for p in parameters if p.requires_grad]
        totals: list[Tensor] = []
        dx = torch.empty_like(x)
        for start in reversed(range(0, x.shape[1], ctx.step)):
            here = slice(start, start + ctx.step)
            with torch.enable_grad():
                part = x[:, here].detach().requires_grad_()
                out = ctx.function(part)
            first, *rest = torch.autograd.grad(out, [part, *wanted], grad[..., here, :])
            dx[:, here] = first
            totals = [a + b for a, b in zip(totals, rest, strict=True)] if totals else rest
        found = iter(totals)
        return None, None, dx, *(next(found) if p.requires_grad else None for p in parameters)
