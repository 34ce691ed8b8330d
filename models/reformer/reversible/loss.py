"""Next-token loss in slices: logits of the whole length never exist, in neither direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from reformer.backends.dtypes import widest
from reformer.ops.cross_entropy import IGNORE_INDEX

LOGITS = 2**27  # numbers of the logits that exist at a time on a GPU (fused.py)


class Scoring(Protocol):
    """A head as the loss needs it."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """Summed over the scored ones of targets [batch, n], given h [batch, n, d]."""


def sliced_loss(
    head: Scoring,
    read: Callable[[slice], Tensor],
    targets: Tensor,
    slices: Sequence[slice],
    write: Callable[[slice, Tensor], None] | None,
) -> tuple[Tensor, list[Tensor]]:
    """Mean nats per scored target, and its gradient with respect to the head's trainable parameters.

    read(slice): what the head reads there, [batch, slice, d]; write(slice, gradient) is given the gradient of that
    while it is there. Without write nothing is differentiated. targets: int64 [batch, length], IGNORE_INDEX where
    nothing is scored.
    """
    count = (targets != IGNORE_INDEX).sum().clamp_min(1)
    wanted = [p for p in head.parameters() if p.requires_grad]
    totals = [torch.zeros_like(p) for p in wanted]
    total = torch.zeros((), dtype=widest(targets.device), device=targets.device)
    for here in slices:
        with torch.set_grad_enabled(write is not None):
            part = read(here).requires_grad_(write is not None)
            nats = head.nats(part, targets[:, here])
            mean = nats / count
        total += nats.detach()
        if write is not None:
            gradient, *rest = torch.autograd.grad(mean, [part, *wanted])
            write(here, gradient)
            for a, b in zip(totals, rest, strict=True):
                a += b
    return total / count, totals
