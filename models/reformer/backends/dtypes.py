"""In what precision sums are taken, and products."""

from __future__ import annotations

import torch
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is that already: half precision is for storage and products."""
    return x if x.dtype == torch.float64 else x.float()


def upcast_dtype(x: Tensor) -> torch.dtype:
    """The type of `upcast(x)`."""
    return x.dtype if x.dtype == torch.float64 else torch.float32


def widest(device: torch.device) -> torch.dtype:
    """float64, where the device has it: Apple's GPUs do not."""
    return torch.float32 if device.type == "mps" else torch.float64


def matmul_dtype(x: Tensor) -> torch.dtype:
    """What products of x are taken in: autocast's choice where it is on, else x's own type."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
