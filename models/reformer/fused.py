"""Norm, projections and feed-forward in few passes over memory, each with its own backward.

On a CPU the products of these sizes run near the peak, and everything around them waits for memory. So the work goes in
slices that stay in the cache; the RMS norm is never applied to its input (W (r x) = r W x for a row's scale r, and what
is brought to a given length forgets r altogether); products are taken in the precision that autocast names.
tests/core/test_fused.py holds the plain definitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reformer.positions import rotate_
from reformer.precision import product_dtype

SLICE = 2048  # tokens worked on together
TINY = 1e-12  # what a shorter vector is divided by


def project(
    x: Tensor, weight: Tensor, parts: int, heads: int, scale: Tensor | None, phase: Tensor | None, *, rms: bool
) -> tuple[Tensor, ...]:
    """x [tokens, d_model] @ weight.T, as `parts` of [tokens, heads, d_head]; weight: [parts * heads * d_head, d_model].

    rms: as if x had been divided by its root mean square (arXiv 1910.07467). scale: [parts - 1, heads], the lengths
    that the vectors of all parts but the last are brought to; None leaves them. phase: complex [tokens, d_head / 2],
    by which those parts are then turned (`rotate_`).
    """
    out: tuple[Tensor, ...] = _Project.apply(x, weight, parts, heads, scale, phase, rms)
    return out


def squared_relu_mlp(x: Tensor, widen: Tensor, narrow: Tensor) -> Tensor:
    """relu(rms_norm(x) @ widen.T)^2 @ narrow.T (arXiv 2109.08668); x [tokens, d_model]."""
    out: Tensor = _SquaredReluMLP.apply(x, widen, narrow)
    return out


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [tokens, n] @ weight.T, in the precision of x whatever the product's."""
    out: Tensor = _Linear.apply(x, weight)
    return out


def inverse_rms(x: Tensor) -> Tensor:
    """[tokens, d] -> [tokens, 1]: what rms_norm multiplies a row by."""
    mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    return mean.add_(torch.finfo(x.dtype).eps).rsqrt_()


def _pieces(n: int) -> Iterator[slice]:
    return (slice(start, min(start + SLICE, n)) for start in range(0, n, SLICE))


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        parts: int,
        heads: int,
        scale: Tensor | None,
        phase: Tensor | None,
        rms: bool,
    ) -> tuple[Tensor, ...]:
        n, d_head = len(x), weight.shape[0] // (parts * heads)
        low = product_dtype(x)
        outs = tuple(x.new_empty(n, heads, d_head, dtype=low) for _ in range(parts))
        lengths = x.new_empty(parts - 1, n, heads if scale is not None else 0)
        inverse = x.new_ones(n if rms else 1, 1)
        with torch.autocast(x.device.type, enabled=False):
            matrix = weight.to(low).t()
            for piece in _pieces(n):
                raw = torch.mm(x[piece].to(low), matrix).view(-1, parts, heads, d_head)
                if rms:
                    inverse[piece] = inverse_rms(x[piece])
                for p, out in enumerate(outs):
                    if scale is not None and p < parts - 1:
                        length = torch.linalg.vector_norm(raw[:, p], dim=-1).to(x.dtype).clamp_min_(TINY)
                        lengths[p, piece] = length
                        torch.mul(raw[:, p], (scale[p] / length)[..., None], out=out[piece])
                        if phase is not None:
                            rotate_(out[piece], phase[piece])
                    else:
                        torch.mul(raw[:, p], inverse[piece if rms else slice(0, 1), :, None], out=out[piece])
        ctx.save_for_backward(x, weight, scale, phase, lengths, inverse, *outs)
        ctx.rms, ctx.low = rms, low
        return outs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, phase, lengths, inverse, *outs = ctx.saved_tensors
        parts, (_, heads, d_head) = len(outs), outs[0].shape
        dx, d_weight = torch.empty_like(x), torch.zeros_like(weight)
        d_scale = torch.zeros_like(scale) if scale is not None else None
        with torch.autocast(x.device.type, enabled=False):
            matrix = weight.to(ctx.low)
            for piece in _pieces(len(x)):
                here = x[piece]
                raw = x.new_empty(len(here), parts, heads, d_head)
                radial = x.new_zeros(len(here), 1)
                for p, (grads, out) in enumerate(zip(gradients, outs, strict=True)):
                    g, y = grads[piece], out[piece]
                    if d_scale is not None and p < parts - 1:
                        # y = s u with u of unit length: d_raw = (s g - y (y . g) / s) / length
                        s, length, along = scale[p], lengths[p, piece], (g * y).sum(-1)
                        d_scale[p] += (along / s).sum(0)
                        torch.mul(g, (s / length)[..., None], out=raw[:, p])
                        raw[:, p].addcmul_(y, along.div_(s * length)[..., None], value=-1)
                        if phase is not None:
                            rotate_(raw[:, p], phase[piece].conj())
                    else:
                        torch.mul(g, inverse[piece if ctx.rms else slice(0, 1), :, None], out=raw[:, p])
                        radial += (g * y).sum((1, 2))[:, None]
                flat = raw.view(len(here), -1).to(ctx.low)
                d_weight += torch.mm(flat.t(), here.to(ctx.low))
                dx[piece] = torch.mm(flat, matrix)
                if ctx.rms:  # the scale r falls as the row grows: dr/dx = -r^3 x / d
                    dx[piece].addcmul_(here, radial.mul_(inverse[piece].square()).div_(x.shape[1]), value=-1)
        return dx, d_weight, None, None, d_scale, None, None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.low = product_dtype(x)
        out = x.new_empty(len(x), weight.shape[0])
        with torch.autocast(x.device.type, enabled=False):
            matrix = weight.to(ctx.low).t()
            for piece in _pieces(len(x)):
                out[piece] = torch.mm(x[piece].to(ctx.low), matrix)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        dx, d_weight = torch.empty_like(x), torch.zeros_like(weight)
        with torch.autocast(x.device.type, enabled=False):
            matrix = weight.to(ctx.low)
            for piece in _pieces(len(x)):
                g = grad[piece].to(ctx.low)
                dx[piece] = torch.mm(g, matrix)
                d_weight += torch.mm(g.t(), x[piece].to(ctx.low))
        return dx, d_weight


class _SquaredReluMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, widen: Tensor, narrow: Tensor) -> Tensor:
        n, low = len(x), product_dtype(x)
        hidden = x.new_empty(n, widen.shape[0], dtype=low)
        inverse, out = x.new_empty(n, 1), x.new_empty(n, narrow.shape[0])
        with torch.autocast(x.device.type, enabled=False):
            first, second = widen.to(low).t(), narrow.to(low).t()
            for piece in _pieces(n):
                torch.mm(x[piece].to(low), first, out=hidden[piece]).relu_()
                inverse[piece] = inverse_rms(x[piece])
                torch.mul(torch.mm(hidden[piece].square(), second), inverse[piece].square(), out=out[piece])
        ctx.save_for_backward(x, widen, narrow, hidden, inverse, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, widen, narrow, hidden, inverse, out = ctx.saved_tensors
        low = hidden.dtype
        dx, d_widen, d_narrow = torch.empty_like(x), torch.zeros_like(widen), torch.zeros_like(narrow)
        with torch.autocast(x.device.type, enabled=False):
            first, second = widen.to(low), narrow.to(low)
            for piece in _pieces(len(x)):
                here, h, g, square = x[piece], hidden[piece], grad[piece], inverse[piece].square()
                radial = (g * out[piece]).sum(-1, keepdim=True).mul_(square).div_(x.shape[1])
                g = (g * square).to(low)
                d_narrow += torch.mm(g.t(), h.square())
                dh = torch.mm(g, second).mul_(h)  # half of it: the square's 2 comes with the products below
                d_widen += torch.mm(dh.t(), here.to(low))
                dx[piece] = torch.mm(dh, first)
                dx[piece].addcmul_(here, radial, value=-1).mul_(2)
        return dx, d_widen.mul_(2), d_narrow
