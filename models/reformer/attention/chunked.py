"""Heads as in the released Reformers: chunks of a sorted sequence, to run their checkpoints.

What hashed heads see depends on later text, so that they cannot be decoded exactly (docs/decoding.md): `extend` gives a
token the last ones of its own buckets, as often as it meets them. Local heads are exact in both. Chunks
mix buckets, so packed documents see each other.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from reformer.attention.base import Attention, DenseView
from reformer.backends.dtypes import upcast_dtype
from reformer.config import ReformerConfig
from reformer.decode.bucket_cache import BucketCache
from reformer.decode.program import NativeProgram
from reformer.decode.rings import ring_bytes
from reformer.decode.step import DecodeStep
from reformer.decode.window_cache import WindowCache
from reformer.layers.context import PassContext
from reformer.ops.bucket_attention.attend import attend
from reformer.ops.bucket_attention.chunks import make_sorted_chunks
from reformer.ops.bucket_attention.reference import met
from reformer.ops.lsh_hash import lsh_hash, rotation_width

EPSILON = 1e-6  # of the keys' normalisation, as released


class ChunkedAttention(Attention):
    """Keys, values and buckets are the subclass's; chunks, look-back and merging of rounds are here."""

    unit = False
    takes_delta = True
    chunk: int
    shared: bool  # one vector is query and key, and sees itself only if alone

    @abstractmethod
    def queries_keys_values(self, qkv: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """What `project_in` gives -> each [batch, heads, length, d_head]; scores are q @ k."""

    @abstractmethod
    def buckets(self, q: Tensor, heads: slice) -> Tensor:
        """Integer [rounds, batch, heads of the group, length]."""

    def attended(self, q: Tensor, k: Tensor, v: Tensor, buckets: Tensor, delta: Tensor | None = None) -> Tensor:
        layout = make_sorted_chunks(buckets, self.chunk, self.config.chunk_multiple, itself=not self.shared)
        self_weight = layout.own_shares(upcast_dtype(q)) if self.shared and self.config.hashes(q.shape[2]) else None
        return attend(
            q,
            k,
            v,
            layout,
            self_if_alone=self.shared,
            delta=delta,
            self_weight=self_weight,
            backend=self.config.backend,
        )

    def attend(
        self, qkv: tuple[Tensor, ...], context: PassContext, heads: slice, buckets: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        q, k, v = self.queries_keys_values(qkv)
        if buckets is None:
            buckets = self.buckets(q.detach(), heads)
        return self.attended(q, k, v, buckets, delta), buckets


class ChunkedLocalAttention(ChunkedAttention):
    """Own queries and keys; every position sees its chunk and the one before, itself included."""

    parts = 3
    shared = False

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__(config, heads)
        self.chunk = config.local_window

    @classmethod
    def cache_bytes(cls, config: ReformerConfig, heads: int, rows: int) -> int:
        return heads * 2 * config.local_window * 2 * config.d_head * 4

    @classmethod
    def train_vectors(cls, config: ReformerConfig, low: int, native: bool) -> int:
        return super().train_vectors(config, low, native) + 2 * low  # keys are scaled under autograd

    def queries_keys_values(self, qkv: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = qkv
        return q, k / math.sqrt(self.config.d_head), v

    def buckets(self, q: Tensor, heads: slice) -> Tensor:
        return torch.zeros(1, *q.shape[:3], dtype=torch.uint8, device=q.device)

    def new_cache(self, batch: int) -> WindowCache:
        like, chunk = self.project.weight, self.chunk
        return WindowCache.empty(batch, self.n_heads, self.config.d_head, 2 * chunk, like, chunk)

    def attend_cached(self, qkv: tuple[Tensor, ...], step: DecodeStep, cache: WindowCache) -> Tensor:
        q, k, v = self.queries_keys_values(qkv)
        return cache.attend_and_append(q, k, v, step, self.config.backend)

    def recorded_weight(self) -> Tensor:
        weight = self.project.weight.detach().clone()
        weight.view(3, -1, weight.shape[1])[1] /= math.sqrt(self.config.d_head)
        return weight

    def record_attention(self, program: NativeProgram, y: Tensor, cache: WindowCache) -> Tensor:
        return program.window(y, cache)


class ChunkedLSHAttention(ChunkedAttention):
    """One vector is query and, brought to unit length, key; positions are sorted by its hash."""

    parts = 2
    shared = True
    rotations: Tensor

    @classmethod
    def rounds(cls, config: ReformerConfig, length: int) -> list[int]:
        return config.hash_rounds

    @classmethod
    def cache_bytes(cls, config: ReformerConfig, heads: int, rows: int) -> int:
        return heads * ring_bytes(config.hash_rounds, 2 * config.lsh_window, rows, config.d_head)

    @classmethod
    def train_vectors(cls, config: ReformerConfig, low: int, native: bool) -> int:
        return super().train_vectors(config, low, native) + 4 * low  # keys are made of queries under autograd

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__(config, heads)
        self.chunk = config.lsh_window
        width = rotation_width(config.n_buckets)
        self.register_buffer("rotations", torch.empty(heads, config.d_head, config.n_hashes, width))

    def queries_keys_values(self, qkv: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        q, v = qkv
        return q, unit(q), v

    def buckets(self, q: Tensor, heads: slice) -> Tensor:
        return lsh_hash(q, self.rotations[heads], self.config.n_buckets, backend=self.config.backend)

    def dense_view(self, qkv: tuple[Tensor, ...], heads: slice) -> DenseView:
        q, k, _ = self.queries_keys_values(qkv)
        buckets, n = self.buckets(q, heads), q.shape[2]
        earlier = torch.ones(n, n, dtype=torch.bool, device=q.device).tril(-1)
        # Alone, a round's first chunk looks back to its own last one, in the layer to that of the round before.
        seen = torch.stack([(met(b[None], self.chunk) > 0) & earlier for b in buckets])
        count = met(buckets, self.chunk)
        return DenseView(q @ k.transpose(-1, -2) + count.clamp_min(1).log(), seen, (count > 0) & earlier, buckets)

    def new_cache(self, batch: int) -> BucketCache:
        # Of every bucket as many of the last tokens as a query can meet in two chunks.
        c = self.config
        windows, like = [2 * self.chunk] * c.n_hashes, self.project.weight
        return BucketCache.empty(
            batch, self.n_heads, c.d_head, c.hash_rounds, windows, like, next_values=False, count_pairs_once=False
        )

    def attend_cached(self, qkv: tuple[Tensor, ...], step: DecodeStep, cache: BucketCache) -> Tensor:
        q, k, v = self.queries_keys_values(qkv)
        ids = self.buckets(q, self.all_heads)
        return cache.attend_and_append(q, k, v, ids, step, self.config.backend)

    def record_attention(self, program: NativeProgram, y: Tensor, cache: BucketCache) -> Tensor:
        return program.buckets(y, cache, self.rotations, None, self.config.n_buckets, unit=True)


def unit(x: Tensor) -> Tensor:
    """Unit length, by the root mean square as released; the difference to F.normalize is visible in small vectors."""
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) / math.sqrt(x.shape[-1])
    return x * scale
