"""The feed-forward sub-layer on a GPU: two products and squared ReLU in place; gradients by hand. Of what lies between
the products only the square is kept, whose root is what ReLU gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from reformer.layers.feed_forward import FeedForward
from reformer.ops.fused_rows.launch import squared_relu_, squared_relu_back_

AT_ONCE = 2**28  # numbers of the hidden layer that exist at a time: of a longer text it is made slice by slice


class Kept(NamedTuple):
    """Of a forward pass, for backward. square: None where it is too large, and made again there."""

    square: Tensor | None
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
        parts = self._parts(y)
        if len(parts) == 1:
            square = squared_relu_(torch.mm(y, widen.t()))
            return torch.mm(square, narrow.t()), Kept(square, widen, narrow)
        added = torch.empty_like(y)
        for part, out in zip(parts, self._parts(added), strict=True):
            torch.mm(squared_relu_(torch.mm(part, widen.t())), narrow.t(), out=out)
        return added, Kept(None, widen, narrow)

    def backward(self, g: Tensor, y: Tensor, kept: Kept) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """(gradient of y, gradients of the parameters), given that of what was added."""
        wide = self.module.widen.weight.dtype
        dy = torch.empty_like(y)
        totals: list[Tensor] = []
        for d_added, part, out in zip(self._parts(g), self._parts(y), self._parts(dy), strict=True):
            square = kept.square if kept.square is not None else squared_relu_(torch.mm(part, kept.widen.t()))
            d_narrow = torch.mm(d_added.t(), square).to(wide)
            d_hidden = squared_relu_back_(torch.mm(d_added, kept.narrow), square)
            d_widen = torch.mm(d_hidden.t(), part).to(wide)
            torch.mm(d_hidden, kept.widen, out=out)
            totals = [total.add_(d) for total, d in zip(totals, (d_widen, d_narrow), strict=False)] or [
                d_widen,
                d_narrow,
            ]
        return dy, list(zip((self.module.widen.weight, self.module.output.weight), totals, strict=True))

    def _parts(self, x: Tensor) -> Sequence[Tensor]:
        """Rows of x [n, d_model] of which the hidden layer is made at a time."""
        return x.split(max(1, AT_ONCE // self.module.widen.weight.shape[0]))
