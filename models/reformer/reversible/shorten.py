"""Shortening: layers that run on groups of tokens, as one coupling of the others (after Hourglass, arXiv 2110.13711).

    streams[target] += up(layers(down(streams[source])))

down: the rows of a group's tokens, side by side, normed, times a matrix. The layers have two fixed-point streams of
their own, a row a group, and are run back as those are. up: what a group gives to each of the tokens from its last
one on, until the next group is complete: nothing is known before it is read. Groups begin anew with each document; of a
document's end, what fills no group is in none, and no token reads a group of another document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from reformer.decode.cache import Cache
from reformer.decode.group_cache import GroupCache
from reformer.decode.program import NativeProgram
from reformer.decode.step import DecodeStep
from reformer.layers.context import PassContext
from reformer.layers.shorten_maps import ShortenMaps
from reformer.reversible.backward import BackwardPass
from reformer.reversible.coupling import Coupling, Observer
from reformer.reversible.groups import GroupIndex, index_groups
from reformer.reversible.reference import run_reference, straight_through
from reformer.reversible.sequence import ReversibleSequence
from reformer.reversible.shorten_decode import GroupDecoder, new_cache
from reformer.reversible.streams import Pair, Streams


@dataclass(frozen=True)
class Saved:
    """What backward needs of a pass: the groups' streams at their end, and what the layers' steps have saved."""

    pair: list[Tensor]
    steps: list[Any]


@dataclass(frozen=True)
class Inside:
    """The layers on groups, who is in which, and what the layers' pass knows."""

    sequence: ReversibleSequence
    groups: GroupIndex
    context: PassContext

    def merged(self, pair: Pair, here: slice) -> Tensor:
        """A slice of the groups' streams, as `upsample` reads it."""
        return self.sequence.streams.merge([s[:, here] for s in pair])


@dataclass(frozen=True)
class ShortenedCoupling(Coupling):
    """The layers of `inner` on groups."""

    maps: ShortenMaps
    inner: ReversibleSequence

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.maps.parameters()
        yield from self.inner.parameters()

    def in_groups(self, chunk_heads: int) -> list[Coupling]:
        return [replace(self, inner=replace(self.inner, chunk_heads=chunk_heads))]

    def inside(self, number: int, context: PassContext, batch: int, length: int) -> Inside:
        """What a pass over texts [batch, length] has to do with groups."""
        groups = index_groups(self.maps.size, batch, length, context.documents)
        seed = context.dropout_seed
        seed = None if seed is None else seed * 1_000_003 + number  # of no step outside: those are multiplied once more
        return Inside(self.inner, groups, PassContext(context.rotary, groups.documents, seed))

    def run(
        self, streams: Streams, number: int, pair: Pair, context: PassContext, saved: Saved | None,
        observer: Observer | None,
    ) -> Saved:  # fmt: skip
        before = saved.steps if saved is not None else None

        def layers(inside: Inside, own: Pair) -> list[Any]:
            return inside.sequence.run(own, inside.context, before, observer)

        return self._run(streams, number, pair, context, layers)

    def prefill(self, streams: Streams, number: int, pair: Pair, context: PassContext, caches: Iterator[Any]) -> None:
        cache: GroupCache = next(caches)
        cache.keep_rows(streams.read(pair[self.reads][:, -self.maps.size :]), pair[0].shape[1])

        def layers(inside: Inside, own: Pair) -> list[Any]:
            inside.sequence.prefill(own, inside.context, cache.caches)
            cache.output.copy_(self.maps.upsample(inside.merged(own, slice(inside.groups.count - 1, None))))
            return []

        self._run(streams, number, pair, context, layers)

    def _run(
        self, streams: Streams, number: int, pair: Pair, context: PassContext,
        layers: Callable[[Inside, Pair], list[Any]],
    ) -> Saved:  # fmt: skip
        """Advance the stream that is written; layers: what advances those of the groups, and returns what it saves."""
        x, y = pair[self.reads], pair[self.writes]
        inside = self.inside(number, context, *x.shape[:2])
        groups = inside.groups
        if not groups.count:
            return Saved([], [])
        slices = groups.slices(streams)

        def rows_of(here: slice) -> Tensor:
            return self.maps.downsample(streams.read(groups.whole(x, here)))

        own = inside.sequence.streams.begin((x.shape[0], groups.count, x.shape[2]), rows_of, slices, self.name)
        steps = layers(inside, own)
        for here in slices:
            place = groups.readers(here)
            added = self.maps.upsample(inside.merged(own, here))
            added = streams.drop(added, number, context, here.start)
            part = place.of(y)
            streams.add_(part, place.cut(added), self.name)
            place.put(y, part)
        return Saved(own, steps)

    def with_graph(self, streams: Streams, number: int, x: Tensor, context: PassContext) -> tuple[Tensor, Saved]:
        inside = self.inside(number, context, *x.shape[:2])
        groups = inside.groups
        if not groups.count:
            return x * 0, Saved([], [])  # with a graph
        slices = groups.slices(streams)
        rows = torch.cat([self.maps.downsample(groups.whole(x, here)) for here in slices], 1)
        own, float_streams, steps = run_reference(inside.sequence, rows, inside.context)
        h = straight_through(inside.sequence.streams, own[0] + own[1], *float_streams)
        numbers, index = torch.arange(x.shape[0] * x.shape[1], device=x.device).view(x.shape[:2]), []
        parts = []
        for here in slices:
            place, given = groups.readers(here), self.maps.upsample(h[:, here])
            index.append(place.of(numbers).flatten())
            parts.append(place.cut(streams.drop(given, number, context, here.start)).flatten(0, 1))
        found = torch.cat(parts)
        added = found.new_zeros(numbers.numel(), x.shape[2]).index_put((torch.cat(index),), found)
        return added.view_as(x), Saved(own, steps)

    def run_back(self, back: BackwardPass, saved: Saved) -> None:
        inside = self.inside(back.number, back.context, *back.x.shape[:2])
        if not inside.groups.count:
            return
        back.trained = [p for p in self.maps.parameters() if p.requires_grad]
        slices = inside.groups.slices(back.streams)[::-1]
        upper = self._upsample_back(back, inside, saved.pair, slices)
        gradients = [upper, upper.clone()]
        back.totals.update(inside.sequence.run_back(saved.pair, gradients, inside.context, saved.steps))
        for here in slices:
            with torch.enable_grad():
                x = back.streams.read(inside.groups.whole(back.x, here)).requires_grad_()
                h = self.maps.downsample(x)
            d_h = gradients[0][:, here] + gradients[1][:, here]
            (dx,) = back.differentiate([h], [x], [d_h.to(h.dtype)])
            place = inside.groups.members(here)
            part = place.of(back.dx)
            part += place.cut(dx)
            place.put(back.dx, part)

    def _upsample_back(self, back: BackwardPass, inside: Inside, own: Pair, slices: list[slice]) -> Tensor:
        """The gradient of the groups' merged streams; the tokens' stream is restored."""
        upper = torch.empty_like(own[0], dtype=back.streams.gradient_dtype)
        for here in slices:
            place = inside.groups.readers(here)
            with torch.enable_grad():
                h = inside.merged(own, here).requires_grad_()
                added = place.cut(back.drop(self.maps.upsample(h), here))
            part = place.of(back.y)
            back.streams.subtract_(part, added.detach())
            place.put(back.y, part)
            d_added = place.of(back.dy).to(added.dtype)
            (upper[:, here],) = back.differentiate([added], [h], [d_added])
        return upper

    def new_cache(self, batch: int) -> Cache:
        return new_cache(batch, self.maps, self.inner)

    def decode(self, x: Tensor, step: DecodeStep, cache: GroupCache) -> Tensor:
        return GroupDecoder(self.maps, self.inner, cache).decode(x, step)

    def record(self, program: NativeProgram, cache: GroupCache) -> Tensor | None:
        return GroupDecoder(self.maps, self.inner, cache).record(program, self.reads)
