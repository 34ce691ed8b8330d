"""Where a token stands: rotary positions inside attention, axial ones added to the embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rotate(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Rotary positions (RoFormer, section 3.2): pairs (i, i + d/2) turn by position x base^(-2i/d).

    x: [batch, heads, length, d]; positions: int64 [length]. Angles are taken in float64: at the ten-millionth
    token float32 would be off by a whole turn.
    """
    half = x.shape[-1] // 2
    speed = base ** -(torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angle = positions.to(torch.float64)[:, None] * speed
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class AxialPositions(nn.Module):
    """A table per axis of a grid, concatenated (Reformer paper's code): the sizes add up where positions multiply."""

    def __init__(self, shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(n, d)) for n, d in zip(shape, dims, strict=True))

    def forward(self, positions: Tensor) -> Tensor:
        """int64 [length] -> [length, d_model]; row-major over the grid."""
        parts: list[Tensor] = []
        rest = positions
        for size, table in zip(reversed(self.shape), reversed(list(self.tables)), strict=True):
            parts.insert(0, table[rest % size])
            rest = rest // size
        return torch.cat(parts, -1)
