"""Local heads: a sliding window with own queries and keys, itself included, and rotary positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reformer.attention.base import Attention
from reformer.config import ReformerConfig
from reformer.decode.program import NativeProgram
from reformer.decode.step import DecodeStep
from reformer.decode.window_cache import WindowCache
from reformer.layers.context import PassContext
from reformer.ops.bucket_attention.attend import attend
from reformer.ops.bucket_attention.windows import BucketWindows, make_bucket_windows, make_window


class LocalAttention(Attention):
    """Every position sees the `local_window` most recent ones of its document."""

    parts = 3
    rotary = takes_delta = True

    @classmethod
    def cache_bytes(cls, config: ReformerConfig, heads: int, rows: int) -> int:
        return heads * config.local_window * 2 * config.d_head * 4

    @classmethod
    def train_vectors(cls, config: ReformerConfig, low: int, native: bool) -> int:
        return super().train_vectors(config, low, native) - native * low  # C: d_q comes in the queries' place

    def lengths(self) -> Tensor:
        return torch.stack([self.temperature, torch.ones_like(self.temperature)])

    def layout(self, q: Tensor, documents: Tensor | None) -> BucketWindows:
        window, (batch, heads, length, _) = self.config.local_window, q.shape
        if documents is None:
            return make_window(batch, heads, length, window, q.device, itself=True)
        buckets = documents[None, :, None].expand(1, batch, heads, length)
        return make_bucket_windows(buckets, [window], itself=True)

    def attend(
        self, qkv: tuple[Tensor, ...], context: PassContext, heads: slice, buckets: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        (q, k, v), gate = self.without_gate(qkv)
        layout = self.layout(q, context.documents)
        return attend(q, k, v, layout, self_if_alone=False, delta=delta, backend=self.config.backend, gate=gate), None

    def fill(self, qkv: tuple[Tensor, ...], buckets: Tensor | None, cache: Any) -> None:
        cache.fill(*qkv[1:3])

    def new_cache(self, batch: int) -> WindowCache:
        like = self.project.weight
        return WindowCache.empty(batch, self.n_heads, self.config.d_head, self.config.local_window, like)

    def attend_cached(self, qkv: tuple[Tensor, ...], step: DecodeStep, cache: WindowCache) -> Tensor:
        q, k, v = qkv
        return cache.attend_and_append(q, k, v, step, self.config.backend)

    def record_attention(self, program: NativeProgram, y: Tensor, cache: WindowCache) -> Tensor:
        return program.window(y, cache)
