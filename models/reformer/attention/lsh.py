"""LSH heads: positions whose shared query-key vectors fall into one bucket see each other, at any distance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reformer.attention.heads import Heads
from reformer.branch import Context, Progress
from reformer.bucket_state import BucketState
from reformer.config import ReformerConfig
from reformer.ops.bucket_attention.attend import attend
from reformer.ops.bucket_attention.recent import make_recent
from reformer.ops.lsh_hash import lsh_hash, rotation_width
from reformer.precision import wide

if TYPE_CHECKING:
    from reformer.native.decode import Tape

LEAST_TEMPERATURE = 1e-3
CENTRE_RATE = 0.02  # share of the running mean that a training pass renews


class LSHHeads(Heads):
    """Query and key are one unit vector; `values: next` reads what followed a match (design section 2)."""

    takes_delta = True
    rotations: Tensor
    centre: Tensor

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__(config, heads, parts=2)
        width = rotation_width(config.n_buckets)
        # Saved with the weights: decoding and evaluation hash as training did.
        self.register_buffer("rotations", torch.empty(heads, config.d_head, config.n_hashes, width))
        # A constant is subtracted before hashing, since a common direction would fill a few buckets with
        # everything. The mean of the sequence at hand would leak the future; this one is of earlier passes.
        self.register_buffer("centre", torch.zeros(heads, config.d_head))
        self.windows = [config.windows[r % len(config.windows)] for r in range(config.n_hashes)]
        self.sizes = [math.prod(config.n_buckets)] * config.n_hashes
        if config.local_round:
            self.windows.insert(0, config.local_round)
            self.sizes.insert(0, 1)

    def lengths(self) -> Tensor:
        # Query and key are one vector of length sqrt(temperature), so that scores are temperature x cosine.
        return self.temperature.clamp_min(LEAST_TEMPERATURE).sqrt()[None]

    def buckets(self, k: Tensor, group: slice) -> Tensor:
        """Integer [rounds, batch, heads of group, length]; a local round, if any, comes first and has one bucket."""
        # A hash minds the direction alone: the centre, kept for unit vectors, is brought to the vectors' length.
        centre = (self.centre * self.lengths()[0, :, None].detach())[group]
        c = self.config
        hashed = lsh_hash(k, self.rotations[group], c.n_buckets, centre, c.backend)
        if not c.local_round:
            return hashed
        return torch.cat([torch.zeros_like(hashed[:1]), hashed])

    def mix(
        self, parts: tuple[Tensor, ...], context: Context, group: slice, routing: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        k, v = parts
        if routing is None:
            routing = self.buckets(k.detach(), group)
            if self.training:
                mean = wide(k.detach()).mean((0, 2)) / self.lengths()[0, group, None].detach()
                self.centre[group].lerp_(mean.to(self.centre.dtype), CENTRE_RATE)
        buckets = routing
        if context.documents is not None:
            stride = max(self.sizes)
            buckets = buckets.to(torch.int32) + context.documents.to(torch.int32)[None, :, None] * stride
        same = self.config.values == "same"
        layout, c = make_recent(buckets, self.windows, block=self.config.block, itself=False), self.config
        out = attend(k, k, v, layout, shift=0 if same else 1, alone=same, delta=delta, backend=c.backend)
        return out, routing

    def start(self, batch: int) -> BucketState:
        same, like = self.config.values == "same", self.project.weight
        return BucketState.empty(batch, self.heads, self.config.d_head, self.sizes, self.windows, like, next=not same)

    def step_mix(self, parts: tuple[Tensor, ...], progress: Progress, state: BucketState) -> Tensor:
        k, v = parts
        ids = self.buckets(k, self.all)
        return state.advance(k, k, v, ids, progress, self.config.backend)

    def record_mix(self, tape: Tape, y: Tensor, state: BucketState) -> Tensor:
        c, centre = self.config, self.centre * self.lengths()[0, :, None]
        return tape.buckets(y, state, self.rotations, centre, c.n_buckets, local_round=bool(c.local_round), unit=False)
