"""What a text's tokens start as: rows of a matrix, plus their positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.backends.torch_compile import is_exporting
from reformer.config import ReformerConfig
from reformer.layers.axial_positions import AxialPositions
from reformer.layers.line_position import LinePositions

FEW = 4096  # tokens that are copied from a GPU to be looked at


@dataclass(frozen=True)
class Embedding:
    """Of one text, made slice by slice: rows of a weight [vocab_size, d_model] by token, plus positions.

    tokens: int64 [batch, length]; seen: int64 [batch], how many came before; None: none. places: int64 [batch, length],
    where on its line each token ends (`lines`).
    """

    tokens: Tensor
    axial: AxialPositions | None = None
    seen: Tensor | None = None
    lines: LinePositions | None = None
    places: Tensor | None = None

    def rows(self, weight: Tensor, here: slice) -> Tensor:
        """[batch, slice, d_model]."""
        x = F.embedding(self.tokens[:, here], weight)
        if self.lines is not None and self.places is not None:
            x = x + self.lines.rows(self.places[:, here])
        if self.axial is None:
            return x
        positions = torch.arange(here.start, here.stop, device=x.device)
        return x + self.axial(positions if self.seen is None else self.seen[:, None] + positions)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Beside the weight, those that are trained."""
        found = [p for module in (self.lines, self.axial) if module is not None for p in module.parameters()]
        return [p for p in found if p.requires_grad]


def check_tokens(config: ReformerConfig, tokens: Tensor, start: int) -> None:
    """Raises ValueError for tokens that do not fit after `start` others."""
    if tokens.dim() != 2:
        raise ValueError(f"tokens must be [batch, length], not {list(tokens.shape)}")
    config.check_length(start + tokens.shape[1])
    if tokens.numel() and not is_exporting():
        ids = (tokens.flatten() if tokens.numel() <= FEW else torch.stack(torch.aminmax(tokens))).tolist()
        low, high = min(ids), max(ids)  # of one copy from a GPU
        if low < 0 or high >= config.vocab_size:
            raise ValueError(f"token ids from {low} to {high} do not fit vocab_size {config.vocab_size}")
