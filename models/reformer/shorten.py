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
from typing import Any

import torch
from torch import Tensor, nn

from reformer.branch import Composite, Context, Progress, make_norm
from reformer.config import ReformerConfig
from reformer.fused import project
from reformer.state import nbytes_of, rows_of
from reformer.trunk import Coupling, Trunk, Undo, merge


class Groups(nn.Module):
    """The two maps between tokens and groups."""

    def __init__(self, config: ReformerConfig) -> None:
        super().__init__()
        d, self.size, self.backend, self.rms = config.d_model, config.shorten, config.backend, config.norm == "rms"
        # project has the RMS norm inside
        self.norm_down, self.norm_up = (nn.Identity() if self.rms else make_norm(config, n) for n in (self.size * d, d))
        self.down = nn.Linear(self.size * d, d, bias=False)
        self.output = nn.Linear(d, self.size * d, bias=False)

    def shortened(self, x: Tensor) -> Tensor:
        """Rows of whole groups [batch, groups * size, d_model] -> [batch, groups, d_model]."""
        flat = x.reshape(-1, self.down.in_features)
        (h,) = project(self.norm_down(flat), self.down.weight, 1, 1, None, None, rms=self.rms, backend=self.backend)
        return h.view(len(x), -1, h.shape[-1])

    def lengthened(self, h: Tensor) -> Tensor:
        """[batch, groups, d_model] -> what they give to their tokens [batch, groups * size, d_model]."""
        (x,) = project(
            self.norm_up(h.flatten(0, 1)), self.output.weight, 1, self.size, None, None, rms=self.rms,
            backend=self.backend,
        )  # fmt: skip
        return x.view(len(h), -1, h.shape[-1])


Rows = slice | tuple[Tensor, Tensor]  # of [batch, n, ..]: the same of every text, or (text, place) of each


@dataclass(frozen=True)
class Place:
    """Where rows lie: among the tokens of the texts, and among those of a slice of the groups."""

    tokens: Rows
    groups: Rows

    def of(self, x: Tensor) -> Tensor:
        """The rows among tokens [batch, length, ..]; a view where they lie in one piece."""
        return _pick(x, self.tokens)

    def cut(self, x: Tensor) -> Tensor:
        """The rows among those of the groups [batch, groups * size, ..], in the same order."""
        return _pick(x, self.groups)

    def put(self, x: Tensor, rows: Tensor) -> None:
        """What `of` gave and was changed is put back, where it is no view."""
        if not isinstance(self.tokens, slice):
            x[_on(x.device, self.tokens)] = rows[0]


def _pick(x: Tensor, rows: Rows) -> Tensor:
    return x[:, rows] if isinstance(rows, slice) else x[_on(x.device, rows)][None]


def _on(device: torch.device, index: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return index[0].to(device), index[1].to(device)


@dataclass(frozen=True)
class Membership:
    """Which tokens are in which group, and which read it. ends: int64 [batch, count], each group's last token, or
    `length` where a text has fewer groups; served: bool [batch, count, size], which of the tokens from the last one on
    are of its document; documents: int [batch, count]. All three None: the texts are of one document each."""

    size: int
    batch: int
    length: int
    ends: Tensor | None = None
    served: Tensor | None = None
    documents: Tensor | None = None

    @property
    def count(self) -> int:
        """Groups of a text, at most."""
        return self.length // self.size

    def slices(self, trunk: Trunk) -> list[slice]:
        """Of the groups, each of at most `trunk.size` tokens."""
        return trunk.slices(self.batch * self.size, self.count)

    def members(self, here: slice) -> Place:
        """The tokens that groups are made of."""
        if self.ends is None:
            return Place(slice(here.start * self.size, here.stop * self.size), slice(None))
        ends = self.ends[:, here]
        return self._place(ends, 1 - self.size, (ends < self.length)[..., None].expand(-1, -1, self.size))

    def readers(self, here: slice) -> Place:
        """The tokens that groups give to."""
        if self.ends is None or self.served is None:
            first = (here.start + 1) * self.size - 1
            stop = min(self.length, (here.stop + 1) * self.size - 1)
            return Place(slice(first, stop), slice(0, stop - first))
        return self._place(self.ends[:, here], 0, self.served[:, here])

    def _place(self, ends: Tensor, first: int, there: Tensor) -> Place:
        index = ends[..., None] + torch.arange(first, first + self.size, device=ends.device)
        text, row = there.flatten(1).nonzero(as_tuple=True)
        return Place((text, index.flatten(1)[text, row]), (text, row))

    def whole(self, x: Tensor, here: slice) -> Tensor:
        """The rows of groups [batch, groups * size, ..]; 0 where a text has fewer of them."""
        place = self.members(here)
        rows = place.of(x)
        if isinstance(place.groups, slice):
            return rows
        found = x.new_zeros(self.batch, (here.stop - here.start) * self.size, *x.shape[2:])
        found[_on(x.device, place.groups)] = rows[0]
        return found


def membership(size: int, batch: int, length: int, documents: Tensor | None) -> Membership:
    """Of texts [batch, length]; documents: as in Context."""
    count = length // size
    if documents is None or not count:
        return Membership(size, batch, length)
    time = torch.arange(length, device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    place = time - torch.where(begins, time, 0).cummax(1).values
    ends = torch.where(place % size == size - 1, time, length).sort(1).values[:, :count]
    beyond = documents.amax(1, keepdim=True) + 1  # a document of its own
    padded = torch.cat([documents, beyond.expand(-1, size)], 1)  # what comes after the text
    of = padded.gather(1, ends)
    after = ends[..., None] + torch.arange(size, device=ends.device)
    served = (after < length) & (padded.gather(1, after.flatten(1)).view_as(after) == of[..., None])
    return Membership(size, batch, length, ends, served, of)


@dataclass(frozen=True)
class Kept:
    """What backward needs of a pass: the groups' streams at their end, and the routing of the layers' steps."""

    streams: list[Tensor]
    routings: list[Any]


@dataclass
class GroupState:
    """What decoding keeps of the groups. begun: [batch, size, d_model], the row of token t at t modulo size; given:
    [batch, size, d_model], what the last whole group gives to the tokens from its last one on; layers: one state a
    branch."""

    begun: Tensor
    given: Tensor
    layers: list[Any]

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        own = sum(x.numel() * x.element_size() for x in (self.begun, self.given))
        return own + sum(nbytes_of(layer) for layer in self.layers)

    def rows(self, index: Tensor) -> GroupState:
        """An independent copy of these rows of the batch."""
        return GroupState(self.begun[index], self.given[index], [rows_of(layer, index) for layer in self.layers])


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
        size, (batch, new, d) = self.groups.size, x.shape
        starts, counts = progress.starts, progress.counts
        before = starts // size  # groups that were whole
        done = (starts + counts) // size - before
        most = int(done.max())
        given = state.given[:, None]
        if most:
            h = self._groups(x, most, Progress(progress.rotary, before, done), starts, state)
            given = torch.cat([given, self.groups.lengthened(h).view(batch, most, size, d)], 1)
            state.given = given[torch.arange(batch, device=x.device), done].to(state.given.dtype)
        now = starts[:, None] + torch.arange(new, device=x.device)
        nth, place = ((now + 1) // size - before[:, None]).clamp_max(most), (now + 1) % size
        added = given.flatten(1, 2).gather(1, (nth * size + place)[..., None].expand(-1, -1, d))
        index = torch.arange(new, device=x.device)
        b, i = ((index < counts[:, None]) & (index >= counts[:, None] - size)).nonzero(as_tuple=True)
        state.begun[b, now[b, i] % size] = x[b, i]
        return added

    def _groups(self, x: Tensor, most: int, progress: Progress, starts: Tensor, state: GroupState) -> Tensor:
        """The merged streams [batch, most, d_model] of the groups that new tokens x complete."""
        size, (batch, new, d), trunk = self.groups.size, x.shape, self.inner
        first = progress.starts * size - starts  # of the first group's first token, among the new ones
        index = first[:, None] + torch.arange(most * size, device=x.device)
        fresh = x.gather(1, index.clamp(0, new - 1)[..., None].expand(-1, -1, d))
        rows = torch.where((index < 0)[..., None], state.begun.repeat(1, most, 1), fresh)
        if progress.rotary is not None:
            progress = dataclasses.replace(
                progress, rotary=dataclasses.replace(progress.rotary, starts=progress.starts)
            )
        streams = trunk.begin((batch, most, d), lambda here: self.groups.shortened(rows), [slice(0, most)], "groups")
        for c, layer in zip(trunk.couplings, state.layers, strict=True):
            trunk.add_(streams[c.target], c.branch.step(trunk.read(streams[c.source]), progress, layer), c.name)
        return merge(trunk, streams, concat=False)


@dataclass(frozen=True)
class Within:
    """The layers' trunk, who is in which group, and what the layers' pass knows."""

    inner: Trunk
    members: Membership
    context: Context
