"""Vectors to hash that are made of several tokens, so that a bucket holds like contexts and not like tokens.

Every channel is a learned sum over a token and those before it: u_t = sum over s of w_s * x_{t-s}, brought to a length.
As a short convolution of keys it is in FlashMoBA (2025); it lets one layer find what came before, which is what a copy
needs. What precedes the text, or is of another document, counts as zeros.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from reformer.backends.dtypes import upcast

AT_ONCE = 4096  # tokens: what is made in float32 does not grow with the text
LEAST = 1e-12  # of a squared length: a vector of zeros stays one


def key_conv(
    x: Tensor, weight: Tensor, lengths: Tensor, documents: Tensor | None = None, before: Tensor | None = None
) -> Tensor:
    """x [batch, heads, length, d_head], weight [heads, tokens, d_head], the present token's first -> as x, every vector
    of its head's length.

    lengths: [heads]. documents: int [batch, length]. before: [batch, heads, tokens - 1, d_head], the x that came before
    these, through which no gradient passes.
    """
    out: Tensor = _Blend.apply(x, weight, lengths, documents, before)
    return out


def _shifted(x: Tensor, back: int, here: slice, documents: Tensor | None, before: Tensor | None) -> Tensor:
    """[batch, heads, slice, d_head], wide: what stood `back` places before."""
    start, stop = here.start - back, here.stop - back
    part = upcast(x[:, :, max(0, start) : max(0, stop)]).contiguous()  # sums are in one order, however x lies
    if documents is not None and back:
        ours, theirs = documents[:, max(here.start, back) : here.stop], documents[:, max(0, start) : max(0, stop)]
        part = part * (ours == theirs)[:, None, :, None]
    if (missing := min(-start, here.stop - here.start)) > 0:
        if before is None:
            return F.pad(part, (0, 0, missing, 0))
        first = before.shape[2] + start
        part = torch.cat([upcast(before[:, :, first : first + missing]), part], 2)
    return part


def _sums(x: Tensor, weight: Tensor, here: slice, documents: Tensor | None, before: Tensor | None) -> Tensor:
    """u of a slice."""
    parts = (_shifted(x, s, here, documents, before) * weight[:, s, None] for s in range(weight.shape[1]))
    total = next(parts)
    for part in parts:
        total += part
    return total


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, lengths: Tensor, documents: Tensor | None, before: Tensor | None
    ) -> Tensor:
        out = torch.empty_like(x)
        for here in _slices(x.shape[2]):
            u = _sums(x, upcast(weight), here, documents, before)
            out[:, :, here] = u * (upcast(lengths)[:, None, None] * _inverse(u))
        ctx.save_for_backward(x, weight, lengths, documents, before)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, lengths, documents, before = ctx.saved_tensors
        more, length = weight.shape[1] - 1, x.shape[2]
        w, d_x = upcast(weight), torch.empty_like(x)
        d_weight, d_lengths = torch.zeros_like(w), torch.zeros_like(upcast(lengths))
        for here in _slices(length):
            reach = slice(here.start, min(length, here.stop + more))  # x_t is part of so many vectors after it
            u = _sums(x, w, reach, documents, before)
            inverse, d_out = _inverse(u), upcast(grad[:, :, reach]).contiguous()
            unit = u.mul_(inverse)
            along = (unit * d_out).sum(-1, keepdim=True)
            n = here.stop - here.start
            d_lengths += along[:, :, :n].sum((0, 2, 3))
            d_u = (d_out - unit * along).mul_(inverse).mul_(upcast(lengths)[:, None, None])
            total = torch.zeros_like(d_u[:, :, :n])
            for s in range(more + 1):
                part = d_u[:, :, s : s + n]
                m = part.shape[2]
                if documents is not None:
                    later, now = documents[:, here.start + s : here.start + s + m], documents[:, here.start :][:, :m]
                    part = part * (later == now)[:, None, :, None]
                total[:, :, :m] += part * w[:, s, None]
                d_weight[:, s] += (_shifted(x, s, here, documents, before) * d_u[:, :, :n]).sum((0, 2))
            d_x[:, :, here] = total
        return d_x, d_weight.to(weight.dtype), d_lengths.to(lengths.dtype), None, None


def _inverse(u: Tensor) -> Tensor:
    return u.square().sum(-1, keepdim=True).clamp_min(LEAST).rsqrt()


def _slices(length: int) -> list[slice]:
    return [slice(start, min(length, start + AT_ONCE)) for start in range(0, length, AT_ONCE)]
