"""Launches the kernels of triton_kernels.py. n: tokens of all rows of a batch, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from reformer.backends.gpu import on
from reformer.ops.fused_rows import triton_kernels as kernels
from reformer.ops.lsh_hash.triton_kernels import COOLEST
from reformer.ops.norm_rope_relu.pytorch import TINY
from reformer.ops.norm_rope_relu.triton_kernels import FLAT, _of_rows

RANGE_LIMIT = 2**30  # of streams, as reversible/streams.py has it
ROWS, WARPS = 16, 2  # tokens of a program that works on one head; of those that split heads (LOG.md, 2026-11-27)


@dataclass(frozen=True)
class Heads:
    """Of a fused layer: local, LSH; d: width of a head; taps: tokens that a hashed vector is made of."""

    local: int
    lsh: int
    d: int
    taps: int

    @property
    def all(self) -> int:
        return self.local + self.lsh

    @property
    def vectors(self) -> int:
        """Columns of a product's row before the gates' scores."""
        return (3 * self.local + 2 * self.lsh) * self.d

    @property
    def columns(self) -> int:
        """Of a product's row, filled up to what tensor cores read at once."""
        return -(-(self.vectors + self.all) // 64) * 64

    @property
    def small(self) -> list[int]:
        """How many numbers the gradients of temperatures, sinks, LSH temperatures and key convolution have."""
        return [self.local, self.lsh, self.lsh, self.lsh * self.taps * self.d]


@dataclass(frozen=True)
class Vectors:
    """What `split_heads` makes of a product raw [n, columns], whose local queries and keys it changes in place: keys
    [n, lsh, d], lengths [n, 2 local] that queries and keys had, means [blocks, lsh, d], parts of the mean of the unit
    keys."""

    raw: Tensor
    keys: Tensor
    lengths: Tensor
    means: Tensor


@dataclass(frozen=True)
class Small:
    """A fused layer's small parameters: temperatures [local], [lsh], sink [lsh], conv [lsh, taps, d]."""

    local: Tensor
    lsh: Tensor
    sink: Tensor
    conv: Tensor


def norm_stream(
    stream: Tensor, bits: int, dtype: torch.dtype, *, other: Tensor | None = None, added: Tensor | None = None,
    bad: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(RMS norm of a fixed-point stream [n, d] in dtype, 1 / rms [n]). added is rounded and added to the stream first,
    and bad [1] becomes 1 where something leaves RANGE_LIMIT; other: a stream that is added for the norm alone."""
    n, d = stream.shape
    out, inverse = torch.empty_like(stream, dtype=dtype), stream.new_empty(n, dtype=torch.float32)
    sizes = _of_rows(d)
    with on(stream):
        kernels._add_norm_stream[(triton.cdiv(n, sizes["ROWS"]),)](
            stream, _or(other, stream), _or(added, stream), _or(bad, stream), out, inverse, n, 2.0**bits, 2.0**-bits,
            RANGE_LIMIT, torch.finfo(torch.float32).eps, **sizes, ADD=added is not None, BOTH=other is not None,
        )  # fmt: skip
    return out, inverse


def norm_stream_back(
    dy: Tensor, y: Tensor, inverse: Tensor, dx: Tensor, *, first: bool = False, copy: bool = True
) -> Tensor:
    """dx += the gradient of what `norm_stream` normed (first: = instead); returns dx in the type of y, where a copy is
    wanted."""
    n, d = y.shape
    low, sizes = torch.empty_like(y) if copy and dx.dtype != y.dtype else dx, _of_rows(d)
    with on(y):
        kernels._norm_stream_back[(triton.cdiv(n, sizes["ROWS"]),)](
            dy, y, inverse, dx, low, n, **sizes, FIRST=first, COPY=low is not dx
        )
    return low


def split_heads(
    raw: Tensor, heads: Heads, small: Small, phase: Tensor | None, starts: Tensor | None, length: int
) -> Vectors:
    """phase: complex [length, d / 2]; starts: int32 [n], where each token's document begins in its row; None: at 0."""
    n = len(raw)
    keys, lengths = raw.new_empty(n, heads.lsh, heads.d), raw.new_empty(n, 2 * heads.local, dtype=torch.float32)
    blocks = triton.cdiv(n, ROWS)
    means = raw.new_empty(blocks, heads.lsh, heads.d, dtype=torch.float32)
    with on(raw):
        kernels._split_heads[(blocks, 2 * heads.local + heads.lsh)](
            raw, lengths, _turns(phase, raw), small.local, small.lsh, small.conv, _or(starts, raw), keys, means, n,
            length, heads.columns, TINY, 1.0 / n, **_fixed(heads, phase, starts), COOLEST=COOLEST, num_warps=WARPS,
        )  # fmt: skip
    return Vectors(raw, keys, lengths, means)


def split_heads_back(
    d_raw: Tensor, vectors: Vectors, heads: Heads, small: Small, phase: Tensor | None, starts: Tensor | None,
    length: int, dk: Tensor, dv: Tensor, sums: Tensor,
) -> None:  # fmt: skip
    """d_raw, which has the gradients of local queries, keys and values, becomes that of the product. dk, dv: [rounds,
    n, lsh, d]; sums [blocks, sum of heads.small] gets parts of the small parameters' gradients."""
    raw = vectors.raw
    with on(raw):
        kernels._split_heads_back[(triton.cdiv(len(raw), ROWS), 2 * heads.local + heads.lsh)](
            d_raw, raw, vectors.lengths, _turns(phase, raw), small.local, small.lsh, small.conv, _or(starts, raw), dk,
            dv, sums, len(raw), length, heads.columns, sums.shape[1], **_fixed(heads, phase, starts), ROUNDS=len(dk),
            COOLEST=COOLEST, num_warps=WARPS,
        )  # fmt: skip


def merge_rounds(parts: Tensor, lses: Tensor, heads: Heads, small: Small, raw: Tensor, out: Tensor) -> Tensor:
    """parts [rounds, n, lsh, d] and lses [rounds, n, lsh] of LSH heads -> into out [n, all heads, d]; logsumexp [n,
    lsh]."""
    n = len(raw)
    lse = torch.empty_like(lses[0])
    with on(raw):
        kernels._merge_rounds[(triton.cdiv(n, ROWS), heads.lsh)](
            parts, lses, small.sink, raw[:, heads.vectors + heads.local : heads.vectors + heads.all],
            out[:, heads.local :], lse, n,
            heads.columns, heads.all * heads.d, D=heads.d, ROWS=ROWS, LSH=heads.lsh, ROUNDS=len(parts),
        )  # fmt: skip
    return lse


def gate_back(
    out: Tensor, d_out: Tensor, raw: Tensor, lse: Tensor, heads: Heads, small: Small
) -> tuple[Tensor, Tensor, Tensor]:
    """(delta [n, all heads]; d_raw, of which the gates' columns are filled; sums, of which the sinks' are). d_out [n,
    all heads, d] becomes the gradient of what was read before the gates."""
    n, blocks = len(raw), triton.cdiv(len(raw), ROWS)
    delta, d_raw = raw.new_empty(n, heads.all, dtype=torch.float32), torch.empty_like(raw)
    sums = raw.new_empty(blocks, sum(heads.small), dtype=torch.float32)
    with on(raw):
        kernels._gate_back[(blocks, heads.all)](
            out, d_out, raw[:, heads.vectors :], d_raw[:, heads.vectors :], lse, small.sink, delta, sums, n,
            heads.columns, sums.shape[1],
            D=heads.d, ROWS=ROWS, LOCAL=heads.local, LSH=heads.lsh, PAD=heads.columns - heads.vectors - heads.all,
        )  # fmt: skip
    return delta, d_raw, sums


def dropout(x: Tensor, seed: Tensor, number: int, start: int, share: float) -> Tensor:
    """x without a share of its numbers, the others larger for it. seed: int64 [1], which a CUDA graph reads again; with
    it number and start tell one mask from another."""
    x = x.contiguous()
    out = torch.empty_like(x)
    with on(x):
        kernels._dropout[(triton.cdiv(x.numel(), FLAT),)](
            x, seed, out, x.numel(), number, start, share, 1 / (1 - share), QUARTER=FLAT // 4
        )
    return out


def squared_relu_(h: Tensor) -> Tensor:
    """relu(h)^2, in place."""
    with on(h):
        kernels._squared_relu_inplace[(triton.cdiv(h.numel(), FLAT),)](h, h.numel(), BLOCK=FLAT)
    return h


def squared_relu_back_(d: Tensor, square: Tensor) -> Tensor:
    """From the gradient of relu(x)^2 = square to that of x, in place."""
    with on(d):
        kernels._squared_relu_inplace_back[(triton.cdiv(d.numel(), FLAT),)](d, square, d.numel(), BLOCK=FLAT)
    return d


def _fixed(heads: Heads, phase: Tensor | None, starts: Tensor | None) -> dict[str, int | bool]:
    sizes: dict[str, int | bool] = {"D": heads.d, "ROWS": ROWS, "LOCAL": heads.local, "LSH": heads.lsh}
    return sizes | {"TAPS": heads.taps, "TURNED": phase is not None, "DOCUMENTS": starts is not None}


def _turns(phase: Tensor | None, some: Tensor) -> Tensor:
    """Complex numbers as pairs of float32."""
    return some if phase is None else torch.view_as_real(phase.to(torch.complex64))


def _or(x: Tensor | None, some: Tensor) -> Tensor:
    """What is handed over where there is nothing; it is not read."""
    return some if x is None else x
