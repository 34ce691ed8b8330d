"""The norms before sub-layers and before the head, and their record for the C program."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.config import ReformerConfig
from reformer.decode.program import NativeProgram


def make_norm(config: ReformerConfig, width: int) -> Callable[[Tensor], Tensor]:
    """RMSNorm without parameters (arXiv 1910.07467), or LayerNorm as published."""
    if config.block_style == "published":
        return nn.LayerNorm(width, eps=config.norm_epsilon)
    return _RMSNorm(width)


def record_norm(
    norm: Callable[[Tensor], Tensor], program: NativeProgram, *streams: int, concat: bool = False
) -> Tensor:
    """What `make_norm` made, of one stream, or of both as their sum or side by side. RMSNorm has no parameters, nor has
    the Identity that stands for it where the projection after it norms by itself."""
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    eps = getattr(norm, "eps", torch.finfo(torch.float32).eps)
    return program.norm(streams, weight, bias, eps, concat=concat)


class _RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.width,))
