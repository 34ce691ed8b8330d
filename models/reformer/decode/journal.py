"""What a BucketCache was before its newest tokens, so that they can be taken back: a copy of it may be a gigabyte."""

from __future__ import annotations

import torch
from torch import Tensor

from reformer.backends.native.library import pointer
from reformer.decode.cache import zeros
from reformer.decode.native_structs import Journal


class BucketJournal:
    """Entries that C writes down before it overwrites them (backends/native/caches.c), of each row of a cache.

    struct: the same for C, always at the same address; used: int64 [rows], entries so far. pairs, ids: of the cache.
    """

    def __init__(self, pairs: Tensor, ids: Tensor) -> None:
        self.struct, self._pairs, self._ids = Journal(), pairs, ids
        self.used = ids.new_zeros(len(ids), dtype=torch.int64)
        self.tensors: dict[str, Tensor] = {}

    def make_room(self, entries: int) -> None:
        """For so many more of each row."""
        needed = int(self.used.max()) + entries
        if needed <= self.struct.capacity:
            return
        capacity = max(needed, 2 * self.struct.capacity)
        times = self._ids.new_zeros(1, 1).long()
        kinds = {"slots": times, "times": times, "pairs": self._pairs, "ids": self._ids}
        shape = self._pairs.shape[0], capacity
        made = {name: zeros((*shape, *like.shape[2:]), like.dtype, like.device) for name, like in kinds.items()}
        for name, old in self.tensors.items():
            made[name][:, : old.shape[1]] = old
        self.tensors = made
        self.struct.capacity, self.struct.used = capacity, pointer(self.used)
        for name, tensor in made.items():
            setattr(self.struct, name, pointer(tensor))

    def close(self) -> None:
        """Write nothing down any more."""
        self.struct.capacity, self.tensors = 0, {}
        self.used.zero_()
