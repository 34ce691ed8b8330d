"""A model's layers as couplings of two streams, in order: which sub-layer reads and writes which stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from reformer.backends.torch_compile import is_exporting
from reformer.config import ReformerConfig
from reformer.layers.shorten_maps import ShortenMaps
from reformer.ops.norm_rope_relu import rows_for
from reformer.reversible.coupling import AttentionCoupling, Coupling, PointwiseCoupling, Step
from reformer.reversible.sequence import ReversibleSequence, graph_bytes, prefill_bytes
from reformer.reversible.shorten import ShortenedCoupling
from reformer.reversible.streams import Streams


def build_sequence(
    c: ReformerConfig, layers: nn.ModuleList, groups: ShortenMaps | None, weight: Tensor
) -> ReversibleSequence:
    """layers: for each its attention sub-layers and a feed-forward; groups: what is around the layers on groups of
    tokens, where there are any; weight: of the type and device of all others."""
    of_gradients = torch.bfloat16 if c.gradient_dtype == "bfloat16" else weight.dtype
    rows = rows_for(c.backend, weight)
    streams = Streams(c.stream_bits, c.dropout, c.chunk_tokens, weight.dtype, of_gradients, rows, weight.device)
    couplings = _couplings(layers, range(c.n_layers))
    sizes = graph_bytes(c, weight.dtype.itemsize), prefill_bytes(c)
    sequence = ReversibleSequence(streams, couplings, c.chunk_heads or c.n_heads, *sizes)
    if groups is None:
        return replace(sequence, fused=_fused_steps(c, layers, rows))
    inner = replace(sequence, couplings=_couplings(layers, c.group_layers))
    shortened = ShortenedCoupling(1, 0, f"groups of {c.shorten_factor} tokens", groups, inner)
    before = _couplings(layers, range(c.group_layers.start))
    after = _couplings(layers, range(c.group_layers.stop, c.n_layers))
    return replace(sequence, couplings=[*before, shortened, *after])


def _couplings(layers: nn.ModuleList, which: range) -> list[Coupling]:
    """Of these layers, in order."""
    found: list[Coupling] = []
    for i in which:
        sublayers: list[Any] = [*layers[i]]  # type: ignore[misc]
        found += [AttentionCoupling(1, 0, f"layer {i} attention", f) for f in sublayers[:-1]]
        found.append(PointwiseCoupling(0, 1, f"layer {i} feed-forward", sublayers[-1]))
    return found


def _fused_steps(c: ReformerConfig, layers: nn.ModuleList, rows: ModuleType) -> Sequence[Step] | None:
    """The layers as they are trained on a GPU; None where they cannot be."""
    if not rows.__name__.endswith("triton_kernels") or (c.chunk_heads or c.n_heads) < c.n_heads or is_exporting():
        return None
    from reformer.reversible.fused import fused_steps  # triton, which not everyone has

    return fused_steps(c, [list(layer) for layer in layers])  # type: ignore[call-overload]
