"""The numbers of buckets: how many projections make them, and what type holds them."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def rotation_width(factors: Sequence[int]) -> int:
    """Projections of one round: half as many as directions."""
    return sum(factors) // 2


def bucket_dtype(n_buckets: int) -> torch.dtype:
    """Smallest integer type that holds ids below n_buckets."""
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if n_buckets - 1 <= torch.iinfo(dtype).max:
            return dtype
    return torch.int64
