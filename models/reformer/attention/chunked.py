"""Heads as in the released Reformers: chunks of a sorted sequence (pattern `published`), to run their checkpoints.

What hashed heads see depends on later text (design section 2), so that they cannot be decoded exactly: `extend` gives a
token the last ones of its own buckets (the ring rule), as often as it meets them. Local heads are exact in both. Chunks
mix buckets, so packed documents see each other.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reformer.attention.base import Heads
from reformer.backends.dtypes import wide_dtype
from reformer.config import ReformerConfig
from reformer.decode.bucket_cache import BucketState
from reformer.decode.state import WindowState
from reformer.layers.sublayer import Context, Progress
from reformer.ops.bucket_attention.autograd import attend
from reformer.ops.bucket_attention.chunks import make_published
from reformer.ops.lsh_hash import lsh_hash, rotation_width

if TYPE_CHECKING:
    from reformer.decode.program import Tape

EPSILON = 1e-6  # of the keys' normalisation, as released


class PublishedHeads(Heads):
    """Keys, values and buckets are the subclass's; chunks, look-back and merging of rounds are here."""

    takes_delta = True
    chunk: int
    shared: bool  # one vector is query and key, and sees itself only if alone

    @abstractmethod
    def queries_keys_values(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """What `split` gives -> each [batch, heads, length, d_head]; scores are q @ k."""

    @abstractmethod
    def buckets(self, q: Tensor, group: slice) -> Tensor:
        """Integer [rounds, batch, heads of group, length]."""

    def attended(self, q: Tensor, k: Tensor, v: Tensor, buckets: Tensor, delta: Tensor | None = None) -> Tensor:
        layout = make_published(buckets, self.chunk, self.config.chunk_multiple, itself=not self.shared)
        lone = layout.own_shares(wide_dtype(q)) if self.shared and self.config.hashes(q.shape[2]) else None
        return attend(q, k, v, layout, alone=self.shared, delta=delta, lone=lone, backend=self.config.backend)

    def mix(
        self, parts: tuple[Tensor, ...], context: Context, group: slice, routing: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        q, k, v = self.queries_keys_values(parts)
        if routing is None:
            routing = self.buckets(q.detach(), group)
        return self.attended(q, k, v, routing, delta), routing


class PublishedLocalHeads(PublishedHeads):
    """Own queries and keys; every position sees its chunk and the one before, itself included."""

    shared = False

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__(config, heads, parts=3, unit=False)
        self.chunk = config.local_window

    def queries_keys_values(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = parts
        return q, k / math.sqrt(self.config.d_head), v

    def buckets(self, q: Tensor, group: slice) -> Tensor:
        return torch.zeros(1, *q.shape[:3], dtype=torch.uint8, device=q.device)

    def start(self, batch: int) -> WindowState:
        like, chunk = self.project.weight, self.chunk
        return WindowState.empty(batch, self.heads, self.config.d_head, 2 * chunk, like, chunk)

    def step_mix(self, parts: tuple[Tensor, ...], progress: Progress, state: WindowState) -> Tensor:
        q, k, v = self.queries_keys_values(parts)
        return state.advance(q, k, v, progress.starts, progress.counts, self.config.backend)

    def recorded_weight(self) -> Tensor:
        weight = self.project.weight.detach().clone()
        weight.view(3, -1, weight.shape[1])[1] /= math.sqrt(self.config.d_head)
        return weight

    def record_mix(self, tape: Tape, y: Tensor, state: WindowState) -> Tensor:
        return tape.window(y, state)


class PublishedLSHHeads(PublishedHeads):
    """One vector is query and, brought to unit length, key; positions are sorted by its hash."""

    shared = True
    rotations: Tensor

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__(config, heads, parts=2, unit=False)
        self.chunk = config.windows[0]
        width = rotation_width(config.n_buckets)
        self.register_buffer("rotations", torch.empty(heads, config.d_head, config.n_hashes, width))

    def queries_keys_values(self, parts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        q, v = parts
        return q, unit(q), v

    def buckets(self, q: Tensor, group: slice) -> Tensor:
        return lsh_hash(q, self.rotations[group], self.config.n_buckets, backend=self.config.backend)

    def start(self, batch: int) -> BucketState:
        # The ring rule: of every bucket as many of the last tokens as a query can meet in two chunks.
        c = self.config
        sizes, windows = [math.prod(c.n_buckets)] * c.n_hashes, [2 * self.chunk] * c.n_hashes
        like = self.project.weight
        return BucketState.empty(batch, self.heads, c.d_head, sizes, windows, like, next=False, each=False)

    def step_mix(self, parts: tuple[Tensor, ...], progress: Progress, state: BucketState) -> Tensor:
        q, k, v = self.queries_keys_values(parts)
        ids = self.buckets(q, self.all)
        return state.advance(q, k, v, ids, progress, self.config.backend)

    def record_mix(self, tape: Tape, y: Tensor, state: BucketState) -> Tensor:
        return tape.buckets(y, state, self.rotations, None, self.config.n_buckets, local_round=False, unit=True)


def unit(x: Tensor) -> Tensor:
    """Unit length, by the root mean square as released; the difference to F.normalize is visible in small vectors."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) / math.sqrt(x.shape[-1])
    return x * scale
