"""Which slots of rings many new tokens go to, and which they can reach: of all rows, rounds and buckets at once.

Every bucket of every round has a ring of `capacity` slots; they lie one after the other in the order of the buckets'
numbers, which count on from round to round. The n-th token ever filed there lies in slot n modulo capacity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def ring_bytes(sizes: Sequence[int], window: int, rows: int, d_head: int) -> int:
    """Most of what a head's BucketCache holds after so many rows, in float32. sizes: buckets of each round."""
    used = min(sum(sizes) * window, len(sizes) * rows)
    return used * (2 * d_head * 4 + 8 + 4 * len(sizes)) + 8 * sum(sizes)


class Filing(NamedTuple):
    """rows, slots, tokens: int64 of one shape (or broadcast to it), which of its new tokens a row puts into which slot;
    a slot may come up again, with the same token. added: int64 [rows, buckets]; newest: int64 [rows, rounds], the slots
    of a row's last token."""

    rows: Tensor
    slots: Tensor
    tokens: Tensor
    added: Tensor
    newest: Tensor


def file_new(buckets: Tensor, filed: Tensor, capacity: int, counts: Tensor | None) -> Filing:
    """buckets: int64 [rows, rounds, new], the number of each new token's bucket in each round; filed: int64 [rows,
    buckets], tokens filed before; counts: int64 [rows], how many are real, the first ones; None: all, and then nothing
    is waited for unless tokens would fill all slots four times."""
    rows, rounds, new = buckets.shape
    nowhere, device = filed.shape[1], buckets.device
    if counts is None:
        last = buckets[:, :, -1]
    else:
        last = buckets.gather(2, (counts - 1).clamp_min(0)[:, None, None].expand(-1, rounds, 1))[:, :, 0]
        buckets = torch.where(torch.arange(new, device=device) < counts[:, None, None], buckets, nowhere)
    flat = buckets.flatten(1)
    total = filed.new_zeros(rows, nowhere + 1).scatter_add_(1, flat, torch.ones_like(flat))
    ordered, order = torch.sort(flat.int(), dim=1, stable=True)  # by bucket, then time
    ordered, place = ordered.long(), torch.arange(rounds * new, device=device)
    nth = place - (total.cumsum(1) - total).gather(1, ordered)
    newer = total.gather(1, ordered) - 1 - nth
    slots = ordered * capacity + (F.pad(filed, (0, 1)).gather(1, ordered) + nth) % capacity
    tokens = order.gather(1, place + newer // capacity * capacity) % new  # the last one that goes to that slot
    at = torch.arange(rows, device=device)[:, None]
    if counts is not None or len(place) > 4 * nowhere * capacity:
        row, i = ((newer < capacity) & (ordered < nowhere)).nonzero(as_tuple=True)
        at, slots, tokens = row, slots[row, i], tokens[row, i]
    added = total[:, :-1]
    newest = last * capacity + ((filed + added).gather(1, last) - 1) % capacity
    return Filing(at, slots, tokens, added, newest)


def reachable(buckets: Tensor, times: Tensor, n_buckets: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Slots that hold what tokens in `buckets` [rows, rounds, new] can reach, each token of theirs once, by time: int64
    [rows, n], and bool [rows, n], False where a row has fewer. times: int64 [rows, slots], 0 where empty."""
    rows, device = len(times), times.device
    if buckets[0].numel() < n_buckets:
        ring = torch.arange(capacity, device=device)
        slots = (buckets.flatten(1)[..., None] * capacity + ring).flatten(1)
    else:
        slots = torch.arange(times.shape[1], device=device).expand(rows, -1)
    found, order = times.gather(1, slots).sort(1)
    first = found > 0
    first[:, 1:] &= found[:, 1:] != found[:, :-1]
    count = first.sum(1)
    longest = int(count.max())
    place = torch.where(first, first.cumsum(1) - 1, longest)
    index = slots.new_zeros(rows, longest + 1).scatter_(1, place, slots.gather(1, order))[:, :longest]
    return index, torch.arange(longest, device=device) < count[:, None]
