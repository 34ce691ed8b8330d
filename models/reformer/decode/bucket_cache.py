"""Rings of the last entries of every bucket and round: the reachable past of hashed heads, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from reformer.backends.dispatch import choose
from reformer.backends.native.library import library
from reformer.config import Backend
from reformer.decode.bucket_native import copy_rings, extend_rings, rewind_rings
from reformer.decode.cache import Cache, take, zeros
from reformer.decode.journal import BucketJournal
from reformer.decode.native_structs import Held, bucket_struct
from reformer.decode.rings import file_new, reachable
from reformer.decode.step import DecodeStep
from reformer.ops.bucket_attention.attend import attend_new
from reformer.ops.bucket_attention.windows import make_bucket_windows


@dataclass
class BucketCache(Cache):
    """Round r sees a token and the windows[r] - 1 before it in its bucket: those are kept in a ring. All rounds' rings
    lie one after the other, as `slots`.

    next_values: an entry's value is the next token's, which completes it. count_pairs_once: in whichever rounds it is
    met, else as often as it is met (chunked kinds).
    """

    pairs: Tensor  # [rows, slots, 2, d_head]: key, and the value that is read at it
    times: Tensor  # int64 [rows, slots]: 1 + the number of the token; 0 where empty
    ids: Tensor  # int32 [rows, slots, rounds]: its buckets
    counts: Tensor  # int64 [rows, buckets of all rounds]: tokens ever filed
    last: Tensor  # int64 [rows, rounds]: slot of the newest token's entry; -1: none
    heads: int
    sizes: tuple[int, ...]
    capacities: tuple[int, ...]
    next_values: bool
    count_pairs_once: bool
    key_inputs: Tensor  # [batch, heads, n, d_head]: what the last tokens' keys are made of, beside those to come

    @classmethod
    def empty(
        cls, batch: int, heads: int, d_head: int, sizes: Sequence[int], windows: Sequence[int], like: Tensor, *,
        next_values: bool, count_pairs_once: bool = True, key_inputs: int = 0,
    ) -> BucketCache:  # fmt: skip
        rows, rounds, device = batch * heads, len(sizes), like.device
        slots = sum(n * (w - 1) for n, w in zip(sizes, windows, strict=True))
        return cls(
            zeros((rows, slots, 2, d_head), like.dtype, device), zeros((rows, slots), torch.int64, device),
            zeros((rows, slots, rounds), torch.int32, device), zeros((rows, sum(sizes)), torch.int64, device),
            torch.full((rows, rounds), -1, device=device), heads, tuple(sizes), tuple(w - 1 for w in windows),
            next_values, count_pairs_once, like.new_zeros(batch, heads, key_inputs, d_head),
        )  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        entry = sum(x[0, :1].numel() * x.element_size() for x in (self.pairs, self.times, self.ids))
        others = (self.counts, self.last, self.key_inputs)
        most = self.counts.new_tensor([c for n, c in zip(self.sizes, self.capacities, strict=True) for _ in range(n)])
        return int(self.counts.minimum(most).sum()) * entry + sum(x.numel() * x.element_size() for x in others)

    def select(self, rows: Tensor) -> BucketCache:
        """An independent copy of these rows of the batch; only what is in use is touched."""
        from_ = (rows[:, None] * self.heads + torch.arange(self.heads, device=rows.device)).flatten()
        in_c = self.pairs.device.type == "cpu" and self.pairs.dtype == torch.float32 and library() is not None
        return (self._select_native if in_c else self._select)(from_, rows)

    def _select_native(self, from_: Tensor, rows: Tensor) -> BucketCache:
        """`_select` in C."""
        tensors = {name: getattr(self, name) for name in ("pairs", "times", "ids", "counts", "last")}
        new = {name: zeros((len(from_), *x.shape[1:]), x.dtype, x.device) for name, x in tensors.items()}
        made = dataclasses.replace(self, **new, key_inputs=self.key_inputs[rows])  # type: ignore[arg-type]
        copy_rings(self.struct(None), made.struct(None), from_)
        return made

    def _select(self, from_: Tensor, rows: Tensor) -> BucketCache:
        """Of rows from_ [batch * heads] of the heads, and `rows` of the batch."""
        used = (self.times > 0)[from_].nonzero(as_tuple=True)
        copies: dict[str, Tensor] = {}
        for name in ("pairs", "times", "ids"):
            old = getattr(self, name)
            new = zeros((len(from_), *old.shape[1:]), old.dtype, old.device)
            new[used] = old[from_[used[0]], used[1]]
            copies[name] = new
        copies |= {"counts": self.counts[from_], "last": self.last[from_], "key_inputs": self.key_inputs[rows]}
        return dataclasses.replace(self, **copies)  # type: ignore[arg-type]

    def tensors(self, seen: int) -> dict[str, Tensor]:
        rows, slots = self.times.nonzero(as_tuple=True)
        entries = {name: getattr(self, name)[rows, slots] for name in ("pairs", "times", "ids")}
        others = {name: getattr(self, name) for name in ("counts", "last", "key_inputs")}
        return entries | others | {"rows": rows, "slots": slots}

    def load(self, tensors: dict[str, Tensor], seen: Tensor) -> None:
        """Slots and counts are addresses in C: one beyond its ring is refused."""
        (rows, slots, rounds), device, end = self.ids.shape, self.times.device, int(seen.max()) + 1
        row = take(tensors, "rows", torch.int64, [None], 0, rows)
        n = len(row)
        slot = take(tensors, "slots", torch.int64, [n], 0, slots)
        pairs = take(tensors, "pairs", self.pairs.dtype, [n, *self.pairs.shape[2:]])
        self.times[row, slot] = take(tensors, "times", torch.int64, [n], 1, end).to(device)
        ids = take(tensors, "ids", torch.int32, [n, rounds], 0, max(self.sizes))
        self.pairs[row, slot], self.ids[row, slot] = pairs.to(device), ids.to(device)
        self.counts.copy_(take(tensors, "counts", torch.int64, self.counts.shape, 0, end))
        self.key_inputs.copy_(take(tensors, "key_inputs", self.key_inputs.dtype, self.key_inputs.shape))
        self.last.copy_(take(tensors, "last", torch.int64, [rows, rounds], -1, slots))

    def struct(self, sink: Tensor | None, row: int | None = None) -> Held:
        """The same for C, or of a row of the batch."""
        rows = slice(None) if row is None else slice(row * self.heads, (row + 1) * self.heads)
        return bucket_struct(
            self.pairs[rows], self.times[rows], self.ids[rows], self.counts[rows], self.last[rows], self.sizes,
            self.capacities, sink, self.heads, next_values=self.next_values, once=self.count_pairs_once,
            journal=self.journal.struct, first=rows.start or 0,
        )  # fmt: skip

    @cached_property
    def journal(self) -> BucketJournal:
        return BucketJournal(self.pairs, self.ids)

    def mark(self, seen: int, tokens: int, native: bool) -> None:
        """What C overwrites is written down; else everything is copied."""
        if not native:
            super().mark(seen, tokens, native)
            return
        self.journal.make_room((tokens + 1) * len(self.sizes))
        kept = {name: getattr(self, name).clone() for name in ("counts", "last", "key_inputs")}
        self.marks = [*self.marks, kept | {"used": self.journal.used.clone(), "seen": torch.tensor(seen)}]
        self.journal.struct.mark = seen

    def rewind(self) -> None:
        newest = self.marks[-1]
        if (used := newest.get("used")) is None:
            super().rewind()
            return
        rewind_rings(self.struct(None), used)
        for name in ("counts", "last", "key_inputs"):
            getattr(self, name).copy_(newest[name])

    def unmark(self) -> None:
        super().unmark()
        if self.marks:
            self.journal.struct.mark = int(self.marks[-1].get("seen", torch.tensor(0)))
        else:
            self.journal.close()

    def reset(self) -> None:
        self.marks = ()
        self.journal.close()
        for t in (self.times, self.counts, self.key_inputs):  # without which nobody looks at pairs
            t.zero_()
        self.last.fill_(-1)

    def push_key_inputs(self, x: Tensor, counts: Tensor) -> None:
        """Keep the last of x [batch, heads, new, d_head], of which counts [batch] are real, for the keys to come."""
        if n := self.key_inputs.shape[2]:
            rows = torch.cat([self.key_inputs, x.to(self.key_inputs.dtype)], 2)
            last = counts[:, None] + torch.arange(n, device=x.device)
            self.key_inputs.copy_(rows.gather(2, last[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])))

    def _starts(self) -> list[tuple[int, int]]:
        """Per round: its first slot, and its first bucket among `counts`."""
        found, slot, bucket = [], 0, 0
        for n, c in zip(self.sizes, self.capacities, strict=True):
            found.append((slot, bucket))
            slot, bucket = slot + n * c, bucket + n
        return found

    def attend_and_append(
        self, q: Tensor, k: Tensor, v: Tensor, ids: Tensor, step: DecodeStep, backend: Backend,
        sink: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """What new tokens [batch, heads, new, d_head] in buckets ids [rounds, batch, heads, new] read; files them."""
        if choose(backend, q, k, v, self.pairs) == "native" and v.dtype == self.pairs.dtype == torch.float32:
            return extend_rings(self.struct(sink), q, k, v, ids, step)
        if q.shape[2] == 1 and (step.all_real or bool((step.new == 1).all())):
            return self.single(q, k, v, ids, step.seen, sink)
        return self.several(q, k, v, ids.long(), step, backend, sink)

    def single(self, q: Tensor, k: Tensor, v: Tensor, ids: Tensor, seen: Tensor, sink: Tensor | None) -> Tensor:
        """One token in every row, in operations of fixed shapes."""
        shape, rows = v.shape, torch.arange(len(self.last), device=q.device)
        q, k, v = (x.flatten(0, 1)[:, 0] for x in (q, k, v))
        mine = ids.flatten(1).long()  # [rounds, rows]
        slots: list[Tensor] = []
        hidden: list[Tensor] = []
        oldest: list[Tensor] = []
        for r, ((slot, bucket), capacity) in enumerate(zip(self._starts(), self.capacities, strict=True)):
            self._complete(r, rows, v)
            at = slot + mine[r][:, None] * capacity + torch.arange(capacity, device=q.device)
            filed = self.counts[rows, bucket + mine[r]]
            time = self.times[rows[:, None], at]
            unseen = time == 0
            for before in range(r if self.count_pairs_once else 0):  # seen in an earlier round: counts once
                theirs = self.ids[rows[:, None], at, before] == mine[before][:, None]
                unseen |= theirs & (time >= oldest[before][:, None])
            slots.append(at)
            hidden.append(unseen)
            full = filed >= capacity
            ring = self.times[rows, slot + mine[r] * capacity + filed % max(1, capacity)] if capacity else filed
            oldest.append(torch.where(full, ring if capacity else torch.iinfo(torch.int64).max, 0))
        out = self._read(q, v, torch.cat(slots, 1), torch.cat(hidden, 1), sink)
        for r, ((slot, bucket), capacity) in enumerate(zip(self._starts(), self.capacities, strict=True)):
            filed = self.counts[rows, bucket + mine[r]]
            if capacity:
                at = slot + mine[r] * capacity + filed % capacity
                value = torch.zeros_like(v) if self.next_values else v
                self.pairs[rows, at] = torch.stack([k, value], 1).to(self.pairs.dtype)
                self.times[rows, at], self.ids[rows, at] = seen.repeat_interleave(self.heads) + 1, mine.t().int()
                self.last[:, r] = at
            self.counts[rows, bucket + mine[r]] = filed + 1
        return out.view(shape)

    def _complete(self, r: int, rows: Tensor, v: Tensor) -> None:
        """The newest entry's value is the new tokens' first [rows, d_head]: k_{t-1} goes with v_t."""
        if self.next_values and self.capacities[r]:
            at = self.last[:, r].clamp_min(0)
            old = self.pairs[rows, at, 1]
            self.pairs[rows, at, 1] = torch.where(self.last[:, r, None] >= 0, v.to(old.dtype), old)

    def _read(self, q: Tensor, v: Tensor, slots: Tensor, hidden: Tensor, sink: Tensor | None) -> Tensor:
        """Attention of q [rows, d_head] over entries [rows, n]."""
        if slots.shape[1] == 0:
            return torch.zeros_like(v) if self.next_values else v
        found = self.pairs[torch.arange(len(q), device=q.device)[:, None], slots]
        scores = torch.einsum("rd,rnd->rn", q, found[:, :, 0].to(q.dtype)).masked_fill_(hidden, -torch.inf)
        alone = hidden.all(-1, keepdim=True)
        scores.masked_fill_(alone, 0.0)
        if sink is not None:
            scores = torch.cat([scores, sink.to(q.dtype).repeat(len(q) // len(sink))[:, None]], 1)
        weights = torch.softmax(scores, -1)[:, : hidden.shape[1]]
        out = torch.einsum("rn,rnd->rd", weights, found[:, :, 1].to(q.dtype))
        return torch.where(alone, torch.zeros_like(v) if self.next_values else v, out)

    def several(
        self, q: Tensor, k: Tensor, v: Tensor, ids: Tensor, step: DecodeStep, backend: Backend, sink: Tensor | None
    ) -> Tensor:
        """Any number of tokens: attention over the entries in their buckets and themselves."""
        batch, new, rows = v.shape[0], v.shape[2], torch.arange(len(self.last), device=q.device)
        for r in range(len(self.sizes)):
            self._complete(r, rows, v.flatten(0, 1)[:, 0])
        counts = None if step.all_real else step.new.repeat_interleave(self.heads)
        flat = ids.flatten(1, 2)  # [rounds, rows, new]
        index, there = reachable(self._numbers(flat), self.times, self.counts.shape[1], self._capacity)
        pairs = self.pairs[rows[:, None], index].unflatten(0, (batch, self.heads)).to(v.dtype)
        nowhere = max(self.sizes)  # a bucket of what is not there
        known = torch.where(there[..., None], self.ids[rows[:, None], index], nowhere).permute(2, 0, 1).long()
        if counts is not None:
            flat = torch.where(torch.arange(new, device=q.device) < counts[:, None], flat, nowhere)
        together = torch.cat([known, flat], 2).unflatten(1, (batch, self.heads))
        layout = make_bucket_windows(
            together, [c + 1 for c in self.capacities], block=64, itself=False, union=self.count_pairs_once
        )
        read = self._read_at(v)
        keys, values = torch.cat([pairs[:, :, :, 0], k], 2), torch.cat([pairs[:, :, :, 1], read], 2)
        backend = backend if choose(backend, q, k, v) == "triton" else "torch"
        out = attend_new(q, keys, values, layout, self_if_alone=not self.next_values, backend=backend, sink=sink)
        self._file(k, read, ids, step.seen, counts)
        return out

    def _read_at(self, v: Tensor) -> Tensor:
        """The values that are read at new tokens, given theirs [batch, heads, new, d_head]."""
        return torch.cat([v[:, :, 1:], torch.zeros_like(v[:, :, :1])], 2) if self.next_values else v

    @property
    def _capacity(self) -> int:
        """Of every ring: all rounds have the same window."""
        (capacity,) = set(self.capacities)
        return capacity

    def _numbers(self, ids: Tensor) -> Tensor:
        """ids [rounds, rows, new] as numbers of buckets among `counts`: [rows, rounds, new]."""
        return torch.stack([ids[r] + bucket for r, (_, bucket) in enumerate(self._starts())], 1)

    def fill(self, x: Tensor, k: Tensor, v: Tensor, ids: Tensor) -> None:
        """Take in whole texts, when nothing was seen; x: what keys are made of."""
        if n := min(self.key_inputs.shape[2], x.shape[2]):
            self.key_inputs[:, :, -n:] = x[:, :, -n:]
        self._file(k, self._read_at(v), ids.long(), torch.zeros(len(x), dtype=torch.int64, device=x.device), None)

    def _file(self, k: Tensor, read: Tensor, ids: Tensor, seen: Tensor, counts: Tensor | None) -> None:
        """Put new tokens into their rings, after `seen` [batch] others; of more than a ring holds, the last. read: the
        values; counts: as for `file_new`."""
        k, read, ids, capacity = k.flatten(0, 1), read.flatten(0, 1), ids.flatten(1, 2), self._capacity
        rows, slots, tokens, added, newest = file_new(self._numbers(ids), self.counts, max(1, capacity), counts)
        self.counts += added
        if not capacity:
            return
        self.pairs[rows, slots] = torch.stack([k[rows, tokens], read[rows, tokens]], -2).to(self.pairs.dtype)
        self.times[rows, slots] = seen.repeat_interleave(self.heads)[rows] + tokens + 1
        self.ids[rows, slots] = ids.permute(1, 2, 0)[rows, tokens].int()
        self.last.copy_(newest if counts is None else torch.where(counts[:, None] > 0, newest, self.last))
