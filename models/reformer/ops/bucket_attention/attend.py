"""`bucket_attention`: the passes of a backend under autograd."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reformer.backends.dtypes import upcast
from reformer.config import Backend
from reformer.ops.bucket_attention import native, pytorch
from reformer.ops.bucket_attention.chunks import make_sorted_chunks
from reformer.ops.bucket_attention.dispatch import passes_for
from reformer.ops.bucket_attention.layout import Layout, row_products
from reformer.ops.bucket_attention.windows import BucketWindows, make_bucket_windows


def _flat(x: Tensor) -> Tensor:
    """[batch, heads, length, d] -> [batch * length * heads, d]; no copy of what lies token by token."""
    return x.transpose(1, 2).reshape(-1, x.shape[-1])


def _shaped(x: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_flat`, in the type of `like`."""
    batch, heads, length, d = like.shape
    return x.to(like.dtype).view(batch, length, heads, d).transpose(1, 2)


def _with_sink(out: Tensor, lse: Tensor, sink: Tensor) -> Tensor:
    """The logsumexp [T] with a score [heads] for reading nothing besides; out [T, d], token by token, shrinks."""
    seen = lse.view(-1, len(sink))
    total = torch.logaddexp(seen, sink.to(lse.dtype))
    out *= (seen - total).exp().view(-1, 1).to(out.dtype)
    return total.view(-1)


class _BucketAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout, value_offset: int, self_if_alone: bool,
        delta: Tensor | None, passes: ModuleType, self_weight: Tensor | None, sink: Tensor | None, gate: Tensor | None,
    ) -> Tensor:  # fmt: skip
        keys, values = _flat(k), _flat(v)
        queries = keys if q is k else _flat(q)
        with torch.autocast(q.device.type, enabled=False):  # sums are wide, whatever it says
            out, lse = passes.forward_pass(queries, keys, values, layout, value_offset * q.shape[1])
            if sink is not None:
                lse = _with_sink(out, lse, sink)
        if self_if_alone:
            own = values.to(out.dtype)
            out = torch.where(
                (lse == -torch.inf)[:, None], own if self_weight is None else own * self_weight[:, None], out
            )
        if gate is not None:
            out *= (2 * upcast(_flat(gate)).sigmoid()).to(out.dtype)
        shaped = _shaped(out, v)
        ctx.save_for_backward(q, k, v, lse, sink, gate, *([shaped] if delta is None else []))
        ctx.layout, ctx.value_offset, ctx.self_if_alone, ctx.shared, ctx.passes = (
            layout,
            value_offset,
            self_if_alone,
            q is k,
            passes,
        )
        ctx.self_weight = self_weight
        ctx.delta = delta  # no saved tensor: it is filled later, and may be
        return shaped

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, lse, sink, gate, *out = ctx.saved_tensors
        keys, values, d_out = _flat(k), _flat(v), _flat(grad)
        queries = keys if ctx.shared else _flat(q)
        delta = ctx.delta.to(lse.dtype) if ctx.delta is not None else row_products(_flat(out[0]), d_out)
        d_sink = d_gate = None
        if gate is not None:  # out is o g, g = 2 sigmoid(s). delta, of o g and its gradient, is also that of o and its
            share = upcast(_flat(gate)).sigmoid()
            d_gate = _shaped(delta[:, None] * (1 - share), gate)
            factor = (2 * share).to(d_out.dtype)
            d_out = d_out * factor if ctx.delta is None else d_out.mul_(factor)
        if sink is not None:  # as dS of any other key, whose value is 0 here
            total = lse.view(-1, len(sink))
            d_sink = -((sink.to(lse.dtype) - total).exp() * delta.view_as(total)).sum(0).to(sink.dtype)
        with torch.autocast(q.device.type, enabled=False):
            dq, dk, dv = ctx.passes.backward_pass(
                queries,
                keys,
                values,
                lse,
                delta,
                d_out,
                ctx.layout,
                ctx.value_offset * q.shape[1],
                once=ctx.delta is not None,
            )
        if ctx.self_if_alone:
            d_own = d_out.masked_fill((lse != -torch.inf)[:, None], 0.0)  # there, out was the own v
            dv += d_own if ctx.self_weight is None else d_own * ctx.self_weight[:, None]
        return None if ctx.shared else _shaped(dq, q), _shaped(dk, k), _shaped(dv, v), *[None] * 6, d_sink, d_gate


def attend(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, value_offset: int = 0, self_if_alone: bool,
    delta: Tensor | None = None, backend: Backend = "auto", self_weight: Tensor | None = None,
    sink: Tensor | None = None, gate: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention over a layout made before; q, k, v: [batch, heads, length, d_head].

    value_offset: v_{j+value_offset} is read at a visible j. self_if_alone: who sees nothing returns its own v (times
    `self_weight` [batch * length * heads], token by token, if given), else 0. sink (else alone): as in
    `bucket_attention`. gate: [batch, heads, length, 1], scores s by whose 2 sigmoid(s) rows of the output are
    multiplied. delta: a tensor [batch * length * heads] in which the caller, before backward, puts the sums of
    products of the output's rows and its gradient's, token by token (`row_products`): the output is then not kept,
    and it, q and the output's gradient may be overwritten. Raises ValueError where backend native or triton is asked
    for and cannot be had.
    """
    passes = passes_for(backend, layout, q, k, v)
    if passes not in (pytorch, native) and not q.dtype == k.dtype == v.dtype:
        q, k = q.to(v.dtype), k.to(v.dtype)  # a GPU multiplies equals
    out: Tensor = _BucketAttention.apply(
        q, k, v, layout, value_offset, self_if_alone, delta, passes, self_weight, sink, gate
    )
    return out


def attend_new(
    q: Tensor, k: Tensor, v: Tensor, layout: BucketWindows, *, self_if_alone: bool, backend: Backend = "auto",
    sink: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """`attend` for the last positions only, without gradients: q [batch, heads, new, d_head], k and v of all."""
    new, before = q.shape[2], k.shape[2] - q.shape[2]
    if passes_for(backend, layout, q, k, v) is not native:
        whole = torch.cat([q.new_zeros(*q.shape[:2], before, q.shape[3]), q], 2)
        return attend(whole, k, v, layout, self_if_alone=self_if_alone, backend=backend, sink=sink)[:, :, before:]
    out, lse = native.forward_new(_flat(q), _flat(k), _flat(v), layout, q.shape[1], k.shape[2], new)
    if sink is not None:
        _with_sink(out, lse, sink)
    if self_if_alone:
        own = _flat(v[:, :, before:])
        out = torch.where((lse == -torch.inf)[:, None], own.to(out.dtype), out)
    return _shaped(out, v[:, :, before:])


def bucket_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    buckets: Tensor,
    windows: Sequence[int],
    *,
    pattern: Literal["windows", "chunks"] = "windows",
    values: Literal["same", "next"] = "same",
    itself: Literal["alone", "always"] = "alone",
    block: int = 64,
    backend: Backend = "auto",
    sink: Tensor | None = None,
) -> Tensor:
    """Attention among positions of one bucket: README.md has the mathematics.

    q, k, v: [batch, heads, length, d_head]; scores are q @ k, scaled by the caller. buckets: integer
    [rounds, batch, heads, length], windows: one size per round.
    pattern: `windows`, a position sees the most recent positions of its own buckets, and a pair met in several rounds
    counts once; `chunks`, it sees the earlier ones of its chunk of the sorted sequence and of the chunk before,
    whatever their bucket, and a pair counts as often as it is met: windows are then all the chunk's length.
    values: `same` reads v_j of a visible j; `next` (windows) reads v_{j+1}, never sees i itself, and returns 0 where
    nothing is seen. itself (with `same`): `alone`, the own position is seen only if nothing else is, as the
    paper has it; `always`, it is a position like others. sink (with `next`): [heads], the score of one more key whose
    value is 0 and which every position sees, so that it may read nothing. backend: torch; native, C for a CPU (pattern
    windows, float32 or bfloat16); triton, for a GPU (heads up to 256 wide, float32, bfloat16, float16); auto, whichever
    of these can be had. Returns [batch, heads, length, d_head].
    Raises ValueError for shapes or choices that do not fit.
    """
    if buckets.dim() != 4 or buckets.shape[1:] != q.shape[:3] or len(windows) != len(buckets):
        raise ValueError(
            f"buckets {tuple(buckets.shape)} and {len(windows)} windows do not fit q {tuple(q.shape)}: "
            "expected [rounds, batch, heads, length] and one window a round"
        )
    if not (q.shape == k.shape and k.shape[:3] == v.shape[:3]):
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not fit")
    if min(windows) < 1 or block < 1:
        raise ValueError(f"windows {list(windows)} and block {block} must be at least 1")
    if pattern == "chunks" and (values != "same" or len(set(windows)) > 1):
        raise ValueError(f"pattern chunks has values same, not {values}, and one chunk length, not {list(windows)}")
    if sink is not None and (values != "next" or sink.shape != q.shape[1:2]):
        raise ValueError(
            f"sink {tuple(sink.shape)} needs values next, not {values}, and a score for each of {q.shape[1]} heads"
        )
    if backend == "native" and (pattern == "chunks" or not q.dtype == k.dtype == v.dtype):
        raise ValueError("backend native has pattern windows alone, and q, k and v of one type")
    if q.shape[2] == 0:
        return torch.zeros_like(v)
    same = values == "same"
    always = same and itself == "always"
    layout: Layout
    if pattern == "chunks":
        layout = make_sorted_chunks(buckets, windows[0], windows[0], itself=always)
    else:
        layout = make_bucket_windows(buckets, windows, block=block, itself=always)
    return attend(q, k, v, layout, value_offset=0 if same else 1, self_if_alone=same, backend=backend, sink=sink)
