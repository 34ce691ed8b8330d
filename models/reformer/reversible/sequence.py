"""The reversible layers: couplings in order, forwards, backwards and token by token (README.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reformer.config import MOST_KEPT_ACTIVATIONS, ReformerConfig
from reformer.decode.cache import Cache
from reformer.decode.program import NativeProgram
from reformer.decode.step import DecodeStep
from reformer.layers.context import PassContext
from reformer.reversible.backward import BackwardPass, Totals
from reformer.reversible.coupling import Coupling, Observer
from reformer.reversible.streams import Pair, Streams

Graph = tuple[Tensor, Tensor]  # of a step: what f was given, and what it added


@dataclass(frozen=True)
class ReversibleSequence:
    """streams: how they are kept; chunk_heads: attention heads run together; graph_bytes: of all sub-layers' graphs a
    token, about; most_graph_bytes: that may be kept of them from forward to backward."""

    streams: Streams
    couplings: Sequence[Coupling]
    chunk_heads: int
    graph_bytes: int = 0

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of all couplings, in order."""
        for coupling in self.couplings:
            yield from coupling.parameters()

    def steps(self) -> list[Coupling]:
        """What is done one after the other: couplings, those of attention a group of heads at a time."""
        return [step for coupling in self.couplings for step in coupling.in_groups(self.chunk_heads)]

    def run(
        self, pair: Pair, context: PassContext, saved: Sequence[Any] | None = None, observer: Observer | None = None,
        graphs: list[Graph] | None = None,
    ) -> list[Any]:  # fmt: skip
        """Advance both int32 streams [batch, length, d_model] in place; returns what every step has to save: the
        buckets of hashed heads, and what a nested coupling needs.

        saved: what an earlier run has returned, in a replay. observer: see there. graphs: is filled with the graph of
        every step, for `run_back`; of a text that is one slice (`keeps_graphs`).
        """
        found: list[Any] = []
        for number, step in enumerate(self.steps()):
            if graphs is not None:
                with torch.enable_grad():
                    x = self.streams.read(pair[step.reads]).requires_grad_()
                    added, kept = step.with_graph(self.streams, number, x, context)
                self.streams.add_(pair[step.writes], added.detach(), step.name)
                graphs.append((x, added))
            else:
                given = saved[number] if saved is not None else None
                kept = step.run(self.streams, number, pair, context, given, observer)
            found.append(kept)
        self.streams.check_range()
        return found

    def keeps_graphs(self, batch: int, length: int) -> bool:
        """Whether backward is to use the graphs of forward and not make them again: for texts of one slice, of which
        they are small."""
        tokens = batch * length
        return tokens <= self.streams.chunk_tokens and tokens * self.graph_bytes <= MOST_KEPT_ACTIVATIONS

    def run_back(
        self, pair: Pair, gradients: Pair, context: PassContext, saved: Sequence[Any], graphs: list[Graph] | None = None
    ) -> Totals:
        """Take back `run` in place, advancing the gradients of the streams too. Returns id(parameter) -> gradient.

        graphs: as `run` filled it, which is emptied; the streams then stay as they are.
        """
        totals: Totals = {}
        for number, step in reversed(list(enumerate(self.steps()))):
            back = BackwardPass(
                self.streams, number, context, pair, gradients, totals, step.reads, step.writes, step.parameters()
            )
            if graphs:
                back.from_graph(*graphs.pop())
            else:
                step.run_back(back, saved[number])
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
