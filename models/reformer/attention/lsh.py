"""LSH heads: positions whose shared query-key vectors fall into one bucket see each other, at any distance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reformer.attention.base import Attention
from reformer.backends.dtypes import upcast
from reformer.config import ReformerConfig
from reformer.decode.bucket_cache import BucketCache
from reformer.decode.program import NativeProgram
from reformer.decode.step import DecodeStep
from reformer.layers.context import PassContext
from reformer.ops.bucket_attention.autograd import attend
from reformer.ops.bucket_attention.windows import make_recent
from reformer.ops.key_conv import blend
from reformer.ops.lsh_hash import lsh_hash, rotation_width

LEAST_TEMPERATURE = 1e-3
CENTRE_RATE = 0.02  # share of the running mean that a training pass renews


class LSHHeads(Attention):
    """Query and key are one unit vector, made of the last `key_tokens` tokens (ops/key_conv.py); read is what followed
    a match (ops/bucket_attention/README.md). sink: a head learns at which score it is rather to read nothing."""

    takes_delta = True
    rotations: Tensor
    centre: Tensor

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__(config, heads, parts=2)
        several = config.key_tokens > 1
        self.blend = nn.Parameter(torch.empty(heads, config.key_tokens, config.d_head)) if several else None
        self.sink = nn.Parameter(torch.empty(heads))
        rounds, width = len(config.round_buckets), rotation_width(config.n_buckets)
        # Saved with the weights: decoding and evaluation hash as training did, and with the far round beside it.
        self.register_buffer("rotations", torch.empty(heads, config.d_head, rounds, width))
        # A constant is subtracted before hashing, since a common direction would fill a few buckets with
        # everything. The mean of the sequence at hand would leak the future; this one is of earlier passes.
        self.register_buffer("centre", torch.zeros(heads, config.d_head))
        self.windows, self.sizes = config.round_windows, config.round_buckets

    def attend_to_all(self, length: int) -> None:
        """Full attention in the hash's place from here on, for texts up to this length: a round of a single bucket."""
        self.windows, self.sizes, self.rotations = [length], [1], self.rotations[:, :, :0]

    def lengths(self) -> Tensor | None:
        return self.key_lengths()[None] if self.blend is None else None  # else after they are blended

    def key_lengths(self) -> Tensor:
        # Query and key are one vector of length sqrt(temperature): scores are temperature x cosine.
        return self.temperature.clamp_min(LEAST_TEMPERATURE).sqrt()

    def keys(self, x: Tensor, heads: slice, documents: Tensor | None = None, before: Tensor | None = None) -> Tensor:
        """Queries and keys in one, of what `project_in` makes of them; the others as for `blend`."""
        if self.blend is None:
            return x
        return blend(x, self.blend[heads], self.key_lengths()[heads], documents, before)

    def buckets(self, k: Tensor, heads: slice) -> Tensor:
        """Integer [rounds, batch, heads of the group, length]. The far round, if any, comes first, and is left
        out in training on short contexts (`trains_near`)."""
        if not self.rotations.shape[2]:
            return torch.zeros(1, *k.shape[:3], dtype=torch.uint8, device=k.device)
        # A hash minds the direction alone: the centre, kept for unit vectors, is brought to the vectors' length.
        centre = (self.centre * self.key_lengths()[:, None].detach())[heads]
        c, rotations = self.config, self.rotations[heads]
        factors, near = c.n_buckets, self.training and c.trains_near(k.shape[2])
        if near:
            factors = factors[:-1]
            rotations = rotations[:, :, 1:, : rotation_width(factors)]
        hashed = lsh_hash(k, rotations, factors, centre, c.backend)
        if c.has_far_round and not near:
            hashed[1:].remainder_(c.round_buckets[1])  # the first factors are the lowest digits
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
                self.centre[heads].lerp_(mean.to(self.centre.dtype), CENTRE_RATE)
        sorted_by = buckets
        if context.documents is not None:
            stride = max(self.sizes)
            sorted_by = buckets.to(torch.int32) + context.documents.to(torch.int32)[None, :, None] * stride
        windows = self.windows[len(self.windows) - len(sorted_by) :]  # without the far round, where it is left out
        layout, sink = make_recent(sorted_by, windows, itself=False), self.sink[heads]
        backend = self.config.backend
        out = attend(k, k, v, layout, shift=1, alone=False, delta=delta, backend=backend, sink=sink, gate=gate)
        return out, buckets

    def new_cache(self, batch: int) -> BucketCache:
        c, like = self.config, self.project.weight
        return BucketCache.empty(
            batch, self.n_heads, c.d_head, self.sizes, self.windows, like, next_values=True, key_inputs=c.key_tokens - 1
        )

    def attend_cached(self, qkv: tuple[Tensor, ...], step: DecodeStep, cache: BucketCache) -> Tensor:
        x, v = qkv
        k = self.keys(x, self.all_heads, before=cache.key_inputs)
        cache.push_key_inputs(x, step.new)
        ids = self.buckets(k, self.all_heads)
        return cache.attend_and_append(k, k, v, ids, step, self.config.backend, self.sink)

    def record_attention(self, program: NativeProgram, y: Tensor, cache: BucketCache) -> Tensor:
        c, centre = self.config, self.centre * self.key_lengths()[:, None]
        if self.blend is not None:
            program.key_conv(y, cache, self.blend, self.key_lengths())
        return program.buckets(y, cache, self.rotations, centre, c.n_buckets, unit=False, sink=self.sink)
