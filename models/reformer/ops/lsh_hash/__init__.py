"""Angular locality-sensitive hashing: the definition and the fast versions, of which `lsh_hash` takes one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from reformer.backends.dispatch import choose
from reformer.config import Backend
from reformer.ops.lsh_hash import pytorch
from reformer.ops.lsh_hash.buckets import rotation_width
from reformer.ops.lsh_hash.reference import lsh_hash_reference

__all__ = ["lsh_hash", "lsh_hash_reference", "rotation_width"]


def lsh_hash(
    x: Tensor, rotations: Tensor, factors: Sequence[int], hash_mean: Tensor | None = None, backend: Backend = "torch"
) -> Tensor:
    """`lsh_hash_reference` of x - hash_mean; hash_mean: [heads, d_head]. Ids have the smallest type that fits. backend:
    triton for a GPU, or auto, for triton where it can be had; ValueError where it is asked for and cannot."""
    if choose(backend, x) == "triton":
        from reformer.ops.lsh_hash import triton_kernels

        return triton_kernels.lsh_hash(x, rotations, factors, hash_mean)
    return pytorch.lsh_hash(x, rotations, factors, hash_mean)
