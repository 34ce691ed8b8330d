"""The trunk: two fixed-point streams and the couplings that advance them, forwards and backwards (design section 3).

Every coupling adds round(branch(one stream) / unit) to the other. Integer addition has an exact inverse, so backward
rebuilds the inputs bit for bit, whatever the depth and the precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from reformer.backends.compiler import exporting
from reformer.errors import NumericalError
from reformer.layers.sublayer import Branch, Composite, Context, Mixing
from reformer.reversible.backward import Undo

Graph = tuple[Tensor, Tensor]  # of a step: what its branch was given, and what that added
GUARD = 2**30  # streams, and what is added to them, stay below half of what an int32 holds


@dataclass(frozen=True)
class Coupling:
    """streams[target] += branch(streams[source])."""

    source: int
    target: int
    branch: Branch | Composite
    name: str


@dataclass(frozen=True)
class Trunk:
    """The couplings in order, and how they are run. bits: streams count in 2^-bits; dropout: share dropped; size:
    tokens that pointwise work is done on at a time; dtype: of the branches' parameters; gradient_dtype: of the streams'
    gradients; rows: passes over rows (`rowwise.rows_for`); head_group: heads worked on together; device: of the work;
    offload: streams and their gradients are kept in main memory and fetched slice by slice; activations: bytes of all
    branches a token, about; most_activations: bytes that may be kept of them from forward to backward; pending: where
    something was added, and whether it fitted, which a GPU is not waited for before `settle`."""

    couplings: Sequence[Coupling]
    bits: int
    dropout: float
    size: int
    dtype: torch.dtype
    gradient_dtype: torch.dtype
    rows: ModuleType
    head_group: int
    device: torch.device
    offload: bool
    activations: int = 0
    most_activations: int = 0
    pending: list[tuple[str, Tensor]] = field(default_factory=list)

    def steps(self) -> list[tuple[int, slice | None]]:
        """What is done one after the other: (coupling, group of its heads, None for what is no attention)."""
        found: list[tuple[int, slice | None]] = []
        for index, c in enumerate(self.couplings):
            if isinstance(c.branch, Mixing):
                n, size = c.branch.heads, self.head_group
                found += [(index, slice(start, min(start + size, n))) for start in range(0, n, size)]
            else:
                found.append((index, None))
        return found

    def read(self, stream: Tensor) -> Tensor:
        """A stream, or a slice of it, as floating point numbers on the device."""
        x: Tensor = self.rows.read(stream.to(self.device, non_blocking=True), self.bits, self.dtype)
        return x

    def begin(
        self, shape: tuple[int, int, int], embedded: Callable[[slice], Tensor], slices: Sequence[slice], where: str
    ) -> list[Tensor]:
        """Both streams [batch, length, d_model] as they start; embedded: slice -> [batch, slice, d_model]; where: what
        is named if that leaves the range."""
        first = torch.zeros(shape, dtype=torch.int32, device="cpu" if self.offload else self.device)
        for here in slices:
            self.add_(first[:, here], embedded(here), where)
        return [first, first.clone()]

    def add_(self, stream: Tensor, x: Tensor, where: str) -> None:
        """stream += round(x / unit), in place. Raises NumericalError for what is not finite or leaves the range, on
        a GPU when it is settled."""
        there = stream.to(self.device)
        fits = self.rows.add_(there, x, self.bits, 1, None if exporting() else GUARD)
        if there is not stream:
            stream.copy_(there)
        if isinstance(fits, Tensor):
            self.pending.append((where, fits))
        elif not fits:
            seen = x if not bool((x.abs() < 2.0 ** (30 - self.bits)).all()) else there * 2.0**-self.bits
            low, high = (float(v) for v in torch.aminmax(seen))
            self._refuse(where, f"values from {low:.4g} to {high:.4g}")

    def settle(self) -> None:
        """Wait for what is pending. Raises NumericalError for the first of it that did not fit."""
        if self.pending:
            fitted = torch.stack([fits for _, fits in self.pending]).tolist()
            places = [where for where, _ in self.pending]
            self.pending.clear()
            if not all(fitted):
                self._refuse(places[fitted.index(False)], "values")

    def _refuse(self, where: str, what: str) -> None:
        raise NumericalError(
            where,
            f"{what} leave the range +-{2.0 ** (30 - self.bits):g} of the residual streams; "
            "lower the learning rate or stream_bits",
        )

    def subtract_(self, stream: Tensor, x: Tensor) -> None:
        """Undo `add_`, bit for bit."""
        there = stream.to(self.device)
        self.rows.add_(there, x, self.bits, -1, None)
        if there is not stream:
            stream.copy_(there)

    def slices(self, batch: int, length: int) -> list[slice]:
        """Of the length, each of at most `size` tokens over the batch."""
        step = max(1, self.size // batch)
        return [slice(start, min(start + step, length)) for start in range(0, length, step)]

    def dropped(self, added: Tensor, index: int, context: Context, start: int) -> Tensor:
        """`added` by coupling `index` for the slice that begins at `start`, with dropout from its own seed."""
        if not self.dropout or context.dropout_seed is None:
            return added
        seed = (context.dropout_seed * 1_000_003 + index) * 1_000_003 + start
        generator = torch.Generator(added.device).manual_seed(seed % 2**63)
        # Four numbers of 16 bits from each of 64: a generator's next number is what dropout costs.
        drawn = torch.empty(-(-added.numel() // 4), dtype=torch.int64, device=added.device)
        drawn = drawn.random_(-(2**63), None, generator=generator).view(torch.int16)
        kept = drawn[: added.numel()].view(added.shape) >= round(self.dropout * 2**16) - 2**15
        return added * kept.to(added.dtype).mul_(1 / (1 - self.dropout))

    def split(self, branch: Mixing, source: Tensor, context: Context, group: slice) -> tuple[Tensor, ...]:
        """The parts of the whole length [batch, heads of group, length, d_head], slice by slice."""
        whole: list[Tensor] = []
        batch, length, _ = source.shape
        for here in self.slices(batch, length):
            parts = branch.split(self.read(source[:, here]), context.phase(here), group)
            if len(parts[0][0, 0]) == length:
                return parts
            if not whole:
                whole = [p.new_empty(batch, length, p.shape[1], p.shape[3]).transpose(1, 2) for p in parts]
            for one, part in zip(whole, parts, strict=True):
                one[:, :, here] = part
        return tuple(whole)

    def run(
        self,
        streams: Sequence[Tensor],
        context: Context,
        routings: Sequence[Any] | None = None,
        watch: Callable[[Coupling, slice, tuple[Tensor, ...]], None] | None = None,
        kept: list[Graph] | None = None,
    ) -> list[Any]:
        """Advance both int32 streams [batch, length, d_model] in place; returns the routing of every step (of a
        `Composite`, what it keeps).

        watch: is shown the parts of every group of heads in which positions meet. kept: is filled with the graph of
        every step, for `run_back`; of a text that is one slice (`keeps`).
        """
        found: list[Any] = []
        for number, (index, group) in enumerate(self.steps()):
            c = self.couplings[index]
            source, target, routing = streams[c.source], streams[c.target], None
            given = routings[number] if routings is not None else None
            if kept is not None:
                with torch.enable_grad():
                    x = self.read(source).requires_grad_()
                    added, routing = self.whole(c.branch, x, number, group, context)
                self.add_(target, added.detach(), c.name)
                kept.append((x, added))
            elif isinstance(c.branch, Composite):
                routing = c.branch.run(self, c, number, streams, context, given, watch)
            elif isinstance(c.branch, Mixing) and group is not None:
                parts = self.split(c.branch, source, context, group)
                if watch is not None:
                    watch(c, group, parts)
                out, routing = c.branch.mix(parts, context, group, given)
                del parts
                for here in self.slices(*source.shape[:2]):
                    added = c.branch.joined(out[:, :, here], group)
                    self.add_(target[:, here], self.dropped(added, number, context, here.start), c.name)
                del out
            else:
                for here in self.slices(*source.shape[:2]):
                    added = c.branch(self.read(source[:, here]))
                    self.add_(target[:, here], self.dropped(added, number, context, here.start), c.name)
            found.append(routing)
        self.settle()
        return found

    def whole(
        self, branch: Branch | Composite, x: Tensor, number: int, group: slice | None, context: Context
    ) -> tuple[Tensor, Any]:
        """What a branch adds for x, all of a stream, and its routing."""
        routing = None
        if isinstance(branch, Composite):
            return branch.whole(self, x, number, context)
        if isinstance(branch, Mixing) and group is not None:
            parts = branch.split(x, context.phase(slice(0, x.shape[1])), group)
            out, routing = branch.mix(parts, context, group)
            added = branch.joined(out, group)
        else:
            added = branch(x)
        return self.dropped(added, number, context, 0), routing

    def keeps(self, batch: int, length: int) -> bool:
        """Whether backward is to use the graphs of forward and not make them again: for texts of one slice, of which
        they are small."""
        tokens = batch * length
        return tokens <= self.size and not self.offload and tokens * self.activations <= self.most_activations

    def run_back(
        self,
        streams: Sequence[Tensor],
        gradients: list[Tensor],
        context: Context,
        routings: Sequence[Any],
        kept: list[Graph] | None = None,
    ) -> dict[int, Tensor]:
        """Undo `run` in place, advancing the gradients of the streams too. Returns id(parameter) -> gradient.

        kept: as `run` filled it, which is emptied; the streams then stay as they are.
        """
        totals: dict[int, Tensor] = {}
        for number, (index, group) in reversed(list(enumerate(self.steps()))):
            undo = Undo(self, self.couplings[index], number, streams, gradients, context, totals)
            if kept:
                undo.kept(*kept.pop())
            elif isinstance(undo.branch, Composite):
                undo.branch.back(undo, routings[number])
            elif isinstance(undo.branch, Mixing) and group is not None:
                undo.mixing(undo.branch, group, routings[number])
            else:
                undo.pointwise(undo.branch)
        return totals


def merge(trunk: Trunk, streams: Sequence[Tensor], concat: bool) -> Tensor:
    """The streams as the head reads them: side by side, or their sum."""
    if concat:
        return torch.cat([trunk.read(s) for s in streams], -1)
    return trunk.read(streams[0] + streams[1])
