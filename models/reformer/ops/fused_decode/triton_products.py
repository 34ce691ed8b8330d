"""The products of one more token a row, in Triton: norms, squares, sums onto the streams and the softcap are part of
them. All in float32, whatever the weights' type, which are read where they lie."""

from __future__ import annotations

import triton
import triton.language as tl

from reformer.ops.cross_entropy.triton_kernels import _softcapped


@triton.jit
def _rounded(scaled):
    """Halves to even, as torch.round: from 2^23 on every float32 is whole; below, adding that rounds."""
    large = tl.where(scaled < 0.0, -8388608.0, 8388608.0)
    return tl.where(tl.abs(scaled) < 8388608.0, (scaled + large) - large, scaled).to(tl.int32)


@triton.jit
def _product(
    x, other, w, row, n, column, end, unit,
    K: tl.constexpr, STRIDE: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    STREAMS: tl.constexpr,
):  # fmt: skip
    """(rows of x [n, STRIDE], of which K columns, times those rows of w [.., K] that `column` names below `end`: [ROWS,
    BLOCK_N]; the sums of x's squares [ROWS]). STREAMS: x is a stream, or 2, two of which the sum is meant."""
    there = (row < n)[:, None]
    total = tl.zeros([ROWS, BLOCK_N], tl.float32)
    wide = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([ROWS, BLOCK_K], tl.float32)
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        inside = (k < K)[None, :]
        place = row[:, None] * STRIDE + k[None, :]
        matrix = tl.load(
            w + column.to(tl.int64)[:, None] * K + k[None, :], mask=(column < end)[:, None] & inside, other=0.0
        )
        if STREAMS == 0:
            a = tl.load(x + place, mask=there & inside, other=0.0).to(tl.float32)
        else:
            count = tl.load(x + place, mask=there & inside, other=0)
            if STREAMS == 2:
                count += tl.load(other + place, mask=there & inside, other=0)
            a = count.to(tl.float32) * unit
        if ROWS == 1:
            wide += a * matrix.to(tl.float32)
        else:  # tf32x3: float32's digits
            total = tl.dot(a, tl.trans(matrix.to(tl.float32)), total, input_precision="tf32x3")
        squares += a * a
    if ROWS == 1:
        total = tl.sum(wide, 1)[None, :]
    return total, tl.sum(squares, 1)


@triton.jit
def _to_heads(
    stream, w0, w1, w2, w3, raw, n, unit, eps, columns,
    K: tl.constexpr, N0: tl.constexpr, N1: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Four matrices, one below the other, times the norm of a stream [n, K]: raw [n, columns]."""
    block = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    w = w0
    end = block * 0 + N0
    before = block * 0
    skipped = block * 0
    B1: tl.constexpr = (N0 + BLOCK_N - 1) // BLOCK_N
    B2: tl.constexpr = B1 + (N1 + BLOCK_N - 1) // BLOCK_N
    B3: tl.constexpr = B2 + (N2 + BLOCK_N - 1) // BLOCK_N
    if block >= B3:
        w = w3
        end = block * 0 + N3
        before = block * 0 + (N0 + N1 + N2)
        skipped = block * 0 + B3
    elif block >= B2:
        w = w2
        end = block * 0 + N2
        before = block * 0 + (N0 + N1)
        skipped = block * 0 + B2
    elif block >= B1:
        w = w1
        end = block * 0 + N1
        before = block * 0 + N0
        skipped = block * 0 + B1
    column = (block - skipped) * BLOCK_N + tl.arange(0, BLOCK_N)
    found, squares = _product(stream, stream, w, row, n, column, end, unit, K, K, ROWS, BLOCK_N, BLOCK_K, 1)
    found *= (1.0 / tl.sqrt(squares / K + eps))[:, None]
    mask = (row < n)[:, None] & (column < end)[None, :]
    tl.store(raw + row[:, None] * columns + (before + column)[None, :], found, mask=mask)


@triton.jit
def _widen(
    stream, w, h, n, unit, eps,
    K: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """relu(w x)^2 of the norm x of a stream [n, K]: h [n, N]."""
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    found, squares = _product(stream, stream, w, row, n, column, N, unit, K, K, ROWS, BLOCK_N, BLOCK_K, 1)
    found *= (1.0 / tl.sqrt(squares / K + eps))[:, None]
    found = tl.where(found < 0.0, 0.0, found)  # NaN stays
    tl.store(h + row[:, None] * N + column[None, :], found * found, mask=(row < n)[:, None] & (column < N)[None, :])


@triton.jit
def _onto_stream(
    x, w0, w1, stream, bad, n, units, limit,
    K0: tl.constexpr, K1: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    """stream [n, N] += x [n, K0 + K1] times two matrices side by side, rounded; bad becomes 1 where that does not
    fit."""
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (row < n)[:, None] & (column < N)[None, :]
    place = row[:, None] * N + column[None, :]
    before = tl.load(stream + place, mask=mask, other=0)
    found = tl.zeros([ROWS, BLOCK_N], tl.float32)
    STRIDE: tl.constexpr = K0 + K1
    if K0:
        found += _product(x, x, w0, row, n, column, N, 0.0, K0, STRIDE, ROWS, BLOCK_N, BLOCK_K, 0)[0]
    if K1:
        found += _product(x + K0, x, w1, row, n, column, N, 0.0, K1, STRIDE, ROWS, BLOCK_N, BLOCK_K, 0)[0]
    scaled = found * units
    total = before + _rounded(scaled)
    tl.debug_barrier()  # threads may hold the same numbers: all have read before one writes
    tl.store(stream + place, total, mask=mask)
    fits = (tl.abs(scaled) < limit) & (total < limit) & (total > -limit)
    # Every program that finds something writes the same 1: no order, no atomics.
    tl.store(bad, 1, mask=tl.min(tl.min(fits.to(tl.int32), 1), 0) == 0)


@triton.jit
def _logits(
    first, second, w, bias, logits, seen, flags, fits, n, unit, eps, cap,
    K: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    BIASED: tl.constexpr, CAPPED: tl.constexpr, FLAGS: tl.constexpr, BLOCK_FLAGS: tl.constexpr,
):  # fmt: skip
    """Of the norm of the sum of both streams [n, K]: logits [n, N]. It is the last kernel of a token: the rows have
    seen one more, and the flags are read and taken down."""
    row = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    found, squares = _product(first, second, w, row, n, column, N, unit, K, K, ROWS, BLOCK_N, BLOCK_K, 2)
    found *= (1.0 / tl.sqrt(squares / K + eps))[:, None]
    if BIASED:
        found += tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
    if CAPPED:
        found = _softcapped(found, cap)
    place = row[:, None] * N + column[None, :]
    tl.store(logits + place, found.to(logits.dtype.element_ty), mask=(row < n)[:, None] & (column < N)[None, :])
    if tl.program_id(0) == 0:
        now = tl.load(seen + row, mask=row < n, other=0) + 1
        tl.debug_barrier()
        tl.store(seen + row, now, mask=row < n)
        if tl.program_id(1) == 0:
            flag = tl.arange(0, BLOCK_FLAGS)
            bad = tl.load(flags + 4 * flag, mask=flag < FLAGS, other=0)
            tl.debug_barrier()
            tl.store(fits + flag, (bad == 0).to(fits.dtype.element_ty), mask=flag < FLAGS)
            tl.store(flags + 4 * flag, tl.zeros([BLOCK_FLAGS], tl.int32), mask=flag < FLAGS)
