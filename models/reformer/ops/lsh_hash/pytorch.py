"""The angular hash in slices of the length: no [length, n_buckets] tensor, ids in the smallest integer type."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from reformer.backends.dtypes import upcast
from reformer.ops.lsh_hash.buckets import bucket_dtype

PROJECTIONS_AT_ONCE = 2**22  # numbers of one slice's projections


def lsh_hash(x: Tensor, rotations: Tensor, factors: Sequence[int], hash_mean: Tensor | None = None) -> Tensor:
    """`lsh_hash_reference` of x - hash_mean; hash_mean: [heads, d_head]. Ids have the smallest type that fits."""
    batch, heads, length, _ = x.shape
    _, d, rounds, width = rotations.shape
    buckets = torch.empty(rounds, batch, heads, length, dtype=bucket_dtype(math.prod(factors)), device=x.device)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    flat = rotations.to(dtype).reshape(heads, d, rounds * width)
    step = max(1, PROJECTIONS_AT_ONCE // (batch * heads * rounds * width))
    for start in range(0, length, step):
        part = upcast(x[:, :, start : start + step])
        if hash_mean is not None:
            part = part - hash_mean.to(dtype)[:, None]
        with torch.autocast(x.device.type, enabled=False):  # a rounded projection is another bucket
            projected = torch.matmul(part, flat).unflatten(-1, (rounds, width))
        bucket: Tensor | int = 0
        scale = 1
        for digits in projected.split([f // 2 for f in factors], -1):
            largest = digits.abs().argmax(-1, keepdim=True)
            half = digits.shape[-1]
            digit = (largest + half * (digits.gather(-1, largest) < 0)).squeeze(-1)
            bucket = bucket + scale * digit
            scale *= 2 * half
        assert isinstance(bucket, Tensor)
        buckets[..., start : start + step] = bucket.permute(3, 0, 1, 2).to(buckets.dtype)
    return buckets
