"""Shortened layers in decoding: what is kept of the groups, and how their layers step, once a group."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from reformer.decode.cache import Cache, load_all, select_all, take, tensors_of
from reformer.decode.program import MOST_TOKENS, NativeProgram
from reformer.decode.step import DecodeStep
from reformer.errors import out_of_range
from reformer.layers.shorten_maps import ShortenMaps
from reformer.ops.rotary import speeds
from reformer.reversible.sequence import ReversibleSequence


@dataclass
class GroupCache(Cache):
    """rows: [batch, size, d_model], that of token t at t modulo size; output: [batch, size, d_model], what the last
    whole group gives to the tokens from its last one on; caches: those of the layers."""

    fixed_shape = False  # they are worked on only now and then

    rows: Tensor
    output: Tensor
    caches: list[Cache | None]
    program: NativeProgram | None = field(default=None, repr=False)  # the layers in C, where that can be

    @classmethod
    def empty(cls, batch: int, maps: ShortenMaps, inner: ReversibleSequence) -> GroupCache:
        rows, output = (maps.down.weight.new_zeros(batch, maps.size, len(maps.down.weight)) for _ in range(2))
        return cls(rows, output, inner.new_caches(batch))

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(cache.nbytes for cache in self.caches if cache is not None)

    def select(self, rows: Tensor) -> GroupCache:
        return GroupCache(self.rows[rows], self.output[rows], select_all(self.caches, rows))

    def tensors(self, seen: int) -> dict[str, Tensor]:
        return {"rows": self.rows, "output": self.output, **tensors_of(self.caches, seen // self.rows.shape[1])}

    def load(self, tensors: dict[str, Tensor], seen: Tensor) -> None:
        for own, name in ((self.rows, "rows"), (self.output, "output")):
            own.copy_(take(tensors, name, own.dtype, own.shape))
        load_all(self.caches, tensors, seen // self.rows.shape[1])

    def decode(self, maps: ShortenMaps, inner: ReversibleSequence, x: Tensor, step: DecodeStep) -> Tensor:
        """What groups give to new tokens x [batch, new, d_model], whose own groups `inner` steps through."""
        seen, counts = step.seen, step.new
        if x.shape[1] == 1 and len(set(seen.tolist())) == 1 and bool((counts == 1).all()):
            return self._single(maps, inner, x, step, int(seen[0]))
        size, (batch, new, d) = maps.size, x.shape
        before = seen // size  # groups that were whole
        done = (seen + counts) // size - before
        most = int(done.max())
        output = self.output[:, None]
        if most:
            first = before * size - seen  # of the first group's first token, among the new ones
            index = first[:, None] + torch.arange(most * size, device=x.device)
            fresh = x.gather(1, index.clamp(0, new - 1)[..., None].expand(-1, -1, d))
            rows = torch.where((index < 0)[..., None], self.rows.repeat(1, most, 1), fresh)
            h = self._layers(maps, inner, rows, DecodeStep(step.rotary, before, done))
            output = torch.cat([output, maps.upsample(h).view(batch, most, size, d)], 1)
            self.output = output[torch.arange(batch, device=x.device), done].to(self.output.dtype)
        now = seen[:, None] + torch.arange(new, device=x.device)
        nth, place = ((now + 1) // size - before[:, None]).clamp_max(most), (now + 1) % size
        added = output.flatten(1, 2).gather(1, (nth * size + place)[..., None].expand(-1, -1, d))
        index = torch.arange(new, device=x.device)
        b, i = ((index < counts[:, None]) & (index >= counts[:, None] - size)).nonzero(as_tuple=True)
        self.rows[b, now[b, i] % size] = x[b, i]
        return added

    def _single(
        self, maps: ShortenMaps, inner: ReversibleSequence, x: Tensor, step: DecodeStep, position: int
    ) -> Tensor:
        """`decode` of one token in every row, all at the same position."""
        place = position % maps.size
        self.rows[:, place] = x[:, 0]
        if place == maps.size - 1:
            of_group = DecodeStep(step.rotary, step.seen // maps.size, step.new)
            self.output = maps.upsample(self._layers(maps, inner, self.rows, of_group)).to(self.output.dtype)
        place = (place + 1) % maps.size
        return self.output[:, place : place + 1].to(x.dtype)

    def _layers(self, maps: ShortenMaps, inner: ReversibleSequence, rows: Tensor, step: DecodeStep) -> Tensor:
        """Merged streams [batch, new, d_model] of new groups, whose tokens' rows are [batch, new * size, d_model]."""
        if step.rotary is not None:
            step = dataclasses.replace(step, rotary=dataclasses.replace(step.rotary, starts=step.seen))
        batch, new = len(rows), rows.shape[1] // maps.size
        shape = (batch, new, rows.shape[2])
        name = f"groups of {maps.size}"
        pair = inner.streams.begin(shape, lambda here: maps.downsample(rows), [slice(0, new)], name)
        if self.program is not None and batch * new <= MOST_TOKENS and bool((step.new == new).all()):
            for there, here in zip(self.program.streams, pair, strict=True):
                there[: batch * new] = here.flatten(0, 1)
            _, bad = self.program.run(None, new, step.seen)
            if bad is not None:
                raise out_of_range(inner.couplings[bad].name, inner.streams.bits)
            pair = [s[: batch * new].view(shape) for s in self.program.streams]
        else:
            inner.decode(pair, step, self.caches)
        return inner.streams.merge(pair)

    def record(self, maps: ShortenMaps, inner: ReversibleSequence, program: NativeProgram, reads: int) -> Tensor | None:
        """`decode` by a call between two parts of a program: what is to be added. The layers are a program of their
        own, as far as all rows complete as many groups; None where a layer cannot be."""
        own, rotary = NativeProgram(program.batch, program.d_model, inner.streams.bits), program.rotary
        if rotary is not None:
            own.phases = own.phase(speeds(rotary.d_head, rotary.device))
        if not inner.record(own, self.caches):
            return None
        own.finish(own.buffer(1))  # its result is its streams
        self.program, output = own, program.buffer(program.d_model)

        def call(new: int, seen: Tensor) -> None:
            x = inner.streams.read(program.streams[reads][: program.batch * new]).view(program.batch, new, -1)
            step = DecodeStep(rotary, seen, torch.full_like(seen, new))
            output[: program.batch * new] = self.decode(maps, inner, x, step).flatten(0, 1)

        program.callback(call)
        return output
