"""Steps of a layer on a GPU, computed by attention/fused.py and layers/fused_mlp.py.

Streams are added to and normed in one pass, their gradients advanced in one, and a text is not cut into slices.
Adding to a stream leaves its norm behind (`Streams.normed`), which the coupling that reads it next takes; advancing a
gradient leaves a copy of it in the products' type (`Streams.low`). Both are by the stream's number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reformer.attention.fused import FusedHeads
from reformer.config import ReformerConfig
from reformer.layers.context import PassContext
from reformer.layers.fused_mlp import FusedMLP
from reformer.layers.lm_head import LMHead
from reformer.ops.cross_entropy import IGNORE_INDEX
from reformer.ops.cross_entropy.triton_kernels import cross_entropy_
from reformer.ops.fused_rows.launch import dropout, norm_stream, norm_stream_back
from reformer.reversible.backward import BackwardPass, add_up
from reformer.reversible.coupling import Step
from reformer.reversible.loss import LOGITS
from reformer.reversible.streams import Pair, Streams


class Kept(NamedTuple):
    """Of a step whose activations backward need not make again. normed: as `norm_stream` gave it."""

    normed: tuple[Tensor, Tensor]
    inside: Any


@dataclass(frozen=True)
class FusedStep(Step):
    """pair[writes] += f(norm(pair[reads]))."""

    @abstractmethod
    def forward(self, y: Tensor, context: PassContext, batch: int, saved: Any) -> tuple[Tensor, Any]:
        """f of y [n, d_model]: (what it adds, what `backward` needs)."""

    @abstractmethod
    def backward(
        self, g: Tensor, y: Tensor, inside: Any, context: PassContext, batch: int
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """(gradient of y, gradients of parameters)."""

    @abstractmethod
    def saved(self, inside: Any) -> Any:
        """What even a step whose activations are made again keeps."""

    def run(self, streams: Streams, number: int, pair: Pair, context: PassContext, saved: Any, observer: Any) -> Any:
        return self.saved(self._advance(streams, number, pair, context, saved).inside)

    def prefill(self, streams: Streams, number: int, pair: Pair, context: PassContext, caches: Iterator[Any]) -> None:
        self.fill(self._advance(streams, number, pair, context, None).inside, len(pair[0]), caches)

    @abstractmethod
    def fill(self, inside: Any, batch: int, caches: Iterator[Any]) -> None:
        """Put what `forward` made into the next of the caches, one for each sub-layer, which are empty."""

    def run_kept(self, streams: Streams, number: int, pair: Pair, context: PassContext) -> tuple[Any, Kept]:
        kept = self._advance(streams, number, pair, context, None)
        return self.saved(kept.inside), kept

    def _advance(self, streams: Streams, number: int, pair: Pair, context: PassContext, saved: Any) -> Kept:
        added, kept = self._added(streams, number, pair, context, saved)
        stream = pair[self.writes].flatten(0, 1)
        bad = streams.new_flag()
        streams.normed[self.writes] = norm_stream(stream, streams.bits, added.dtype, added=added, bad=bad)
        streams.pending.append((self.name, bad))
        return kept

    def _added(
        self, streams: Streams, number: int, pair: Pair, context: PassContext, saved: Any
    ) -> tuple[Tensor, Kept]:
        x = pair[self.reads]
        normed = streams.normed.pop(self.reads, None)
        if normed is None:
            normed = norm_stream(x.flatten(0, 1), streams.bits, streams.products)
        added, inside = self.forward(normed[0], context, len(x), saved)
        return self._dropped(added, streams, number, context, x.shape), Kept(normed, inside)

    def _dropped(self, added: Tensor, streams: Streams, number: int, context: PassContext, shape: torch.Size) -> Tensor:
        """Dropout, which is its own adjoint: at once, or slice by slice, as where nothing is fused."""
        if not streams.dropout or context.dropout_seed is None:
            return added
        if isinstance(context.dropout_seed, Tensor):
            return dropout(added, context.dropout_seed, number, 0, streams.dropout)
        whole = added.view(shape)
        parts = [streams.drop(whole[:, here], number, context, here.start) for here in streams.slices(*shape[:2])]
        return torch.cat(parts, 1).view_as(added)

    def run_back(self, back: BackwardPass, saved: Any) -> None:
        streams = back.streams
        streams.normed.clear()
        added, kept = self._added(streams, back.number, back.pair, back.context, saved)
        streams.subtract_(back.y, added.view_as(back.y))
        del added
        self.back_kept(back, kept)

    def back_kept(self, back: BackwardPass, kept: Kept) -> None:
        streams, (y, inverse) = back.streams, kept.normed
        g = streams.low.pop(self.writes, None)
        if g is None:
            g = back.dy.flatten(0, 1).to(y.dtype)
        g = self._dropped(g, streams, back.number, back.context, back.x.shape)
        dy, gradients = self.backward(g, y, kept.inside, back.context, len(back.x))
        streams.low[self.reads] = norm_stream_back(dy, y, inverse, back.dx.flatten(0, 1))
        wanted = [(p, d) for p, d in gradients if p.requires_grad]
        add_up(back.totals, [p for p, _ in wanted], [d for _, d in wanted])


@dataclass(frozen=True)
class FusedAttention(FusedStep):
    """All heads of a layer."""

    heads: FusedHeads

    def forward(self, y: Tensor, context: PassContext, batch: int, saved: Any) -> tuple[Tensor, Any]:
        return self.heads.forward(y, context, batch, saved)

    def backward(
        self, g: Tensor, y: Tensor, inside: Any, context: PassContext, batch: int
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        return self.heads.backward(g, y, inside, context, batch)

    def fill(self, inside: Any, batch: int, caches: Iterator[Any]) -> None:
        self.heads.fill(inside.vectors, batch, caches)

    def saved(self, inside: Any) -> Any:
        return inside.order

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.heads.parameters()

    def kept_bytes(self, low: int) -> int:
        return self.heads.kept_bytes(low)


@dataclass(frozen=True)
class FusedFeedForward(FusedStep):
    """The feed-forward sub-layer."""

    mlp: FusedMLP

    def forward(self, y: Tensor, context: PassContext, batch: int, saved: Any) -> tuple[Tensor, Any]:
        return self.mlp.forward(y)

    def backward(
        self, g: Tensor, y: Tensor, inside: Any, context: PassContext, batch: int
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        return self.mlp.backward(g, y, inside)

    def fill(self, inside: Any, batch: int, caches: Iterator[Any]) -> None:
        next(caches)

    def saved(self, inside: Any) -> Any:
        return None

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.mlp.module.parameters()

    def kept_bytes(self, low: int) -> int:
        return self.mlp.kept_bytes(low)


def fused_steps(config: ReformerConfig, layers: Sequence[Sequence[Any]]) -> list[FusedStep] | None:
    """Of layers, each its attention sub-layers and its feed-forward; None where one cannot be fused."""
    found: list[FusedStep] = []
    for i, (*attention, feed_forward) in enumerate(layers):
        heads = FusedHeads.of(config, attention)
        if heads is None or not feed_forward.fused:
            return None
        found.append(FusedAttention(1, 0, f"layer {i} attention", heads))
        found.append(FusedFeedForward(0, 1, f"layer {i} feed-forward", FusedMLP(feed_forward)))
    return found


def fused_loss(
    streams: Streams, pair: Pair, head: LMHead, targets: Tensor, gradient: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """As `loss.sliced_loss`: products in half precision where autocast says so, sums in float32, and of the length only
    so many logits at a time. gradient [batch, length, d_model], if given, is filled: that of the streams' sum."""
    first, second = (s.flatten(0, 1) for s in pair)
    flat, weight = targets.flatten(), head.weight.to(streams.products)
    count = (flat != IGNORE_INDEX).sum().clamp_min(1)
    nats: list[Tensor] = []
    total = torch.zeros_like(head.weight) if head.weight.requires_grad and gradient is not None else None
    rows = max(1, LOGITS // len(weight))
    for here in (slice(start, start + rows) for start in range(0, len(flat), rows)):
        y, inverse = norm_stream(first[here], streams.bits, weight.dtype, other=second[here])
        logits = torch.mm(y, weight.t())
        nats.append(cross_entropy_(logits, flat[here], head.softcap, IGNORE_INDEX, count))
        if gradient is not None:
            norm_stream_back(torch.mm(logits, weight), y, inverse, gradient.flatten(0, 1)[here], first=True, copy=False)
            if total is not None:
                total += torch.mm(logits.t(), y)
    mean = torch.cat(nats).sum(dtype=torch.float64) / count
    return mean, [total] if total is not None else []
