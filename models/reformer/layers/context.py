"""What a pass over a text knows besides its activations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from reformer.ops.rotary import Rotary


@dataclass(frozen=True)
class PassContext:
    """A replay is handed the same one. documents: int [batch, length] or None; dropout_seed: None for no dropout."""

    rotary: Rotary | None = None
    documents: Tensor | None = None
    dropout_seed: int | None = None

    def phase(self, here: slice) -> Tensor | None:
        """The rotary positions of a slice."""
        return self.rotary.phase(here) if self.rotary is not None else None
