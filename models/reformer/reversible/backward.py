"""One coupling backwards: the stream that it writes is restored, the gradient of the one that it reads advances.

Slices go from the last to the first: autograd would add up the parameters' gradients in that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from reformer.layers.context import PassContext
from reformer.reversible.streams import Pair, Streams

Totals = dict[int, Tensor]  # id(parameter) -> its gradient so far


class BackwardPass:
    """Step `number` of a pass backwards, as its coupling sees it. x, y: the streams that it reads and writes; dx, dy:
    their gradients; all but dy change in place."""

    def __init__(
        self, streams: Streams, number: int, context: PassContext, pair: Pair, gradients: Pair, totals: Totals,
        reads: int, writes: int, parameters: Iterable[nn.Parameter],
    ) -> None:  # fmt: skip
        self.streams, self.number, self.context, self.totals = streams, number, context, totals
        self.pair = pair
        self.x, self.y, self.dx, self.dy = pair[reads], pair[writes], gradients[reads], gradients[writes]
        self.trained = [p for p in parameters if p.requires_grad]
        self.slices = streams.slices(*self.x.shape[:2])[::-1]

    def differentiate(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], upper: Sequence[Tensor]
    ) -> list[Tensor]:
        """Gradients of the inputs; those of the parameters go to the totals."""
        found = torch.autograd.grad(outputs, [*inputs, *self.trained], upper, allow_unused=True)
        add_up(self.totals, self.trained, found[len(inputs) :])
        return list(found[: len(inputs)])

    def drop(self, added: Tensor, here: slice) -> Tensor:
        """Dropout as forward had it."""
        return self.streams.drop(added, self.number, self.context, here.start)

    def restore(self, added: Tensor, here: slice) -> Tensor:
        """Take away what a slice had added; returns the gradient of that."""
        self.streams.subtract_(self.y[:, here], added.detach())
        return self.dy[:, here].to(added.dtype)

    def read(self, here: slice) -> Tensor:
        """A slice of x, as the leaf of a graph."""
        return self.streams.read(self.x[:, here]).requires_grad_()

    def from_graph(self, x: Tensor, added: Tensor) -> None:
        """The gradient alone, through the graph that forward has kept; the streams stay as they are."""
        (dx,) = self.differentiate([added], [x], [self.dy.to(added.dtype)])
        self.dx.add_(dx)


def add_up(totals: Totals, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Add gradients to the totals of their parameters."""
    for p, g in zip(parameters, gradients, strict=True):
        if g is not None:
            totals[id(p)] = totals[id(p)] + g if id(p) in totals else g
