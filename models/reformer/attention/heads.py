"""What all kinds of heads share: projections in slices, unit vectors, and the learned scale of their scores."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.branch import Branch, in_slices, make_norm
from reformer.config import ReformerConfig


class Projection(nn.Module):
    """norm, then n_parts projections of every head; unit: all parts but the last (the values) get unit length.

    [batch, length, d_model] -> [batch, n_parts x heads, length, d_head].
    """

    def __init__(self, config: ReformerConfig, heads: int, n_parts: int, unit: bool) -> None:
        super().__init__()
        self.heads, self.n_parts, self.d_head, self.unit = heads, n_parts, config.d_head, unit
        self.norm = make_norm(config, config.d_model)
        self.weights = nn.Linear(config.d_model, n_parts * heads * config.d_head, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        parts = self.weights(self.norm(x)).view(batch, length, self.n_parts * self.heads, self.d_head).transpose(1, 2)
        if not self.unit:
            return parts
        unit = F.normalize(parts[:, : -self.heads], dim=-1)
        return torch.cat([unit, parts[:, -self.heads :]], 1)


class Output(nn.Module):
    """Heads side by side, projected back: [batch, heads, length, d_head] -> [batch, length, d_model]."""

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__()
        self.output = nn.Linear(heads * config.d_head, config.d_model, bias=False)

    def forward(self, joined: Tensor) -> Tensor:
        out: Tensor = self.output(joined)
        return out


class Heads(Branch):
    """A group of attention heads as one branch; subclasses say who sees whom. unit: scores are a learned temperature
    times a cosine."""

    def __init__(self, config: ReformerConfig, heads: int, n_parts: int, unit: bool = True) -> None:
        super().__init__()
        self.config, self.heads, self.n_parts = config, heads, n_parts
        self.project = Projection(config, heads, n_parts, unit)
        self.join = Output(config, heads)
        if unit:
            self.temperature = nn.Parameter(torch.empty(heads))

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """x [batch, length, d_model] -> n_parts x [batch, heads, length, d_head]."""
        return in_slices(self.project, x, self.config.workspace_tokens).chunk(self.n_parts, 1)

    def scaled(self, q: Tensor) -> Tensor:
        return q * self.temperature.to(q.dtype)[:, None, None]

    def joined(self, out: Tensor) -> Tensor:
        return in_slices(self.join, out.transpose(1, 2).flatten(2), self.config.workspace_tokens)
