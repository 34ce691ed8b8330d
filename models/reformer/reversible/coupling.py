"""Couplings: pair[writes] += round(f(pair[reads]) / unit), forwards, with a graph, backwards, and token by token.

A coupling knows how its f is run: the feed-forward slice by slice; attention in three stages, of which only the middle
one needs the whole length, a group of heads at a time. What f is inside, it does not know.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from reformer.attention.base import Attention
from reformer.backends.dtypes import upcast_dtype
from reformer.decode.cache import Cache
from reformer.decode.program import NativeProgram
from reformer.decode.step import DecodeStep
from reformer.layers.context import PassContext
from reformer.layers.feed_forward import FeedForward
from reformer.layers.sublayer import Sublayer
from reformer.ops.bucket_attention.layout import row_products
from reformer.reversible.backward import BackwardPass
from reformer.reversible.streams import Pair, Streams

KEPT = 2**25  # numbers of a stream, up to which backward keeps what a sub-layer makes of it and does not make it again
# Is shown a coupling, its group of heads, and their queries, keys and values.
Observer = Callable[["AttentionCoupling", slice, tuple[Tensor, ...]], None]


class Graph(NamedTuple):
    """Of a step whose activations backward need not make again: what f was given, and what it added."""

    x: Tensor
    added: Tensor


@dataclass(frozen=True)
class Step(ABC):
    """pair[writes] += f(pair[reads]) in training. What `run` returns (buckets, if anything) is handed to a replay and
    to `run_back`. number: of the step in its pass, which seeds dropout."""

    reads: int
    writes: int
    name: str

    @abstractmethod
    def run(
        self, streams: Streams, number: int, pair: Pair, context: PassContext, saved: Any, observer: Observer | None
    ) -> Any:
        """Advance the stream that it writes; saved: what an earlier run has returned, or None."""

    @abstractmethod
    def prefill(self, streams: Streams, number: int, pair: Pair, context: PassContext, caches: Iterator[Any]) -> None:
        """`run` in evaluation, of texts from their first token on; the next of `caches`, one for each of its sub-layers
        and empty, take them in."""

    @abstractmethod
    def run_kept(self, streams: Streams, number: int, pair: Pair, context: PassContext) -> tuple[Any, Any]:
        """The same: (what `run` would return, what `back_kept` needs)."""

    @abstractmethod
    def run_back(self, back: BackwardPass, saved: Any) -> None:
        """Take back `run`, advancing gradients too."""

    @abstractmethod
    def back_kept(self, back: BackwardPass, kept: Any) -> None:
        """Advance gradients alone, by what `run_kept` kept; the streams stay as they are."""

    @abstractmethod
    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of f."""

    def kept_bytes(self, low: int) -> int:
        """Of what `run_kept` keeps for a token, where a step knows; low: bytes of a number of products."""
        return 0


@dataclass(frozen=True)
class Coupling(Step):
    """A step that training runs slice by slice, and decoding token by token."""

    def in_groups(self, chunk_heads: int) -> list[Coupling]:
        """The same, done as several steps one after the other."""
        return [self]

    @abstractmethod
    def with_graph(self, streams: Streams, number: int, x: Tensor, context: PassContext) -> tuple[Tensor, Any]:
        """What f adds, given all of its stream as floats, under ordinary autograd, and what `run` would return."""

    def run_kept(self, streams: Streams, number: int, pair: Pair, context: PassContext) -> tuple[Any, Graph]:
        with torch.enable_grad():
            x = streams.read(pair[self.reads]).requires_grad_()
            added, saved = self.with_graph(streams, number, x, context)
        streams.add_(pair[self.writes], added.detach(), self.name)
        return saved, Graph(x, added)

    def back_kept(self, back: BackwardPass, kept: Graph) -> None:
        back.from_graph(*kept)

    @abstractmethod
    def new_cache(self, batch: int) -> Cache | None:
        """As `Sublayer.new_cache`."""

    @abstractmethod
    def decode(self, x: Tensor, step: DecodeStep, cache: Any) -> Tensor:
        """As `Sublayer.decode`."""

    @abstractmethod
    def record(self, program: NativeProgram, cache: Any) -> Tensor | None:
        """As `Sublayer.record`."""


F = TypeVar("F", bound=Sublayer)


@dataclass(frozen=True)
class SublayerCoupling(Coupling, Generic[F]):
    """f is one sub-layer, which decodes and is recorded by itself."""

    sublayer: F

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.sublayer.parameters()

    def new_cache(self, batch: int) -> Cache | None:
        return self.sublayer.new_cache(batch)

    def decode(self, x: Tensor, step: DecodeStep, cache: Any) -> Tensor:
        return self.sublayer.decode(x, step, cache)

    def record(self, program: NativeProgram, cache: Any) -> Tensor | None:
        return self.sublayer.record(program, self.reads, cache)


@dataclass(frozen=True)
class PointwiseCoupling(SublayerCoupling[FeedForward]):
    """f maps every position by itself."""

    def run(
        self, streams: Streams, number: int, pair: Pair, context: PassContext, saved: Any, observer: Observer | None
    ) -> None:
        x, y = pair[self.reads], pair[self.writes]
        for here in streams.slices(*x.shape[:2]):
            added = self.sublayer(streams.read(x[:, here]))
            streams.add_(y[:, here], streams.drop(added, number, context, here.start), self.name)

    def prefill(self, streams: Streams, number: int, pair: Pair, context: PassContext, caches: Iterator[Any]) -> None:
        next(caches)
        self.run(streams, number, pair, context, None, None)

    def with_graph(self, streams: Streams, number: int, x: Tensor, context: PassContext) -> tuple[Tensor, None]:
        slices = streams.slices(*x.shape[:2])
        parts = [streams.drop(self.sublayer(cut(x, here)), number, context, here.start) for here in slices]
        return join(parts, 1), None

    def run_back(self, back: BackwardPass, saved: None) -> None:
        for here in back.slices:
            with torch.enable_grad():
                x = back.read(here)
                added = back.drop(self.sublayer(x), here)
            (dx,) = back.differentiate([added], [x], [back.restore(added, here)])
            back.dx[:, here] += dx


@dataclass(frozen=True)
class AttentionCoupling(SublayerCoupling[Attention]):
    """f lets positions meet; heads: the group of them that is run, None for all."""

    heads: slice | None = None

    @property
    def group(self) -> slice:
        """The heads that are run."""
        return self.heads if self.heads is not None else self.sublayer.all_heads

    def in_groups(self, chunk_heads: int) -> list[Coupling]:
        n = self.sublayer.n_heads
        starts = range(0, n, chunk_heads)
        return [replace(self, heads=slice(start, min(start + chunk_heads, n))) for start in starts]

    def run(
        self, streams: Streams, number: int, pair: Pair, context: PassContext, saved: Any, observer: Observer | None
    ) -> Tensor | None:
        qkv = self._project_in(streams, pair[self.reads], context)
        if observer is not None:
            observer(self, self.group, qkv)
        out, buckets = self.sublayer.attend(qkv, context, self.group, saved)
        del qkv
        self._project_out(streams, number, pair[self.writes], context, out)
        return buckets

    def prefill(self, streams: Streams, number: int, pair: Pair, context: PassContext, caches: Iterator[Any]) -> None:
        qkv = self._project_in(streams, pair[self.reads], context)
        out, buckets = self.sublayer.attend(qkv, context, self.group)
        self.sublayer.fill(qkv, buckets, next(caches))
        del qkv
        self._project_out(streams, number, pair[self.writes], context, out)

    def _project_out(self, streams: Streams, number: int, y: Tensor, context: PassContext, out: Tensor) -> None:
        """Add what was attended to, slice by slice."""
        for here in streams.slices(*y.shape[:2]):
            added = self.sublayer.project_out(out[:, :, here], self.group)
            streams.add_(y[:, here], streams.drop(added, number, context, here.start), self.name)

    def _project_in(self, streams: Streams, x: Tensor, context: PassContext) -> tuple[Tensor, ...]:
        """Of the whole length [batch, heads of the group, length, d_head], slice by slice."""
        whole: list[Tensor] = []
        batch, length, _ = x.shape
        for here in streams.slices(batch, length):
            qkv = self.sublayer.project_in(streams.read(x[:, here]), context.phase(here), self.group)
            if len(qkv[0][0, 0]) == length:
                return qkv
            if not whole:
                whole = [p.new_empty(batch, length, p.shape[1], p.shape[3]).transpose(1, 2) for p in qkv]
            for one, part in zip(whole, qkv, strict=True):
                one[:, :, here] = part
        return tuple(whole)

    def with_graph(
        self, streams: Streams, number: int, x: Tensor, context: PassContext
    ) -> tuple[Tensor, Tensor | None]:
        f, group, slices = self.sublayer, self.group, streams.slices(*x.shape[:2])
        split = [f.project_in(cut(x, here), context.phase(here), group) for here in slices]
        out, buckets = f.attend(tuple(join(part, 2) for part in zip(*split, strict=True)), context, group)
        parts = [f.project_out(cut(out, here, 2), group) for here in slices]
        dropped = [streams.drop(p, number, context, here.start) for p, here in zip(parts, slices, strict=True)]
        return join(dropped, 1), buckets

    def run_back(self, back: BackwardPass, saved: Tensor | None) -> None:
        graph: list[tuple[Tensor, tuple[Tensor, ...]]] = []
        if back.x.numel() <= KEPT:
            graph = [self._project_back(back, here) for here in back.slices]
            qkv = [_together(p[::-1]).requires_grad_() for p in zip(*(g[1] for g in graph), strict=True)]
        else:  # the graph of a long text would hold what slices are there to avoid: it is projected once more below
            qkv = [p.requires_grad_() for p in self._project_in(back.streams, back.x, back.context)]
        delta = None
        if self.sublayer.takes_delta and len(graph) != 1:  # the graph of a single slice has the very tensors
            delta = torch.empty(qkv[0].shape[:3].numel(), dtype=upcast_dtype(qkv[0]), device=qkv[0].device)
        with torch.enable_grad():
            out, _ = self.sublayer.attend(tuple(qkv), back.context, self.group, saved, delta)
        d_out = self._project_out_back(back, out.data, delta)  # past the version counter: nothing has kept it
        d_qkv = back.differentiate([out], qkv, [d_out])
        del out, d_out, qkv
        for here in back.slices:
            x, projected = graph.pop(0) if graph else self._project_back(back, here)
            (dx,) = back.differentiate(projected, [x], [d[:, :, here] for d in d_qkv])
            back.dx[:, here] += dx

    def _project_back(self, back: BackwardPass, here: slice) -> tuple[Tensor, tuple[Tensor, ...]]:
        """A slice of the stream that is read, and its queries, keys and values with their graph."""
        with torch.enable_grad():
            x = back.read(here)
            return x, self.sublayer.project_in(x, back.context.phase(here), self.group)

    def _project_out_back(self, back: BackwardPass, out: Tensor, delta: Tensor | None) -> Tensor:
        """The gradient of what was attended to, in its place where delta says what backward needs of it."""
        d_out, (batch, heads, length, _) = torch.empty_like(out) if delta is None else out, out.shape
        for here in back.slices:
            with torch.enable_grad():
                part = out[:, :, here].detach().requires_grad_()
                added = back.drop(self.sublayer.project_out(part, self.group), here)
            (d_part,) = back.differentiate([added], [part], [back.restore(added, here)])
            if delta is not None:
                rows = (x.detach().transpose(1, 2).flatten(0, 2) for x in (part, d_part))
                delta.view(batch, length, heads)[:, here] = row_products(*rows).view(batch, -1, heads)
            d_out[:, :, here] = d_part
        return d_out


def cut(x: Tensor, here: slice, dim: int = 1) -> Tensor:
    """A slice of the length, or x itself where that is all of it: its backward has nothing to copy then."""
    length = here.stop - here.start
    return x if length == x.shape[dim] else x.narrow(dim, here.start, length)


def join(parts: Sequence[Tensor], dim: int) -> Tensor:
    """The inverse of `cut`."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def _together(parts: Sequence[Tensor]) -> Tensor:
    """Slices [batch, heads, slice, d_head] as one, lying token by token as they do; without their graph."""
    if len(parts) == 1:
        return parts[0].detach()
    return torch.cat([p.detach().transpose(1, 2) for p in parts], 1).transpose(1, 2)
