"""Local heads: a sliding window with own queries and keys, itself included, and rotary positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reformer.attention.base import Heads
from reformer.config import ReformerConfig
from reformer.decode.state import WindowState
from reformer.layers.sublayer import Context, Progress
from reformer.ops.bucket_attention.autograd import attend
from reformer.ops.bucket_attention.windows import Recent, make_recent, make_window

if TYPE_CHECKING:
    from reformer.decode.program import Tape


class LocalHeads(Heads):
    """Every position sees the `local_window` most recent ones of its document."""

    turned = takes_delta = True

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__(config, heads, parts=3)

    def lengths(self) -> Tensor:
        return torch.stack([self.temperature, torch.ones_like(self.temperature)])

    def layout(self, q: Tensor, documents: Tensor | None) -> Recent:
        window, block, (batch, heads, length, _) = self.config.local_window, self.config.block, q.shape
        if documents is None:
            return make_window(batch, heads, length, window, q.device, block=block, itself=True)
        buckets = documents[None, :, None].expand(1, batch, heads, length)
        return make_recent(buckets, [window], block=block, itself=True)

    def mix(
        self, parts: tuple[Tensor, ...], context: Context, group: slice, routing: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        (q, k, v), gate = self.apart(parts)
        layout = self.layout(q, context.documents)
        return attend(q, k, v, layout, alone=False, delta=delta, backend=self.config.backend, gate=gate), None

    def start(self, batch: int) -> WindowState:
        like = self.project.weight
        return WindowState.empty(batch, self.heads, self.config.d_head, self.config.local_window, like)

    def step_mix(self, parts: tuple[Tensor, ...], progress: Progress, state: WindowState) -> Tensor:
        q, k, v = parts
        return state.advance(q, k, v, progress.starts, progress.counts, self.config.backend)

    def record_mix(self, tape: Tape, y: Tensor, state: WindowState) -> Tensor:
        return tape.window(y, state)
