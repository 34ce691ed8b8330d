"""One coupling backwards: its target's stream is restored, its source's gradient and the parameters' advance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reformer.backends.dtypes import wide_dtype
from reformer.layers.sublayer import Branch, Context, Mixing
from reformer.ops.bucket_attention.layout import row_products

if TYPE_CHECKING:
    from reformer.reversible.sequence import Coupling, Trunk

KEPT = 2**25  # numbers of a stream, up to which backward keeps what a branch makes of it instead of making it again


class Undo:
    """One step backwards: the target's stream is restored, the source's gradient and the parameters' advance.

    Slices go from the last to the first: autograd would add up the parameters' gradients in that order.
    """

    def __init__(
        self, trunk: Trunk, coupling: Coupling, number: int, streams: Sequence[Tensor], gradients: list[Tensor],
        context: Context, totals: dict[int, Tensor],
    ) -> None:  # fmt: skip
        self.trunk, self.number, self.context, self.totals = trunk, number, context, totals
        self.branch = coupling.branch
        self.source, self.target = streams[coupling.source], streams[coupling.target]
        self.d_source, self.d_target = gradients[coupling.source], gradients[coupling.target]
        self.wanted = [p for p in coupling.branch.parameters() if p.requires_grad]
        self.slices = trunk.slices(*self.source.shape[:2])[::-1]

    def differentiate(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], upper: Sequence[Tensor]
    ) -> list[Tensor]:
        """Gradients of the inputs; those of the parameters go to the totals."""
        found = torch.autograd.grad(outputs, [*inputs, *self.wanted], upper, allow_unused=True)
        add_up(self.totals, self.wanted, found[len(inputs) :])
        return list(found[: len(inputs)])

    def restore(self, added: Tensor, here: slice) -> Tensor:
        """Take away what a slice had added; returns the gradient of that."""
        self.trunk.subtract_(self.target[:, here], added.detach())
        return self.d_target[:, here].to(added.device, added.dtype)

    def advance(self, here: slice, dx: Tensor) -> None:
        """Add to the gradient of the source's stream."""
        self.d_source[:, here] += dx.to(self.d_source.device)

    def kept(self, x: Tensor, added: Tensor) -> None:
        (dx,) = self.differentiate([added], [x], [self.d_target.to(added.dtype)])
        self.d_source += dx

    def pointwise(self, branch: Branch) -> None:
        for here in self.slices:
            with torch.enable_grad():
                x = self.trunk.read(self.source[:, here]).requires_grad_()
                added = self.trunk.dropped(branch(x), self.number, self.context, here.start)
            (dx,) = self.differentiate([added], [x], [self.restore(added, here)])
            self.advance(here, dx)

    def mixing(self, branch: Mixing, group: slice, routing: Tensor | None) -> None:
        graph: list[tuple[Tensor, tuple[Tensor, ...]]] = []
        if self.source.numel() <= KEPT:
            graph = [self.split(branch, here, group) for here in self.slices]
            parts = [_joined(p[::-1]).requires_grad_() for p in zip(*(g[1] for g in graph), strict=True)]
        else:  # the graph of a long text would hold what slices are there to avoid: they are split once more below
            parts = [p.requires_grad_() for p in self.trunk.split(branch, self.source, self.context, group)]
        delta = None
        if branch.takes_delta and len(graph) != 1:  # the graph of a single slice has the very parts
            delta = torch.empty(parts[0].shape[:3].numel(), dtype=wide_dtype(parts[0]), device=parts[0].device)
        with torch.enable_grad():
            out, _ = branch.mix(tuple(parts), self.context, group, routing, delta)
        d_out = self.outputs_back(branch, group, out.data, delta)  # past the version counter: nothing has kept it
        d_parts = self.differentiate([out], parts, [d_out])
        del out, d_out, parts
        for here in self.slices:
            x, split = graph.pop(0) if graph else self.split(branch, here, group)
            (dx,) = self.differentiate(split, [x], [d[:, :, here] for d in d_parts])
            self.advance(here, dx)

    def outputs_back(self, branch: Mixing, group: slice, out: Tensor, delta: Tensor | None) -> Tensor:
        """The gradient of a branch's output, in its place where delta says what backward needs of it."""
        d_out, (batch, heads, length, _) = torch.empty_like(out) if delta is None else out, out.shape
        for here in self.slices:
            with torch.enable_grad():
                part = out[:, :, here].detach().requires_grad_()
                added = self.trunk.dropped(branch.joined(part, group), self.number, self.context, here.start)
            (d_part,) = self.differentiate([added], [part], [self.restore(added, here)])
            if delta is not None:
                rows = (x.detach().transpose(1, 2).flatten(0, 2) for x in (part, d_part))
                delta.view(batch, length, heads)[:, here] = row_products(*rows).view(batch, -1, heads)
            d_out[:, :, here] = d_part
        return d_out

    def split(self, branch: Mixing, here: slice, group: slice) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A slice of the source, and its parts with their graph."""
        with torch.enable_grad():
            x = self.trunk.read(self.source[:, here]).requires_grad_()
            return x, branch.split(x, self.context.phase(here), group)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Slices [batch, heads, slice, d_head] as one, lying token by token as they do; without their graph."""
    if len(parts) == 1:
        return parts[0].detach()
    return torch.cat([p.detach().transpose(1, 2) for p in parts], 1).transpose(1, 2)


def add_up(totals: dict[int, Tensor], parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add gradients to the totals of their parameters, by id."""
    for p, g in zip(parameters, gradients, strict=True):
        if g is not None:
            totals[id(p)] = totals[id(p)] + g if id(p) in totals else g
