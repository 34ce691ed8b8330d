"""The couplings under ordinary autograd, which keeps every activation: the definition of what the layers compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reformer.layers.context import PassContext
from reformer.reversible.sequence import ReversibleSequence
from reformer.reversible.streams import Streams


def run_reference(
    sequence: ReversibleSequence, x: Tensor, context: PassContext
) -> tuple[list[Tensor], list[Tensor], list[Any]]:
    """Both streams after all couplings, in fixed point and as floats with their graph, and what `run` returns. Both
    start as x [batch, length, d_model]."""
    streams = sequence.streams
    slices = streams.slices(*x.shape[:2])
    pair = streams.begin((*x.shape,), lambda here: x[:, here].detach(), slices, "start")
    float_streams = [straight_through(streams, s, x) for s in pair]
    saved: list[Any] = []
    for number, step in enumerate(sequence.in_groups()):
        added, kept = step.with_graph(streams, number, float_streams[step.reads], context)
        saved.append(kept)
        pair[step.writes] = pair[step.writes].clone()
        streams.add_(pair[step.writes], added.detach(), step.name)
        float_streams[step.writes] = straight_through(streams, pair[step.writes], float_streams[step.writes], added)
    return pair, float_streams, saved


def straight_through(streams: Streams, stream: Tensor, *sources: Tensor) -> Tensor:
    """The stream as floats, whose gradient goes to every source unchanged."""
    out: Tensor = _StraightThrough.apply(streams.read(stream), *sources)
    return out


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: Tensor, *sources: Tensor) -> Tensor:
        ctx.dtypes = [s.dtype for s in sources]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(grad.to(dtype) for dtype in ctx.dtypes)
