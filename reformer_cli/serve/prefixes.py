"""States of texts that were read: a text that begins as an earlier one did is read from where they part.

What a model computes of a text depends, in the last bits, on how it was cut. So that a text is the same whether or not
its beginning was known, every text is cut alike: into slices of SLICE tokens, and the rest into pieces of PIECE. A
state may be a gigabyte: it is not copied, but taken back to the marks that were set at its last slice and last piece.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from reformer import DecodingState, ReformerLM
from torch import Tensor

SLICE, PIECE = 512, 64  # tokens: of the large products, and of the decoding program
MOST_BYTES = 2**29  # of all states that are kept for one model, about; one always stays
MOST_ROOM = 8192  # tokens that can be taken back
MOST_READY = 2**26  # bytes of a state that is made ready before anybody asks
OVERHEAD = 16  # memory pages that a state of few tokens takes, as a multiple of what it writes to them: measured


def cuts(length: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """(from, to) of the parts in which `length` tokens are read, from `start` on, which must be one of the cuts."""
    while start < length:
        whole = start + SLICE <= length
        stop = start + SLICE if whole else min(length, start + PIECE)
        yield start, stop
        start = stop


@dataclass
class Begun:
    """A state, and the marks on it: (tokens before each, digest of those). room: tokens after the newest one that can
    still be taken back."""

    state: DecodingState
    marks: list[tuple[int, bytes]]
    room: int = 0

    def back_to(self, mark: int) -> None:
        """The newest marks are forgotten, and the state stands at this one."""
        while len(self.marks) > mark + 1:
            self.marks.pop()
            self.state.unmark()
        self.state.rewind()


class Prefixes:
    """Whoever takes a state has it for himself until he gives it back; beyond so many bytes, the one that was not used
    longest goes."""

    def __init__(self, model: ReformerLM, most_bytes: int = MOST_BYTES) -> None:
        self.model, self.most_bytes, self.hits = model, most_bytes, 0
        self._kept: OrderedDict[int, tuple[int, Begun]] = OrderedDict()  # by the number of the giving
        self._given = 0
        self._ready: DecodingState | None = None
        self._to_touch: list[Tensor] = []

    def take(self, tokens: Sequence[int]) -> tuple[int, Begun]:
        """(tokens read, the state after them): the longest known beginning from which `cuts` goes on, or none."""
        keys = digests(tokens)
        found = [
            (at, number, mark)
            for number, (_, begun) in self._kept.items()
            for mark, (at, digest) in enumerate(begun.marks)
            if keys.get(at) == digest
        ]
        if not found:
            return 0, Begun(self.fresh(), [])
        at, number, mark = max(found)
        _, begun = self._kept.pop(number)
        begun.back_to(mark)
        self.hits += 1
        return at, begun

    def fresh(self) -> DecodingState:
        """The state before any token."""
        ready, self._ready, self._to_touch = self._ready, None, []
        if ready is None and 2 * self._bytes > self.most_bytes:
            _, (_, begun) = self._kept.popitem(last=False)
            if begun.state.fixed_shape:
                begun.state.reset()
                ready = begun.state
        return ready if ready is not None else self.model.new_state(1)

    @property
    def _bytes(self) -> int:
        return sum(size for size, _ in self._kept.values())

    def get_ready(self) -> bool:
        """Have the next text's state hold all its memory: to be given the pages one by one takes longer than to write
        them, and a text's first tokens touch most. A tensor at a time; whether there is more to do."""
        if self._ready is None and self.model.embedding.device.type == "cpu":
            self._ready = self.model.new_state(1)
            large = [t for cache in self._ready.caches if cache is not None for t in cache.lazy_tensors()]
            fits = sum(t.numel() * t.element_size() for t in large) <= MOST_READY
            self._to_touch = large if fits else []
        elif self._to_touch:
            with torch.inference_mode():
                self._to_touch.pop().zero_()
        return bool(self._to_touch)

    def mark(self, begun: Begun, at: int, digest: bytes, room: int) -> None:
        """The state stands at a cut, after which at most `room` tokens come. Marks of earlier slices are forgotten."""
        keep = 1 if at % SLICE else 0
        while len(begun.marks) > keep or (begun.marks and begun.marks[0][0] % SLICE and keep):
            begun.marks.pop()
            begun.state.unmark()
        begun.room = min(room, MOST_ROOM)
        self.model.mark(begun.state, begun.room)
        begun.marks.append((at, digest))

    def give(self, begun: Begun, used: int) -> None:
        """It is not needed any more; used: tokens after its newest mark."""
        if not begun.marks or used > begun.room:
            return
        begun.back_to(len(begun.marks) - 1)
        self._given += 1
        caches = [cache for cache in begun.state.caches if cache is not None]
        most = sum(t.numel() * t.element_size() for cache in caches for t in cache.own_tensors().values())
        self._kept[self._given] = (min(most, OVERHEAD * begun.state.nbytes), begun)
        while len(self._kept) > 1 and self._bytes > self.most_bytes:
            self._kept.popitem(last=False)


def digests(tokens: Sequence[int]) -> dict[int, bytes]:
    """Position -> digest of the tokens before it, at each place where `cuts` would go on."""
    found, digest, data = {}, hashlib.blake2b(digest_size=16), array("i", tokens)
    for start, stop in cuts(len(tokens)):
        digest.update(data[start:stop].tobytes())
        found[stop] = digest.digest()
    return found
