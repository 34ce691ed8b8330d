"""Pattern `recent`: each position and the most recent ones of its buckets, every pair once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reformer.ops.bucket_attention.blocks import SCORES_AT_ONCE, Slice, spans


@dataclass(frozen=True)
class Round:
    """One round over all rows (batch x heads) laid end to end: T = rows x length positions.

    A row is one more part of the bucket id, so that a single sorted sequence serves every batch and head.
    order: int64 [T], flat position at each sorted place. reach: int32 [T], how many sorted places, the own
    one included, are visible from a place: min(window, place in its bucket). u: int [T] by flat position,
    sorted place + bucket x window, so that 0 <= u_i - u_j < window decides visibility of any pair (only made
    where a later round needs it).
    """

    order: Tensor
    reach: Tensor
    u: Tensor | None
    window: int


def sort_rows(buckets: Tensor) -> Tensor:
    """Stable argsort of each row of [rows, length], as flat positions [rows x length].

    One 1-D int32 sort per row: torch sorts those with a parallel radix sort, 7 x faster than one 2-D call.
    """
    rows, length = buckets.shape
    narrow = buckets.to(torch.int32)
    order = torch.empty(rows * length, dtype=torch.int64, device=buckets.device)
    for row in range(rows):
        start = row * length
        torch.add(torch.sort(narrow[row], stable=True).indices, start, out=order[start : start + length])
    return order


def make_round(buckets: Tensor, window: int, *, keep_u: bool) -> Round:
    """The sorted view of one round; buckets: integer [rows, length]."""
    rows, length = buckets.shape
    total = rows * length
    place = torch.arange(total, dtype=torch.int32, device=buckets.device)
    order = sort_rows(buckets) if length > 1 else place.long()
    sorted_buckets = buckets.reshape(-1).index_select(0, order)
    starts = torch.ones(total, dtype=torch.bool, device=buckets.device)
    starts[1:] = sorted_buckets[1:] != sorted_buckets[:-1]
    starts[::length] = True
    first = torch.where(starts, place, 0).cummax(0).values
    reach = (place - first + 1).clamp_max(window)
    u = None
    if keep_u:
        wide = torch.int32 if total * (window + 1) < 2**31 else torch.int64
        segment = starts.cumsum(0, dtype=wide)
        u = torch.empty(total, dtype=wide, device=buckets.device)
        u[order] = place.to(wide) + segment * window
    return Round(order, reach, u, window)


@dataclass(frozen=True)
class Recent:
    """block: sorted queries worked on together. itself: a position sees itself as it sees others."""

    rounds: list[Round]
    block: int
    itself: bool

    @property
    def n_rounds(self) -> int:
        return len(self.rounds)

    def slices(self, r: int) -> Iterator[Slice]:
        """Cut round r into slices. A pair that an earlier round already shows is hidden: the union is exact."""
        now = self.rounds[r]
        total, device = len(now.order), now.order.device
        m = min(self.block, total)
        back = -(-(min(now.window, total) - 1) // m)
        span = (back + 1) * m
        at_once = max(1, SCORES_AT_ONCE // (m * span))
        columns = torch.arange(span, dtype=torch.int32, device=device)
        rows = torch.arange(back * m, span, dtype=torch.int32, device=device)
        future = columns > rows[:, None] if self.itself else columns >= rows[:, None]
        for start in range(0, total, at_once * m):
            stop = min(start + at_once * m, -(-total // m) * m)
            key_places = torch.arange(start - back * m, stop, device=device).clamp_(0, total - 1)
            keys = now.order.index_select(0, key_places)
            queries = keys[back * m :]
            reach = now.reach.index_select(0, key_places[back * m :]).view(-1, m)
            hidden = columns <= (rows - reach)[..., None]
            hidden |= future
            for before in self.rounds[:r]:
                assert before.u is not None
                u = before.u.index_select(0, keys)
                # |u_i - u_j| < window implies u_i > u_j here: both are in one bucket of that round, and j is earlier.
                apart = u[back * m :].view(-1, m, 1) - spans(u, m, span)[:, None]
                hidden |= apart.abs_() < before.window
            yield Slice(queries, keys, hidden, min(stop, total) - start)


def make_recent(buckets: Tensor, windows: Sequence[int], *, block: int, itself: bool) -> Recent:
    """buckets: integer [rounds, batch, heads, length], one window a round."""
    flat = buckets.flatten(1, 2)
    last = len(flat) - 1
    rounds = [make_round(b, w, keep_u=r < last) for r, (b, w) in enumerate(zip(flat, windows, strict=True))]
    return Recent(rounds, block, itself)


def make_window(rows: int, length: int, window: int, device: torch.device, *, block: int, itself: bool) -> Recent:
    """The local round alone, in which all of a row is one bucket: nothing to sort."""
    place = torch.arange(rows * length, device=device)
    reach = (place % length + 1).clamp_max_(window).to(torch.int32)
    return Recent([Round(place, reach, None, window)], block, itself)
