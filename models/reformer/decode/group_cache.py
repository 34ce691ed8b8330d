"""What shortened layers (`model.shorten_factor`) keep: the rows of the last group; what layers on groups keep."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from reformer.decode.cache import Cache, load_all, select_all, take, tensors_of
from reformer.decode.program import NativeProgram


@dataclass
class GroupCache(Cache):
    """rows: [batch, size, d_model], that of token t at t modulo size; output: [batch, size, d_model], what the last
    whole group gives to the tokens from its last one on; caches: those of the layers."""

    fixed_shape = False  # they are worked on only now and then

    rows: Tensor
    output: Tensor
    caches: list[Cache | None]
    program: NativeProgram | None = field(default=None, repr=False)  # the layers in C, where that can be

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(cache.nbytes for cache in self.caches if cache is not None)

    def keep_rows(self, rows: Tensor, seen: int) -> None:
        """Of texts of so many tokens the last ones' rows [batch, size or fewer, d_model]."""
        slots = torch.arange(seen - rows.shape[1], seen, device=rows.device) % self.rows.shape[1]
        self.rows[:, slots] = rows.to(self.rows.dtype)

    def select(self, rows: Tensor) -> GroupCache:
        return GroupCache(self.rows[rows], self.output[rows], select_all(self.caches, rows))

    def mark(self, seen: int, tokens: int, native: bool) -> None:
        super().mark(seen, tokens, native)
        for cache in self.caches:
            if cache is not None:
                cache.mark(seen // self.rows.shape[1], tokens, native)

    def rewind(self) -> None:
        super().rewind()
        for cache in self.caches:
            if cache is not None:
                cache.rewind()

    def unmark(self) -> None:
        super().unmark()
        for cache in self.caches:
            if cache is not None:
                cache.unmark()

    def tensors(self, seen: int) -> dict[str, Tensor]:
        return {"rows": self.rows, "output": self.output, **tensors_of(self.caches, seen // self.rows.shape[1])}

    def load(self, tensors: dict[str, Tensor], seen: Tensor) -> None:
        for own, name in ((self.rows, "rows"), (self.output, "output")):
            own.copy_(take(tensors, name, own.dtype, own.shape))
        load_all(self.caches, tensors, seen // self.rows.shape[1])
