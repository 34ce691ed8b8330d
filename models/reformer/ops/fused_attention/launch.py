"""Launches the kernels of triton_kernels.py over a product's rows (ops/fused_rows/launch.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from reformer.backends.gpu import on
from reformer.ops.bucket_attention.triton_launch import MOST_SCANNED, TILINGS, Tiling, tiling
from reformer.ops.bucket_attention.windows import LARGEST_INT32
from reformer.ops.fused_attention import triton_kernels as kernels
from reformer.ops.fused_rows.launch import Heads, Small, Vectors, merge_rounds
from reformer.ops.lsh_hash.triton_kernels import hash_lines

PLACES = 256  # sorted places of a program


# Of heads up to 64 wide, by what one H200 took for each (LOG.md, 2026-11-27): forwards and backwards, local and LSH.
NARROW = {
    (False, False): Tiling(64, 32, 4, 4), (False, True): Tiling(64, 16, 4, 2),
    (True, False): Tiling(64, 64, 4, 2), (True, True): Tiling(32, 16, 2, 2),
}  # fmt: skip


def tiles_for(d: int, dtype: torch.dtype, back: bool, hashed: bool) -> Tiling:
    """The tiling for heads of width d."""
    if dtype == torch.float32:
        return tiling(d, dtype)
    return NARROW[back, hashed] if d <= 64 else TILINGS["32 x 16, 8 warps" if back else "64 x 32, 8 warps"]


@dataclass(frozen=True)
class Order:
    """Who meets whom: order, reach int32 and u integer [rounds, batch, heads, length]: tokens of a line as they are
    sorted by bucket, how many places are visible from each, and the number by which a later round knows what this one
    shows."""

    order: Tensor
    reach: Tensor
    u: Tensor
    window: int


def sort_lines(
    keys: Tensor, rotations: Tensor, factors: Sequence[int], near: int, hash_mean: Tensor, warm: Tensor,
    window: int, batch: int, starts: Tensor | None,
) -> Order:  # fmt: skip
    """keys [n, lsh heads, d] -> the order of all rounds, of one sort: a line is one more digit of the bucket. near: how
    many buckets the rounds after a far one have, 0: there is none."""
    n, heads, d = keys.shape
    length, rounds, lines = n // batch, rotations.shape[2], batch * heads
    shape = (rounds, batch, heads, length)
    whole = rounds * lines * math.prod(factors)
    wide = torch.int64 if whole > LARGEST_INT32 else torch.int32
    x = keys.view(batch, length, heads, d).transpose(1, 2)
    buckets = hash_lines(x, rotations, factors, hash_mean, warm, near, wide)
    found, index = torch.sort(buckets.view(-1), stable=True)
    u_type = torch.int64 if whole * window + len(found) > LARGEST_INT32 else torch.int32
    order = Order(
        torch.empty(shape, dtype=torch.int32, device=keys.device),
        torch.empty(shape, dtype=torch.int32, device=keys.device),
        torch.empty(max(1, (rounds - 1) * lines * length), dtype=u_type, device=keys.device), window,
    )  # fmt: skip
    with on(keys):
        kernels._order_keys[(triton.cdiv(len(found), PLACES),)](
            found, index, index if starts is None else starts, order.order, order.reach, order.u, len(found),
            (rounds - 1) * lines * length, length, heads, lines, min(window, length), BLOCK=PLACES,
            STEPS=(min(window, length) - 1).bit_length(), DOCUMENTS=starts is not None,
        )  # fmt: skip
    return order


def local_reach(starts: Tensor | None, window: int, length: int) -> Tensor | None:
    """int32 [n]: how many tokens each sees in its document; None where there are none."""
    if starts is None:
        return None
    time = torch.arange(length, dtype=torch.int32, device=starts.device).repeat(len(starts) // length)
    return (time - starts + 1).clamp_max_(window)


def attend(
    vectors: Vectors, order: Order | None, heads: Heads, small: Small, reach: Tensor | None, window: int, batch: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What all heads read [n, heads, d], times their gates, and the logsumexps of local and LSH heads [n, heads]."""
    raw, keys = vectors.raw, vectors.keys
    n, rounds = len(raw), len(order.order) if order else 0
    out = raw.new_empty(n, heads.all, heads.d)
    lse = raw.new_empty(n, heads.local, dtype=torch.float32)
    parts = raw.new_empty(rounds, n, heads.lsh, heads.d)
    lses = raw.new_empty(rounds, n, heads.lsh, dtype=torch.float32)
    with on(raw):
        if heads.local:
            grid, given, named = _launch(raw, keys, None, heads, reach, window, batch)
            q, k, v, gate, _ = _columns(raw, heads)
            kernels._attend[grid](q, k, v, gate, out, lse, *given, heads.columns, *_rows(heads, heads.columns), **named)
        if order:
            grid, given, named = _launch(raw, keys, order, heads, None, order.window, batch)
            v, wide = _columns(raw, heads)[4], heads.lsh * heads.d
            c = heads.columns
            strides = (wide, wide, c, c, wide, n * wide)
            kernels._attend[grid](keys, keys, v, v, parts, lses, *given, *strides, **named)
    return out, lse, merge_rounds(parts, lses, heads, small, raw, out) if order else lse


def attend_back(
    vectors: Vectors, order: Order | None, heads: Heads, reach: Tensor | None, window: int, batch: int,
    d_out: Tensor, lses: tuple[Tensor, Tensor], delta: Tensor, d_raw: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Into d_raw the gradients of local queries, keys and values; returns those of LSH keys and values [rounds, n, lsh,
    d]."""
    raw, keys = vectors.raw, vectors.keys
    n, rounds, whole = len(raw), len(order.order) if order else 0, heads.all * heads.d
    dk, dv = (raw.new_empty(rounds, n, heads.lsh, heads.d) for _ in range(2))
    with on(raw):
        if heads.local:
            grid, given, named = _launch(raw, keys, None, heads, reach, window, batch, back=True)
            q, k, v, *_ = _columns(raw, heads)
            dq, dk_local, dv_local, *_ = _columns(d_raw, heads)
            c, gradients = (
                heads.columns,
                (d_out[:, : heads.local], lses[0], delta[:, : heads.local], dq, dk_local, dv_local),
            )
            kernels._attend_back[grid](q, k, v, *gradients, *given, c, c, c, whole, heads.all, c, c, 0, **named)
        if order:
            grid, given, named = _launch(raw, keys, order, heads, None, order.window, batch, back=True)
            v, wide = _columns(raw, heads)[4], heads.lsh * heads.d
            gradients = (d_out[:, heads.local :], lses[1], delta[:, heads.local :], dk, dk, dv)
            strides = (wide, wide, heads.columns, whole, heads.all, wide, wide, n * wide)
            kernels._attend_back[grid](keys, keys, v, *gradients, *given, *strides, **named)
    return dk, dv


def _columns(raw: Tensor, heads: Heads) -> list[Tensor]:
    """Local queries, keys, values; the local gates; LSH values."""
    local, lsh = heads.local * heads.d, heads.lsh * heads.d
    parts = ((0, local), (local, local), (2 * local, local), (heads.vectors, heads.local), (3 * local + lsh, lsh))
    return [raw.narrow(1, start, size) for start, size in parts]


def _rows(heads: Heads, columns: int) -> tuple[int, ...]:
    """Strides of local keys, values, gates and of the output, and of its rounds."""
    return columns, columns, columns, heads.all * heads.d, 0


def _launch(
    raw: Tensor, keys: Tensor, order: Order | None, heads: Heads, reach: Tensor | None, window: int, batch: int,
    back: bool = False,
) -> tuple[tuple[int, int, int], tuple[Any, ...], dict[str, Any]]:  # fmt: skip
    """(grid, what both kernels are given before strides, named arguments) of local heads, or of LSH heads by their
    order."""
    length, count, tiles = (
        len(raw) // batch,
        heads.lsh if order else heads.local,
        tiles_for(heads.d, raw.dtype, back, order is not None),
    )
    window = min(window, length)
    grid = (triton.cdiv(length, tiles.block), batch * count, len(order.order) if order else 1)
    indices = (order.order, order.reach, order.u) if order else (keys, keys if reach is None else reach, keys)
    named = {
        "D": heads.d, "BLOCK": tiles.block, "TILE": tiles.tile, "ITSELF": 0 if order else 1, "NEXT": 1 if order else 0,
        "SORTED": order is not None, "REACH": order is not None or reach is not None,
        "EARLIER": len(order.order) - 1 if order else 0, "num_warps": tiles.warps, "num_stages": tiles.stages,
    }  # fmt: skip
    if back:
        scanned = named["REACH"] and window <= MOST_SCANNED
        named["SCAN"] = triton.next_power_of_2(window) if scanned else 0
    return grid, (*indices, length, count, window), named
