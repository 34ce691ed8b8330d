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

from reformer.branch import Context, Mixing
from reformer.loss import sliced_loss
from reformer.trunk import Trunk, merge


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trunk: Trunk, context: Context, concat: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        streams = trunk.begin(x)
        ctx.routings = trunk.run(streams, context)
        ctx.trunk, ctx.context, ctx.concat, ctx.parameters = trunk, context, concat, parameters
        ctx.at_start = False
        ctx.autocast = (torch.is_autocast_enabled(x.device.type), torch.get_autocast_dtype(x.device.type))
        ctx.save_for_backward(*streams)
        return merge(trunk, streams, concat)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Rebuilt in place, past the version counter: a second backward (retain_graph) runs forward again first.
        streams = [s.data for s in ctx.saved_tensors]
        enabled, dtype = ctx.autocast
        with torch.no_grad(), torch.autocast(grad.device.type, enabled=enabled, dtype=dtype):
            if ctx.at_start:
                ctx.trunk.run(streams, ctx.context, ctx.routings)
            parts = grad.chunk(2, -1) if ctx.concat else (grad, grad)
            gradients = [g.to(ctx.trunk.gradient_dtype, copy=True) for g in parts]
            totals = ctx.trunk.run_back(streams, gradients, ctx.context, ctx.routings)
        ctx.at_start = True
        dx = gradients[0].add_(gradients[1]).to(ctx.trunk.dtype)
        return None, None, None, dx, *(totals.get(id(p)) for p in ctx.parameters)


class _ReversibleLoss(torch.autograd.Function):
    """Trunk, head and loss in one: the streams' gradients are made slice by slice while the loss is, so that beside two
    streams and two gradients nothing as large exists."""

    @staticmethod
    def forward(
        ctx: Any, trunk: Trunk, context: Context, concat: bool, head: nn.Module, differentiate: bool,
        targets: Tensor, x: Tensor, *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        streams = trunk.begin(x)
        ctx.routings = trunk.run(streams, context)
        ctx.settings = (trunk, context, concat, head)
        ctx.autocast = (torch.is_autocast_enabled(x.device.type), torch.get_autocast_dtype(x.device.type))
        ctx.parameters, ctx.at_start = parameters, False
        # needs_input_grad is true under torch.no_grad too.
        ctx.gradients = [] if differentiate and any(ctx.needs_input_grad) else None
        mean, ctx.totals = _loss(trunk, concat, head, targets, streams, ctx.gradients)
        ctx.save_for_backward(targets, *streams)
        return mean.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        trunk, context, concat, head = ctx.settings
        targets, *saved = ctx.saved_tensors
        # Rebuilt in place, past the version counter: a second backward (retain_graph) runs forward again first.
        streams = [s.data for s in saved]
        enabled, dtype = ctx.autocast
        with torch.no_grad(), torch.autocast(grad.device.type, enabled=enabled, dtype=dtype):
            if ctx.at_start:
                trunk.run(streams, context, ctx.routings)
                ctx.gradients = []
                _, ctx.totals = _loss(trunk, concat, head, targets, streams, ctx.gradients)
            gradients, ctx.gradients = ctx.gradients, []
            if len(gradients) == 1:
                gradients.append(gradients[0].clone())
            if float(grad) != 1:
                for g in [*gradients, *ctx.totals]:
                    g *= grad
            totals = trunk.run_back(streams, gradients, context, ctx.routings)
        ctx.at_start = True
        totals |= {id(p): g for p, g in zip(_trainable(head), ctx.totals, strict=True)}
        dx = gradients[0].add_(gradients[1]).to(trunk.dtype)
        return None, None, None, None, None, None, dx, *(totals.get(id(p)) for p in ctx.parameters)


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _loss(
    trunk: Trunk, concat: bool, head: nn.Module, targets: Tensor, streams: Sequence[Tensor],
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


def reversible(trunk: Trunk, x: Tensor, context: Context, *, concat: bool) -> Tensor:
    """Both streams start as x [batch, length, d_model]; returns them merged, differentiable in x and parameters.

    Raises NumericalError, which names the layer, when a value is not finite or leaves the streams' range.
    """
    parameters = [p for c in trunk.couplings for p in c.branch.parameters()]
    out: Tensor = _Reversible.apply(trunk, context, concat, x, *parameters)
    return out


def reversible_loss(
    trunk: Trunk, x: Tensor, context: Context, head: nn.Module, targets: Tensor, *, concat: bool
) -> Tensor:
    """Mean nats per scored target (`loss.sliced_loss`) of what `head` makes of the merged streams."""
    parameters = [p for c in trunk.couplings for p in c.branch.parameters()] + list(head.parameters())
    differentiate = torch.is_grad_enabled()
    out: Tensor = _ReversibleLoss.apply(trunk, context, concat, head, differentiate, targets, x, *parameters)
    return out


def reversible_reference(trunk: Trunk, x: Tensor, context: Context, *, concat: bool) -> Tensor:
    """The same network under ordinary autograd, which keeps every activation: the definition of the gradients."""
    integers = trunk.begin(x.detach())
    ghosts = [_straight_through(trunk, s, x) for s in integers]
    for index, c in enumerate(trunk.couplings):
        slices, source = trunk.slices(*x.shape[:2]), ghosts[c.source]
        if isinstance(c.branch, Mixing):
            split = [c.branch.split(source[:, here], context.phase(here)) for here in slices]
            out, _ = c.branch.mix(tuple(torch.cat(parts, 2) for parts in zip(*split, strict=True)), context, None)
            pieces = [c.branch.joined(out[:, :, here]) for here in slices]
        else:
            pieces = [c.branch(source[:, here]) for here in slices]
        dropped = [trunk.dropped(p, index, context, here.start) for p, here in zip(pieces, slices, strict=True)]
        added = torch.cat(dropped, 1)
        integers[c.target] = integers[c.target].clone()
        trunk.add_(integers[c.target], added.detach(), c.name)
        ghosts[c.target] = _straight_through(trunk, integers[c.target], ghosts[c.target], added)
    return torch.cat(ghosts, -1) if concat else _straight_through(trunk, integers[0] + integers[1], *ghosts)


def _straight_through(trunk: Trunk, stream: Tensor, *sources: Tensor) -> Tensor:
    """The stream as floats, whose gradient goes to every source unchanged."""
    out: Tensor = _StraightThrough.apply(trunk.read(stream), *sources)
    return out


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, *sources: Tensor) -> Tensor:
        ctx.dtypes = [s.dtype for s in sources]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(grad.to(dtype) for dtype in ctx.dtypes)
