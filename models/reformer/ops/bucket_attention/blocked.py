"""Bucket attention in sorted blocks, with its own backward: plain PyTorch, any device, O(length) memory.

A block of m sorted queries meets its own m keys and the ones that its windows reach before it. Rows are
fetched through the sorted index slice by slice, and rounds are merged as they come: neither a permuted copy
of q, k or v nor a tensor per round is ever held. See README.md for the mathematics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from reformer.ops.bucket_attention.rounds import Round, make_rounds
from reformer.precision import wide

# Scores worked on together: small enough for the cache of a CPU core, large enough to hide PyTorch's overhead.
SCORES_AT_ONCE = 2**20
LOWEST = -1e30  # stands for -inf where -inf - -inf would be NaN


@dataclass(frozen=True)
class Slice:
    """Some consecutive blocks of one round: flat indices of their queries and of the keys they may see."""

    queries: Tensor  # int64 [blocks * m], padded at the end by repeating the last place
    keys: Tensor  # int64 [(back + blocks) * m], padded at both ends likewise
    hidden: Tensor  # bool [blocks, m, (back + 1) * m]
    n_queries: int  # without padding

    @property
    def shape(self) -> torch.Size:
        return self.hidden.shape


def slices(rounds: Sequence[Round], r: int, block: int, *, itself: bool) -> Iterator[Slice]:
    """Cut round r into slices. A pair that an earlier round already shows is hidden: the union is exact."""
    now = rounds[r]
    total = len(now.order)
    m = min(block, total)
    back = -(-(min(now.window, total) - 1) // m)
    span = (back + 1) * m
    at_once = max(1, SCORES_AT_ONCE // (m * span))
    device = now.order.device
    columns = torch.arange(span, dtype=torch.int32, device=device)
    rows = torch.arange(back * m, span, dtype=torch.int32, device=device)
    future = columns > rows[:, None] if itself else columns >= rows[:, None]
    for start in range(0, total, at_once * m):
        stop = min(start + at_once * m, -(-total // m) * m)
        key_places = torch.arange(start - back * m, stop, device=device).clamp_(0, total - 1)
        keys = now.order.index_select(0, key_places)
        queries = keys[back * m :]
        reach = now.reach.index_select(0, key_places[back * m :]).view(-1, m)
        hidden = columns <= (rows - reach)[..., None]
        hidden |= future
        for before in rounds[:r]:
            assert before.u is not None
            u = before.u.index_select(0, keys)
            # |u_i - u_j| < window implies u_i > u_j here: both are in one bucket of that round, and j is earlier.
            apart = u[back * m :].view(-1, m, 1) - spans(u, m, span)[:, None]
            hidden |= apart.abs_() < before.window
        yield Slice(queries, keys, hidden, min(stop, total) - start)


def spans(x: Tensor, m: int, span: int) -> Tensor:
    """Overlapping windows over consecutive rows, as a view: [n * m + span - m, ...] -> [n, span, ...]."""
    n = (len(x) - span) // m + 1
    return x.as_strided((n, span, *x.shape[1:]), (m * x.stride(0), *x.stride()), x.storage_offset())


def fold(x: Tensor, m: int) -> Tensor:
    """The adjoint of `spans`: add overlapping windows up, [n, span, d] -> [n * m + span - m, d]."""
    n, span, d = x.shape
    out = x.new_zeros(n * m + span - m, d)
    for start in range(0, span, m):
        out[start : start + n * m] += x[:, start : start + m].reshape(n * m, d)
    return out


def forward_pass(
    q: Tensor, k: Tensor, v: Tensor, rounds: Sequence[Round], block: int, shift: int, itself: bool
) -> tuple[Tensor, Tensor]:
    """Merged output [T, d] and logsumexp [T] over all rounds, in q's precision; q, k, v are flat [T, d]."""
    total, d = v.shape
    out, lse = q.new_zeros(total, d), q.new_full((total,), -torch.inf)
    for r in range(len(rounds)):
        for part in slices(rounds, r, block, itself=itself):
            n, m, span = part.shape
            key = spans(k.index_select(0, part.keys), m, span)
            value = spans(v.index_select(0, (part.keys + shift).clamp_max_(total - 1)), m, span)
            scores = torch.bmm(q.index_select(0, part.queries).view(n, m, -1), key.transpose(1, 2))
            scores.masked_fill_(part.hidden, -torch.inf)
            peak = scores.amax(-1, keepdim=True).clamp_min_(LOWEST)
            weight = scores.sub_(peak).exp_().sum(-1, keepdim=True)
            new = torch.bmm(scores, value).div_(weight.clamp_min(torch.finfo(q.dtype).tiny)).view(n * m, d)
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
    rounds: Sequence[Round], block: int, shift: int, itself: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of flat q, k, v. Scores are made again; each row is owned by one slice at a time: no atomics."""
    total, d = v.shape
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    delta = (d_out * out).sum(-1)
    lse = lse.masked_fill(lse == -torch.inf, torch.inf)  # who sees nothing has weights 0, not NaN
    for r in range(len(rounds)):
        for part in slices(rounds, r, block, itself=itself):
            n, m, span = part.shape
            read = (part.keys + shift).clamp_max_(total - 1)
            key = spans(k.index_select(0, part.keys), m, span)
            value = spans(v.index_select(0, read), m, span)
            query = q.index_select(0, part.queries).view(n, m, -1)
            grad = d_out.index_select(0, part.queries).view(n, m, d)
            if part.n_queries < n * m:
                grad.view(n * m, d)[part.n_queries :] = 0
            weights = torch.bmm(query, key.transpose(1, 2)).masked_fill_(part.hidden, -torch.inf)
            weights.sub_(lse.index_select(0, part.queries).view(n, m, 1)).exp_()
            dv.index_add_(0, read, fold(torch.bmm(weights.transpose(1, 2), grad), m))
            d_scores = torch.bmm(grad, value.transpose(1, 2))
            d_scores.sub_(delta.index_select(0, part.queries).view(n, m, 1)).mul_(weights)
            if part.n_queries < n * m:
                d_scores.view(n * m, span)[part.n_queries :] = 0
            dq.index_add_(0, part.queries, torch.bmm(d_scores, key).view(n * m, -1))
            dk.index_add_(0, part.keys, fold(torch.bmm(d_scores.transpose(1, 2), query), m))
    return dq, dk, dv


class _BucketAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        rounds: list[Round],
        block: int,
        shift: int,
        itself: bool,
        alone: bool,
    ) -> Tensor:
        flat = [wide(x).reshape(-1, x.shape[-1]) for x in (q, k, v)]
        with torch.autocast(q.device.type, enabled=False):  # the wide precision was chosen above
            out, lse = forward_pass(flat[0], flat[1], flat[2], rounds, block, shift, itself)
        if alone:
            out = torch.where((lse == -torch.inf)[:, None], flat[2], out)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.settings = (rounds, block, shift, itself)
        ctx.alone = alone
        return out.to(v.dtype).view(v.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        flat = [wide(x).reshape(-1, x.shape[-1]) for x in (q, k, v, grad)]
        with torch.autocast(q.device.type, enabled=False):
            dq, dk, dv = backward_pass(flat[0], flat[1], flat[2], out, lse, flat[3], *ctx.settings)
        if ctx.alone:
            dv += flat[3].masked_fill((lse != -torch.inf)[:, None], 0.0)  # there, out was the own v
        gradients = [g.to(x.dtype).view(x.shape) for g, x in ((dq, q), (dk, k), (dv, v))]
        return (*gradients, None, None, None, None, None)


def attend(
    q: Tensor, k: Tensor, v: Tensor, rounds: list[Round], *, block: int, shift: int = 0, itself: bool, alone: bool
) -> Tensor:
    """Attention over rounds made before; q, k, v: [batch, heads, length, d_head].

    shift: v_{j+shift} is read at a visible j. itself: a position sees itself as it sees others. alone: one
    that sees nothing returns its own v, else 0.
    """
    out: Tensor = _BucketAttention.apply(q, k, v, rounds, block, shift, itself, alone)
    return out


def bucket_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    buckets: Tensor,
    windows: Sequence[int],
    *,
    values: Literal["same", "next"] = "same",
    itself: Literal["alone", "always"] = "alone",
    block: int = 64,
) -> Tensor:
    """Attention in which a position sees the most recent positions of its own buckets (design section 2).

    q, k, v: [batch, heads, length, d_head]; scores are q @ k, scaled by the caller. buckets: integer
    [rounds, batch, heads, length], windows: one size per round. A pair met in several rounds counts once.
    values: `same` reads v_j of a visible j; `next` reads v_{j+1}, never sees i itself, and returns 0 where
    nothing is seen. itself (with `same`): `alone`, the own position is seen only if nothing else is, as the
    paper has it; `always`, it is a position like others. Returns [batch, heads, length, d_head].
    Raises ValueError for shapes that do not fit.
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
    if q.shape[2] == 0:
        return torch.zeros_like(v)
    same = values == "same"
    return attend(
        q, k, v, make_rounds(buckets, windows),
        block=block, shift=0 if same else 1, itself=same and itself == "always", alone=same,
    )  # fmt: skip
