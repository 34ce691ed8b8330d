"""LSH heads: positions whose shared query-key vectors fall into one bucket see each other, at any distance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reformer.attention.base import Attention, DenseView, Hashed
from reformer.backends.dtypes import upcast
from reformer.config import ReformerConfig
from reformer.decode.bucket_cache import BucketCache
from reformer.decode.program import NativeProgram
from reformer.decode.rings import ring_bytes
from reformer.decode.step import DecodeStep
from reformer.layers.context import PassContext
from reformer.ops.bucket_attention.attend import attend
from reformer.ops.bucket_attention.reference import visible
from reformer.ops.bucket_attention.windows import make_bucket_windows
from reformer.ops.key_conv import key_conv
from reformer.ops.lsh_hash import lsh_hash, rotation_width

LEAST_TEMPERATURE = 1e-3
HASH_MEAN_RATE = 0.02  # share of the running mean that a training pass renews


class LSHAttention(Attention):
    """Query and key are one unit vector, made of the last `lsh_key_conv` tokens (ops/key_conv.py); read is what
    followed a match (ops/bucket_attention/README.md). sink: at which score a head would rather read nothing, learnt."""

    parts = 2
    takes_delta = True
    rotations: Tensor
    hash_mean: Tensor

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__(config, heads)
        several = config.lsh_key_conv > 1
        self.key_conv = nn.Parameter(torch.empty(heads, config.lsh_key_conv, config.d_head)) if several else None
        self.sink = nn.Parameter(torch.empty(heads))
        rounds, width = len(config.hash_rounds), rotation_width(config.hash_factors)
        # Saved with the weights: decoding and evaluation hash as training did, and with the far round beside it.
        self.register_buffer("rotations", torch.empty(heads, config.d_head, rounds, width))
        # A constant is subtracted before hashing, since a common direction would fill a few buckets with
        # everything. The mean of the sequence at hand would leak the future; this one is of earlier passes.
        self.register_buffer("hash_mean", torch.zeros(heads, config.d_head))
        self.windows, self.sizes = [config.lsh_window] * rounds, config.hash_rounds

    @classmethod
    def rounds(cls, config: ReformerConfig, length: int) -> list[int]:
        skipped = config.skips_far_round(length)
        return config.hash_rounds[int(skipped) :]

    @classmethod
    def cache_bytes(cls, config: ReformerConfig, heads: int, rows: int) -> int:
        keys = (config.lsh_key_conv - 1) * config.d_head * 4
        return heads * (ring_bytes(config.hash_rounds, config.lsh_window, rows, config.d_head) + keys)

    @classmethod
    def train_vectors(cls, config: ReformerConfig, low: int, native: bool) -> int:
        several = config.lsh_key_conv > 1  # the keys, beside what they are made of, and a gradient more
        return super().train_vectors(config, low, native) + several * 2 * low

    def hashed(self, qkv: tuple[Tensor, ...]) -> Hashed:
        k = self.keys(qkv[0], self.all_heads)
        return Hashed(k, self.buckets(k, self.all_heads), self.sizes, self.windows)

    def dense_view(self, qkv: tuple[Tensor, ...], heads: slice) -> DenseView:
        k = self.keys(qkv[0], heads)
        buckets = self.buckets(k, heads)
        seen = torch.stack([visible(b[None], [w], itself=False) for b, w in zip(buckets, self.windows, strict=True)])
        return DenseView(k @ k.transpose(-1, -2), seen, seen.any(0), buckets)

    def attend_to_all(self, length: int) -> None:
        """Full attention in the hash's place from here on, for texts up to this length: a round of a single bucket."""
        self.windows, self.sizes, self.rotations = [length], [1], self.rotations[:, :, :0]

    def lengths(self) -> Tensor | None:
        return self.key_lengths()[None] if self.key_conv is None else None  # else after they are blended

    def key_lengths(self) -> Tensor:
        # Query and key are one vector of length sqrt(temperature): scores are temperature x cosine.
        return self.temperature.clamp_min(LEAST_TEMPERATURE).sqrt()

    def keys(self, x: Tensor, heads: slice, documents: Tensor | None = None, before: Tensor | None = None) -> Tensor:
        """Queries and keys in one, of what `project_in` makes of them; the others as for `key_conv`."""
        if self.key_conv is None:
            return x
        return key_conv(x, self.key_conv[heads], self.key_lengths()[heads], documents, before)

    def buckets(self, k: Tensor, heads: slice) -> Tensor:
        """Integer [rounds, batch, heads of the group, length]. The far round, if any, comes first, and is left
        out in training on short contexts (`skips_far_round`)."""
        if not self.rotations.shape[2]:
            return torch.zeros(1, *k.shape[:3], dtype=torch.uint8, device=k.device)
        # A hash minds the direction alone: the mean, kept for unit vectors, is brought to the vectors' length.
        hash_mean = (self.hash_mean * self.key_lengths()[:, None].detach())[heads]
        c, rotations = self.config, self.rotations[heads]
        factors, near = c.hash_factors, self.training and c.skips_far_round(k.shape[2])
        if near:
            factors = c.n_buckets
            rotations = rotations[:, :, 1:, : rotation_width(factors)]
        hashed = lsh_hash(k, rotations, factors, hash_mean, c.backend)
        if c.has_far_round and not near:
            hashed[1:].remainder_(c.hash_rounds[1])  # the first factors are the lowest digits
        return hashed

    def attend(
        self, qkv: tuple[Tensor, ...], context: PassContext, heads: slice, buckets: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        (x, v), gate = self.without_gate(qkv)
        k = self.keys(x, heads, context.documents)
        if buckets is None:
            buckets = self.buckets(k.detach(), heads)
            if self.training:
                mean = upcast(k.detach()).mean((0, 2)) / self.key_lengths()[heads, None].detach()
                self.hash_mean[heads].lerp_(mean.to(self.hash_mean.dtype), HASH_MEAN_RATE)
        sorted_by = buckets
        if context.documents is not None:
            stride = max(self.sizes)
            sorted_by = buckets.to(torch.int32) + context.documents.to(torch.int32)[None, :, None] * stride
        windows = self.windows[len(self.windows) - len(sorted_by) :]  # without the far round, where it is left out
        layout, sink = make_bucket_windows(sorted_by, windows, itself=False), self.sink[heads]
        backend = self.config.backend
        out = attend(
            k, k, v, layout, value_offset=1, self_if_alone=False, delta=delta, backend=backend, sink=sink, gate=gate
        )
        return out, buckets

    def fill(self, qkv: tuple[Tensor, ...], buckets: Tensor | None, cache: BucketCache) -> None:
        assert buckets is not None
        (x, v), _ = self.without_gate(qkv)
        cache.fill(x, self.keys(x, self.all_heads), v, buckets)

    def new_cache(self, batch: int) -> BucketCache:
        c, like = self.config, self.project.weight
        return BucketCache.empty(
            batch,
            self.n_heads,
            c.d_head,
            self.sizes,
            self.windows,
            like,
            next_values=True,
            key_inputs=c.lsh_key_conv - 1,
        )

    def attend_cached(self, qkv: tuple[Tensor, ...], step: DecodeStep, cache: BucketCache) -> Tensor:
        x, v = qkv
        k = self.keys(x, self.all_heads, before=cache.key_inputs)
        cache.push_key_inputs(x, step.new)
        ids = self.buckets(k, self.all_heads)
        return cache.attend_and_append(k, k, v, ids, step, self.config.backend, self.sink)

    def record_attention(self, program: NativeProgram, y: Tensor, cache: BucketCache) -> Tensor:
        c, hash_mean = self.config, self.hash_mean * self.key_lengths()[:, None]
        if self.key_conv is not None:
            program.key_conv(y, cache, self.key_conv, self.key_lengths())
        return program.buckets(y, cache, self.rotations, hash_mean, c.hash_factors, unit=False, sink=self.sink)
