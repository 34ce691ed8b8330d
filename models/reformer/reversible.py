"""The reversible trunk on fixed-point streams: exact inverse, memory independent of depth (design section 3).

Two integer streams; every coupling adds round(branch(one stream) / unit) to the other. Integer addition has an
exact inverse, so backward rebuilds the inputs bit for bit, and every branch runs once there, for the rebuilding
and the gradients together. Gradients pass the rounding unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reformer.branch import Branch, Context
from reformer.errors import NumericalError
from reformer.fused import SLICE
from reformer.precision import wide


@dataclass(frozen=True)
class Coupling:
    """streams[target] += branch(streams[source])."""

    source: int
    target: int
    branch: Branch
    name: str


@dataclass(frozen=True)
class Trunk:
    """The couplings in order, and how they are run. bits: streams count in 2^-bits; dropout: share dropped;
    size: tokens that a pointwise branch works on at a time; dtype: of the branches' parameters."""

    couplings: Sequence[Coupling]
    bits: int
    dropout: float
    size: int
    dtype: torch.dtype

    def dequantise(self, stream: Tensor) -> Tensor:
        return stream.to(self.dtype).mul_(2.0**-self.bits)

    def quantise(self, x: Tensor) -> Tensor:
        return (wide(x) * 2.0**self.bits).round_().to(torch.int32)

    def add_(self, stream: Tensor, x: Tensor, sign: int = 1) -> None:
        """stream += sign * round(x / unit), in place, in slices that stay in the cache."""
        step = max(1, SLICE // x.shape[0])
        for start in range(0, x.shape[1], step):
            here = slice(start, start + step)
            stream[:, here].add_(self.quantise(x[:, here]), alpha=sign)

    def check(self, x: Tensor, where: str) -> None:
        """Refuse what could leave int32 or is not finite: |added| and |stream| stay below half the range."""
        low, high = (float(v) for v in torch.aminmax(x))
        limit = float(2**30) if x.dtype == torch.int32 else 2.0 ** (30 - self.bits)
        if not (-limit < low and high < limit):
            scale = 2.0**-self.bits if x.dtype == torch.int32 else 1.0
            raise NumericalError(
                where,
                f"values from {low * scale:.4g} to {high * scale:.4g} leave the range "
                f"+-{2.0 ** (30 - self.bits):g} of the residual streams; lower the learning rate or stream_bits",
            )

    def slices(self, coupling: Coupling, batch: int, length: int) -> Iterator[slice]:
        step = max(1, self.size // batch) if coupling.branch.pointwise else length
        return (slice(start, min(start + step, length)) for start in range(0, length, step))

    def delta(
        self, index: int, x: Tensor, context: Context, routing: Tensor | None, start: int
    ) -> tuple[Tensor, Tensor | None]:
        """What coupling `index` adds for x, dropout included; `start`: where the slice begins."""
        added, routing = self.couplings[index].branch(x, context, routing)
        if self.dropout and context.dropout_seed is not None:
            seed = (context.dropout_seed * 1_000_003 + index) * 1_000_003 + start
            generator = torch.Generator(x.device).manual_seed(seed % 2**63)
            kept = torch.empty(added.shape, device=x.device).bernoulli_(1 - self.dropout, generator=generator)
            added = added * (kept / (1 - self.dropout)).to(added.dtype)
        return added, routing

    def run(
        self, streams: Sequence[Tensor], context: Context, routings: Sequence[Tensor | None] | None = None
    ) -> list[Tensor | None]:
        """Advance both int32 streams [batch, length, d_model] in place; returns every coupling's routing."""
        found: list[Tensor | None] = []
        for index, c in enumerate(self.couplings):
            source, target = streams[c.source], streams[c.target]
            given = routings[index] if routings is not None else None
            for part in self.slices(c, *source.shape[:2]):
                added, routing = self.delta(index, self.dequantise(source[:, part]), context, given, part.start)
                self.check(added, c.name)
                self.add_(target[:, part], added)
            self.check(target, c.name)
            found.append(routing)
        return found

    def run_back(
        self, streams: Sequence[Tensor], gradients: list[Tensor], context: Context, routings: Sequence[Tensor | None]
    ) -> dict[int, Tensor]:
        """Undo `run` in place, advancing the gradients of the streams too. Returns id(parameter) -> gradient."""
        totals: dict[int, Tensor] = {}
        for index in reversed(range(len(self.couplings))):
            c = self.couplings[index]
            wanted = [p for p in c.branch.parameters() if p.requires_grad]
            # The last slice first: autograd would add up the parameters' gradients in that order.
            for part in reversed(list(self.slices(c, *streams[0].shape[:2]))):
                with torch.enable_grad():
                    x = self.dequantise(streams[c.source][:, part]).requires_grad_()
                    added, _ = self.delta(index, x, context, routings[index], part.start)
                self.add_(streams[c.target][:, part], added.detach(), -1)
                upper = gradients[c.target][:, part].to(added.dtype)
                dx, *rest = torch.autograd.grad(added, [x, *wanted], upper, allow_unused=True)
                gradients[c.source][:, part] += dx
                for p, g in zip(wanted, rest, strict=True):
                    if g is not None:
                        totals[id(p)] = totals[id(p)] + g if id(p) in totals else g
        return totals


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trunk: Trunk, context: Context, concat: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        streams = [trunk.quantise(x), trunk.quantise(x)]
        ctx.routings = trunk.run(streams, context)
        ctx.trunk, ctx.context, ctx.concat, ctx.parameters = trunk, context, concat, parameters
        ctx.at_start = False
        ctx.autocast = (torch.is_autocast_enabled(x.device.type), torch.get_autocast_dtype(x.device.type))
        ctx.save_for_backward(*streams)
        return merge(trunk, streams, concat)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Rebuilt in place, past the version counter: a second backward (retain_graph) runs forward again first.
        streams = [s.data for s in ctx.saved_tensors]
        enabled, dtype = ctx.autocast
        with torch.no_grad(), torch.autocast(grad.device.type, enabled=enabled, dtype=dtype):
            if ctx.at_start:
                ctx.trunk.run(streams, ctx.context, ctx.routings)
            gradients = [g.contiguous() for g in grad.chunk(2, -1)] if ctx.concat else [grad.clone(), grad.clone()]
            totals = ctx.trunk.run_back(streams, gradients, ctx.context, ctx.routings)
        ctx.at_start = True
        dx = gradients[0].add_(gradients[1])
        return None, None, None, dx, *(totals.get(id(p)) for p in ctx.parameters)


def merge(trunk: Trunk, streams: Sequence[Tensor], concat: bool) -> Tensor:
    """The streams as the head reads them: side by side, or their sum."""
    if concat:
        return torch.cat([trunk.dequantise(s) for s in streams], -1)
    return trunk.dequantise(streams[0] + streams[1])


def reversible(trunk: Trunk, x: Tensor, context: Context, *, concat: bool) -> Tensor:
    """Both streams start as x [batch, length, d_model]; returns them merged, differentiable in x and parameters.

    Raises NumericalError, which names the layer, when a value is not finite or leaves the streams' range.
    """
    parameters = [p for c in trunk.couplings for p in c.branch.parameters()]
    out: Tensor = _Reversible.apply(trunk, context, concat, x, *parameters)
    return out


def reversible_reference(trunk: Trunk, x: Tensor, context: Context, *, concat: bool) -> Tensor:
    """The same network under ordinary autograd, which keeps every activation: the definition of the gradients."""
    integers = [trunk.quantise(x.detach()), trunk.quantise(x.detach())]
    ghosts = [_straight_through(trunk, s, x) for s in integers]
    for index, c in enumerate(trunk.couplings):
        parts = []
        for part in trunk.slices(c, *x.shape[:2]):
            added, _ = trunk.delta(index, ghosts[c.source][:, part], context, None, part.start)
            parts.append(added)
        added = torch.cat(parts, 1)
        integers[c.target] = integers[c.target] + trunk.quantise(added.detach())
        ghosts[c.target] = _straight_through(trunk, integers[c.target], ghosts[c.target], added)
    return torch.cat(ghosts, -1) if concat else _straight_through(trunk, integers[0] + integers[1], *ghosts)


def _straight_through(trunk: Trunk, stream: Tensor, *sources: Tensor) -> Tensor:
    """The stream as floats, whose gradient goes to every source unchanged."""
    out: Tensor = _StraightThrough.apply(trunk.dequantise(stream), *sources)
    return out


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, *sources: Tensor) -> Tensor:
        ctx.dtypes = [s.dtype for s in sources]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(grad.to(dtype) for dtype in ctx.dtypes)
