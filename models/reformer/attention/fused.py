"""A layer's heads, local and LSH together, on a GPU: one product in, one out, and Triton between; gradients by hand.

What is computed is what LocalAttention and LSHAttention compute one after the other, and tests compare all of it; what
they add to a stream is here one sum, rounded once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.attention.base import Attention
from reformer.attention.local import LocalAttention
from reformer.attention.lsh import HASH_MEAN_RATE, LSHAttention
from reformer.config import ReformerConfig
from reformer.layers.context import PassContext
from reformer.ops.fused_attention.launch import Order, attend, attend_back, local_reach, sort_lines
from reformer.ops.fused_rows.launch import Heads, Small, Vectors, gate_back, split_heads, split_heads_back
from reformer.ops.lsh_hash import rotation_width

WIDEST = 128  # heads, powers of two, that the kernels' registers are meant for


class Kept(NamedTuple):
    """Of a forward pass, for backward."""

    order: Order | None
    vectors: Vectors
    out: Tensor
    lses: tuple[Tensor, Tensor]
    project: Tensor
    output: Tensor


class FusedHeads:
    """The heads of one layer; context: of the pass; batch: rows, whose tokens lie one after the other."""

    def __init__(self, config: ReformerConfig, local: LocalAttention | None, lsh: LSHAttention | None) -> None:
        self.config, self.local, self.lsh = config, local, lsh
        counts = [module.n_heads if module is not None else 0 for module in (local, lsh)]
        self.heads = Heads(counts[0], counts[1], config.d_head, config.lsh_key_conv if lsh is not None else 1)

    @classmethod
    def of(cls, config: ReformerConfig, kinds: list[Attention]) -> FusedHeads | None:
        """The sub-layers of a layer as one; None where that cannot be."""
        fits = config.block_style == "modern" and config.d_head in (16, 32, 64, WIDEST)
        local = next((kind for kind in kinds if type(kind) is LocalAttention), None)
        lsh = next((kind for kind in kinds if type(kind) is LSHAttention), None)
        found = [kind for kind in (local, lsh) if kind is not None]
        attends_to_all = lsh is not None and not lsh.rotations.shape[2]
        return cls(config, local, lsh) if fits and len(found) == len(kinds) and not attends_to_all else None

    def modules(self) -> list[Attention]:
        return [m for m in (self.local, self.lsh) if m is not None]

    def gates(self) -> list[Tensor]:
        """Of the heads of each module."""
        return [m.gate for m in self.modules() if m.gate is not None]

    def parameters(self) -> Iterator[nn.Parameter]:
        for module in self.modules():
            yield from module.parameters()

    def kept_bytes(self, low: int) -> int:
        """Of `Kept`, and of y, for a token, about; low: bytes of a number of products."""
        h, indices = self.heads, 12 * len(self.config.hash_rounds) * self.heads.lsh
        return low * (self.config.d_model + h.columns + (h.all + h.lsh) * h.d) + indices + 12 * h.all

    def forward(self, y: Tensor, context: PassContext, batch: int, order: Order | None = None) -> tuple[Tensor, Kept]:
        """What is added to a stream, whose norm is y [n, d_model]; order: of an earlier pass, in a replay."""
        heads, low, small = self.heads, y.dtype, self.small()
        modules, length = self.modules(), len(y) // batch
        whole = F.pad(
            torch.cat([*(m.project.weight for m in modules), *self.gates()]),
            (0, 0, 0, heads.columns - heads.vectors - heads.all),
        )
        project, output = whole.to(low), torch.cat([m.output.weight for m in modules], 1).to(low)
        phase, starts = (context.turns(length) if self.local is not None else None), context.starts
        vectors = split_heads(torch.mm(y, project.t()), heads, small, phase, starts, length)
        if self.lsh is not None and order is None:
            order = self._order(self.lsh, vectors, batch, starts)
        window = self.config.local_window
        out, *lses = attend(vectors, order, heads, small, local_reach(starts, window, length), window, batch)
        added = torch.mm(out.view(len(y), -1), output.t())
        return added, Kept(order, vectors, out, (lses[0], lses[1]), project, output)

    def fill(self, made: Vectors, batch: int, caches: Iterator[Any]) -> None:
        """Put what `forward` made of whole texts into the empty caches of `modules`."""
        heads, raw, wide = self.heads, made.raw.unflatten(0, (batch, -1)), self.heads.local * self.heads.d

        def part(start: int, count: int) -> Tensor:
            return raw[..., start : start + count * heads.d].unflatten(-1, (count, heads.d)).transpose(1, 2)

        if self.local is not None:
            next(caches).fill(part(wide, heads.local), part(2 * wide, heads.local))
        if self.lsh is not None:
            x, v = part(3 * wide, heads.lsh), part(3 * wide + heads.lsh * heads.d, heads.lsh)
            k = made.keys.unflatten(0, (batch, -1)).transpose(1, 2)
            next(caches).fill(x, k, v, self.lsh.buckets(k, self.lsh.all_heads))

    def backward(
        self, g: Tensor, y: Tensor, kept: Kept, context: PassContext, batch: int
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """(gradient of y, gradients of the parameters), given that of what was added, [n, d_model] in the products'
        type."""
        heads, small, length, raw = self.heads, self.small(), len(y) // batch, kept.vectors.raw
        phase, starts = (context.turns(length) if self.local is not None else None), context.starts
        window = self.config.local_window
        d_output = torch.mm(g.t(), kept.out.view(len(y), -1))
        d_out = torch.mm(g, kept.output).view_as(kept.out)
        delta, d_raw, sums = gate_back(kept.out, d_out, raw, kept.lses[1], heads, small)
        reach = local_reach(starts, window, length)
        dk, dv = attend_back(kept.vectors, kept.order, heads, reach, window, batch, d_out, kept.lses, delta, d_raw)
        split_heads_back(d_raw, kept.vectors, heads, small, phase, starts, length, dk, dv, sums)
        d_project, d_small = torch.mm(d_raw.t(), y).float(), sums.sum(0)
        return torch.mm(d_raw, kept.project), self._named(d_project, d_output, d_small)

    def _order(self, lsh: LSHAttention, vectors: Vectors, batch: int, starts: Tensor | None) -> Order:
        c, rotations, length = self.config, lsh.rotations, len(vectors.raw) // batch
        factors, near = c.hash_factors, c.hash_rounds[1] if c.has_far_round else 0
        if lsh.training and c.skips_far_round(length):
            factors, near = c.n_buckets, 0
            rotations = rotations[:, :, 1:, : rotation_width(factors)]
        order = sort_lines(
            vectors.keys, rotations, factors, near, lsh.hash_mean, lsh.temperature, c.lsh_window, batch, starts
        )
        if lsh.training:
            lsh.hash_mean.lerp_(vectors.means.sum(0), HASH_MEAN_RATE)
        return order

    def small(self) -> Small:
        """The small parameters as the kernels take them."""
        some = next(self.parameters())
        none = some.new_empty(0)
        local = self.local.temperature if self.local is not None else none
        if self.lsh is None:
            return Small(local, none, none, none)
        conv = self.lsh.key_conv if self.lsh.key_conv is not None else some.new_ones(self.heads.lsh, 1, self.heads.d)
        return Small(local, self.lsh.temperature, self.lsh.sink, conv)

    def _named(self, d_project: Tensor, d_output: Tensor, d_small: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Gradients by parameter, as views of these."""
        modules, sizes = self.modules(), [len(m.project.weight) for m in self.modules()]
        parts = d_project.split([*sizes, *(m.n_heads for m in modules), len(d_project) - sum(sizes) - self.heads.all])
        found: list[tuple[Tensor, Tensor]] = [(m.project.weight, part) for m, part in zip(modules, parts, strict=False)]
        found += [(m.gate, part) for m, part in zip(modules, parts[len(modules) :], strict=False) if m.gate is not None]
        outputs = d_output.split([m.output.in_features for m in modules], 1)
        found += [
            (m.output.weight, part.to(m.output.weight.dtype, memory_format=torch.contiguous_format))
            for m, part in zip(modules, outputs, strict=True)
        ]
        small = d_small.split(self.heads.small)
        if self.local is not None:
            found.append((self.local.temperature, small[0]))
        if self.lsh is not None:
            found += [(self.lsh.sink, small[1]), (self.lsh.temperature, small[2])]
            if self.lsh.key_conv is not None:
                found.append((self.lsh.key_conv, small[3].view_as(self.lsh.key_conv)))
        return found
