"""Cross-entropy of softcapped logits, and its gradient in their place, in Triton: two passes over the logits."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from reformer.backends.gpu import on

MOST_COLUMNS = 2048  # logits of a row at a time


@triton.jit
def _softcapped(x, cap):
    """cap tanh(x / cap)."""
    return cap * (1.0 - 2.0 / (tl.exp(2.0 * x / cap) + 1.0))


@triton.jit
def _cross_entropy(
    logits, targets, nats, count, width, unscored, cap,
    COLUMNS: tl.constexpr, CAPPED: tl.constexpr, MEAN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * width
    target = tl.load(targets + row)
    peak = tl.full([COLUMNS], -float("inf"), tl.float32)
    total = tl.zeros([COLUMNS], tl.float32)
    for first in range(0, width, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        x = tl.load(start + column, mask=column < width, other=-float("inf")).to(tl.float32)
        if CAPPED:
            x = tl.where(column < width, _softcapped(x, cap), -float("inf"))
        higher = tl.maximum(peak, x)
        floor = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * tl.exp(peak - floor) + tl.exp(x - floor)
        peak = higher
    highest = tl.max(peak, 0)
    log_sum = highest + tl.log(tl.sum(total * tl.exp(peak - highest), 0))
    scored = target != unscored
    for first in range(0, width, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        x = tl.load(start + column, mask=column < width, other=-float("inf")).to(tl.float32)
        slope = 1.0
        if CAPPED:
            x = _softcapped(x, cap)
            slope = 1.0 - (x / cap) * (x / cap)
        hit = (column == target) & scored
        gradient = (tl.exp(x - log_sum) - hit.to(tl.float32)) * slope
        tl.store(
            nats + row, log_sum - tl.sum(tl.where(hit, x, 0.0), 0), mask=scored & (tl.sum(hit.to(tl.int32), 0) > 0)
        )
        if MEAN:
            gradient /= tl.load(count).to(tl.float32)
        gradient = tl.where(scored, gradient, 0.0)
        tl.store(start + column, gradient.to(logits.dtype.element_ty), mask=column < width)


def cross_entropy_(logits: Tensor, targets: Tensor, cap: float, unscored: int, count: Tensor | None = None) -> Tensor:
    """Nats [n] of targets int64 [n] by logits [n, width], capped first, in whose place comes the gradient of their sum,
    or of it divided by count [1]."""
    n, width = logits.shape
    nats = torch.zeros(n, dtype=torch.float32, device=logits.device)
    columns = min(MOST_COLUMNS, max(16, triton.next_power_of_2(width)))
    with on(logits):
        _cross_entropy[(n,)](
            logits, targets, nats, nats if count is None else count, width, unscored, cap or 1.0, COLUMNS=columns,
            CAPPED=cap > 0, MEAN=count is not None, num_warps=4,
        )  # fmt: skip
    return nats


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, cap: float, unscored: int) -> Tensor:
        ctx.gradient = logits.detach()
        return cross_entropy_(ctx.gradient, targets, cap, unscored).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient.mul_(grad), None  # in place: there is no second time
        return gradient, None, None, None


def cross_entropy(logits: Tensor, targets: Tensor, cap: float, unscored: int) -> Tensor:
    """The sum over rows of the cross-entropy of cap tanh(logits / cap) (cap 0: of the logits), rows with target
    `unscored` left out. logits: contiguous [n, width], overwritten; targets: int64 [n]. To be differentiated once."""
    found: Tensor = _CrossEntropy.apply(logits, targets.contiguous(), cap, unscored)
    return found
