"""Where a token stands: rotary positions inside attention, axial ones added to the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from reformer.precision import wide
from reformer.tracing import exporting


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (RoFormer, arXiv 2104.09864, section 3.2) of the tokens from `start` on."""

    d_head: int
    base: float
    dtype: torch.dtype
    device: torch.device
    start: int = 0

    def phase(self, here: slice) -> Tensor:
        """Complex [tokens, d_head / 2], by which pair n of a vector at position t turns: exp(i t base^(-2n/d_head)).

        A slice's first position is turned in float64, since at the ten-millionth token float32 would be off by a whole
        turn; the others are that times a table, which is less work than sines and cosines and nothing to keep.
        """
        exact = self.dtype == torch.float64
        first = _turns(self.d_head, self.base, self.start + here.start, 1, self.device)
        make = _table.__wrapped__ if exporting() else _table  # what an export makes holds no values to keep
        table = make(self.d_head, self.base, here.stop - here.start, self.device, exact)
        return table * first.to(table.dtype)


def _turns(d_head: int, base: float, start: int, n: int, device: torch.device) -> Tensor:
    """exp(i t base^(-2n/d_head)) of n positions, complex128."""
    half = d_head // 2
    speed = base ** -(torch.arange(half, dtype=torch.float64, device=device) / half)
    angle = torch.arange(start, start + n, dtype=torch.float64, device=device)[:, None] * speed
    return torch.polar(torch.ones_like(angle), angle)


@lru_cache(maxsize=16)
def _table(d_head: int, base: float, n: int, device: torch.device, exact: bool) -> Tensor:
    turns = _turns(d_head, base, 0, n, device)
    return turns if exact else turns.to(torch.complex64)


def rotate_(x: Tensor, phase: Tensor) -> Tensor:
    """Turn the pairs (2i, 2i + 1) of x [tokens, heads, d_head] by phase [tokens, d_head / 2], in place."""
    turned = wide(x)
    torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(phase[:, None])
    return x if turned is x else x.copy_(turned)


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
