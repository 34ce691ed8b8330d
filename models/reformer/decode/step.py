"""Where decoding is: how many tokens each row has seen, and how many of those that come are real."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from reformer.ops.rotary import Rotary


@dataclass(frozen=True)
class DecodeStep:
    """seen: int64 [batch], tokens before these; new: int64 [batch], how many of these are real, the others filling up
    at the end; rotary: positions of the new ones; all_real: it is known that none fills up."""

    rotary: Rotary | None
    seen: Tensor
    new: Tensor
    all_real: bool = False

    def phase(self, length: int) -> Tensor | None:
        """The rotary positions of so many new tokens, row after row."""
        return self.rotary.phase(slice(0, length)) if self.rotary is not None else None
