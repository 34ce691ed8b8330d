"""What decoding keeps: the last W keys and values of every bucket and round, and local windows. Bounded, exact.

Updated in place by `extend`. Rows (batch x heads) are independent. An entry is stored once, whichever rounds
can still reach it, and dropped when none can.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reformer.config import ReformerConfig

FIRST_CAPACITY = 256


@dataclass
class WindowState:
    """Keys and values of the last window - 1 tokens or more (all of them where window is None), oldest first."""

    keys: Tensor  # [batch, heads, capacity, d_head]
    values: Tensor
    filled: int
    window: int | None

    @classmethod
    def empty(cls, batch: int, heads: int, d_head: int, window: int | None, like: Tensor) -> WindowState:
        shape = (batch, heads, FIRST_CAPACITY, d_head)
        return cls(like.new_empty(shape), like.new_empty(shape), 0, window)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """File new keys and values [batch, heads, new, d_head]; returns all that the new ones may see, and them."""
        new = k.shape[2]
        kept = self.filled if self.window is None else min(self.filled, self.window - 1)
        if self.filled + new > self.keys.shape[2]:
            # Moving the window to the front once in a while makes a step's cost flat, not each step's cost small.
            capacity = max(FIRST_CAPACITY, 2 * (kept + new))
            for name in ("keys", "values"):
                old = getattr(self, name)
                moved = old.new_empty(*old.shape[:2], capacity, old.shape[3])
                moved[:, :, :kept] = old[:, :, self.filled - kept : self.filled]
                setattr(self, name, moved)
            self.filled = kept
        first, last = self.filled - kept, self.filled + new
        self.keys[:, :, self.filled : last] = k
        self.values[:, :, self.filled : last] = v
        self.filled = last
        return self.keys[:, :, first:last], self.values[:, :, first:last]


@dataclass
class BucketState:
    """Entries of the rows (batch x heads) that some round can still reach, oldest first, and rings of their indices.

    Round r sees a token and the window - 1 before it in its bucket: rings[r][row, bucket] holds those.
    pending: with `values: next`, the newest entry's value is the next token's and is not known yet.
    """

    heads: int
    keys: Tensor  # [rows, capacity, d_head]
    values: Tensor  # [rows, capacity, d_head]
    buckets: Tensor  # int32 [rows, rounds, capacity]
    filled: Tensor  # int64 [rows]: entries
    rings: list[Tensor]  # per round int32 [rows, n_buckets, window - 1], -1 where empty
    counts: list[Tensor]  # per round int64 [rows, n_buckets]: tokens ever filed
    pending: bool
    most: int = 0  # upper bound of `filled`

    @classmethod
    def empty(
        cls,
        batch: int,
        heads: int,
        d_head: int,
        sizes: Sequence[int],
        windows: Sequence[int],
        like: Tensor,
        *,
        pending: bool,
    ) -> BucketState:
        rows, device = batch * heads, like.device
        rings = [
            torch.full((rows, n, w - 1), -1, dtype=torch.int32, device=device)
            for n, w in zip(sizes, windows, strict=True)
        ]
        counts = [torch.zeros(rows, n, dtype=torch.int64, device=device) for n in sizes]
        blank = like.new_zeros(rows, FIRST_CAPACITY, d_head)
        ids = torch.zeros(rows, len(sizes), FIRST_CAPACITY, dtype=torch.int32, device=device)
        return cls(heads, blank, blank.clone(), ids, counts[0].new_zeros(rows), rings, counts, pending)

    @property
    def rows(self) -> Tensor:
        return torch.arange(len(self.filled), device=self.filled.device)

    def one(self, q: Tensor, k: Tensor, v: Tensor, buckets: Tensor) -> Tensor:
        """One new token: look up, then file. q, k, v: [batch, heads, 1, d_head]; returns the same shape."""
        shape = v.shape
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
        ids = buckets.flatten(1).long()  # [rounds, rows]
        rows = self.rows
        self.complete(v)
        found = [ring[rows, ids[r]] for r, ring in enumerate(self.rings)]
        hidden = [f < 0 for f in found]
        for r in range(1, len(found)):
            for before in found[:r]:  # seen in an earlier round: counts once
                hidden[r] |= (found[r][:, :, None] == before[:, None, :]).any(-1)
        index, mask = torch.cat(found, 1).clamp_min_(0).long(), torch.cat(hidden, 1)
        flat = (index + (rows * self.keys.shape[1])[:, None]).view(-1)
        width = index.shape[1]
        key = self.keys.flatten(0, 1).index_select(0, flat).view(len(rows), width, -1)
        value = self.values.flatten(0, 1).index_select(0, flat).view(len(rows), width, -1)
        scores = torch.bmm(q, key.transpose(1, 2)).masked_fill_(mask[:, None], -torch.inf)
        alone = mask.all(-1)[:, None, None]
        weights = torch.softmax(scores.masked_fill(alone, 0.0), -1)
        out = torch.bmm(weights, value) if width else torch.zeros_like(v)
        out = torch.where(alone, torch.zeros_like(v) if self.pending else v, out)
        self.file(k.view(shape), self.readable(v.view(shape)), buckets)
        return out.view(shape)

    def complete(self, v: Tensor) -> None:
        """The newest entry's value is the first of the new tokens' [rows, new, d_head]: k_{t-1} goes with v_t."""
        if self.pending and self.most:
            rows = self.rows
            has = (self.filled > 0)[:, None]
            last = (self.filled - 1).clamp_min(0)
            self.values[rows, last] = torch.where(has, v[:, 0].to(self.values.dtype), self.values[rows, last])

    def readable(self, v: Tensor) -> Tensor:
        """What is read at each new token [batch, heads, new, d_head]: its own value, or its successor's."""
        return torch.cat([v[:, :, 1:], torch.zeros_like(v[:, :, :1])], 2) if self.pending else v

    def reachable(self, v: Tensor, buckets: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
        """The entries that new tokens in these buckets [rounds, batch, heads, new] can reach, oldest first.

        Returns keys and values [batch, heads, n, d_head], buckets int32 [rounds, batch, heads, n], and n. Rows
        with fewer are filled up with entries in a bucket of their own.
        """
        batch = v.shape[0]
        self.complete(v.flatten(0, 1))
        wanted = torch.zeros(self.keys.shape[:2], dtype=torch.bool, device=v.device)
        rows = self.rows[:, None]
        for ring, ids in zip(self.rings, buckets.flatten(1, 2), strict=True):
            index = ring[rows, ids.long()].flatten(1)
            mark = torch.zeros(wanted.shape[0], wanted.shape[1] + 1, dtype=torch.bool, device=v.device)
            mark.scatter_(1, torch.where(index < 0, wanted.shape[1], index).long(), True)
            wanted |= mark[:, :-1]
        n = int(wanted.sum(1).max())
        order = torch.argsort(~wanted, dim=1, stable=True)[:, :n]
        real = wanted.gather(1, order)
        keys, values = self.keys[rows, order], self.values[rows, order]
        known = self.buckets.gather(2, order[:, None].expand(-1, len(self.rings), -1))
        known = torch.where(real[:, None], known, max(ring.shape[1] for ring in self.rings))
        split = (batch, self.heads)
        return keys.unflatten(0, split), values.unflatten(0, split), known.unflatten(0, split).permute(2, 0, 1, 3), n

    def file(self, k: Tensor, read: Tensor, buckets: Tensor) -> None:
        """Store new keys and what is read at them [batch, heads, new, d_head], and put them into their rings."""
        k, read, ids = k.flatten(0, 1), read.flatten(0, 1), buckets.flatten(1, 2).long()
        new = k.shape[1]
        if self.most + new > self.keys.shape[1]:
            self.compact(new)
        index = self.filled[:, None] + torch.arange(new, device=k.device)  # [rows, new]
        rows = self.rows[:, None]
        self.keys[rows, index], self.values[rows, index] = k.to(self.keys.dtype), read.to(self.values.dtype)
        self.buckets[rows, :, index] = ids.permute(1, 2, 0).to(torch.int32)
        for ring, count, ids_r in zip(self.rings, self.counts, ids, strict=True):
            capacity, total = ring.shape[2], torch.zeros_like(count)
            ones = torch.ones_like(ids_r)
            total.scatter_add_(1, ids_r, ones)
            if capacity:
                nth = torch.zeros_like(ids_r) if new == 1 else _occurrence(ids_r)
                # nth: how many of its bucket came before it in this call; later ones overwrite the rest.
                stays = nth >= total.gather(1, ids_r) - capacity
                slot = (count.gather(1, ids_r) + nth) % capacity
                r, c = stays.nonzero(as_tuple=True)
                ring[r, ids_r[r, c], slot[r, c]] = index[r, c].to(torch.int32)
            count += total
        self.filled += new
        self.most += new

    def compact(self, new: int) -> None:
        """Drop what no round can reach, and make room for `new` more. Amortised: at least half is free afterwards."""
        width = self.keys.shape[1]
        alive = torch.zeros(len(self.filled), width + 1, dtype=torch.bool, device=self.keys.device)
        for ring in self.rings:
            index = ring.flatten(1).long()
            alive.scatter_(1, torch.where(index < 0, width, index), True)
        if self.pending:
            alive.scatter_(1, (self.filled - 1)[:, None].clamp_min(0), (self.filled > 0)[:, None])
        alive = alive[:, :width]
        live = alive.sum(1)
        most = int(live.max())
        capacity = max(width, FIRST_CAPACITY)
        while capacity < 2 * most + new:
            capacity *= 2
        order = torch.argsort(~alive, dim=1, stable=True)[:, :most]
        place = torch.cat([alive.cumsum(1) - 1, torch.full_like(live, -1)[:, None]], 1)  # old index -> new; -1 stays -1
        rows = self.rows[:, None]
        for name in ("keys", "values"):
            old = getattr(self, name)
            moved = old.new_zeros(len(old), capacity, old.shape[2])
            moved[:, :most] = old[rows, order]
            setattr(self, name, moved)
        ids = self.buckets.new_zeros(*self.buckets.shape[:2], capacity)
        ids[:, :, :most] = self.buckets.gather(2, order[:, None].expand(-1, ids.shape[1], -1))
        self.buckets = ids
        for r, ring in enumerate(self.rings):
            index = ring.flatten(1).long()
            self.rings[r] = place.gather(1, torch.where(index < 0, width, index)).to(torch.int32).view(ring.shape)
        self.filled, self.most = live, most


def _occurrence(ids: Tensor) -> Tensor:
    """For each element of rows [rows, n]: how many equal ones stand before it."""
    ordered, order = torch.sort(ids, dim=1, stable=True)
    place = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    starts = torch.ones_like(ids, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(starts, place, 0).cummax(1).values
    return torch.empty_like(ids).scatter_(1, order, place - first)


def largest_state(config: ReformerConfig, tokens: int, batch: int) -> int:
    """Bytes that decoding may hold after so many tokens, in float32: an upper bound, exact for what grows."""
    pair = 2 * config.d_head * 4  # a key and a value
    total = 0
    for n in range(config.n_layers):
        kind = config.layers[n % len(config.layers)]
        local, lsh = {"mixed": config.head_split, "lsh": (0, config.n_heads)}.get(kind, (config.n_heads, 0))
        window = tokens if kind == "full" else min(tokens, config.local_window)
        rings = math.prod(config.n_buckets) * sum(
            config.windows[r % len(config.windows)] for r in range(config.n_hashes)
        )
        # Twice what is alive: room to file new entries before the dead ones are dropped.
        total += local * 2 * window * pair + lsh * (2 * min(tokens, rings + config.local_round) * pair + 4 * rings)
    return batch * total


@dataclass
class State:
    """All that a model keeps of the tokens it has seen. position: how many; layers: one state a branch."""

    batch: int
    position: int
    layers: list[Any]

    def tensors(self) -> Iterator[Tensor]:
        for layer in self.layers:
            if layer is not None:
                for field in dataclasses.fields(layer):
                    value = getattr(layer, field.name)
                    yield from (t for t in (value if isinstance(value, list) else [value]) if isinstance(t, Tensor))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(t.numel() * t.element_size() for t in self.tensors())

    def clone(self) -> State:
        """An independent copy: extending one leaves the other."""
        return State(self.batch, self.position, [_clone(layer) for layer in self.layers])


def _clone(layer: Any) -> Any:
    if layer is None:
        return None
    copies = {}
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if isinstance(value, list):
            value = [t.clone() for t in value]
        elif isinstance(value, Tensor):
            value = value.clone()
        copies[field.name] = value
    return type(layer)(**copies)
