"""Next-token loss in slices: logits of the whole length never exist, in neither direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.backends import choose
from reformer.backends.dtypes import wide
from reformer.config import Backend

UNSCORED = -100  # a target that does not count


class Scoring(Protocol):
    """A head as the loss needs it."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def nats(self, h: Tensor, targets: Tensor) -> Tensor:
        """Summed over the scored ones of targets [batch, n], given h [batch, n, d]."""


def summed_nats(logits: Tensor, targets: Tensor, softcap: float, backend: Backend) -> Tensor:
    """The sum of cross-entropies of logits [n, vocab_size] squashed into +-softcap (0: as they are); they may be
    overwritten. targets: int64 [n]."""
    if logits.is_contiguous() and choose(backend, logits) == "triton":
        from reformer.ops.cross_entropy import triton_kernels

        return triton_kernels.summed_nats(logits, targets, softcap, UNSCORED)
    return F.cross_entropy(wide(squash(logits, softcap)), targets, ignore_index=UNSCORED, reduction="sum")


def squash(logits: Tensor, softcap: float) -> Tensor:
    """Into +-softcap; 0 leaves them."""
    return softcap * torch.tanh(logits / softcap) if softcap else logits


def sliced_loss(
    head: Scoring,
    read: Callable[[slice], Tensor],
    targets: Tensor,
    slices: Sequence[slice],
    write: Callable[[slice, Tensor], None] | None,
) -> tuple[Tensor, list[Tensor]]:
    """Mean nats per scored target, and its gradient with respect to the head's trainable parameters.

    read(slice): what the head reads there, [batch, slice, d]; write(slice, gradient) is given the gradient of that
    while it is there. Without write nothing is differentiated. targets: int64 [batch, length], UNSCORED where nothing
    is scored.
    """
    count = (targets != UNSCORED).sum().clamp_min(1)
    wanted = [p for p in head.parameters() if p.requires_grad]
    totals = [torch.zeros_like(p) for p in wanted]
    total = torch.zeros((), dtype=torch.float64, device=targets.device)
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
