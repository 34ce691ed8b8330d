"""Passes over rows between the large products: RMS norm, queries and keys at their lengths and turned, squared ReLU,
fixed point to float and back. pytorch.py defines them; native.py and triton_kernels.py are its twins."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from reformer.backends.dispatch import NATIVE_DTYPES, choose
from reformer.backends.dtypes import matmul_dtype
from reformer.config import Backend
from reformer.ops.norm_rope_relu import native, pytorch


def rows_for(backend: Backend, x: Tensor) -> ModuleType:
    """The passes over rows like x (pytorch.py or one of its twins), products being taken as autocast says now."""
    name = choose(backend, x)
    if name == "triton":
        from reformer.ops.norm_rope_relu import triton_kernels

        return triton_kernels
    if backend == "auto" and matmul_dtype(x) not in NATIVE_DTYPES:
        return pytorch
    return native if name == "native" else pytorch
