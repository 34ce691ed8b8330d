"""Local heads: a sliding window with own queries and keys, itself included, and rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor

from reformer.attention.heads import Heads
from reformer.branch import Context
from reformer.config import ReformerConfig
from reformer.ops.bucket_attention.blocked import attend
from reformer.ops.bucket_attention.rounds import Round, make_rounds, window_round
from reformer.positions import rotate
from reformer.state import WindowState


class LocalHeads(Heads):
    """Every position sees the `local_window` most recent ones of its document."""

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__(config, heads, n_parts=3)

    def queries_keys_values(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.split(x)
        if self.config.positions == "rotary":
            q, k = (rotate(y, positions, self.config.rotary_base) for y in (q, k))
        return self.scaled(q), k, v

    def rounds(self, batch: int, length: int, documents: Tensor | None, device: torch.device) -> list[Round]:
        window = self.config.local_window
        if documents is None:
            return [window_round(batch * self.heads, length, window, device, keep_u=False)]
        buckets = documents[None, :, None].expand(1, batch, self.heads, length)
        return make_rounds(buckets, [window])

    def forward(self, x: Tensor, context: Context, routing: Tensor | None = None) -> tuple[Tensor, None]:
        q, k, v = self.queries_keys_values(x, context.positions)
        rounds = self.rounds(x.shape[0], x.shape[1], context.documents, x.device)
        return self.joined(attend(q, k, v, rounds, block=self.config.block, itself=True, alone=False)), None

    def start(self, batch: int) -> WindowState:
        like = self.project.weights.weight
        return WindowState.empty(batch, self.heads, self.config.d_head, self.config.local_window, like)

    def step(self, x: Tensor, positions: Tensor, state: WindowState) -> Tensor:
        q, k, v = self.queries_keys_values(x, positions)
        keys, values = state.append(k, v)
        if x.shape[1] == 1:
            keys, values = keys[:, :, -self.config.local_window :], values[:, :, -self.config.local_window :]
            weights = torch.softmax(q @ keys.transpose(-1, -2), -1)
            return self.joined(weights @ values)
        before = keys.shape[2] - x.shape[1]
        q = torch.cat([q.new_zeros(*q.shape[:2], before, q.shape[3]), q], 2)
        rounds = self.rounds(x.shape[0], keys.shape[2], None, x.device)
        out = attend(q, keys, values, rounds, block=self.config.block, itself=True, alone=False)
        return self.joined(out[:, :, before:])
