"""How a text enters the trunk: what both streams start as, and the gradients of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.layers.line_position import Columns
from reformer.ops.rotary import AxialPositions
from reformer.reversible.backward import add_up
from reformer.reversible.sequence import Trunk


@dataclass(frozen=True)
class Source:
    """What both streams start as, made slice by slice: rows of a table [vocab_size, d_model] by token, plus positions.

    tokens: int64 [batch, length]; starts: int64 [batch], how many came before; None: none. places: int64 [batch,
    length], where on its line each token ends (`columns`).
    """

    tokens: Tensor
    axial: AxialPositions | None = None
    starts: Tensor | None = None
    columns: Columns | None = None
    places: Tensor | None = None

    def rows(self, table: Tensor, here: slice) -> Tensor:
        """[batch, slice, d_model]."""
        x = F.embedding(self.tokens[:, here], table)
        if self.columns is not None and self.places is not None:
            x = x + self.columns.rows(self.places[:, here])
        if self.axial is None:
            return x
        positions = torch.arange(here.start, here.stop, device=x.device)
        return x + self.axial(positions if self.starts is None else self.starts[:, None] + positions)

    def begin(self, trunk: Trunk, table: Tensor) -> list[Tensor]:
        """The streams."""
        shape, slices = (*self.tokens.shape, table.shape[1]), trunk.slices(*self.tokens.shape)
        return trunk.begin(shape, lambda here: self.rows(table, here), slices, "embedding")

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Beside the table."""
        found = [p for module in (self.columns, self.axial) if module is not None for p in module.parameters()]
        return [p for p in found if p.requires_grad]

    def back(self, trunk: Trunk, table: Tensor, gradients: Sequence[Tensor], totals: dict[int, Tensor]) -> Tensor:
        """The table's gradient, given those of both streams; those of the other parameters go to the totals."""
        leaf = table.detach().requires_grad_()
        wanted: list[Tensor] = [leaf, *self.parameters]
        for here in trunk.slices(*self.tokens.shape)[::-1]:
            upper = (gradients[0][:, here] + gradients[1][:, here]).to(trunk.device, trunk.dtype)
            with torch.enable_grad():
                x = self.rows(leaf, here)
            add_up(totals, wanted, torch.autograd.grad([x], wanted, [upper]))
        return totals.pop(id(leaf))
