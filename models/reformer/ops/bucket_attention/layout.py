"""The shape that both patterns give to their work: blocks of sorted queries against overlapping windows of keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from reformer.backends.dtypes import upcast

# Scores worked on together: small enough for the cache of a CPU core, large enough to hide PyTorch's overhead.
SCORES_AT_ONCE = 2**18


@dataclass(frozen=True)
class Slice:
    """Some consecutive blocks of one round: flat indices of their queries and of the keys they may see."""

    keys: Tensor  # int64 [(back + blocks) * m], padded at both ends by repeating some place; the last are the queries
    hidden: Tensor  # bool [blocks, m, (back + 1) * m]: pairs that are not seen
    n_queries: int  # without padding
    n_repeated: int = 0  # leading keys that may occur again among the others

    @property
    def shape(self) -> torch.Size:
        return self.hidden.shape

    @property
    def queries(self) -> Tensor:
        """int64 [blocks * m]."""
        return self.keys[-self.hidden.shape[0] * self.hidden.shape[1] :]


class Layout(Protocol):
    """Who meets whom: for each round, slices that cover every position once as a query. A pair that is seen in several
    slices counts as often as it is seen."""

    @property
    def n_rounds(self) -> int: ...

    def slices(self, r: int) -> Iterator[Slice]: ...


def spans(x: Tensor, m: int, span: int) -> Tensor:
    """Overlapping windows over consecutive rows, as a view: [n * m + span - m, ...] -> [n, span, ...]."""
    n = (len(x) - span) // m + 1
    return x.as_strided((n, span, *x.shape[1:]), (m * x.stride(0), *x.stride()), x.storage_offset())


def fold(x: Tensor, m: int) -> Tensor:
    """The adjoint of `spans`: add overlapping windows up, [n, span, d] -> [n * m + span - m, d]."""
    n, span, d = x.shape
    out = x.new_zeros(n * m + span - m, d)
    for start in range(0, span, m):
        out[start : start + n * m] += x[:, start : start + m].reshape(n * m, d)
    return out


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """(a * b).sum(-1) of [T, d], wide, in slices."""
    step = max(1, SCORES_AT_ONCE // a.shape[1])
    parts = [(upcast(x) * upcast(y)).sum(-1) for x, y in zip(a.split(step), b.split(step), strict=True)]
    return torch.cat(parts)
