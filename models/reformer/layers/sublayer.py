"""A sub-layer: a function f with parameters, of one stream, whose result the reversible layers add to the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from reformer.decode.cache import Cache
from reformer.decode.program import NativeProgram
from reformer.decode.step import DecodeStep


class Sublayer(nn.Module, ABC):
    """f in training is the subclass's, whose coupling (reversible/coupling.py) knows how to run it slice by slice: the
    feed-forward maps every position by itself, attention has three stages. Decoding is alike for all."""

    def new_cache(self, batch: int) -> Cache | None:
        """What decoding keeps between tokens, empty; None for a sub-layer without memory."""
        return None

    @abstractmethod
    def decode(self, x: Tensor, step: DecodeStep, cache: Any) -> Tensor:
        """f of new tokens x [batch, new, d_model], given the cache of those before; updates it."""

    def record(self, program: NativeProgram, reads: int, cache: Any) -> Tensor | None:
        """Emit what `decode` does with stream `reads`, and return what is to be added; None where the C program has no
        operation for it."""
        return None
