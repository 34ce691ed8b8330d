"""Full causal attention: the ordinary Transformer's, as a yardstick. Its cost grows with the square of the length."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reformer.attention.local import LocalHeads
from reformer.branch import Context
from reformer.state import WindowState


class FullHeads(LocalHeads):
    """Every position sees all of its document up to itself."""

    takes_delta = False

    def mix(
        self, parts: tuple[Tensor, ...], context: Context, group: slice, routing: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        q, k, v = parts
        if context.documents is None:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0), None
        d = context.documents
        seen = (d[:, :, None] == d[:, None, :]).tril()[:, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=1.0), None

    def start(self, batch: int) -> WindowState:
        like = self.project.weight
        return WindowState.empty(batch, self.heads, self.config.d_head, None, like)

    def step(self, x: Tensor, context: Context, state: WindowState) -> Tensor:
        q, k, v = self.split(x, context.phase(slice(0, x.shape[1])), self.all)
        keys, values = state.append(k, v)
        new, total = x.shape[1], keys.shape[2]
        seen = torch.ones(new, total, dtype=torch.bool, device=x.device).tril(total - new)
        return self.joined(F.scaled_dot_product_attention(q, keys, values, attn_mask=seen, scale=1.0), self.all)
