"""The trunk under autograd: memory independent of depth, since backward runs the streams back instead of keeping them.

Every branch runs once more in backward, for the rebuilding and the gradients together. Gradients pass the rounding
unchanged. Parameters are inputs of the autograd functions, so that freezing, torch.autograd.grad and DDP work as usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from reformer.layers.embedding import Source
from reformer.layers.sublayer import Context
from reformer.reversible.loss import Scoring, sliced_loss
from reformer.reversible.reference import plain, straight_through
from reformer.reversible.sequence import Graph, Trunk, merge


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, trunk: Trunk, context: Context, concat: bool, differentiate: bool, source: Source, table: Tensor,
        *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        streams = source.begin(trunk, table)
        ctx.kept = _kept(trunk, source, differentiate and any(ctx.needs_input_grad))
        ctx.routings = trunk.run(streams, context, kept=ctx.kept)
        ctx.settings, ctx.parameters, ctx.at_start = (trunk, context, concat, source), parameters, False
        ctx.autocast = _autocast(table)
        ctx.save_for_backward(table, *streams)
        return merge(trunk, streams, concat)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        trunk, context, concat, source = ctx.settings
        table, *saved = ctx.saved_tensors
        # Rebuilt in place, past the version counter: a second backward (retain_graph) runs forward again first.
        streams = [s.data for s in saved]
        with torch.no_grad(), ctx.autocast:
            if ctx.at_start:
                ctx.routings = trunk.run(streams, context, ctx.routings)
            parts = grad.chunk(2, -1) if concat else (grad, grad)
            gradients = [g.to(streams[0].device, trunk.gradient_dtype, copy=True) for g in parts]
            ctx.at_start = not ctx.kept
            totals = trunk.run_back(streams, gradients, context, ctx.routings, ctx.kept)
            d_table = source.back(trunk, table, gradients, totals)
        return *[None] * 5, d_table, *(totals.get(id(p)) for p in ctx.parameters)


class _ReversibleLoss(torch.autograd.Function):
    """Trunk, head and loss in one: the streams' gradients are made slice by slice while the loss is, so that beside two
    streams and two gradients nothing as large exists."""

    @staticmethod
    def forward(
        ctx: Any, trunk: Trunk, context: Context, concat: bool, head: Scoring, differentiate: bool,
        targets: Tensor, source: Source, table: Tensor, *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        streams = source.begin(trunk, table)
        differentiate = differentiate and any(ctx.needs_input_grad)  # which are true under torch.no_grad too
        ctx.kept = _kept(trunk, source, differentiate)
        ctx.routings = trunk.run(streams, context, kept=ctx.kept)
        ctx.settings, ctx.parameters, ctx.at_start = (trunk, context, concat, head, source), parameters, False
        ctx.autocast = _autocast(table)
        ctx.gradients = [] if differentiate else None
        mean, ctx.totals = _loss(trunk, concat, head, targets, streams, ctx.gradients)
        ctx.save_for_backward(targets, table, *streams)
        return mean.to(table.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        trunk, context, concat, head, source = ctx.settings
        targets, table, *saved = ctx.saved_tensors
        # Rebuilt in place, past the version counter: a second backward (retain_graph) runs forward again first.
        streams = [s.data for s in saved]
        with torch.no_grad(), ctx.autocast:
            if ctx.at_start:
                ctx.routings = trunk.run(streams, context, ctx.routings)
            if not ctx.gradients:
                _, ctx.totals = _loss(trunk, concat, head, targets, streams, ctx.gradients)
            gradients, ctx.gradients = ctx.gradients, []
            if len(gradients) == 1:
                gradients.append(gradients[0].clone())
            if float(grad) != 1:
                for g in [*gradients, *ctx.totals]:
                    g *= grad.to(g.device)
            ctx.at_start = not ctx.kept
            totals = trunk.run_back(streams, gradients, context, ctx.routings, ctx.kept)
            d_table = source.back(trunk, table, gradients, totals)
        totals |= {id(p): g for p, g in zip(_trainable(head), ctx.totals, strict=True)}
        return *[None] * 7, d_table, *(totals.get(id(p)) for p in ctx.parameters)


def _kept(trunk: Trunk, source: Source, differentiate: bool) -> list[Graph] | None:
    """What forward keeps its graphs in; None where backward is to make them again."""
    return [] if differentiate and trunk.keeps(*source.tokens.shape) else None


def _autocast(x: Tensor) -> torch.autocast:
    """The autocast that is on now, to be entered again."""
    kind = x.device.type
    return torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))


def _trainable(module: nn.Module | Scoring) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _loss(
    trunk: Trunk, concat: bool, head: Scoring, targets: Tensor, streams: Sequence[Tensor],
    gradients: list[Tensor] | None,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """The loss of finished streams and the head's gradients. gradients, if given, is filled with those of the streams:
    two, or one where they are the same (their sum is read)."""
    if gradients is not None:
        gradients += [torch.empty_like(streams[0], dtype=trunk.gradient_dtype) for _ in range(2 if concat else 1)]

    def read(here: slice) -> Tensor:
        return merge(trunk, [s[:, here] for s in streams], concat)

    def write(here: slice, gradient: Tensor) -> None:
        assert gradients is not None
        for whole, part in zip(gradients, gradient.chunk(len(gradients), -1), strict=True):
            whole[:, here] = part

    slices = trunk.slices(*targets.shape)
    return sliced_loss(head, read, targets, slices, write if gradients is not None else None)


def reversible(trunk: Trunk, source: Source, table: Tensor, context: Context, *, concat: bool) -> Tensor:
    """The merged streams of a text, differentiable in the table and all parameters.

    Raises NumericalError, which names the layer, when a value is not finite or leaves the streams' range.
    """
    parameters = [p for c in trunk.couplings for p in c.branch.parameters()] + source.parameters
    out: Tensor = _Reversible.apply(trunk, context, concat, torch.is_grad_enabled(), source, table, *parameters)
    return out


def reversible_loss(
    trunk: Trunk, source: Source, table: Tensor, context: Context, head: Scoring, targets: Tensor, *, concat: bool
) -> Tensor:
    """Mean nats per scored target (`loss.sliced_loss`) of what `head` makes of the merged streams."""
    parameters = [p for c in trunk.couplings for p in c.branch.parameters()] + source.parameters
    parameters += list(head.parameters())
    differentiate = torch.is_grad_enabled()
    out: Tensor = _ReversibleLoss.apply(
        trunk, context, concat, head, differentiate, targets, source, table, *parameters
    )
    return out


def reversible_reference(trunk: Trunk, source: Source, table: Tensor, context: Context, *, concat: bool) -> Tensor:
    """The same network under ordinary autograd, which keeps every activation: the definition of the gradients."""
    x = torch.cat([source.rows(table, here) for here in trunk.slices(*source.tokens.shape)], 1)
    integers, ghosts, _ = plain(trunk, x, context)
    return torch.cat(ghosts, -1) if concat else straight_through(trunk, integers[0] + integers[1], *ghosts)
