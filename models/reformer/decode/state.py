"""What decoding keeps: rings of the last keys and values of a window, and (bucket_state.py) of every bucket.

Updated in place by `extend`. Rows (batch x heads) are independent and may be at different positions: row b of a batch
has seen starts[b] tokens, and counts[b] of the new ones are real.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reformer.config import Backend, ReformerConfig
from reformer.ops.bucket_attention.autograd import attend_new
from reformer.ops.bucket_attention.windows import Recent, Round, flat_order

if TYPE_CHECKING:
    from reformer.decode.cuda_graph import Graph
    from reformer.decode.program import Tape

LARGE = 2**20  # bytes, from which a ring's memory is asked for page by page
FIRST_CAPACITY = 256


def reserve(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros. On a CPU they take memory where they are written: most buckets of a short text are never touched."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < LARGE:
        return torch.zeros(*shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(*shape)


@dataclass
class WindowState:
    """The last `window` keys and values [batch, heads, window, d_head]; token t lies at t modulo window. chunk: what is
    seen begins at the chunk before the own one (pattern published); 0: all of the window is seen."""

    keys: Tensor
    values: Tensor
    chunk: int

    @classmethod
    def empty(cls, batch: int, heads: int, d_head: int, window: int, like: Tensor, chunk: int = 0) -> WindowState:
        shape = (batch, heads, window, d_head)
        return cls(reserve(shape, like.dtype, like.device), reserve(shape, like.dtype, like.device), chunk)

    def advance(self, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, counts: Tensor, backend: Backend) -> Tensor:
        """What new tokens [batch, heads, new, d_head] read; they are filed."""
        if q.shape[2] == 1:
            return self.one(q, k, v, starts, counts)
        window, new = self.keys.shape[2], q.shape[2]
        times = starts[:, None] + torch.arange(1 - window, 0, device=q.device)
        index = (times % window)[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])
        keys, values = torch.cat([self.keys.gather(2, index), k], 2), torch.cat([self.values.gather(2, index), v], 2)
        now = starts[:, None] + torch.arange(new, device=q.device)
        first = (now // self.chunk - 1).clamp_min(0) * self.chunk if self.chunk else torch.zeros_like(now)
        before = torch.arange(1, window, device=q.device).expand_as(
            times
        )  # not read; it must not fall behind the new ones
        reach = torch.cat([before, (now - first + 1).clamp_max(window)], 1).to(torch.int32)
        batch, heads, length, _ = keys.shape
        whole = flat_order(batch, heads, length, q.device).flatten()
        layout = Recent([Round(whole, reach.repeat_interleave(heads, 0).view(-1), None, window)], 64, itself=True)
        out = attend_new(q, keys, values, layout, alone=False, backend=backend)
        place = torch.arange(new, device=q.device)
        b, i = ((place < counts[:, None]) & (place >= counts[:, None] - window)).nonzero(as_tuple=True)
        self.keys[b, :, now[b, i] % window] = k[b, :, i]
        self.values[b, :, now[b, i] % window] = v[b, :, i]
        return out

    def one(self, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
        """`advance` of one token a row, in few operations of fixed shapes."""
        window, rows = self.keys.shape[2], torch.arange(len(starts), device=q.device)
        slots, real = starts % window, counts[:, None, None] > 0
        for ring, new in ((self.keys, k), (self.values, v)):
            ring[rows, :, slots] = torch.where(real, new[:, :, 0], ring[rows, :, slots])
        age = (starts[:, None] - torch.arange(window, device=q.device)) % window
        first = (starts // self.chunk - 1).clamp_min(0) * self.chunk if self.chunk else torch.zeros_like(starts)
        seen = (starts[:, None] - age >= first[:, None])[:, None, None]
        return F.scaled_dot_product_attention(q, self.keys, self.values, attn_mask=seen, scale=1.0)


@dataclass
class GrowingState:
    """All keys and values so far [batch, heads, capacity, d_head], for heads that see everything."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, batch: int, heads: int, d_head: int, like: Tensor) -> GrowingState:
        return cls(*(like.new_zeros(batch, heads, FIRST_CAPACITY, d_head) for _ in range(2)))

    def advance(self, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, counts: Tensor) -> Tensor:
        """What new tokens [batch, heads, new, d_head] read; they are filed."""
        new = q.shape[2]
        longest = int(starts.max()) + new
        if longest > self.keys.shape[2]:
            more = max(longest, 2 * self.keys.shape[2]) - self.keys.shape[2]
            self.keys, self.values = (F.pad(x, (0, 0, 0, more)) for x in (self.keys, self.values))
        now = starts[:, None] + torch.arange(new, device=q.device)
        b, i = (torch.arange(new, device=q.device) < counts[:, None]).nonzero(as_tuple=True)
        self.keys[b, :, now[b, i]], self.values[b, :, now[b, i]] = k[b, :, i], v[b, :, i]
        seen = torch.arange(longest, device=q.device) <= now[..., None]
        keys, values = self.keys[:, :, :longest], self.values[:, :, :longest]
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=seen[:, None], scale=1.0)


@dataclass
class State:
    """All that a model keeps of the tokens it has seen. starts: int64 [batch], how many; layers: one state a branch;
    column: int64 [batch], characters of the line so far, where the model counts them."""

    starts: Tensor
    layers: list[Any]
    column: Tensor | None = None
    tape: Tape | None = field(default=None, repr=False)  # the same as a list of operations in C, where that can be
    untaped: bool = field(default=False, repr=False)  # it was found that it cannot be
    graph: Graph | None = field(default=None, repr=False)  # the same as a captured CUDA graph
    warm: int = field(default=0, repr=False)  # tokens decoded one by one before it is captured

    @property
    def batch(self) -> int:
        return len(self.starts)

    @property
    def position(self) -> int:
        """Tokens seen by the row that has seen most."""
        return int(self.starts.max())

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return sum(nbytes_of(layer) for layer in self.layers)

    def clone(self) -> State:
        """An independent copy: extending one leaves the other."""
        return self.rows(torch.arange(self.batch, device=self.starts.device))

    def rows(self, index: Tensor) -> State:
        """An independent state whose rows are these, which may repeat: one prompt, many continuations."""
        column = self.column[index] if self.column is not None else None
        return State(self.starts[index], [rows_of(layer, index) for layer in self.layers], column)


def _tensors(layer: Any) -> Iterator[tuple[str, Tensor]]:
    if layer is not None:
        for f in dataclasses.fields(layer):
            value = getattr(layer, f.name)
            if isinstance(value, Tensor):
                yield f.name, value


def nbytes_of(layer: Any) -> int:
    """Bytes of one branch's state that are in use."""
    if hasattr(layer, "nbytes"):
        return int(layer.nbytes)
    return sum(t.numel() * t.element_size() for _, t in _tensors(layer))


def rows_of(layer: Any, index: Tensor) -> Any:
    """An independent copy of rows of one branch's state."""
    if layer is None or hasattr(layer, "rows"):
        return layer if layer is None else layer.rows(index)
    return dataclasses.replace(layer, **{name: t[index] for name, t in _tensors(layer)})


def largest_state(config: ReformerConfig, tokens: int, batch: int) -> int:
    """Bytes that decoding may hold after so many tokens, in float32: an upper bound, exact for what grows."""
    pair = 2 * config.d_head * 4  # a key and a value
    total = 2 * config.shorten * config.d_model * 4 if config.shorten > 1 else 0
    published = config.pattern == "published"
    for n in range(config.n_layers):
        kind = config.layers[n % len(config.layers)]
        local, lsh = {"mixed": config.head_split, "lsh": (0, config.n_heads)}.get(kind, (config.n_heads, 0))
        seen = tokens // config.shorten if n in config.group_layers else tokens
        window = 2 * seen if kind == "full" else config.local_window * (1 + published)
        windows, sizes = [w * (1 + published) for w in config.round_windows], config.round_buckets
        slots = sum(n * w for n, w in zip(sizes, windows, strict=True)) + config.local_round
        rounds = len(windows) + bool(config.local_round)
        used = min(slots, rounds * seen)
        total += local * window * pair + lsh * (used * (pair + 8 + 4 * rounds) + 8 * sum(sizes))
        total += lsh * (config.key_tokens - 1) * config.d_head * 4
    return batch * total
