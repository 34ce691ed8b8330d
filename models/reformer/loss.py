"""Next-token loss in slices: logits of the whole length never exist, in neither direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.precision import wide

UNSCORED = -100  # a target that does not count


def sliced_loss(
    head: nn.Module,
    read: Callable[[slice], Tensor],
    targets: Tensor,
    slices: Sequence[slice],
    write: Callable[[slice, Tensor], None] | None,
) -> tuple[Tensor, list[Tensor]]:
    """Mean nats per scored target, and its gradient with respect to the head's trainable parameters.

    read(slice): what the head reads there, [batch, slice, d]; write(slice, gradient) is given the gradient of that
    while it is there. Without write nothing is differentiated. head: h -> logits; targets: int64 [batch, length],
    UNSCORED where nothing is scored.
    """
    count = (targets != UNSCORED).sum().clamp_min(1)
    wanted = [p for p in head.parameters() if p.requires_grad]
    totals = [torch.zeros_like(p) for p in wanted]
    total = torch.zeros((), dtype=torch.float64, device=targets.device)
    for here in slices:
        with torch.set_grad_enabled(write is not None):
            part = read(here).requires_grad_(write is not None)
            logits = wide(head(part)).flatten(0, 1)
            nats = F.cross_entropy(logits, targets[:, here].flatten(), ignore_index=UNSCORED, reduction="sum")
            mean = nats / count
        total += nats.detach()
        if write is not None:
            gradient, *rest = torch.autograd.grad(mean, [part, *wanted])
            write(here, gradient)
            for a, b in zip(totals, rest, strict=True):
                a += b
    return total / count, totals
