"""Bucket attention on a GPU by triton_kernels.py: both layouts, float32, bfloat16, float16; sums in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from reformer.backends.gpu import on
from reformer.ops.bucket_attention import triton_kernels
from reformer.ops.bucket_attention.chunks import SortedChunks
from reformer.ops.bucket_attention.layout import Layout
from reformer.ops.bucket_attention.windows import BucketWindows

MOST_D = 256  # widest head that a program's registers are meant for
MOST_SCANNED = (
    1024  # window up to which a block looks for the last query that sees it, instead of assuming the farthest
)


@dataclass(frozen=True)
class Tiling:
    """block: places that a program owns; tile: places it meets at a time; warps, stages: Triton's."""

    block: int
    tile: int
    warps: int
    stages: int


# Which is used is a rule and no measurement at run time: backward must rebuild the very bits of forward, and a run
# resumed elsewhere those of the run before. The rule was made from what the compiler reports (none of these spills
# registers on compute capability 9.0; LOG.md, 2026-11-24); `benchmarks/gpu.py --parts tilings` times the list.
TILINGS = {
    "64 x 64": Tiling(64, 64, 4, 2),
    "64 x 64, 3 stages": Tiling(64, 64, 4, 3),
    "64 x 64, 8 warps": Tiling(64, 64, 8, 2),
    "64 x 32, 8 warps": Tiling(64, 32, 8, 2),
    "32 x 32": Tiling(32, 32, 4, 2),
    "64 x 32, 1 stage": Tiling(64, 32, 8, 1),
    "32 x 16, 8 warps": Tiling(32, 16, 8, 1),
}


def tiling(d: int, dtype: torch.dtype) -> Tiling:
    """The tiling for heads of width d."""
    if dtype == torch.float32:  # multiplied without tensor cores, in many registers
        return TILINGS["64 x 32, 1 stage" if d <= 64 else "32 x 16, 8 warps"]
    return TILINGS["64 x 64" if d <= 64 else "64 x 32, 8 warps" if d <= 128 else "32 x 32"]


def forward_pass(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, value_offset: int, tiles: Tiling | None = None
) -> tuple[Tensor, Tensor]:
    """As `blocked.forward_pass`."""
    out = v.new_empty(len(q), v.shape[1], dtype=_sums(v, layout))
    lse = v.new_empty(len(q), dtype=torch.float32)
    for r in range(layout.n_rounds):
        grid, shared, named, _ = _launch(q, v, layout, r, value_offset, tiles)
        with on(q):
            triton_kernels._forward[grid](q, k, v, out, lse, *shared, **named)
    return out, lse


def backward_pass(
    q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, d_out: Tensor,
    layout: Layout, value_offset: int, *, once: bool, tiles: Tiling | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As `blocked.backward_pass`. q is never overwritten: other programs still read it."""
    sums = _sums(v, layout)
    dk, dv = torch.empty_like(k, dtype=sums), torch.empty_like(v, dtype=sums)
    dq = dk if q is k else torch.empty_like(q, dtype=sums)
    dv[:value_offset] = 0  # the first values follow no key
    d_out = d_out.to(v.dtype)
    for r in range(layout.n_rounds):
        grid, shared, named, window = _launch(q, v, layout, r, value_offset, tiles)
        scan = triton.next_power_of_2(window) if window <= MOST_SCANNED else 0
        with on(q):
            triton_kernels._backward[grid](
                q, k, v, d_out, lse, delta, dq, dk, dv, *shared, window, SCAN=scan, SHARED=q is k, **named
            )  # fmt: skip
    return dq, dk, dv


def _sums(v: Tensor, layout: Layout) -> torch.dtype:
    """Rounds are added up in float32; a single one's result is final."""
    return v.dtype if layout.n_rounds == 1 else torch.float32


def _launch(
    q: Tensor, v: Tensor, layout: Layout, r: int, value_offset: int, tiles: Tiling | None
) -> tuple[tuple[int, int], tuple[Any, ...], dict[str, Any], int]:
    """(grid, arguments that both kernels end with, named ones, window) of a round."""
    d, dv = q.shape[1], v.shape[1]
    if isinstance(layout, BucketWindows):
        now, earlier = layout.rounds[r], layout.earlier(r)
        order, reach, window, chunk, lines = now.order, now.reach, now.window, 1, 1
        n_places = owned = len(order)
        u, windows = (layout.u, layout.windows) if earlier else (reach, reach)  # not read where there is none earlier
        assert u is not None
        assert windows is not None
        n_earlier = len(earlier)
    else:
        assert isinstance(layout, SortedChunks)
        order = layout.extended(r)
        (lines, n_places), chunk, window = order.shape, layout.chunk, layout.chunk
        owned, n_earlier = n_places - 2 * chunk, 0
        reach = u = windows = order  # not read
    t = tiles or tiling(max(d, dv), v.dtype)
    shared = (order, reach, u, windows, len(v), value_offset, n_places, owned, chunk, u.shape[-1])
    named = {
        "D": d, "DV": dv, "BLOCK_D": _padded(d), "BLOCK_DV": _padded(dv), "BLOCK": t.block, "TILE": t.tile,
        "WINDOWS": isinstance(layout, BucketWindows), "ITSELF": int(layout.itself), "EARLIER": n_earlier,
        "FIRST": r == 0,
        "num_warps": t.warps, "num_stages": t.stages,
    }  # fmt: skip
    return (triton.cdiv(owned, t.block), lines), shared, named, window


def _padded(d: int) -> int:
    """Widths that programs work with: powers of two, at least what a product of tiles takes."""
    return max(16, triton.next_power_of_2(d))
