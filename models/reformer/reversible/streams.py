"""Fixed-point streams: how the two residual streams are read, added to and subtracted from (README.md).

A stream is an int32 tensor [batch, length, d_model] that counts in units of 2^-bits. Integer addition has an exact
inverse, so what was added can be taken away bit for bit, whatever the depth and the precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import torch
from torch import Tensor

from reformer.backends.dtypes import matmul_dtype
from reformer.backends.torch_compile import is_exporting
from reformer.errors import out_of_range
from reformer.layers.context import PassContext

RANGE_LIMIT = 2**30  # streams, and what is added to them, stay below half of what an int32 holds
Pair = Sequence[Tensor]  # both streams, or both their gradients


@dataclass(frozen=True)
class Streams:
    """What is the same of all streams of a model. bits: they count in 2^-bits; dropout: share dropped of what is added;
    chunk_tokens: tokens that pointwise work is done on at a time; dtype: of the sub-layers' parameters; gradient_dtype:
    of the streams' gradients; rows: passes over rows (`norm_rope_relu.rows_for`); pending: where something was added,
    and whether it fitted, which a GPU is not waited for before `check_range`."""

    bits: int
    dropout: float
    chunk_tokens: int
    dtype: torch.dtype
    gradient_dtype: torch.dtype
    rows: ModuleType
    device: torch.device
    pending: list[tuple[str, Tensor]] = field(default_factory=list)
    normed: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    low: dict[int, Tensor] = field(default_factory=dict)
    flags: list[Tensor] = field(default_factory=list)

    @property
    def products(self) -> torch.dtype:
        """What products are taken in, as autocast says now."""
        return matmul_dtype(torch.empty(0, dtype=self.dtype, device=self.device))

    def read(self, stream: Tensor) -> Tensor:
        """A stream, or a slice of it, as floating point numbers."""
        x: Tensor = self.rows.from_fixed(stream, self.bits, self.dtype)
        return x

    def merge(self, pair: Pair, concat: bool = False) -> Tensor:
        """Both as the head reads them: their sum, or side by side."""
        if concat:
            return torch.cat([self.read(s) for s in pair], -1)
        return self.read(pair[0] + pair[1])

    def begin(
        self, shape: tuple[int, int, int], rows_of: Callable[[slice], Tensor], slices: Sequence[slice], where: str
    ) -> list[Tensor]:
        """Both streams [batch, length, d_model] as they start, alike; rows_of: slice -> [batch, slice, d_model]; where:
        what is named if that leaves the range."""
        first = torch.zeros(shape, dtype=torch.int32, device=self.device)
        for here in slices:
            self.add_(first[:, here], rows_of(here), where)
        return [first, first.clone()]

    def add_(self, stream: Tensor, x: Tensor, where: str) -> None:
        """stream += round(x / unit), in place. Raises NumericalError for what is not finite or leaves the range, on
        a GPU when `check_range` is called."""
        fits = self.rows.add_fixed_(stream, x, self.bits, 1, None if is_exporting() else RANGE_LIMIT)
        if isinstance(fits, Tensor):
            self.pending.append((where, fits))
        elif not fits:
            beyond = x if not bool((x.abs() < 2.0 ** (30 - self.bits)).all()) else stream * 2.0**-self.bits
            low, high = (float(v) for v in torch.aminmax(beyond))
            raise out_of_range(where, self.bits, f"values from {low:.4g} to {high:.4g}")

    def subtract_(self, stream: Tensor, x: Tensor) -> None:
        """The inverse of `add_`, bit for bit."""
        self.rows.add_fixed_(stream, x, self.bits, -1, None)

    def new_flag(self) -> Tensor:
        """int32 [1], 0, in which a kernel says that something did not fit."""
        if not self.flags:
            self.flags.extend(torch.zeros(64, dtype=torch.int32, device=self.device).split(1))
        return self.flags.pop()

    def take_pending(self) -> tuple[list[str], Tensor]:
        """Of what is pending: where, and bool [n], whether it fitted; nothing is waited for."""
        places, found = [where for where, _ in self.pending], [fits for _, fits in self.pending]
        self.pending.clear()
        flags = [f for f in found if f.dtype == torch.int32]
        fits = [torch.cat(flags) == 0] if flags else []
        order = [n for n, f in enumerate(found) if f.dtype == torch.int32]
        order += [n for n, f in enumerate(found) if f.dtype != torch.int32]
        fits += [torch.stack([f for f in found if f.dtype != torch.int32])] if len(flags) < len(found) else []
        return [places[n] for n in order], torch.cat(fits)

    def check_range(self) -> None:
        """Wait for what is pending. Raises NumericalError for the first of it that did not fit."""
        if self.pending:
            places, fits = self.take_pending()
            check_fits(places, fits, self.bits)

    def slices(self, batch: int, length: int) -> list[slice]:
        """Of the length, each of at most `chunk_tokens` tokens over the batch."""
        step = max(1, self.chunk_tokens // batch)
        return [slice(start, min(start + step, length)) for start in range(0, length, step)]

    def drop(self, added: Tensor, number: int, context: PassContext, start: int) -> Tensor:
        """What step `number` adds in the slice that begins at `start`, with dropout from a seed of its own."""
        if not self.dropout or context.dropout_seed is None:
            return added
        if isinstance(context.dropout_seed, Tensor):
            from reformer.ops.fused_rows.launch import dropout  # triton, which not everyone has

            return added * dropout(torch.ones_like(added), context.dropout_seed, number, start, self.dropout)
        seed = (context.dropout_seed * 1_000_003 + number) * 1_000_003 + start
        generator = torch.Generator(added.device).manual_seed(seed % 2**63)
        # Four numbers of 16 bits from each of 64: a generator's next number is what dropout costs.
        drawn = torch.empty(-(-added.numel() // 4), dtype=torch.int64, device=added.device)
        drawn = drawn.random_(-(2**63), None, generator=generator).view(torch.int16)
        stays = drawn[: added.numel()].view(added.shape) >= round(self.dropout * 2**16) - 2**15
        return added * stays.to(added.dtype).mul_(1 / (1 - self.dropout))


def check_fits(places: Sequence[str], fits: Tensor, bits: int) -> None:
    """Raises NumericalError for the first place whose flag is not set."""
    if not all(fitted := fits.tolist()):
        raise out_of_range(places[fitted.index(False)], bits)
