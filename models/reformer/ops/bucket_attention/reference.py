"""The definition of bucket attention, dense and short. Everything faster is tested against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def visible(buckets: Tensor, windows: Sequence[int], *, itself: bool) -> Tensor:
    """Who sees whom under pattern `recent` (design section 2): bool [batch, heads, length, length].

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


def bucket_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    buckets: Tensor,
    windows: Sequence[int],
    *,
    values: Literal["same", "next"] = "same",
    itself: Literal["alone", "always"] = "alone",
) -> Tensor:
    """`bucket_attention` for pattern `recent`, with [length, length] masks: see there for the arguments."""
    seen = visible(buckets, windows, itself=itself == "always" and values == "same")
    read = v if values == "same" else torch.cat([v[:, :, 1:], torch.zeros_like(v[:, :, :1])], 2)
    alone = ~seen.any(-1, keepdim=True)
    scores = (q @ k.transpose(-1, -2)).masked_fill(~seen & ~alone, -torch.inf)
    out = torch.softmax(scores, -1).masked_fill(alone, 0.0) @ read
    return torch.where(alone, v if values == "same" else torch.zeros_like(v), out)
