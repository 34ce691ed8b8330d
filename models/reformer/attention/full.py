"""Full causal attention: the ordinary Transformer's, as a yardstick. Its cost grows with the square of the length."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from reformer.attention.local import LocalAttention
from reformer.config import ReformerConfig
from reformer.decode.full_cache import FullCache
from reformer.decode.program import NativeProgram
from reformer.decode.step import DecodeStep
from reformer.layers.context import PassContext
from reformer.ops.head_gate import head_gate


class FullAttention(LocalAttention):
    """Every position sees all of its document up to itself."""

    takes_delta = False

    @classmethod
    def cache_bytes(cls, config: ReformerConfig, heads: int, rows: int) -> int:
        return heads * 2 * rows * 2 * config.d_head * 4  # it grows by doubling

    @classmethod
    def train_vectors(cls, config: ReformerConfig, low: int, native: bool) -> int:
        return super().train_vectors(config, low, False) + low

    def attend(
        self, qkv: tuple[Tensor, ...], context: PassContext, heads: slice, buckets: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        ((q, k, v), gate), d = self.without_gate(qkv), context.documents
        seen = (d[:, :, None] == d[:, None, :]).tril()[:, None] if d is not None else None
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None, scale=1.0)
        return head_gate(out, gate) if gate is not None else out, None

    def new_cache(self, batch: int) -> FullCache:  # type: ignore[override]
        return FullCache.empty(batch, self.n_heads, self.config.d_head, self.project.weight)

    def attend_cached(self, qkv: tuple[Tensor, ...], step: DecodeStep, cache: FullCache) -> Tensor:  # type: ignore[override]
        q, k, v = qkv
        return cache.attend_and_append(q, k, v, step)

    def record(self, program: NativeProgram, reads: int, cache: FullCache) -> None:
        return None  # it grows with the text: there is no operation of a fixed price
