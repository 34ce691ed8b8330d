"""The layers under autograd: memory independent of depth, since backward runs the streams back and keeps none.

Every sub-layer runs once more in backward, for the rebuilding and the gradients together. Gradients pass the rounding
unchanged. Parameters are inputs of the autograd functions, so that freezing, torch.autograd.grad and DDP work as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from reformer.layers.context import PassContext
from reformer.layers.embedding import Embedding
from reformer.reversible.backward import Totals, add_up
from reformer.reversible.loss import Scoring, sliced_loss
from reformer.reversible.reference import run_reference, straight_through
from reformer.reversible.sequence import ReversibleSequence
from reformer.reversible.streams import Pair, Streams

Checks = list[tuple[list[str], Tensor]]  # places, and bool [n] whether what was added there fitted


@dataclass(frozen=True)
class Pass:
    """One text through the layers. concat: the head reads both streams side by side, and not their sum; checks: see
    `ReformerLM.loss`."""

    sequence: ReversibleSequence
    embedding: Embedding
    context: PassContext
    concat: bool = False
    checks: Checks | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Beside the embedding's weight and those of the head."""
        return [*self.sequence.parameters(), *self.embedding.parameters]


def begin(streams: Streams, embedding: Embedding, weight: Tensor, whole: bool = False) -> list[Tensor]:
    """Both streams, as a text enters them, slice by slice or whole."""
    batch, length = embedding.tokens.shape
    shape, slices = (batch, length, weight.shape[1]), [slice(0, length)] if whole else streams.slices(batch, length)
    return streams.begin(shape, lambda here: embedding.rows(weight, here), slices, "embedding")


def begin_back(streams: Streams, embedding: Embedding, weight: Tensor, gradients: Pair, totals: Totals) -> Tensor:
    """The weight's gradient, given those of both streams; those of the other parameters go to the totals."""
    leaf = weight.detach().requires_grad_()
    trained: list[Tensor] = [leaf, *embedding.parameters]
    for here in streams.slices(*embedding.tokens.shape)[::-1]:
        upper = (gradients[0][:, here] + gradients[1][:, here]).to(streams.dtype)
        with torch.enable_grad():
            x = embedding.rows(leaf, here)
        add_up(totals, trained, torch.autograd.grad([x], trained, [upper]))
    return totals.pop(id(leaf))


def _forward(ctx: Any, p: Pass, weight: Tensor, parameters: tuple[Tensor, ...], differentiate: bool) -> list[Tensor]:
    """The streams at their end; what backward needs is put into ctx."""
    pair = begin(p.sequence.streams, p.embedding, weight)
    ctx.kept = list[Any]() if differentiate else None
    ctx.saved = p.sequence.run(pair, p.context, kept=ctx.kept)
    if p.checks is None:
        p.sequence.streams.check_range()
    elif p.sequence.streams.pending:
        p.checks.append(p.sequence.streams.take_pending())
    ctx.run, ctx.parameters, ctx.at, ctx.autocast = p, parameters, None, _autocast(weight)
    return pair


def _replay(ctx: Any, pair: Pair) -> None:
    """Run forward again where an earlier backward (retain_graph) has run the streams back."""
    if ctx.at is not None:
        ctx.saved = ctx.run.sequence.run(pair, ctx.run.context, ctx.saved, first=ctx.at)


def _run_back(ctx: Any, weight: Tensor, pair: Pair, gradients: Pair) -> tuple[Tensor, Totals]:
    """(the gradient of the embedding's weight, those of the parameters)."""
    p: Pass = ctx.run
    ctx.at = len(ctx.kept or ())  # the step that the streams will stand before
    totals = p.sequence.run_back(pair, gradients, p.context, ctx.saved, ctx.kept)
    return begin_back(p.sequence.streams, p.embedding, weight, gradients, totals), totals


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Pass, differentiate: bool, weight: Tensor, *parameters: Tensor) -> Tensor:
        pair = _forward(ctx, p, weight, parameters, differentiate and any(ctx.needs_input_grad))
        ctx.save_for_backward(weight, *pair)
        return p.sequence.streams.merge(pair, p.concat)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *saved = ctx.saved_tensors
        pair = [s.data for s in saved]  # rebuilt in place, past the version counter
        with torch.no_grad(), ctx.autocast:
            _replay(ctx, pair)
            parts = grad.chunk(2, -1) if ctx.run.concat else (grad, grad)
            dtype = ctx.run.sequence.streams.gradient_dtype
            gradients = [g.to(pair[0].device, dtype, copy=True) for g in parts]
            d_weight, totals = _run_back(ctx, weight, pair, gradients)
        return None, None, d_weight, *(totals.get(id(p)) for p in ctx.parameters)


class _ReversibleLoss(torch.autograd.Function):
    """Layers, head and loss in one: the streams' gradients are made slice by slice while the loss is, so that beside
    two streams and two gradients nothing as large exists."""

    @staticmethod
    def forward(
        ctx: Any, p: Pass, head: Scoring, differentiate: bool, targets: Tensor, weight: Tensor, *parameters: Tensor
    ) -> Tensor:
        differentiate = differentiate and any(ctx.needs_input_grad)  # which are true under torch.no_grad too
        pair = _forward(ctx, p, weight, parameters, differentiate)
        ctx.head, ctx.gradients = head, list[Tensor]() if differentiate else None
        mean, ctx.totals = _loss(p, head, targets, pair, ctx.gradients)
        ctx.save_for_backward(targets, weight, *pair)
        return mean.to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        targets, weight, *saved = ctx.saved_tensors
        pair = [s.data for s in saved]  # rebuilt in place, past the version counter
        with torch.no_grad(), ctx.autocast:
            _replay(ctx, pair)
            if not ctx.gradients:
                _, ctx.totals = _loss(ctx.run, ctx.head, targets, pair, ctx.gradients)
            gradients, ctx.gradients = ctx.gradients, []
            if grad.device.type != "cpu" or float(grad) != 1:  # a GPU is not waited for
                for g in [*gradients, *ctx.totals]:
                    g *= grad
            if len(gradients) == 1:
                gradients.append(gradients[0].clone())
            d_weight, totals = _run_back(ctx, weight, pair, gradients)
        trained = [p for p in ctx.head.parameters() if p.requires_grad]
        totals |= {id(p): g for p, g in zip(trained, ctx.totals, strict=True)}
        return *[None] * 4, d_weight, *(totals.get(id(p)) for p in ctx.parameters)


def _autocast(x: Tensor) -> torch.autocast:
    """The autocast that is on now, to be entered again."""
    kind = x.device.type
    return torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))


def _loss(
    p: Pass, head: Scoring, targets: Tensor, pair: Pair, gradients: list[Tensor] | None
) -> tuple[Tensor, list[Tensor]]:
    """The loss of finished streams and the head's gradients. gradients, if given, is filled with those of the streams:
    two, or one where they are the same (their sum is read)."""
    streams = p.sequence.streams
    if (fused := fused_loss_of(p, head)) is not None:
        if gradients is not None:
            gradients.append(torch.empty_like(pair[0], dtype=streams.gradient_dtype))
        return fused(streams, pair, head, targets, gradients[0] if gradients is not None else None)
    if gradients is not None:
        gradients += [torch.empty_like(pair[0], dtype=streams.gradient_dtype) for _ in range(2 if p.concat else 1)]

    def read(here: slice) -> Tensor:
        return streams.merge([s[:, here] for s in pair], p.concat)

    def write(here: slice, gradient: Tensor) -> None:
        assert gradients is not None
        for whole, part in zip(gradients, gradient.chunk(len(gradients), -1), strict=True):
            whole[:, here] = part

    slices = streams.slices(*targets.shape)
    return sliced_loss(head, read, targets, slices, write if gradients is not None else None)


def fused_loss_of(p: Pass, head: Scoring) -> Callable[..., tuple[Tensor, list[Tensor]]] | None:
    """The loss as it is taken on a GPU; None where it cannot be."""
    if p.sequence.fused is None or p.concat or len(list(head.parameters())) != 1:
        return None
    from reformer.reversible.fused import fused_loss  # triton, which not everyone has

    return fused_loss


def reversible(p: Pass, weight: Tensor) -> Tensor:
    """The merged streams of a text, differentiable in the embedding's weight [vocab_size, d_model] and all parameters.

    Raises NumericalError, which names the layer, when a value is not finite or leaves the streams' range.
    """
    out: Tensor = _Reversible.apply(p, torch.is_grad_enabled(), weight, *p.parameters)
    return out


def reversible_loss(p: Pass, weight: Tensor, head: Scoring, targets: Tensor) -> Tensor:
    """Mean nats per scored target (`loss.sliced_loss`) of what `head` makes of the merged streams."""
    parameters = [*p.parameters, *head.parameters()]
    out: Tensor = _ReversibleLoss.apply(p, head, torch.is_grad_enabled(), targets, weight, *parameters)
    return out


def reversible_reference(p: Pass, weight: Tensor) -> Tensor:
    """`reversible` under ordinary autograd, which keeps every activation: the definition of the gradients."""
    streams = p.sequence.streams
    x = torch.cat([p.embedding.rows(weight, here) for here in streams.slices(*p.embedding.tokens.shape)], 1)
    pair, float_streams, _ = run_reference(p.sequence, x, p.context)
    return torch.cat(float_streams, -1) if p.concat else straight_through(streams, pair[0] + pair[1], *float_streams)
