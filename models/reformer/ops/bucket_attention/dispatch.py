"""Which module's passes serve which inputs: PyTorch's anywhere, C's on a CPU, Triton's on a GPU."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from reformer.backends.dispatch import choose
from reformer.config import Backend
from reformer.ops.bucket_attention import native, pytorch
from reformer.ops.bucket_attention.layout import Layout
from reformer.ops.bucket_attention.windows import BucketWindows


def passes_for(backend: Backend, layout: Layout, q: Tensor, k: Tensor, v: Tensor) -> ModuleType:
    """The module whose passes serve these inputs. ValueError where backend triton is asked for and cannot be had."""
    name = choose(backend, q, k, v)
    if name == "triton":
        from reformer.ops.bucket_attention import triton_launch

        width = max(q.shape[-1], v.shape[-1])
        if width <= triton_launch.MOST_D:
            return triton_launch
        if backend == "triton":
            raise ValueError(
                f"backend triton has heads up to {triton_launch.MOST_D} wide, not {width}; use auto or torch"
            )
    fits = isinstance(layout, BucketWindows) and q.dtype == k.dtype == v.dtype
    return native if name == "native" and fits else pytorch
