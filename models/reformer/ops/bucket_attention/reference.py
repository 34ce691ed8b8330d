"""The definition of bucket attention, dense and short. Everything faster is tested against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def visible(buckets: Tensor, windows: Sequence[int], *, itself: bool) -> Tensor:
    """Who sees whom under pattern `windows` (README.md): bool [batch, heads, length, length].

    In each round, position i sees the `window` most recent j <= i of its bucket; over rounds, the union.
    """
    rounds, _, _, length = buckets.shape
    time = torch.arange(length, device=buckets.device)
    seen = torch.zeros(*buckets.shape[1:], length, dtype=torch.bool, device=buckets.device)
    for r in range(rounds):
        b = buckets[r].long()
        order = torch.argsort(b * length + time, dim=-1)
        rank = torch.empty_like(order).scatter_(-1, order, time.expand_as(order))
        distance = rank[..., :, None] - rank[..., None, :]
        seen |= (b[..., :, None] == b[..., None, :]) & (distance >= 0) & (distance < windows[r])
    return seen if itself else seen & (time[:, None] != time[None, :])


def met(buckets: Tensor, chunk: int) -> Tensor:
    """How often i meets j under pattern `chunks`: int [batch, heads, length, length], whatever their times.

    All rounds are sorted by (bucket, time) and laid one after the other in chunks; i meets, once a round, all of its
    own chunk and of the chunk before, the first chunk's being the last. Padding fills each round's last chunk.
    """
    rounds, batch, heads, length = buckets.shape
    per_round = -(-length // chunk)
    time = torch.arange(length, device=buckets.device)
    order = torch.argsort(buckets.long() * length + time, dim=-1)
    place = torch.empty_like(order).scatter_(-1, order, time.expand_as(order))
    chunks = place // chunk + torch.arange(rounds, device=buckets.device)[:, None, None, None] * per_round
    count = torch.zeros(batch, heads, length, length, dtype=torch.int64, device=buckets.device)
    for mine in chunks:
        for other in chunks:
            for n in (mine, (mine - 1) % (rounds * per_round)):
                count += n[..., :, None] == other[..., None, :]
    return count


def bucket_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    buckets: Tensor,
    windows: Sequence[int],
    *,
    pattern: Literal["windows", "chunks"] = "windows",
    values: Literal["same", "next"] = "same",
    itself: Literal["alone", "always"] = "alone",
    sink: Tensor | None = None,
) -> Tensor:
    """`bucket_attention` with [length, length] masks: see there for the arguments."""
    always = itself == "always" and values == "same"
    if pattern == "windows":
        count = visible(buckets, windows, itself=always).long()
    else:
        count = met(buckets, windows[0]).tril(0 if always else -1)
    read = v if values == "same" else torch.cat([v[:, :, 1:], torch.zeros_like(v[:, :, :1])], 2)
    alone = ~count.any(-1, keepdim=True)
    scores = (q @ k.transpose(-1, -2)) + count.where(~alone, 1).to(q.dtype).log()
    if sink is not None:  # one more key, whose value is 0
        scores = torch.cat([scores, sink[:, None, None].expand(*scores.shape[:3], 1)], -1)
    out = torch.softmax(scores, -1)[..., : scores.shape[2]].masked_fill(alone, 0.0) @ read
    return torch.where(alone, v if values == "same" else torch.zeros_like(v), out)
