"""The definition of the angular hash (Reformer paper, section 2; factorised as released)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def lsh_hash_reference(x: Tensor, rotations: Tensor, factors: Sequence[int]) -> Tensor:
    """Bucket of every vector in every round: int64 [rounds, batch, heads, length].

    x: [batch, heads, length, d_head]; rotations: [heads, d_head, rounds, sum(factors) / 2].
    A factor f gives argmax over [xR; -xR], f directions; factors are digits of the bucket, lowest first.
    """
    projected = torch.einsum("bhld,hdrn->rbhln", x, rotations.to(x.dtype))
    bucket, scale = torch.zeros(projected.shape[:-1], dtype=torch.int64, device=x.device), 1
    for part, factor in zip(projected.split([f // 2 for f in factors], -1), factors, strict=True):
        bucket += scale * torch.cat([part, -part], -1).argmax(-1)
        scale *= factor
    return bucket
