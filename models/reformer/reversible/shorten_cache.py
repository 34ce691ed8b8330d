"""Groups in decoding: what is kept of them, and how their layers step, once a group."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from reformer.decode.program import MOST_TOKENS, Tape
from reformer.decode.state import nbytes_of, rows_of
from reformer.errors import NumericalError
from reformer.layers.sublayer import Progress
from reformer.ops.rotary import speeds
from reformer.reversible.groups import Groups
from reformer.reversible.sequence import Trunk, merge


@dataclass
class GroupState:
    """What decoding keeps of the groups. begun: [batch, size, d_model], the row of token t at t modulo size; given:
    [batch, size, d_model], what the last whole group gives to the tokens from its last one on; layers: one state a
    branch."""

    begun: Tensor
    given: Tensor
    layers: list[Any]
    tape: Tape | None = field(default=None, repr=False)  # the layers as operations in C, where that can be

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        own = sum(x.numel() * x.element_size() for x in (self.begun, self.given))
        return own + sum(nbytes_of(layer) for layer in self.layers)

    def rows(self, index: Tensor) -> GroupState:
        """An independent copy of these rows of the batch."""
        return GroupState(self.begun[index], self.given[index], [rows_of(layer, index) for layer in self.layers])


def advance(groups: Groups, trunk: Trunk, x: Tensor, progress: Progress, state: GroupState) -> Tensor:
    """What groups give to new tokens x [batch, new, d_model], whose own groups their layers, `trunk`, step through."""
    starts, counts = progress.starts, progress.counts
    if x.shape[1] == 1 and len(set(starts.tolist())) == 1 and bool((counts == 1).all()):
        return _one(groups, trunk, x, progress, state, int(starts[0]))
    size, (batch, new, d) = groups.size, x.shape
    before = starts // size  # groups that were whole
    done = (starts + counts) // size - before
    most = int(done.max())
    given = state.given[:, None]
    if most:
        first = before * size - starts  # of the first group's first token, among the new ones
        index = first[:, None] + torch.arange(most * size, device=x.device)
        fresh = x.gather(1, index.clamp(0, new - 1)[..., None].expand(-1, -1, d))
        rows = torch.where((index < 0)[..., None], state.begun.repeat(1, most, 1), fresh)
        h = _layers(groups, trunk, rows, Progress(progress.rotary, before, done), state)
        given = torch.cat([given, groups.lengthened(h).view(batch, most, size, d)], 1)
        state.given = given[torch.arange(batch, device=x.device), done].to(state.given.dtype)
    now = starts[:, None] + torch.arange(new, device=x.device)
    nth, place = ((now + 1) // size - before[:, None]).clamp_max(most), (now + 1) % size
    added = given.flatten(1, 2).gather(1, (nth * size + place)[..., None].expand(-1, -1, d))
    index = torch.arange(new, device=x.device)
    b, i = ((index < counts[:, None]) & (index >= counts[:, None] - size)).nonzero(as_tuple=True)
    state.begun[b, now[b, i] % size] = x[b, i]
    return added


def _one(groups: Groups, trunk: Trunk, x: Tensor, progress: Progress, state: GroupState, position: int) -> Tensor:
    """`advance` of one token in every row, all at the same position."""
    place = position % groups.size
    state.begun[:, place] = x[:, 0]
    if place == groups.size - 1:
        of = Progress(progress.rotary, progress.starts // groups.size, progress.counts)
        state.given = groups.lengthened(_layers(groups, trunk, state.begun, of, state)).to(state.given.dtype)
    place = (place + 1) % groups.size
    return state.given[:, place : place + 1].to(x.dtype)


def _layers(groups: Groups, trunk: Trunk, rows: Tensor, progress: Progress, state: GroupState) -> Tensor:
    """The merged streams [batch, new, d_model] of new groups, whose tokens' rows are [batch, new * size, d_model]."""
    if progress.rotary is not None:
        progress = dataclasses.replace(progress, rotary=dataclasses.replace(progress.rotary, starts=progress.starts))
    batch, new = len(rows), rows.shape[1] // groups.size
    shape = (batch, new, rows.shape[2])
    streams = trunk.begin(shape, lambda here: groups.shortened(rows), [slice(0, new)], f"groups of {groups.size}")
    if state.tape is not None and batch * new <= MOST_TOKENS and bool((progress.counts == new).all()):
        for there, here in zip(state.tape.streams, streams, strict=True):
            there[: batch * new] = here.flatten(0, 1)
        _, bad = state.tape.run(None, new, progress.starts)
        if bad is not None:
            raise NumericalError(trunk.couplings[bad].name, "values leave the range of the residual streams")
        streams = [s[: batch * new].view(shape) for s in state.tape.streams]
    else:
        for c, layer in zip(trunk.couplings, state.layers, strict=True):
            trunk.add_(streams[c.target], c.branch.step(trunk.read(streams[c.source]), progress, layer), c.name)
    return merge(trunk, streams, concat=False)


def record(groups: Groups, trunk: Trunk, tape: Tape, source: int, state: GroupState) -> Tensor | None:
    """`advance` by a call between two parts of a tape: what is to be added. The layers are a tape of their own, as far
    as all rows complete as many groups; None where a layer cannot be."""
    inner, rotary = Tape(tape.batch, tape.d_model, trunk.bits), tape.rotary
    if rotary is not None:
        inner.turns = inner.phase(speeds(rotary.d_head, rotary.base, rotary.device))
    for n, (c, layer) in enumerate(zip(trunk.couplings, state.layers, strict=True)):
        added = c.branch.record(inner, c.source, layer)
        if added is None:
            return None
        inner.add(c.target, added, n)
    inner.finish(inner.buffer(1))  # its result is its streams
    state.tape, given = inner, tape.buffer(tape.d_model)

    def call(new: int, starts: Tensor) -> None:
        x = trunk.read(tape.streams[source][: tape.batch * new]).view(tape.batch, new, -1)
        progress = Progress(rotary, starts, torch.full_like(starts, new))
        given[: tape.batch * new] = advance(groups, trunk, x, progress, state).flatten(0, 1)

    tape.pause(call)
    return given
