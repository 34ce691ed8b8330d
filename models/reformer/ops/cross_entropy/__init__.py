"""Cross-entropy of softcapped logits: pytorch.py defines it, triton_kernels.py leaves the gradient in their place."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from reformer.backends.dispatch import choose
from reformer.config import Backend
from reformer.ops.cross_entropy import pytorch
from reformer.ops.cross_entropy.pytorch import IGNORE_INDEX, softcapped

__all__ = ["IGNORE_INDEX", "cross_entropy", "softcapped"]


def cross_entropy(
    logits: Tensor, targets: Tensor, softcap: float, *, reduction: Literal["sum", "none"] = "sum",
    backend: Backend = "auto",
) -> Tensor:  # fmt: skip
    """Nats of targets int64 [n, ..] by logits [n, .., vocab_size], which are softcapped first (softcap 0: are not).

    sum: one number, of logits [n, vocab_size], which may be overwritten; to be differentiated once. none: of each
    target, 0 where it is IGNORE_INDEX. Raises ValueError where backend triton is asked for and cannot be had.
    """
    if reduction == "sum" and logits.is_contiguous() and choose(backend, logits) == "triton":
        from reformer.ops.cross_entropy import triton_kernels

        return triton_kernels.cross_entropy(logits, targets, softcap, IGNORE_INDEX)
    return pytorch.cross_entropy(logits, targets, softcap, reduction)
