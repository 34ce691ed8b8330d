"""Shortening: layers that run on groups of tokens, as one coupling of the trunk (after Hourglass, arXiv 2110.13711).

    streams[target] += up(layers(down(streams[source])))

down: the rows of a group's tokens, side by side, normed, times a matrix. The layers have two fixed-point streams of
their own, a row a group, and are run back as the trunk is. up: what a group gives to each of the tokens from its last
one on, until the next group is complete: nothing is known before it is read. Groups begin anew with each document; of a
document's end, what fills no group is in none, and no token reads a group of another document.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reformer.layers.sublayer import Composite, Context, Progress
from reformer.reversible.groups import Groups, Membership, membership
from reformer.reversible.reference import plain, straight_through
from reformer.reversible.sequence import Coupling, Trunk, merge
from reformer.reversible.shorten_cache import GroupState, advance, record

if TYPE_CHECKING:
    from reformer.decode.program import Tape
    from reformer.reversible.backward import Undo


@dataclass(frozen=True)
class Kept:
    """What backward needs of a pass: the groups' streams at their end, and the routing of the layers' steps."""

    streams: list[Tensor]
    routings: list[Any]


@dataclass(frozen=True)
class Shortened(Composite):
    """The layers of `inner` on groups."""

    groups: Groups
    inner: Trunk

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.groups.parameters()
        for c in self.inner.couplings:
            yield from c.branch.parameters()

    def within(self, trunk: Trunk, number: int, context: Context, batch: int, length: int) -> Within:
        """What a pass over texts [batch, length] has to do with groups."""
        members = membership(self.groups.size, batch, length, context.documents)
        seed = context.dropout_seed
        seed = None if seed is None else seed * 1_000_003 + number  # of no step outside: those are multiplied once more
        inner = dataclasses.replace(self.inner, head_group=trunk.head_group)
        return Within(inner, members, Context(context.rotary, members.documents, seed))

    def run(
        self, trunk: Trunk, coupling: Coupling, number: int, streams: Sequence[Tensor], context: Context, kept: Any,
        watch: Callable[[Coupling, slice, tuple[Tensor, ...]], None] | None,
    ) -> Kept:  # fmt: skip
        source, target = streams[coupling.source], streams[coupling.target]
        w = self.within(trunk, number, context, *source.shape[:2])
        if not w.members.count:
            return Kept([], [])
        shape = (source.shape[0], w.members.count, source.shape[2])
        slices = w.members.slices(trunk)
        rows = w.inner.begin(
            shape, lambda here: self.groups.shortened(trunk.read(w.members.whole(source, here))), slices, coupling.name
        )
        routings = w.inner.run(rows, w.context, kept.routings if kept is not None else None, watch)
        for here in slices:
            place = w.members.readers(here)
            added = self.groups.lengthened(merge(w.inner, [s[:, here] for s in rows], concat=False))
            added = trunk.dropped(added, number, context, here.start)
            part = place.of(target)
            trunk.add_(part, place.cut(added), coupling.name)
            place.put(target, part)
        return Kept(rows, routings)

    def whole(self, trunk: Trunk, x: Tensor, number: int, context: Context) -> tuple[Tensor, Kept]:
        w = self.within(trunk, number, context, *x.shape[:2])
        if not w.members.count:
            return x * 0, Kept([], [])  # with a graph
        slices = w.members.slices(trunk)
        begun = torch.cat([self.groups.shortened(w.members.whole(x, here)) for here in slices], 1)
        integers, ghosts, routings = plain(w.inner, begun, w.context)
        h = straight_through(w.inner, integers[0] + integers[1], *ghosts)
        rows, index = torch.arange(x.shape[0] * x.shape[1], device=x.device).view(x.shape[:2]), []
        parts = []
        for here in slices:
            place, given = w.members.readers(here), self.groups.lengthened(h[:, here])
            index.append(place.of(rows).flatten())
            parts.append(place.cut(trunk.dropped(given, number, context, here.start)).flatten(0, 1))
        found = torch.cat(parts)
        added = found.new_zeros(rows.numel(), x.shape[2]).index_put((torch.cat(index),), found)
        return added.view_as(x), Kept(integers, routings)

    def back(self, undo: Undo, kept: Kept) -> None:
        trunk, number, context, source, target = undo.trunk, undo.number, undo.context, undo.source, undo.target
        w = self.within(trunk, number, context, *source.shape[:2])
        if not w.members.count:
            return
        undo.wanted = [p for p in self.groups.parameters() if p.requires_grad]
        slices = w.members.slices(trunk)[::-1]
        upper = torch.empty_like(kept.streams[0], dtype=trunk.gradient_dtype)
        for here in slices:
            place = w.members.readers(here)
            with torch.enable_grad():
                h = merge(w.inner, [s[:, here] for s in kept.streams], concat=False).requires_grad_()
                added = place.cut(trunk.dropped(self.groups.lengthened(h), number, context, here.start))
            part = place.of(target)
            trunk.subtract_(part, added.detach())
            place.put(target, part)
            d_added = place.of(undo.d_target).to(added.device, added.dtype)
            (upper[:, here],) = undo.differentiate([added], [h], [d_added])
        gradients = [upper, upper.clone()]
        undo.totals.update(w.inner.run_back(kept.streams, gradients, w.context, kept.routings))
        for here in slices:
            with torch.enable_grad():
                x = trunk.read(w.members.whole(source, here)).requires_grad_()
                h = self.groups.shortened(x)
            d_h = gradients[0][:, here] + gradients[1][:, here]
            (dx,) = undo.differentiate([h], [x], [d_h.to(h.device, h.dtype)])
            place = w.members.members(here)
            part = place.of(undo.d_source)
            part += place.cut(dx).to(part.device)
            place.put(undo.d_source, part)

    def start(self, batch: int) -> GroupState:
        like, size = self.groups.down.weight, self.groups.size
        begun, given = (like.new_zeros(batch, size, len(like)) for _ in range(2))
        return GroupState(begun, given, [c.branch.start(batch) for c in self.inner.couplings])

    def step(self, x: Tensor, progress: Progress, state: GroupState) -> Tensor:
        return advance(self.groups, self.inner, x, progress, state)

    def record(self, tape: Tape, source: int, state: GroupState) -> Tensor | None:
        return record(self.groups, self.inner, tape, source, state)


@dataclass(frozen=True)
class Within:
    """The layers' trunk, who is in which group, and what the layers' pass knows."""

    inner: Trunk
    members: Membership
    context: Context
