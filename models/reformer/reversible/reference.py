"""The couplings under ordinary autograd, which keeps every activation: the definition of what the trunk computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reformer.layers.sublayer import Composite, Context, Mixing
from reformer.reversible.sequence import Trunk


def plain(trunk: Trunk, x: Tensor, context: Context) -> tuple[list[Tensor], list[Tensor], list[Any]]:
    """Both streams after all couplings, in fixed point and as floats with their graph, and what `Trunk.run` returns.
    Both start as x [batch, length, d_model]."""
    slices = trunk.slices(*x.shape[:2])
    integers = trunk.begin((*x.shape,), lambda here: x[:, here].detach(), slices, "start")
    ghosts = [straight_through(trunk, s, x) for s in integers]
    routings: list[Any] = []
    for number, (index, group) in enumerate(trunk.steps()):
        c = trunk.couplings[index]
        stream, routing = ghosts[c.source], None
        if isinstance(c.branch, Composite):
            added, routing = c.branch.whole(trunk, stream, number, context)
        else:
            if isinstance(c.branch, Mixing) and group is not None:
                split = [c.branch.split(stream[:, here], context.phase(here), group) for here in slices]
                parts = tuple(torch.cat(part, 2) for part in zip(*split, strict=True))
                out, routing = c.branch.mix(parts, context, group)
                pieces = [c.branch.joined(out[:, :, here], group) for here in slices]
            else:
                pieces = [c.branch(stream[:, here]) for here in slices]
            dropped = [trunk.dropped(p, number, context, here.start) for p, here in zip(pieces, slices, strict=True)]
            added = torch.cat(dropped, 1)
        routings.append(routing)
        integers[c.target] = integers[c.target].clone()
        trunk.add_(integers[c.target], added.detach(), c.name)
        ghosts[c.target] = straight_through(trunk, integers[c.target], ghosts[c.target], added)
    return integers, ghosts, routings


def straight_through(trunk: Trunk, stream: Tensor, *sources: Tensor) -> Tensor:
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
