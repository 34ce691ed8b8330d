"""Next-token loss in slices: logits of the whole length never exist, in neither direction."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.precision import wide

UNSCORED = -100  # a target that does not count


class _SlicedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, head: nn.Module, size: int, h: Tensor, targets: Tensor, *parameters: Tensor) -> Tensor:
        flat, aims = h.detach().view(-1, h.shape[-1]), targets.reshape(-1)
        count = (aims != UNSCORED).sum().clamp_min(1)
        wanted = [p for p in parameters if p.requires_grad]
        differentiate = h.requires_grad or bool(wanted)
        totals = [torch.zeros_like(p) for p in wanted]
        total = h.new_zeros((), dtype=torch.float64)
        for start in range(0, len(flat), size):
            with torch.set_grad_enabled(differentiate):
                part = flat[start : start + size].detach().requires_grad_(differentiate)
                nats = F.cross_entropy(
                    wide(head(part)), aims[start : start + size], ignore_index=UNSCORED, reduction="sum"
                )
                mean = nats / count
            total += nats.detach()
            if differentiate:
                dh, *rest = torch.autograd.grad(mean, [part, *wanted])
                flat[start : start + size] = dh  # h is not needed any more: its gradient takes its place
                for a, b in zip(totals, rest, strict=True):
                    a += b
        ctx.save_for_backward(h.detach(), *totals)
        ctx.wanted = [p.requires_grad for p in parameters]
        return (total / count).to(h.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dh, *totals = ctx.saved_tensors
        found = iter(totals)
        return None, None, dh * grad, None, *(next(found) * grad if w else None for w in ctx.wanted)


def sliced_loss(head: nn.Module, h: Tensor, targets: Tensor, size: int) -> Tensor:
    """Mean nats per scored target; h [batch, length, d] is consumed: its memory holds its gradient afterwards.

    head: h -> logits. targets: int64 [batch, length], UNSCORED where nothing is scored. size: tokens at a time.
    """
    out: Tensor = _SlicedLoss.apply(head, size, h, targets, *head.parameters())
    return out
