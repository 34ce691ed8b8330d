"""One more token of every row on a GPU through the steps of fused.py: five kernels a layer, one before and one after.

The streams, their range and the caches are those of `ReversibleSequence.decode`, which goes on from them as this goes
on from it; a layer's local and LSH heads are added to a stream as one sum, rounded once, as in training. All is
computed in float32, also where autocast allows less: a single row waits for the weights, and not for products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from reformer.attention.fused import FusedHeads
from reformer.decode.cuda_graph import Checks
from reformer.decode.state import UNKNOWN, DecodingState
from reformer.layers.line_position import LONGEST, LinePositions
from reformer.layers.lm_head import LMHead
from reformer.ops.fused_decode import launch
from reformer.ops.rotary import speeds
from reformer.reversible.fused import FusedAttention, FusedFeedForward
from reformer.reversible.sequence import ReversibleSequence


class FusedToken:
    """tokens int64 [batch, 1] -> (logits [batch, 1, vocab_size], checks of the range), nothing waited for; the state
    moves on. embedding [vocab_size, d_model]: before its rows are normed; rotary: whether local heads turn."""

    def __init__(
        self, sequence: ReversibleSequence, embedding: Tensor, lines: LinePositions | None, head: LMHead,
        state: DecodingState, rotary: bool,
    ) -> None:  # fmt: skip
        self.sequence, self.embedding, self.head, self.state = sequence, embedding, head, state
        self.steps: Sequence[Any] = sequence.fused or ()
        heads = [step.heads for step in self.steps if isinstance(step, FusedAttention)]
        caches = (cache for cache in state.caches if cache is not None)
        self.attention = [(each, each.small(), *_of(each, caches)) for each in heads]
        turned = rotary and any(each.local is not None for each in heads)
        self.speeds = speeds(heads[0].heads.d, embedding.device) if turned else None
        self.lines = None
        if lines is not None and state.line_position is not None:
            self.lines = launch.Lines(
                lines.weight, lines.characters, lines.ends, state.line_position, UNKNOWN // 2, LONGEST
            )  # fmt: skip
        self.flags = torch.zeros(len(self.steps) + 1, 4, dtype=torch.int32, device=embedding.device)
        self.places = ["embedding", *(step.name for step in self.steps)]

    @staticmethod
    def fits(sequence: ReversibleSequence) -> bool:
        """Whether it can be: for layers that are fused in training, and windows that are not too wide."""
        steps = sequence.fused or ()
        return bool(steps) and all(_fits(step.heads) for step in steps if isinstance(step, FusedAttention))

    def __call__(self, tokens: Tensor) -> tuple[Tensor, Checks]:
        bits, bad, state = self.sequence.streams.bits, self.flags, self.state
        # Whether memory begins at a multiple of 16 bytes decides which kernel runs; none may be made while capturing.
        tokens = tokens.flatten().contiguous() if tokens.storage_offset() == 0 else tokens.flatten().clone()
        first, second, phase = launch.begin(tokens, self.embedding, self.lines, state.seen, self.speeds, bits, bad[0])
        pair, attention = (first, second), iter(self.attention)
        for number, step in enumerate(self.steps, 1):
            x, y = pair[step.reads], pair[step.writes]
            if isinstance(step, FusedFeedForward):
                module = step.mlp.module
                launch.onto_stream(
                    launch.widen(x, module.widen.weight, bits), [module.output.weight], y, bits, bad[number]
                )
                continue
            heads, small, window, rings = next(attention)
            modules = heads.modules()
            raw = launch.to_heads(x, [*(m.project.weight for m in modules), *heads.gates()], bits)
            turns = phase if heads.local is not None else None
            out = launch.attend_new(raw, heads.heads, small, window, rings, turns, state.seen)
            launch.onto_stream(out, [m.output.weight for m in modules], y, bits, bad[number])
        head = self.head
        found, fits = launch.logits(first, second, head.weight, head.bias, head.softcap, bits, state.seen, self.flags)
        return found[:, None], (self.places, fits)


def _fits(heads: FusedHeads) -> bool:
    """Whether a program can go through the keys of a head."""
    c, rounds = heads.config, len(heads.lsh.sizes) if heads.lsh is not None else 0
    keys = [c.local_window * (heads.local is not None), rounds * (c.lsh_window - 1)]
    return max(keys) <= launch.MOST_ENTRIES and rounds <= launch.MOST_ROUNDS and (rounds == 0 or c.lsh_window > 1)


def _of(heads: FusedHeads, caches: Iterator[Any]) -> tuple[launch.Window | None, launch.Rings | None]:
    """A layer's caches, which are the next."""
    window, rings = None, None
    if heads.local is not None:
        cache = next(caches)
        window = launch.Window(cache.keys, cache.values)
    if heads.lsh is not None:
        cache, c = next(caches), heads.config
        rings = launch.Rings(
            cache.pairs, cache.times, cache.ids, cache.counts, cache.last, cache.key_inputs, cache.sizes,
            cache.capacities[0], heads.lsh.rotations, heads.lsh.hash_mean, tuple(c.hash_factors),
            c.hash_rounds[1] if c.has_far_round else 0,
        )  # fmt: skip
    return window, rings
