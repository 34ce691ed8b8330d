"""Full causal attention: the ordinary Transformer's, as a yardstick. Its cost grows with the square of the length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from reformer.attention.local import LocalHeads
from reformer.decode.state import GrowingState
from reformer.layers.sublayer import Context, Progress
from reformer.ops.head_gate import gated

if TYPE_CHECKING:
    from reformer.decode.program import Tape


class FullHeads(LocalHeads):
    """Every position sees all of its document up to itself."""

    takes_delta = False

    def mix(
        self, parts: tuple[Tensor, ...], context: Context, group: slice, routing: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        ((q, k, v), gate), d = self.apart(parts), context.documents
        seen = (d[:, :, None] == d[:, None, :]).tril()[:, None] if d is not None else None
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=seen is None, scale=1.0)
        return gated(out, gate) if gate is not None else out, None

    def start(self, batch: int) -> GrowingState:  # type: ignore[override]
        return GrowingState.empty(batch, self.heads, self.config.d_head, self.project.weight)

    def step_mix(self, parts: tuple[Tensor, ...], progress: Progress, state: GrowingState) -> Tensor:  # type: ignore[override]
        q, k, v = parts
        return state.advance(q, k, v, progress.starts, progress.counts)

    def record(self, tape: Tape, source: int, state: GrowingState) -> None:
        return None  # it grows with the text: there is no operation of a fixed price
