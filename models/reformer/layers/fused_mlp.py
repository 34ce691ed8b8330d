"""The feed-forward sub-layer on a GPU: two products and squared ReLU in place; gradients by hand. Of what lies between
the products only the square is kept, whose root is what ReLU gave."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reformer.layers.feed_forward import FeedForward
from reformer.ops.fused_rows.launch import squared_relu_, squared_relu_back_


class Kept(NamedTuple):
    """Of a forward pass, for backward."""

    square: Tensor
    widen: Tensor
    narrow: Tensor


class FusedMLP:
    """f of a FeedForward whose `fused` is true."""

    def __init__(self, module: FeedForward) -> None:
        self.module = module

    def kept_bytes(self, low: int) -> int:
        """Of `Kept`, and of y, for a token; low: bytes of a number of products."""
        return low * sum(self.module.widen.weight.shape)

    def forward(self, y: Tensor) -> tuple[Tensor, Kept]:
        """What is added to a stream, whose norm is y [n, d_model]."""
        widen, narrow = (w.weight.to(y.dtype) for w in (self.module.widen, self.module.output))
        square = squared_relu_(torch.mm(y, widen.t()))
        return torch.mm(square, narrow.t()), Kept(square, widen, narrow)

    def backward(self, g: Tensor, y: Tensor, kept: Kept) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """(gradient of y, gradients of the parameters), given that of what was added."""
        wide = self.module.widen.weight.dtype
        d_narrow = torch.mm(g.t(), kept.square).to(wide)
        d_hidden = squared_relu_back_(torch.mm(g, kept.narrow), kept.square)
        d_widen = torch.mm(d_hidden.t(), y).to(wide)
        return torch.mm(d_hidden, kept.widen), [
            (self.module.widen.weight, d_widen),
            (self.module.output.weight, d_narrow),
        ]
