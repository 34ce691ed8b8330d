"""The reversible layers: couplings in order, forwards, backwards and token by token (README.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from torch import nn

from reformer.backends.gpu import room, unused
from reformer.config import ReformerConfig
from reformer.decode.cache import Cache
from reformer.decode.program import NativeProgram
from reformer.decode.step import DecodeStep
from reformer.layers.context import PassContext
from reformer.reversible.backward import BackwardPass, Totals
from reformer.reversible.coupling import Coupling, Observer, Step
from reformer.reversible.streams import Pair, Streams

AT_ONCE = 3  # times what a fused step keeps is what it holds in backward: 2.5 and 2.8 on an H200 (LOG.md, 2026-11-27)
EXTEND_AT_ONCE = 4096  # tokens of one slice of a long extend, at least


@dataclass(frozen=True)
class ReversibleSequence:
    """streams: how they are kept; chunk_heads: attention heads run together; graph_bytes: of all sub-layers' graphs a
    token, about; prefill_bytes: that `prefill` needs a token, about; fused: the same steps on a GPU, where they can be
    (fused.py)."""

    streams: Streams
    couplings: Sequence[Coupling]
    chunk_heads: int
    graph_bytes: int = 0
    prefill_bytes: int = 1
    fused: Sequence[Step] | None = None

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of all couplings, in order."""
        for coupling in self.couplings:
            yield from coupling.parameters()

    def steps(self, fused: bool = True) -> Sequence[Step]:
        """What is done one after the other: couplings, those of attention a group of heads at a time; or, if it may be
        and can, fused ones."""
        if fused and self.fused is not None:
            return self.fused
        return self.in_groups()

    def in_groups(self) -> list[Coupling]:
        """The couplings, those of attention a group of heads at a time."""
        return [step for coupling in self.couplings for step in coupling.in_groups(self.chunk_heads)]

    def for_text(self, tokens: int, d_model: int) -> ReversibleSequence:
        """This, or, where a GPU has no room for what fused steps make of so many tokens at once, without those: slice
        by slice, slower."""
        if self.fused is None:
            return self
        low, gradients = self.streams.products.itemsize, self.streams.gradient_dtype.itemsize
        needed = 2 * d_model * (4 + gradients) + AT_ONCE * max(step.kept_bytes(low) for step in self.fused)
        return self if tokens * needed <= unused(self.streams.device) else replace(self, fused=None)

    def run(
        self, pair: Pair, context: PassContext, saved: Sequence[Any] | None = None, observer: Observer | None = None,
        kept: list[Any] | None = None, first: int = 0,
    ) -> list[Any]:  # fmt: skip
        """Advance both int32 streams [batch, length, d_model] in place; returns what every step has to save: the
        buckets of hashed heads, and what a nested coupling needs.

        saved: what an earlier run has returned, in a replay, which begins at step `first`. observer: see there. kept:
        is filled, for `run_back`, with the activations of as many of the first steps as `keeps` says.
        """
        found: list[Any] = list(saved[:first]) if saved is not None else []
        keep = self.keeps(*pair[0].shape[:2]) if kept is not None else 0
        self.streams.normed.clear()
        for number, step in list(enumerate(self.steps(observer is None)))[first:]:
            if kept is not None and number < keep:
                given, more = step.run_kept(self.streams, number, pair, context)
                kept.append(more)
            else:
                given = saved[number] if saved is not None else None
                given = step.run(self.streams, number, pair, context, given, observer)
            found.append(given)
        self.streams.normed.clear()
        return found

    def prefill(self, pair: Pair, context: PassContext, caches: Sequence[Cache | None]) -> None:
        """`run` in evaluation, of texts from their first token on; the caches, which are empty, take them in."""
        left = iter(caches)
        self.streams.normed.clear()
        for number, step in enumerate(self.fused or self.couplings):
            step.prefill(self.streams, number, pair, context, left)
        self.streams.normed.clear()

    @property
    def prefills(self) -> bool:
        """Whether `prefill` is faster than `decode`: on a CPU C is."""
        return self.streams.device.type != "cpu" or self.fused is not None

    def tokens_at_once(self, rows: int) -> int:
        """See `ReformerLM.tokens_at_once`."""
        device = self.streams.device
        fits = room(device) // self.prefill_bytes if device.type != "cpu" else 0
        return max(1, max(EXTEND_AT_ONCE, fits) // rows)

    def keeps(self, batch: int, length: int) -> int:
        """Of how many of the first steps backward is to use the activations of forward and not make them again: as many
        as there is room for; of those that run slice by slice, for texts of one slice."""
        tokens, left = batch * length, room(self.streams.device)
        if self.fused is None and tokens > self.streams.chunk_tokens:
            return 0
        low, n = self.streams.products.itemsize, len(self.steps())
        sizes = [step.kept_bytes(low) for step in self.fused] if self.fused else [self.graph_bytes / n] * n
        return sum(tokens * whole <= left for whole in accumulate(sizes))

    def run_back(
        self, pair: Pair, gradients: Pair, context: PassContext, saved: Sequence[Any], kept: list[Any] | None = None
    ) -> Totals:
        """Take back `run` in place, advancing the gradients of the streams too. Returns id(parameter) -> gradient.

        kept: as `run` filled it, which is emptied; the streams then stand where its steps end.
        """
        totals: Totals = {}
        self.streams.low.clear()
        for number, step in reversed(list(enumerate(self.steps()))):
            back = BackwardPass(
                self.streams, number, context, pair, gradients, totals, step.reads, step.writes, step.parameters()
            )
            if kept and number < len(kept):
                step.back_kept(back, kept.pop())
            else:
                step.run_back(back, saved[number])
        self.streams.low.clear()
        return totals

    def new_caches(self, batch: int) -> list[Cache | None]:
        """One a coupling, empty."""
        return [coupling.new_cache(batch) for coupling in self.couplings]

    def decode(self, pair: Pair, step: DecodeStep, caches: Sequence[Cache | None]) -> None:
        """Advance the streams of new tokens in place, and the caches."""
        for coupling, cache in zip(self.couplings, caches, strict=True):
            added = coupling.decode(self.streams.read(pair[coupling.reads]), step, cache)
            self.streams.add_(pair[coupling.writes], added, coupling.name)

    def record(self, program: NativeProgram, caches: Sequence[Cache | None]) -> bool:
        """Emit `decode` over these caches; whether the program has operations for all of it."""
        for number, (coupling, cache) in enumerate(zip(self.couplings, caches, strict=True)):
            added = coupling.record(program, cache)
            if added is None:
                return False
            program.add(coupling.writes, added, number)
        return True


def graph_bytes(config: ReformerConfig, wide: int, low: int = 2) -> int:
    """Of all layers, a token, about: what their graphs hold. wide, low: bytes of a number in streams, in products."""
    heads, d_ff = config.n_heads * config.d_head, config.d_ff or 4 * config.d_model
    attention = config.d_model * (wide + low) + heads * 8 * low
    feed_forward = config.d_model * (wide + low) + 3 * d_ff * low
    grouped = len(config.group_layers)
    layers = config.n_layers - grouped + grouped / config.shorten_factor
    return math.ceil(layers * (attention + feed_forward))


def prefill_bytes(config: ReformerConfig) -> int:
    """Of a token, at most about: both streams, what a sub-layer makes of them, what is put into caches."""
    d_ff, rounds = config.d_ff or 4 * config.d_model, len(config.hash_rounds)
    head = 48 * config.d_head + rounds * (24 * config.d_head + 128)
    return 40 * config.d_model + 8 * d_ff + config.n_heads * head
