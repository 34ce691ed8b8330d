"""The angular hash in Triton: projections and their argmax in one pass over the vectors; only ids are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from reformer.backends.gpu import on
from reformer.ops.lsh_hash.buckets import bucket_dtype

BLOCK = 64  # vectors of a program
WARPS = 4  # 8 took 2.7 times as long on an H200 (LOG.md, 2026-11-27)
MOST_COLUMNS = 32  # projections at a time
COOLEST = 1e-3  # temperature of an LSH head, at least (attention/lsh.py)


@triton.jit
def _hash(
    x, rotations, hash_mean, warm, buckets, length, heads, rounds, width, step, near,
    stride_batch, stride_head, stride_time,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, FACTORS: tl.constexpr,
    N_FACTORS: tl.constexpr, CENTRED: tl.constexpr, LINES: tl.constexpr, COOLEST: tl.constexpr,
):  # fmt: skip
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    r = tl.program_id(2)
    time = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = time < length
    dim = tl.arange(0, BLOCK_D)
    start = x + batch * stride_batch + head.to(tl.int64) * stride_head
    places = start + time.to(tl.int64)[:, None] * stride_time + dim[None, :]
    rows = tl.load(places, mask=there[:, None] & (dim[None, :] < D), other=0.0).to(tl.float32)
    if CENTRED:
        centre = tl.load(hash_mean + head * D + dim, mask=dim < D, other=0.0).to(tl.float32)
        if LINES:  # kept for unit vectors, brought to the vectors' length
            centre *= tl.sqrt(tl.maximum(tl.load(warm + head).to(tl.float32), COOLEST))
        rows -= centre[None, :]
    turned = rotations + (head * D + dim)[:, None] * (rounds * width) + r * width
    bucket = tl.zeros([BLOCK], tl.int64)
    scale = 1
    before = 0
    for f in tl.static_range(N_FACTORS):
        half = FACTORS[f] // 2
        best = tl.full([BLOCK], -float("inf"), tl.float32)
        digit = tl.zeros([BLOCK], tl.int32)
        for first in range(0, half, COLUMNS):
            column = first + tl.arange(0, COLUMNS)
            real = column < half
            matrix = tl.load(
                turned + before + column[None, :], mask=(dim[:, None] < D) & real[None, :], other=0.0
            )  # fmt: skip
            found = tl.dot(rows, matrix, input_precision="tf32x3")  # float32's digits: rounded, it is another bucket
            # argmax over [x R; -x R]: of equals the first, as torch has it
            size = tl.where(real[None, :], tl.abs(found), -1.0)
            largest = tl.max(size, 1)
            positive = tl.where((size == largest[:, None]) & (found >= 0), column[None, :], 2 * half)
            negative = tl.where((size == largest[:, None]) & (found < 0), column[None, :] + half, 2 * half)
            place = tl.minimum(tl.min(positive, 1), tl.min(negative, 1))
            better = (largest > best) | ((largest == best) & (place < digit))
            digit = tl.where(better, place, digit)
            best = tl.maximum(best, largest)
        bucket += scale * digit.to(tl.int64)
        scale *= 2 * half
        before += half
    line = (r * (tl.num_programs(1)) + tl.program_id(1)).to(tl.int64)
    if LINES:  # a line is one more digit; the first factors are the lowest digits, and the far round's first
        bucket = tl.where((near > 0) & (r > 0), bucket % tl.maximum(near, 1), bucket) + line * step
    tl.store(buckets + line * length + time, bucket.to(buckets.dtype.element_ty), mask=there)


def lsh_hash(x: Tensor, rotations: Tensor, factors: Sequence[int], hash_mean: Tensor | None = None) -> Tensor:
    """As `pytorch.lsh_hash`, for float32 and less."""
    return _launch(x, rotations, factors, hash_mean, None, bucket_dtype(math.prod(factors)), 0, 0)


def hash_lines(
    x: Tensor, rotations: Tensor, factors: Sequence[int], hash_mean: Tensor, warm: Tensor, near: int, dtype: torch.dtype
) -> Tensor:
    """`lsh_hash` as keys for one sort: the number of the line (round, row, head) is one more digit. hash_mean: of unit
    vectors, x have the length of the root of warm [heads], or of COOLEST; near: how many buckets the rounds after the
    first have, 0: as many as that."""
    return _launch(x, rotations, factors, hash_mean, warm, dtype, math.prod(factors), near)


def _launch(
    x: Tensor, rotations: Tensor, factors: Sequence[int], hash_mean: Tensor | None, warm: Tensor | None,
    dtype: torch.dtype, step: int, near: int,
) -> Tensor:  # fmt: skip
    batch, heads, length, d = x.shape
    rounds, width = rotations.shape[2:]
    buckets = torch.empty(rounds, batch, heads, length, dtype=dtype, device=x.device)
    if x.stride(3) != 1:
        x = x.contiguous()
    columns = min(MOST_COLUMNS, max(16, triton.next_power_of_2(max(factors) // 2)))
    flat = rotations.to(torch.float32).contiguous()
    grid = (triton.cdiv(length, BLOCK), batch * heads, rounds)
    with on(x):
        _hash[grid](
            x, flat, flat if hash_mean is None else hash_mean.contiguous(), flat if warm is None else warm, buckets,
            length, heads, rounds, width, step, near, *x.stride()[:3], D=d, BLOCK=BLOCK, COLUMNS=columns,
            BLOCK_D=max(16, triton.next_power_of_2(d)), FACTORS=tuple(factors), N_FACTORS=len(factors),
            CENTRED=hash_mean is not None, LINES=warm is not None, COOLEST=COOLEST, num_warps=WARPS, num_stages=1,
        )  # fmt: skip
    return buckets
