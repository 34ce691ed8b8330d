"""States of texts that were read: a text that begins as an earlier one did is read from where they part.

What a model computes of a text depends, in the last bits, on how it was cut. So that a text is the same whether or not
its beginning was known, every text is cut alike: into slices of SLICE tokens, and the rest into pieces of PIECE.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from reformer import DecodingState

SLICE, PIECE = 512, 64  # tokens: of the large products, and of the decoding program
MOST_BYTES = 2**30  # of all states that one model keeps


def cuts(length: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """(from, to) of the parts in which `length` tokens are read, from `start` on, which must be one of the cuts."""
    while start < length:
        whole = start + SLICE <= length
        stop = start + SLICE if whole else min(length, start + PIECE)
        yield start, stop
        start = stop


class Prefixes:
    """States by the tokens that led to them, the least recently used dropped beyond so many bytes."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes, self.nbytes, self.hits = most_bytes, 0, 0
        self._kept: OrderedDict[bytes, tuple[int, DecodingState]] = OrderedDict()

    def find(self, tokens: Sequence[int]) -> tuple[int, DecodingState | None]:
        """(tokens read, the state after them): the longest known beginning from which `cuts` goes on; a copy."""
        keys = _keys(tokens)
        for at in sorted(keys, reverse=True):
            if keys[at] in self._kept:
                self._kept.move_to_end(keys[at])
                self.hits += 1
                return at, self._kept[keys[at]][1].clone()
        return 0, None

    def keep(self, tokens: Sequence[int], at: int, state: DecodingState) -> None:
        """Remember the state after the first `at` tokens, if it is not known yet."""
        key = _keys(tokens[:at])[at]
        if key in self._kept or (size := state.nbytes) > self.most_bytes:
            return
        self._kept[key] = (size, state.clone())
        self.nbytes += size
        while self.nbytes > self.most_bytes:
            self.nbytes -= self._kept.popitem(last=False)[1][0]


def _keys(tokens: Sequence[int]) -> dict[int, bytes]:
    """Position -> digest of the tokens before it, at each place where `cuts` would go on."""
    found, digest, data = {}, hashlib.blake2b(digest_size=16), array("i", tokens)
    for start, stop in cuts(len(tokens)):
        digest.update(data[start:stop].tobytes())
        found[stop] = digest.digest()
    return found
