"""Pattern `chunks`: chunks of the sorted sequence and a look-back that wraps, as in the released checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from reformer.ops.bucket_attention.layout import SCORES_AT_ONCE, Slice, spans
from reformer.ops.bucket_attention.windows import sort_rows

SELF = -1e5  # the score that the released code gives a position's view of itself


@dataclass(frozen=True)
class SortedChunks:
    """orders: per round int64 [rows, length], flat positions (see `sort_rows`) by (bucket, time) in each row. chunk: m.
    padded: length with padding, which sorts last as if in a bucket of its own. itself: a position sees itself."""

    orders: list[Tensor]
    chunk: int
    padded: int
    itself: bool

    @property
    def n_rounds(self) -> int:
        return len(self.orders)

    def extended(self, r: int) -> Tensor:
        """int64 [rows, chunk + padded + chunk]: the last chunk of the round before, the round, the first chunk of the
        round after; -1 for padding. What a query of the round meets, and what meets a key of it, is all there."""
        m, missing = self.chunk, self.padded - self.orders[r].shape[1]
        before, now, after = (
            torch.nn.functional.pad(self.orders[n % self.n_rounds], (0, missing), value=-1) for n in (r - 1, r, r + 1)
        )
        return torch.cat([before[:, -m:], now, after[:, :m]], 1)

    def slices(self, r: int) -> Iterator[Slice]:
        """One row after another: the look-back of a row's first chunk is the last chunk of its round before."""
        m, order = self.chunk, self.orders[r]
        rows, length = order.shape
        places = torch.arange(-m, self.padded, device=order.device)
        real = (places >= 0) & (places < length)
        wrapped = (places < 0) & (places + self.padded < length)
        blocks = max(1, SCORES_AT_ONCE // (2 * m * m))
        for row in range(rows):
            positions = order[row].index_select(0, places.clamp(0, length - 1))
            last = self.orders[r - 1][row].index_select(0, (places[:m] + self.padded).clamp(0, length - 1))
            positions[:m] = last
            times = positions.masked_fill(~(real | wrapped), torch.iinfo(torch.int64).max)
            for start in range(0, min(self.padded, length), blocks * m):
                stop = min(start + blocks * m, self.padded)
                keys = positions[start : stop + m]
                key_times, query_times = spans(times[start : stop + m], m, 2 * m)[:, None], keys[m:].view(-1, m, 1)
                hidden = key_times > query_times if self.itself else key_times >= query_times
                # The chunk before the first one is of another round: its positions may be among the others too.
                yield Slice(keys, hidden, min(stop, length) - start, m if start == 0 else 0)

    def own_shares(self, dtype: torch.dtype) -> Tensor | None:
        """What a position that sees nothing else makes of its own value as released, by flat position; None where that
        is 1.

        Rounds are merged by weights exp(l_r - log sum exp(l_r)) with l_r about -100,000, where float32 goes in steps of
        1/128: two rounds' weights add up to 0.998. The look-back at the round before can show the position twice.
        """
        if self.n_rounds == 1 or dtype == torch.float64:
            return None
        m, total, device = self.chunk, self.orders[0].numel(), self.orders[0].device
        twice = torch.zeros(total, dtype=torch.int64, device=device)  # rounds that show a position itself twice
        for r, order in enumerate(self.orders):
            first, last = torch.zeros(2, total, dtype=torch.bool, device=device)
            first[order[:, :m].reshape(-1)] = True
            last[self.orders[r - 1][:, self.padded - m :].reshape(-1)] = True
            twice += first & last
        return _shares(self.n_rounds, dtype).to(device)[twice]


def _shares(n_rounds: int, dtype: torch.dtype) -> Tensor:
    """[n_rounds + 1]: the sum of all weights where so many rounds show a position itself twice, the others once."""
    copies = 1 + (torch.arange(n_rounds) < torch.arange(n_rounds + 1)[:, None]).to(dtype)
    seen = SELF + copies.log()
    inside = copies * torch.exp(SELF - seen)
    return (inside * torch.exp(seen - seen.logsumexp(-1, keepdim=True))).sum(-1)


def make_sorted_chunks(buckets: Tensor, chunk: int, multiple: int, *, itself: bool) -> SortedChunks:
    """buckets: integer [rounds, batch, heads, length], padded at the end to a multiple of `multiple` (of `chunk`)."""
    orders = [sort_rows(b)[1] for b in buckets]
    return SortedChunks(orders, chunk, -(-buckets.shape[3] // multiple) * multiple, itself)
