"""Bucket attention in sorted blocks, forwards and backwards: plain PyTorch, any device, O(length) memory.

A block of m sorted queries meets its own m keys and the ones that its windows reach before it. Rows are
fetched through the sorted index slice by slice, and rounds are merged as they come: neither a permuted copy
of q, k or v nor a tensor per round is ever held. See README.md for the mathematics.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reformer.backends.dtypes import upcast
from reformer.ops.bucket_attention.layout import Layout, fold, spans

LOWEST = -1e30  # stands for -inf where -inf - -inf would be NaN


def forward_pass(q: Tensor, k: Tensor, v: Tensor, layout: Layout, value_offset: int) -> tuple[Tensor, Tensor]:
    """Merged output [T, d] and logsumexp [T] over all rounds, in wide precision, a single round's output in the values'
    type; q, k, v are flat [T, d]. value_offset: how far behind a key its value lies."""
    total, d = v.shape
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    out = q.new_zeros(total, d, dtype=v.dtype if layout.n_rounds == 1 else dtype)
    lse = q.new_full((total,), -torch.inf, dtype=dtype)
    for r in range(layout.n_rounds):
        for part in layout.slices(r):
            n, m, span = part.shape
            rows = upcast(k.index_select(0, part.keys))
            query = (rows[-n * m :] if q is k else upcast(q.index_select(0, part.queries))).view(n, m, -1)
            value = spans(upcast(v.index_select(0, (part.keys + value_offset).clamp_max_(total - 1))), m, span)
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
            out.index_copy_(0, index, new.to(out.dtype))
            lse.index_copy_(0, index, new_lse)
    return out, lse


def backward_pass(
    q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, d_out: Tensor,
    layout: Layout, value_offset: int, *, once: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of flat q, k, v; where q is k, dq and dk are one, their sum. Scores are made again; each row is
    owned by one slice at a time: no atomics. Sums over rounds are wide; a single round's need not be. once: q may be
    overwritten (it is not, here)."""
    total, d = v.shape
    sums = v.dtype if layout.n_rounds == 1 else lse.dtype
    dk, dv = torch.zeros_like(k, dtype=sums), torch.zeros_like(v, dtype=sums)
    dq = dk if q is k else torch.zeros_like(q, dtype=sums)
    lse = lse.masked_fill(lse == -torch.inf, torch.inf)  # who sees nothing has weights 0, not NaN
    for r in range(layout.n_rounds):
        for part in layout.slices(r):
            n, m, span = part.shape
            read = (part.keys + value_offset).clamp_max_(total - 1)
            rows = upcast(k.index_select(0, part.keys))
            key, value = spans(rows, m, span), spans(upcast(v.index_select(0, read)), m, span)
            query = (rows[-n * m :] if q is k else upcast(q.index_select(0, part.queries))).view(n, m, -1)
            grad = upcast(d_out.index_select(0, part.queries)).view(n, m, d)
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


def _add(total: Tensor, index: Tensor, rows: Tensor, n_repeated: int) -> None:
    """total[index] += rows; an index that occurs twice in one call would make a GPU's sum depend on the order."""
    rows = rows.to(total.dtype)
    if n_repeated:
        total.index_add_(0, index[:n_repeated], rows[:n_repeated])
    total.index_add_(0, index[n_repeated:], rows[n_repeated:])
