"""The trunk: two fixed-point streams and the couplings that advance them, forwards and backwards (design section 3).

Every coupling adds round(branch(one stream) / unit) to the other. Integer addition has an exact inverse, so backward
rebuilds the inputs bit for bit, whatever the depth and the precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from reformer.branch import Branch, Context, Mixing
from reformer.errors import NumericalError

GUARD = 2**30  # streams, and what is added to them, stay below half of what an int32 holds
KEPT = 2**25  # numbers of a stream, up to which backward keeps what a branch makes of it instead of making it again


@dataclass(frozen=True)
class Coupling:
    """streams[target] += branch(streams[source])."""

    source: int
    target: int
    branch: Branch
    name: str


@dataclass(frozen=True)
class Trunk:
    """The couplings in order, and how they are run. bits: streams count in 2^-bits; dropout: share dropped; size:
    tokens that pointwise work is done on at a time; dtype: of the branches' parameters; gradient_dtype: of the streams'
    gradients; rows: passes over rows (`backend.rows_for`)."""

    couplings: Sequence[Coupling]
    bits: int
    dropout: float
    size: int
    dtype: torch.dtype
    gradient_dtype: torch.dtype
    rows: ModuleType

    def read(self, stream: Tensor) -> Tensor:
        """A stream, or a slice of it, as floating point numbers."""
        x: Tensor = self.rows.read(stream, self.bits, self.dtype)
        return x

    def begin(self, x: Tensor) -> list[Tensor]:
        """Both streams as they start: x [batch, length, d_model]."""
        first = torch.zeros_like(x, dtype=torch.int32)
        for here in self.slices(*x.shape[:2]):
            self.add_(first[:, here], x[:, here], "embedding")
        return [first, first.clone()]

    def add_(self, stream: Tensor, x: Tensor, where: str) -> None:
        """stream += round(x / unit), in place. Raises NumericalError for what is not finite or leaves the range."""
        if self.rows.add_(stream, x, self.bits, 1, GUARD):
            return
        largest = 2.0 ** (30 - self.bits)
        seen = x if not bool((x.abs() < largest).all()) else stream * 2.0**-self.bits
        low, high = (float(v) for v in torch.aminmax(seen))
        raise NumericalError(
            where,
            f"values from {low:.4g} to {high:.4g} leave the range +-{largest:g} of the residual streams; "
            "lower the learning rate or stream_bits",
        )

    def subtract_(self, stream: Tensor, x: Tensor) -> None:
        """Undo `add_`, bit for bit."""
        self.rows.add_(stream, x, self.bits, -1, None)

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
        kept = torch.empty(added.shape, device=added.device).bernoulli_(1 - self.dropout, generator=generator)
        return added * (kept / (1 - self.dropout)).to(added.dtype)

    def split(self, branch: Mixing, source: Tensor, context: Context) -> tuple[Tensor, ...]:
        """The parts of the whole length [batch, heads, length, d_head], slice by slice."""
        whole: list[Tensor] = []
        batch, length, _ = source.shape
        for here in self.slices(batch, length):
            parts = branch.split(self.read(source[:, here]), context.phase(here))
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
        routings: Sequence[Tensor | None] | None = None,
        watch: Callable[[Coupling, tuple[Tensor, ...]], None] | None = None,
    ) -> list[Tensor | None]:
        """Advance both int32 streams [batch, length, d_model] in place; returns every coupling's routing.

        watch: is shown the parts of every branch in which positions meet.
        """
        found: list[Tensor | None] = []
        for index, c in enumerate(self.couplings):
            source, target, routing = streams[c.source], streams[c.target], None
            if isinstance(c.branch, Mixing):
                given = routings[index] if routings is not None else None
                parts = self.split(c.branch, source, context)
                if watch is not None:
                    watch(c, parts)
                out, routing = c.branch.mix(parts, context, given)
                del parts
            for here in self.slices(*source.shape[:2]):
                if isinstance(c.branch, Mixing):
                    added = c.branch.joined(out[:, :, here])
                else:
                    added = c.branch(self.read(source[:, here]))
                self.add_(target[:, here], self.dropped(added, index, context, here.start), c.name)
            found.append(routing)
        return found

    def run_back(
        self, streams: Sequence[Tensor], gradients: list[Tensor], context: Context, routings: Sequence[Tensor | None]
    ) -> dict[int, Tensor]:
        """Undo `run` in place, advancing the gradients of the streams too. Returns id(parameter) -> gradient."""
        totals: dict[int, Tensor] = {}
        for index in reversed(range(len(self.couplings))):
            undo = Undo(self, index, streams, gradients, context, totals)
            if isinstance(undo.branch, Mixing):
                undo.mixing(undo.branch, routings[index])
            else:
                undo.pointwise(undo.branch)
        return totals


class Undo:
    """One coupling backwards: the target's stream is restored, the source's gradient and the parameters' advance.

    Slices go from the last to the first: autograd would add up the parameters' gradients in that order.
    """

    def __init__(
        self, trunk: Trunk, index: int, streams: Sequence[Tensor], gradients: list[Tensor], context: Context,
        totals: dict[int, Tensor],
    ) -> None:  # fmt: skip
        self.trunk, self.index, self.context, self.totals = trunk, index, context, totals
        c = trunk.couplings[index]
        self.branch = c.branch
        self.source, self.target = streams[c.source], streams[c.target]
        self.d_source, self.d_target = gradients[c.source], gradients[c.target]
        self.wanted = [p for p in c.branch.parameters() if p.requires_grad]
        self.slices = trunk.slices(*self.source.shape[:2])[::-1]

    def differentiate(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], upper: Sequence[Tensor]
    ) -> list[Tensor]:
        """Gradients of the inputs; those of the parameters go to the totals."""
        found = torch.autograd.grad(outputs, [*inputs, *self.wanted], upper, allow_unused=True)
        for p, g in zip(self.wanted, found[len(inputs) :], strict=True):
            if g is not None:
                self.totals[id(p)] = self.totals[id(p)] + g if id(p) in self.totals else g
        return list(found[: len(inputs)])

    def restore(self, added: Tensor, here: slice) -> Tensor:
        """Take away what a slice had added; returns the gradient of that."""
        self.trunk.subtract_(self.target[:, here], added.detach())
        return self.d_target[:, here].to(added.dtype)

    def pointwise(self, branch: Branch) -> None:
        for here in self.slices:
            with torch.enable_grad():
                x = self.trunk.read(self.source[:, here]).requires_grad_()
                added = self.trunk.dropped(branch(x), self.index, self.context, here.start)
            (dx,) = self.differentiate([added], [x], [self.restore(added, here)])
            self.d_source[:, here] += dx

    def mixing(self, branch: Mixing, routing: Tensor | None) -> None:
        graph: list[tuple[Tensor, tuple[Tensor, ...]]] = []
        if self.source.numel() <= KEPT:
            graph = [self.split(branch, here) for here in self.slices]
            joined = [p[0] if len(p) == 1 else torch.cat(p[::-1], 2) for p in zip(*(g[1] for g in graph), strict=True)]
            parts = [p.detach().requires_grad_() for p in joined]
        else:  # the graph of a long text would hold what slices are there to avoid: they are split once more below
            parts = [p.requires_grad_() for p in self.trunk.split(branch, self.source, self.context)]
        with torch.enable_grad():
            out, _ = branch.mix(tuple(parts), self.context, routing)
        d_out = torch.empty_like(out)
        for here in self.slices:
            with torch.enable_grad():
                part = out.detach()[:, :, here].requires_grad_()
                added = self.trunk.dropped(branch.joined(part), self.index, self.context, here.start)
            (d_out[:, :, here],) = self.differentiate([added], [part], [self.restore(added, here)])
        d_parts = self.differentiate([out], parts, [d_out])
        del out, d_out, parts
        for here in self.slices:
            x, split = graph.pop(0) if graph else self.split(branch, here)
            (dx,) = self.differentiate(split, [x], [d[:, :, here] for d in d_parts])
            self.d_source[:, here] += dx

    def split(self, branch: Mixing, here: slice) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A slice of the source, and its parts with their graph."""
        with torch.enable_grad():
            x = self.trunk.read(self.source[:, here]).requires_grad_()
            return x, branch.split(x, self.context.phase(here))


def merge(trunk: Trunk, streams: Sequence[Tensor], concat: bool) -> Tensor:
    """The streams as the head reads them: side by side, or their sum."""
    if concat:
        return torch.cat([trunk.read(s) for s in streams], -1)
    return trunk.read(streams[0] + streams[1])
