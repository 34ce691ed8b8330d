"""Groups of tokens: who is in which, and who reads it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reformer.reversible.streams import Streams

Rows = slice | tuple[Tensor, Tensor]  # of [batch, n, ..]: the same of every text, or (text, place) of each


@dataclass(frozen=True)
class GroupRows:
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
            x[self.tokens] = rows[0]


def _pick(x: Tensor, rows: Rows) -> Tensor:
    return x[:, rows] if isinstance(rows, slice) else x[rows][None]


@dataclass(frozen=True)
class GroupIndex:
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

    def slices(self, streams: Streams) -> list[slice]:
        """Of the groups, each of at most `chunk_tokens` tokens."""
        return streams.slices(self.batch * self.size, self.count)

    def members(self, here: slice) -> GroupRows:
        """The tokens that groups are made of."""
        if self.ends is None:
            return GroupRows(slice(here.start * self.size, here.stop * self.size), slice(None))
        ends = self.ends[:, here]
        return self._place(ends, 1 - self.size, (ends < self.length)[..., None].expand(-1, -1, self.size))

    def readers(self, here: slice) -> GroupRows:
        """The tokens that groups give to."""
        if self.ends is None or self.served is None:
            first = (here.start + 1) * self.size - 1
            stop = min(self.length, (here.stop + 1) * self.size - 1)
            return GroupRows(slice(first, stop), slice(0, stop - first))
        return self._place(self.ends[:, here], 0, self.served[:, here])

    def _place(self, ends: Tensor, first: int, there: Tensor) -> GroupRows:
        index = ends[..., None] + torch.arange(first, first + self.size, device=ends.device)
        text, row = there.flatten(1).nonzero(as_tuple=True)
        return GroupRows((text, index.flatten(1)[text, row]), (text, row))

    def whole(self, x: Tensor, here: slice) -> Tensor:
        """The rows of groups [batch, groups * size, ..]; 0 where a text has fewer of them."""
        place = self.members(here)
        rows = place.of(x)
        if isinstance(place.groups, slice):
            return rows
        found = x.new_zeros(self.batch, (here.stop - here.start) * self.size, *x.shape[2:])
        found[place.groups] = rows[0]
        return found


def index_groups(size: int, batch: int, length: int, documents: Tensor | None) -> GroupIndex:
    """Of texts [batch, length]; documents: as in PassContext."""
    count = length // size
    if documents is None or not count:
        return GroupIndex(size, batch, length)
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
    return GroupIndex(size, batch, length, ends, served, of)
