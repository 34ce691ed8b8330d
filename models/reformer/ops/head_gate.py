"""Gates: what a head has read times 2 sigmoid(s), where s = w . x of the token that reads; w is learnt a head, from 0.

A softmax always hands something on; a gate lets a head be silent where what it found is of no use (arXiv 2505.06708,
with a number a head instead of one a channel; the factor 2 makes a new gate 1). It is part of `attend`, which keeps
nothing more for it; `head_gate` is for what does without: decoding, and full heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reformer.backends.dtypes import upcast


def head_gate(out: Tensor, scores: Tensor) -> Tensor:
    """out [batch, heads, length, d_head] times 2 sigmoid(scores [batch, heads, length, 1])."""
    found: Tensor = _Gated.apply(out, scores)
    return found


class _Gated(torch.autograd.Function):
    # Contiguous, since bits go with how memory lies: those of a sum, and those of a sigmoid too, which is another
    # function for what does not fill a vector.
    @staticmethod
    def forward(ctx: Any, out: Tensor, scores: Tensor) -> Tensor:
        share = upcast(scores.contiguous()).sigmoid()  # half the gate
        ctx.save_for_backward(out, share)
        ctx.dtype = scores.dtype
        return out * (2 * share).to(out.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        out, share = ctx.saved_tensors
        products = (upcast(out) * upcast(grad)).contiguous().sum(-1, keepdim=True)
        return grad * (2 * share).to(grad.dtype), (products * 2 * share * (1 - share)).to(ctx.dtype)
