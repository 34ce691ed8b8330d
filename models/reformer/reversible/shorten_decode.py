"""Shortened layers in decoding: how they step, once a group. What they keep is a `decode.group_cache.GroupCache`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from reformer.decode.group_cache import GroupCache
from reformer.decode.program import MOST_TOKENS, Kept, NativeProgram
from reformer.decode.step import DecodeStep
from reformer.errors import out_of_range
from reformer.layers.shorten_maps import ShortenMaps
from reformer.ops.rotary import speeds
from reformer.reversible.sequence import ReversibleSequence


def new_cache(batch: int, maps: ShortenMaps, inner: ReversibleSequence) -> GroupCache:
    """Of no token yet."""
    rows, output = (maps.down.weight.new_zeros(batch, maps.size, len(maps.down.weight)) for _ in range(2))
    return GroupCache(rows, output, inner.new_caches(batch))


@dataclass(frozen=True)
class GroupDecoder:
    """Shortened layers and what they keep."""

    maps: ShortenMaps
    inner: ReversibleSequence
    cache: GroupCache

    def decode(self, x: Tensor, step: DecodeStep) -> Tensor:
        """What groups give to new tokens x [batch, new, d_model], whose own groups `inner` steps through."""
        seen, counts = step.seen, step.new
        if x.shape[1] == 1 and len(set(seen.tolist())) == 1 and bool((counts == 1).all()):
            return self._single(x, step, int(seen[0]))
        size, (batch, new, d) = self.maps.size, x.shape
        before = seen // size  # groups that were whole
        done = (seen + counts) // size - before
        most = int(done.max())
        output = self.cache.output[:, None]
        if most:
            first = before * size - seen  # of the first group's first token, among the new ones
            index = first[:, None] + torch.arange(most * size, device=x.device)
            fresh = x.gather(1, index.clamp(0, new - 1)[..., None].expand(-1, -1, d))
            rows = torch.where((index < 0)[..., None], self.cache.rows.repeat(1, most, 1), fresh)
            h = self._layers(rows, DecodeStep(step.rotary, before, done))
            output = torch.cat([output, self.maps.upsample(h).view(batch, most, size, d)], 1)
            self.cache.output = output[torch.arange(batch, device=x.device), done].to(self.cache.output.dtype)
        now = seen[:, None] + torch.arange(new, device=x.device)
        nth, place = ((now + 1) // size - before[:, None]).clamp_max(most), (now + 1) % size
        added = output.flatten(1, 2).gather(1, (nth * size + place)[..., None].expand(-1, -1, d))
        index = torch.arange(new, device=x.device)
        b, i = ((index < counts[:, None]) & (index >= counts[:, None] - size)).nonzero(as_tuple=True)
        self.cache.rows[b, now[b, i] % size] = x[b, i]
        return added

    def _single(self, x: Tensor, step: DecodeStep, position: int) -> Tensor:
        """`decode` of one token in every row, all at the same position."""
        place = position % self.maps.size
        self.cache.rows[:, place] = x[:, 0]
        if place == self.maps.size - 1:
            of_group = DecodeStep(step.rotary, step.seen // self.maps.size, step.new)
            self.cache.output = self.maps.upsample(self._layers(self.cache.rows, of_group)).to(self.cache.output.dtype)
        place = (place + 1) % self.maps.size
        return self.cache.output[:, place : place + 1].to(x.dtype)

    def _layers(self, rows: Tensor, step: DecodeStep) -> Tensor:
        """Merged streams [batch, new, d_model] of new groups, whose tokens' rows are [batch, new * size, d_model]."""
        if step.rotary is not None:
            step = dataclasses.replace(step, rotary=dataclasses.replace(step.rotary, starts=step.seen))
        batch, new = len(rows), rows.shape[1] // self.maps.size
        shape = (batch, new, rows.shape[2])
        name = f"groups of {self.maps.size}"
        pair = self.inner.streams.begin(shape, lambda here: self.maps.downsample(rows), [slice(0, new)], name)
        if self.cache.program is not None and batch * new <= MOST_TOKENS and bool((step.new == new).all()):
            for there, here in zip(self.cache.program.streams, pair, strict=True):
                there[: batch * new] = here.flatten(0, 1)
            _, bad = self.cache.program.run(None, new, step.seen)
            if bad is not None:
                raise out_of_range(self.inner.couplings[bad].name, self.inner.streams.bits)
            pair = [s[: batch * new].view(shape) for s in self.cache.program.streams]
        else:
            self.inner.decode(pair, step, self.cache.caches)
        return self.inner.streams.merge(pair)

    def record(self, program: NativeProgram, reads: int) -> Tensor | None:
        """`decode` by a call between two parts of a program: what is to be added. The layers are a program of their
        own, as far as all rows complete as many groups; None where a layer cannot be."""
        own, rotary = NativeProgram(program.d_model, self.inner.streams.bits, self.cache.caches), program.rotary
        if rotary is not None:
            own.phases = own.phase(speeds(rotary.d_head, rotary.device))
        if not self.inner.record(own, self.cache.caches):
            return None
        own.finish(own.buffer(1))  # its result is its streams
        own.bind([Kept(len(self.cache.rows), self.cache.caches)])
        self.cache.program, output = own, program.buffer(program.d_model)

        def call(new: int, seen: Tensor) -> None:
            batch = len(seen)
            x = self.inner.streams.read(program.streams[reads][: batch * new]).view(batch, new, -1)
            step = DecodeStep(rotary, seen, torch.full_like(seen, new))
            output[: batch * new] = self.decode(x, step).flatten(0, 1)

        program.callback(call)
        return output
