"""Rotary positions: where a token stands, as a turn of its queries and keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from reformer.backends.dtypes import upcast, widest
from reformer.backends.torch_compile import is_exporting

BASE = 10_000.0  # the longest wavelength, over 2 pi


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (RoFormer, arXiv 2104.09864, section 3.2). starts: int64 [rows], where each row of a batch
    begins; None: all at 0."""

    d_head: int
    dtype: torch.dtype
    device: torch.device
    starts: Tensor | None = None

    def phase(self, here: slice) -> Tensor:
        """Complex [tokens, d_head / 2], by which pair n of a vector at position t turns: exp(i t BASE^(-2n/d_head)); of
        the rows of `starts` one after the other.

        A slice's first position is turned in float64, since at the ten-millionth token float32 would be off by a whole
        turn; the others are that times a table, which is less work than sines and cosines and nothing to keep.
        """
        exact = self.dtype == torch.float64
        device = self.device if widest(self.device) == torch.float64 else torch.device("cpu")
        starts = torch.zeros(1, dtype=torch.int64, device=device) if self.starts is None else self.starts.to(device)
        first = _turns(starts + here.start, speeds(self.d_head, device))
        # What an export makes holds no values to keep, and what a CUDA graph reads must not be thrown out of a cache.
        captured = self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        make = _table.__wrapped__ if captured or is_exporting() else _table
        table = make(self.d_head, here.stop - here.start, device, exact)
        return (first.to(table.dtype)[:, None] * table).flatten(0, 1).to(self.device)


def speeds(d_head: int, device: torch.device) -> Tensor:
    """BASE^(-2n/d_head) of pair n: float64 [d_head / 2], radians a token."""
    half = d_head // 2
    return BASE ** -(torch.arange(half, dtype=torch.float64, device=device) / half)


def _turns(positions: Tensor, speed: Tensor) -> Tensor:
    """exp(i position speed), complex128 [positions, speeds]."""
    angle = positions.double()[:, None] * speed
    return torch.polar(torch.ones_like(angle), angle)


@lru_cache(maxsize=16)
def _table(d_head: int, n: int, device: torch.device, exact: bool) -> Tensor:
    turns = _turns(torch.arange(n, device=device), speeds(d_head, device))
    return turns if exact else turns.to(torch.complex64)


def rotate_(x: Tensor, phase: Tensor) -> Tensor:
    """Turn the pairs (2i, 2i + 1) of x [tokens, heads, d_head] by phase [tokens, d_head / 2], in place."""
    turned = upcast(x)
    torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(phase[:, None])
    return x if turned is x else x.copy_(turned)
