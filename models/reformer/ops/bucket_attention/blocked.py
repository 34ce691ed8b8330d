"""Bucket attention in sorted blocks, with its own backward: plain PyTorch, any device, O(length) memory.

A block of m sorted queries meets its own m keys and the ones that its windows reach before it. Rows are
fetched through the sorted index slice by slice, and rounds are merged as they come: neither a permuted copy
of q, k or v nor a tensor per round is ever held. See README.md for the mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reformer.ops.bucket_attention.blocks import SCORES_AT_ONCE, Layout, fold, spans
from reformer.ops.bucket_attention.published import make_published
from reformer.ops.bucket_attention.recent import make_recent
from reformer.precision import wide

LOWEST = -1e30  # stands for -inf where -inf - -inf would be NaN


def forward_pass(q: Tensor, k: Tensor, v: Tensor, layout: Layout, shift: int) -> tuple[Tensor, Tensor]:
    """Merged output [T, d] and logsumexp [T] over all rounds, in wide precision; q, k, v are flat [T, d]. shift: how
    far behind a key its value lies."""
    total, d = v.shape
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    out = q.new_zeros(total, d, dtype=dtype)
    lse = q.new_full((total,), -torch.inf, dtype=dtype)
    for r in range(layout.n_rounds):
        for part in layout.slices(r):
            n, m, span = part.shape
            rows = wide(k.index_select(0, part.keys))
            query = (rows[-n * m :] if q is k else wide(q.index_select(0, part.queries))).view(n, m, -1)
            value = spans(wide(v.index_select(0, (part.keys + shift).clamp_max_(total - 1))), m, span)
            scores = torch.bmm(query, spans(rows, m, span).transpose(1, 2))
            scores.masked_fill_(part.hidden, -torch.inf)
            peak = scores.amax(-1, keepdim=True).clamp_min_(LOWEST)
            weight = scores.sub_(peak).exp_().sum(-1, keepdim=True)
            new = torch.bmm(scores, value).div_(weight.clamp_min(torch.finfo(dtype).tiny)).view(n * m, d)
            new_lse = (peak + weight.log()).view(-1)
            index = part.queries[: part.n_queries]
            new, new_lse = new[: part.n_queries], new_lse[: part.n_queries]
            if r > 0:
                old_lse = lse.index_select(0, index)
                both = torch.logaddexp(old_lse, new_lse)
                floor = both.clamp_min(LOWEST)
                new = new * (new_lse - floor).exp_()[:, None]
                new += out.index_select(0, index) * (old_lse - floor).exp_()[:, None]
                new_lse = both
            out.index_copy_(0, index, new)
            lse.index_copy_(0, index, new_lse)
    return out, lse


def backward_pass(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, d_out: Tensor,
    layout: Layout, shift: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of flat q, k, v; where q is k, dq and dk are one, their sum. Scores are made again; each row is
    owned by one slice at a time: no atomics. Sums over rounds are wide; a single round's need not be."""
    total, d = v.shape
    sums = v.dtype if layout.n_rounds == 1 else lse.dtype
    dk, dv = torch.zeros_like(k, dtype=sums), torch.zeros_like(v, dtype=sums)
    dq = dk if q is k else torch.zeros_like(q, dtype=sums)
    delta = _row_products(d_out, out).to(lse.dtype)
    lse = lse.masked_fill(lse == -torch.inf, torch.inf)  # who sees nothing has weights 0, not NaN
    for r in range(layout.n_rounds):
        for part in layout.slices(r):
            n, m, span = part.shape
            read = (part.keys + shift).clamp_max_(total - 1)
            rows = wide(k.index_select(0, part.keys))
            key, value = spans(rows, m, span), spans(wide(v.index_select(0, read)), m, span)
            query = (rows[-n * m :] if q is k else wide(q.index_select(0, part.queries))).view(n, m, -1)
            grad = wide(d_out.index_select(0, part.queries)).view(n, m, d)
            if part.n_queries < n * m:
                grad.view(n * m, d)[part.n_queries :] = 0
            weights = torch.bmm(query, key.transpose(1, 2)).masked_fill_(part.hidden, -torch.inf)
            weights.sub_(lse.index_select(0, part.queries).view(n, m, 1)).exp_()
            _add(dv, read, fold(torch.bmm(weights.transpose(1, 2), grad), m), part.n_repeated)
            d_scores = torch.bmm(grad, value.transpose(1, 2))
            d_scores.sub_(delta.index_select(0, part.queries).view(n, m, 1)).mul_(weights)
            if part.n_queries < n * m:
                d_scores.view(n * m, span)[part.n_queries :] = 0
            _add(dq, part.queries, torch.bmm(d_scores, key).view(n * m, -1), 0)
            _add(dk, part.keys, fold(torch.bmm(d_scores.transpose(1, 2), query), m), part.n_repeated)
    return dq, dk, dv


def _row_products(a: Tensor, b: Tensor) -> Tensor:
    """(a * b).sum(-1) of [T, d], wide, in slices."""
    step = max(1, SCORES_AT_ONCE // a.shape[1])
    parts = [(wide(x) * wide(y)).sum(-1) for x, y in zip(a.split(step), b.split(step), strict=True)]
    return torch.cat(parts)


def _add(total: Tensor, index: Tensor, rows: Tensor, n_repeated: int) -> None:
    """total[index] += rows; an index that occurs twice in one call would make a GPU's sum depend on the order."""
    rows = rows.to(total.dtype)
    if n_repeated:
        total.index_add_(0, index[:n_repeated], rows[:n_repeated])
    total.index_add_(0, index[n_repeated:], rows[n_repeated:])


def _flat(x: Tensor) -> Tensor:
    """[batch, heads, length, d] -> [batch * length * heads, d]; no copy of what lies token by token."""
    return x.transpose(1, 2).reshape(-1, x.shape[-1])


def _shaped(x: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_flat`, in the type of `like`."""
    batch, heads, length, d = like.shape
    return x.to(like.dtype).view(batch, length, heads, d).transpose(1, 2)


class _BucketAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout, shift: int, alone: bool) -> Tensor:
        keys, values = _flat(k), _flat(v)
        queries = keys if q is k else _flat(q)
        with torch.autocast(q.device.type, enabled=False):  # the wide precision was chosen above
            out, lse = forward_pass(queries, keys, values, layout, shift * q.shape[1])
        if alone:
            out = torch.where((lse == -torch.inf)[:, None], wide(values), out)
        shaped = _shaped(out, v)
        ctx.save_for_backward(q, k, v, shaped, lse)
        ctx.layout, ctx.shift, ctx.alone, ctx.shared = layout, shift, alone, q is k
        return shaped

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        keys, values, d_out = _flat(k), _flat(v), _flat(grad)
        queries = keys if ctx.shared else _flat(q)
        with torch.autocast(q.device.type, enabled=False):
            dq, dk, dv = backward_pass(
                queries, keys, values, _flat(out), lse, d_out, ctx.layout, ctx.shift * q.shape[1]
            )
        if ctx.alone:
            dv += d_out.masked_fill((lse != -torch.inf)[:, None], 0.0)  # there, out was the own v
        return None if ctx.shared else _shaped(dq, q), _shaped(dk, k), _shaped(dv, v), None, None, None


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, shift: int = 0, alone: bool) -> Tensor:
    """Attention over a layout made before; q, k, v: [batch, heads, length, d_head].

    shift: v_{j+shift} is read at a visible j. alone: who sees nothing returns its own v, else 0.
    """
    out: Tensor = _BucketAttention.apply(q, k, v, layout, shift, alone)
    return out


def bucket_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    buckets: Tensor,
    windows: Sequence[int],
    *,
    pattern: Literal["recent", "published"] = "recent",
    values: Literal["same", "next"] = "same",
    itself: Literal["alone", "always"] = "alone",
    block: int = 64,
) -> Tensor:
    """Attention among positions of one bucket (design section 2).

    q, k, v: [batch, heads, length, d_head]; scores are q @ k, scaled by the caller. buckets: integer
    [rounds, batch, heads, length], windows: one size per round.
    pattern: `recent`, a position sees the most recent positions of its own buckets, and a pair met in several rounds
    counts once; `published`, it sees the earlier ones of its chunk of the sorted sequence and of the chunk before,
    whatever their bucket, and a pair counts as often as it is met: windows are then all the chunk's length.
    values: `same` reads v_j of a visible j; `next` (recent) reads v_{j+1}, never sees i itself, and returns 0 where
    nothing is seen. itself (with `same`): `alone`, the own position is seen only if nothing else is, as the
    paper has it; `always`, it is a position like others. Returns [batch, heads, length, d_head].
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
    if pattern == "published" and (values != "same" or len(set(windows)) > 1):
        raise ValueError(f"pattern published has values same, not {values}, and one chunk length, not {list(windows)}")
    if q.shape[2] == 0:
        return torch.zeros_like(v)
    same = values == "same"
    always = same and itself == "always"
    layout: Layout
    if pattern == "published":
        layout = make_published(buckets, windows[0], windows[0], itself=always)
    else:
        layout = make_recent(buckets, windows, block=block, itself=always)
    return attend(q, k, v, layout, shift=0 if same else 1, alone=same)
