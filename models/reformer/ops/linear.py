"""Norm, projections and feed-forward in few passes over memory, each with its own backward.

The large products are PyTorch's, in the precision that autocast names; what lies between them is in norm_rope_relu/.
tests/reformer/ops/test_linear.py holds the plain definitions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reformer.backends.dtypes import matmul_dtype
from reformer.config import Backend
from reformer.ops.norm_rope_relu import rows_for


def project(
    x: Tensor, weight: Tensor, parts: int, heads: int, scale: Tensor | None, phase: Tensor | None, *, rms: bool,
    backend: Backend = "auto", gate: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """x [tokens, d_model] @ weight.T, as `parts` of [tokens, heads, d_head]; weight: [parts * heads * d_head, d_model].

    rms: of x divided by its root mean square (arXiv 1910.07467). scale: [parts - 1, heads], the lengths
    that the vectors of all parts but the last are brought to; None leaves them. phase: complex [m, d_head / 2],
    by which those parts are then turned (`rotate_`), token i by number i modulo m. gate: [n, d_model], more rows of the
    weight; what they give is one more output, [tokens, n, 1]. Outputs have the type of products.
    """
    out: tuple[Tensor, ...] = _Project.apply(x, weight, gate, parts, heads, scale, phase, rms, backend)
    return out


def squared_relu_mlp(x: Tensor, widen: Tensor, narrow: Tensor, backend: Backend = "auto") -> Tensor:
    """relu(rms_norm(x) @ widen.T)^2 @ narrow.T (arXiv 2109.08668); x [tokens, d_model]; in the type of products."""
    out: Tensor = _SquaredReluMLP.apply(x, widen, narrow, backend)
    return out


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [tokens, n] @ weight.T, in the type of products."""
    out: Tensor = _Linear.apply(x, weight)
    return out


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, gate: Tensor | None, parts: int, heads: int, scale: Tensor | None,
        phase: Tensor | None, rms: bool, backend: Backend,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        ctx.matmul_dtype, ctx.passes, ctx.dtype = matmul_dtype(x), rows_for(backend, x), x.dtype
        with torch.autocast(x.device.type, enabled=False):
            y, inverse = ctx.passes.rms_norm(x, ctx.matmul_dtype) if rms else (x.to(ctx.matmul_dtype), None)
            raw = torch.mm(y, weight.to(ctx.matmul_dtype).t())
            outs, lengths = ctx.passes.qk_norm_rope(raw, parts, heads, scale, phase)
            more = [torch.mm(y, gate.to(ctx.matmul_dtype).t())[..., None]] if gate is not None else []
        kept = outs if scale is not None else outs[:1]
        ctx.save_for_backward(y, inverse, weight, gate, scale, phase, lengths, *kept)
        ctx.parts = parts
        return *outs, *more

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        y, inverse, weight, gate, scale, phase, lengths, *outs = ctx.saved_tensors
        grads, more, d_gate = grads[: ctx.parts], grads[ctx.parts :], None
        with torch.autocast(y.device.type, enabled=False):
            d_raw, d_scale = ctx.passes.qk_norm_rope_backward(
                grads, outs * (ctx.parts // len(outs)), lengths, scale, phase
            )
            d_weight = torch.mm(d_raw.t(), y).to(weight.dtype) if ctx.needs_input_grad[1] else None
            dy = torch.mm(d_raw, weight.to(ctx.matmul_dtype))
            if gate is not None:
                d_scores = more[0].squeeze(-1).contiguous()  # whatever its layout, a product's bits are the same
                d_gate = torch.mm(d_scores.t(), y).to(gate.dtype)
                dy.addmm_(d_scores, gate.to(ctx.matmul_dtype))
            dx = dy.to(ctx.dtype) if inverse is None else ctx.passes.rms_norm_backward(dy, y, inverse, ctx.dtype)
        return dx, d_weight, d_gate, None, None, d_scale, None, None, None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.matmul_dtype = matmul_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            return torch.mm(x.to(ctx.matmul_dtype), weight.to(ctx.matmul_dtype).t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            dx = torch.mm(grad, weight.to(ctx.matmul_dtype)).to(x.dtype)
            wanted = ctx.needs_input_grad[1]
            return dx, torch.mm(grad.t(), x.to(ctx.matmul_dtype)).to(weight.dtype) if wanted else None


class _SquaredReluMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, widen: Tensor, narrow: Tensor, backend: Backend) -> Tensor:
        ctx.matmul_dtype, ctx.passes, ctx.dtype = matmul_dtype(x), rows_for(backend, x), x.dtype
        with torch.autocast(x.device.type, enabled=False):
            y, inverse = ctx.passes.rms_norm(x, ctx.matmul_dtype)
            hidden = torch.mm(y, widen.to(ctx.matmul_dtype).t())
            square = ctx.passes.squared_relu_(hidden)
            out = torch.mm(square, narrow.to(ctx.matmul_dtype).t())
        ctx.save_for_backward(y, inverse, widen, narrow, hidden, square)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, inverse, widen, narrow, hidden, square = ctx.saved_tensors
        with torch.autocast(y.device.type, enabled=False):
            of_widen, of_narrow = ctx.needs_input_grad[1:3]
            d_narrow = torch.mm(grad.t(), square).to(narrow.dtype) if of_narrow else None
            d_hidden = ctx.passes.squared_relu_backward_(torch.mm(grad, narrow.to(ctx.matmul_dtype)), hidden)
            d_widen = torch.mm(d_hidden.t(), y).to(widen.dtype) if of_widen else None
            dx = ctx.passes.rms_norm_backward(torch.mm(d_hidden, widen.to(ctx.matmul_dtype)), y, inverse, ctx.dtype)
        return dx, d_widen, d_narrow, None
