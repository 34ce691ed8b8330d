"""Axial positions: where a token stands, added to its embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AxialPositions(nn.Module):
    """A table per axis of a grid, concatenated (Reformer paper's code): the sizes add up where positions multiply."""

    def __init__(self, shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(n, d)) for n, d in zip(shape, dims, strict=True))

    def forward(self, positions: Tensor) -> Tensor:
        """int64 [..] -> [.., d_model]; row-major over the grid."""
        parts: list[Tensor] = []
        rest = positions
        for size, table in zip(reversed(self.shape), reversed(list(self.tables)), strict=True):
            parts.insert(0, table[rest % size])
            rest = rest // size
        return torch.cat(parts, -1)
