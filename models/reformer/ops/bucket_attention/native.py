"""Bucket attention on a CPU in C (backends/native): layout `BucketWindows`, float32 and bfloat16, sums in float32."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from reformer.backends.native.library import library, pointer, threads
from reformer.ops.bucket_attention.windows import BucketWindows

NAMES = ("q", "k", "v", "d_out", "out", "dq", "dk", "dv", "lse", "delta", "order", "reach", "places", "rows")
POINTERS = (*NAMES, "u", "u_windows")
SIZES = ("n_places", "n_queries", "value_offset", "window", "d", "d_value")
FLAGS = ("half", "half_out", "n_earlier", "wide", "itself", "shared", "first", "threads")


class _Round(ctypes.Structure):
    """The C struct Round."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, ctypes.c_int64) for name in SIZES),
        *((name, ctypes.c_int32) for name in FLAGS),
        ("ahead", ctypes.c_void_p),
    ]


def forward_pass(q: Tensor, k: Tensor, v: Tensor, layout: BucketWindows, value_offset: int) -> tuple[Tensor, Tensor]:
    """As `blocked.forward_pass`."""
    out = v.new_empty(len(q), v.shape[1], dtype=_sums(v, layout))
    lse = v.new_empty(len(q), dtype=torch.float32)
    for r in range(layout.n_rounds):
        _call("attention_forward", layout, r, q, k, v, value_offset, out=out, lse=lse)
    return out, lse


def forward_new(
    q: Tensor, k: Tensor, v: Tensor, layout: BucketWindows, heads: int, length: int, new: int
) -> tuple[Tensor, Tensor]:
    """`forward_pass` for the last `new` of `length` positions of each row: q, and what is returned, have only those."""
    out = v.new_empty(len(q), v.shape[1], dtype=_sums(v, layout))
    lse = v.new_empty(len(q), dtype=torch.float32)
    before = length - new
    for r, now in enumerate(layout.rounds):
        batch_row, head = now.order // (length * heads), now.order % heads
        time = now.order // heads % length
        places = (time >= before).nonzero()[:, 0]
        rows = ((batch_row * new + time - before) * heads + head)[places]
        _call("attention_forward", layout, r, q, k, v, 0, out=out, lse=lse, places=places, rows=rows)
    return out, lse


def backward_pass(
    q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, d_out: Tensor,
    layout: BucketWindows, value_offset: int, *, once: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As `blocked.backward_pass`; where q is wanted this once and there is one round, dq takes its place."""
    sums = _sums(v, layout)
    dk, dv = torch.empty_like(k, dtype=sums), torch.empty_like(v, dtype=sums)
    dq = dk if q is k else q if once and sums == q.dtype else torch.empty_like(q, dtype=sums)
    dv[:value_offset] = 0  # the first values follow no key
    for r in range(layout.n_rounds):
        _call(
            "attention_backward", layout, r, q, k, v, value_offset,
            d_out=d_out.to(v.dtype), lse=lse, delta=delta, dq=dq, dk=dk, dv=dv,
        )  # fmt: skip
    return dq, dk, dv


def _sums(v: Tensor, layout: BucketWindows) -> torch.dtype:
    """Rounds are added up in float32; a single one's result is final."""
    return v.dtype if layout.n_rounds == 1 else torch.float32


def _earlier(layout: BucketWindows, r: int) -> Iterator[tuple[Tensor, int]]:
    for before in layout.earlier(r):
        assert before.u is not None
        yield before.u, before.window


def _call(
    function: str, layout: BucketWindows, r: int, q: Tensor, k: Tensor, v: Tensor, value_offset: int, **tensors: Tensor
) -> None:
    lib = library()
    assert lib is not None
    now, earlier = layout.rounds[r], list(_earlier(layout, r))
    u = (ctypes.c_void_p * (len(earlier) + 1))(*(pointer(x) for x, _ in earlier))
    windows = (ctypes.c_int64 * (len(earlier) + 1))(*(window for _, window in earlier))
    numbers: dict[str, Any] = {
        "u": ctypes.addressof(u), "u_windows": ctypes.addressof(windows), "n_places": len(now.order),
        "n_queries": len(q), "value_offset": value_offset, "window": now.window, "d": q.shape[1], "d_value": v.shape[1],
        "half": v.dtype == torch.bfloat16, "half_out": _sums(v, layout) == torch.bfloat16, "n_earlier": len(earlier),
        "wide": bool(earlier) and earlier[0][0].dtype == torch.int64, "itself": layout.itself, "shared": q is k,
        "first": r == 0, "threads": threads(),
    }  # fmt: skip
    held = {"q": q, "k": k, "v": v, "order": now.order, "reach": now.reach} | tensors
    if not getattr(lib, function)(ctypes.byref(_Round(**numbers, **{name: pointer(x) for name, x in held.items()}))):
        raise MemoryError(f"{function} found no memory for its workspace")
