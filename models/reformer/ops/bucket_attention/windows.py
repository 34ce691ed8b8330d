"""Pattern `windows`: each position and the most recent ones of its buckets, every pair once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reformer.ops.bucket_attention.layout import SCORES_AT_ONCE, Slice, spans

LARGEST_INT32 = 2**31 - 1
BLOCK = 64  # sorted queries worked on together; no effect on results beyond rounding


@dataclass(frozen=True)
class Round:
    """One round over all rows (batch x heads) laid end to end: T = batch x length x heads positions.

    A row is one more part of the bucket id, so that a single sorted sequence serves every batch and head.
    order: int64 [T], the flat position (token by token, see `sort_rows`) at each sorted place. reach: int32 [T], how
    many sorted places, the own one included, are visible from a place: min(window, place in its bucket); the first one
    visible never lies before that of an earlier place, which native.py and triton_kernels.py rely on. u: int [T] by
    flat position, sorted place + bucket x window, so that 0 <= u_i - u_j < window decides visibility of any pair (only
    made where a later round needs it).
    """

    order: Tensor
    reach: Tensor
    u: Tensor | None
    window: int


def sort_rows(buckets: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each row of [batch, heads, length] by (bucket, time): buckets [rows, length], and the flat positions
    int64 [rows, length] they come from, where position t of row (b, h) is (b length + t) heads + h: token by token, as
    the vectors lie in memory.

    One 1-D int32 sort per row: torch sorts those with a parallel radix sort, 7 x faster than one 2-D call. A GPU's
    radix sort makes a pass for each byte of the type: there ids stay as narrow as they are, and are sorted in one call.
    """
    batch, heads, length = buckets.shape
    if buckets.is_cuda:
        found, times = torch.sort(buckets, dim=2, stable=True)
        rows = torch.arange(batch * heads, device=buckets.device)[:, None]
        return found.flatten(0, 1), times.flatten(0, 1) * heads + (rows // heads * length * heads + rows % heads)
    narrow = buckets.to(torch.int32)
    ids = torch.empty(batch * heads, length, dtype=narrow.dtype, device=buckets.device)
    order = torch.empty(batch * heads, length, dtype=torch.int64, device=buckets.device)
    for row in range(batch * heads):
        b, h = divmod(row, heads)
        ids[row], times = torch.sort(narrow[b, h], stable=True)
        torch.add(times.mul_(heads), b * length * heads + h, out=order[row])
    return ids, order


def make_round(buckets: Tensor, window: int, u: Tensor | None) -> Round:
    """The sorted view of one round; buckets: integer [batch, heads, length]; u: what it is written to, if wanted."""
    length, total = buckets.shape[2], buckets.numel()
    ids, order = (x.view(-1) for x in sort_rows(buckets))
    place = torch.arange(total, dtype=torch.int32, device=buckets.device)
    starts = torch.ones(total, dtype=torch.bool, device=buckets.device)
    starts[1:] = ids[1:] != ids[:-1]
    starts[::length] = True
    first = torch.where(starts, place, 0).cummax(0).values
    reach = (place - first + 1).clamp_max(window)
    if u is not None:
        segment = starts.cumsum(0, dtype=u.dtype)
        u[order] = place.to(u.dtype) + segment * window
    return Round(order, reach, u, window)


@dataclass(frozen=True)
class BucketWindows:
    """block: sorted queries worked on together. itself: a position sees itself as it sees others. union: a pair counts
    once, in whichever rounds it is seen, else as often as it is seen. u: of all rounds but the last, one tensor [rounds
    - 1, T], of which each round's is a row; windows: int32 [rounds], on the device; None where there is one round."""

    rounds: list[Round]
    block: int
    itself: bool
    union: bool = True
    u: Tensor | None = None
    windows: Tensor | None = None

    @property
    def n_rounds(self) -> int:
        return len(self.rounds)

    def earlier(self, r: int) -> list[Round]:
        """Rounds in which a pair of round r may have been seen already."""
        return self.rounds[:r] if self.union else []

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
            reach = now.reach.index_select(0, key_places[back * m :]).view(-1, m)
            hidden = columns <= (rows - reach)[..., None]
            hidden |= future
            for before in self.earlier(r):
                assert before.u is not None
                u = before.u.index_select(0, keys)
                # |u_i - u_j| < window implies u_i > u_j here: both are in one bucket of that round, and j is earlier.
                apart = u[back * m :].view(-1, m, 1) - spans(u, m, span)[:, None]
                hidden |= apart.abs_() < before.window
            yield Slice(keys, hidden, min(stop, total) - start)


def make_bucket_windows(
    buckets: Tensor, windows: Sequence[int], *, itself: bool, block: int = BLOCK, union: bool = True
) -> BucketWindows:
    """buckets: integer [rounds, batch, heads, length], one window a round."""
    last, total = len(buckets) - 1, buckets[0].numel()
    u_dtype = torch.int32 if total * (max(windows) + 1) <= LARGEST_INT32 else torch.int64
    u = torch.empty(last, total, dtype=u_dtype, device=buckets.device) if last else None
    rounds = [
        make_round(b, w, u[r] if u is not None and r < last else None)
        for r, (b, w) in enumerate(zip(buckets, windows, strict=True))
    ]
    sizes = torch.tensor(windows, dtype=torch.int32, device=buckets.device) if last else None
    return BucketWindows(rounds, block, itself, union, u, sizes)


def flat_order(batch: int, heads: int, length: int, device: torch.device) -> Tensor:
    """int64 [rows, length]: the flat positions of each row, token by token in memory (see `sort_rows`)."""
    places = torch.arange(batch * length * heads, device=device)
    return places.view(batch, length, heads).transpose(1, 2).reshape(batch * heads, length)


def make_window(
    batch: int, heads: int, length: int, window: int, device: torch.device, *, itself: bool, block: int = BLOCK
) -> BucketWindows:
    """The local round alone, in which all of a row is one bucket: nothing to sort."""
    order = flat_order(batch, heads, length, device).flatten()
    reach = torch.arange(1, length + 1, dtype=torch.int32, device=device).clamp_max_(window).repeat(batch * heads)
    return BucketWindows([Round(order, reach, None, window)], block, itself)
