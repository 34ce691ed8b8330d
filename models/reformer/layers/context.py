"""What a pass over a text knows besides its activations."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from reformer.ops.rotary import Rotary

Seed = int | Tensor  # of dropout


@dataclass(frozen=True)
class PassContext:
    """A replay is handed the same one. documents: int [batch, length] or None; dropout_seed: None for no dropout; on a
    GPU int64 [1], where it is to be read anew whenever a CUDA graph is replayed."""

    rotary: Rotary | None = None
    documents: Tensor | None = None
    dropout_seed: Seed | None = None
    _turns: dict[int, Tensor] = field(default_factory=dict, compare=False)

    def phase(self, here: slice) -> Tensor | None:
        """The rotary positions of a slice."""
        return self.rotary.phase(here) if self.rotary is not None else None

    def turns(self, length: int) -> Tensor | None:
        """`phase` of a whole text, made once."""
        if self.rotary is not None and length not in self._turns:
            self._turns[length] = self.rotary.phase(slice(0, length))
        return self._turns.get(length)

    @cached_property
    def starts(self) -> Tensor | None:
        """int32 [batch * length], where in its row each token's document begins; None where all is one."""
        if self.documents is None:
            return None
        time = torch.arange(self.documents.shape[1], device=self.documents.device)
        begun = self.documents[:, 1:] != self.documents[:, :-1]
        found = torch.where(torch.nn.functional.pad(begun, (1, 0)), time, 0).cummax(1).values
        return found.to(torch.int32).flatten()
