"""Bucket attention in Triton: rows are fetched through the sorted index inside the kernel; nothing is permuted.

A program owns a block of consecutive sorted places of one round. Forwards it makes the output rows of their queries,
merged with those of the rounds before (launches follow one another). Backwards it does both jobs: as queries its
places meet the keys before them, as keys the queries after them. Each row is so written by one program a round: no
atomics, the same bits every time. Arithmetic on places is relative to the block, in 32 bits, that on rows in 64.
gpu.py launches these kernels; README.md has the mathematics.
"""

from __future__ import annotations

import triton
import triton.language as tl

from reformer.backends.gpu import interpreted

# The interpreter keeps bfloat16 as uint16, and its dot multiplies those integers (triton 3.6, 3.7).
WIDEN: tl.constexpr = tl.constexpr(interpreted())


@triton.jit
def _dot(a, b):
    """a @ b in float32; float32 is not rounded to tf32."""
    if WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _rows(start, index, there, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows of width D of a matrix, by their int64 numbers; zeros where they are not there."""
    column = tl.arange(0, BLOCK_D)
    return tl.load(start + index[:, None] * D + column[None, :], mask=there[:, None] & (column[None, :] < D), other=0.0)


@triton.jit
def _chunk(place, remainder, chunk):
    """The chunk of a relative place, the block's first one being 0; places down to one chunk before that."""
    return (remainder + place + chunk) // chunk - 1


@triton.jit
def _seen(
    i, j, index_i, index_j, reach, remainder, chunk, u, windows, u_stride,
    WINDOWS: tl.constexpr, ITSELF: tl.constexpr, EARLIER: tl.constexpr,
):  # fmt: skip
    """Whether queries i, down, see keys j, across: relative places, their rows' numbers (-1: no row) and reach."""
    if WINDOWS:
        seen = (j[None, :] > i[:, None] - reach[:, None]) & (index_i[:, None] >= 0)
        seen = seen & (j[None, :] < i[:, None] + ITSELF)
        # A pair that an earlier round shows: there |u_i - u_j| < window, and it counts once.
        for e in tl.static_range(EARLIER):
            window = tl.load(windows + e)
            u_i = tl.load(u + e * u_stride + index_i, mask=index_i >= 0, other=0)
            u_j = tl.load(u + e * u_stride + index_j, mask=index_j >= 0, other=0)
            apart = u_i[:, None] - u_j[None, :]
            seen = seen & ((apart >= window) | (apart <= -window))
    else:
        back = _chunk(i, remainder, chunk)[:, None] - _chunk(j, remainder, chunk)[None, :]
        seen = ((back == 0) | (back == 1)) & (index_j[None, :] >= 0)
        seen = seen & (index_j[None, :] < index_i[:, None] + ITSELF)
    return seen


@triton.jit
def _block(reach, n_places, owned, chunk, BLOCK: tl.constexpr, WINDOWS: tl.constexpr):
    """Where this program's block is: (its first place's number; relative to that the line's first and last + 1 place,
    the first key that its queries may see; how many places it owns; the first place's remainder modulo the chunk)."""
    block = tl.program_id(0).to(tl.int64)
    line = tl.program_id(1).to(tl.int64)
    if WINDOWS:
        first = block * BLOCK
        remainder = first.to(tl.int32) * 0
        # What is seen begins at a place that only grows: the first query's is the lowest.
        low = 1 - tl.load(reach + line * n_places + first)
    else:
        first = chunk + block * BLOCK
        remainder = (first % chunk).to(tl.int32)
        low = -remainder - chunk
    begin = (-tl.minimum(first, 1 << 30)).to(tl.int32)
    end = tl.minimum(n_places - first, 1 << 30).to(tl.int32)
    own = tl.minimum(owned - block * BLOCK, BLOCK).to(tl.int32)
    return line * n_places + first, begin, end, low, own, remainder


@triton.jit
def _forward(
    q, k, v, out, lse, order, reach, u, windows, n_rows, value_offset, n_places, owned, chunk, u_stride,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr, BLOCK: tl.constexpr,
    TILE: tl.constexpr, WINDOWS: tl.constexpr, ITSELF: tl.constexpr, EARLIER: tl.constexpr, FIRST: tl.constexpr,
):  # fmt: skip
    first, begin, end, low, own, remainder = _block(reach, n_places, owned, chunk, BLOCK, WINDOWS)
    i = tl.arange(0, BLOCK)
    mine = i < own
    index = tl.load(order + first + i, mask=mine, other=-1)
    there = index >= 0
    reach_i = tl.load(reach + first + i, mask=mine, other=0) if WINDOWS else i
    query = _rows(q, index, there, D, BLOCK_D)
    peak = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    summed = tl.zeros([BLOCK, BLOCK_DV], tl.float32)
    high = BLOCK
    if not WINDOWS:
        high = (_chunk(BLOCK - 1, remainder, chunk) + 1) * chunk - remainder
    for start in range(low, high, TILE):
        j = start + tl.arange(0, TILE)
        index_j = tl.load(order + first + j, mask=(j >= begin) & (j < end), other=-1)
        key = _rows(k, index_j, index_j >= 0, D, BLOCK_D)
        read = index_j + value_offset
        value = _rows(v, read, (index_j >= 0) & (read < n_rows), DV, BLOCK_DV)
        scores = _dot(query, tl.trans(key))
        seen = _seen(
            i, j, index, index_j, reach_i, remainder, chunk, u, windows, u_stride, WINDOWS, ITSELF, EARLIER
        )  # fmt: skip
        scores = tl.where(seen, scores, -float("inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        floor = tl.where(higher == -float("inf"), 0.0, higher)  # -inf - -inf would be NaN
        weights = tl.exp(scores - floor[:, None])
        shrink = tl.exp(peak - floor)
        total = total * shrink + tl.sum(weights, 1)
        summed = summed * shrink[:, None] + _dot(weights.to(v.dtype.element_ty), value)
        peak = higher
    # One round's output and logsumexp; 0 and -inf where nothing is seen. NaN stays what it is.
    nothing = total == 0.0
    found = summed / tl.where(nothing, 1.0, total)[:, None]
    found_lse = tl.where(nothing, -float("inf"), tl.where(nothing, 0.0, peak) + tl.log(tl.where(nothing, 1.0, total)))
    column = tl.arange(0, BLOCK_DV)
    rows = out + index[:, None] * DV + column[None, :]
    inside = there[:, None] & (column[None, :] < DV)
    if not FIRST:
        old_lse = tl.load(lse + index, mask=there, other=-float("inf"))
        old = tl.load(rows, mask=inside, other=0.0)
        largest = tl.maximum(old_lse, found_lse)
        floor = tl.where(largest == -float("inf"), 0.0, largest)
        old_part = tl.exp(old_lse - floor)
        new_part = tl.exp(found_lse - floor)
        both = old_part + new_part
        found = (old * old_part[:, None] + found * new_part[:, None]) / tl.where(both == 0.0, 1.0, both)[:, None]
        found_lse = tl.where(both == 0.0, -float("inf"), floor + tl.log(tl.where(both == 0.0, 1.0, both)))
    tl.store(rows, found.to(out.dtype.element_ty), mask=inside)
    tl.store(lse + index, found_lse, mask=there)


@triton.jit
def _backward(
    q, k, v, d_out, lse, delta, dq, dk, dv, order, reach, u, windows, n_rows, value_offset, n_places, owned, chunk,
    u_stride, window, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr, SCAN: tl.constexpr, WINDOWS: tl.constexpr, ITSELF: tl.constexpr, EARLIER: tl.constexpr,
    FIRST: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    low_type = v.dtype.element_ty
    first, begin, end, low, own, remainder = _block(reach, n_places, owned, chunk, BLOCK, WINDOWS)
    i = tl.arange(0, BLOCK)
    mine = i < own
    index = tl.load(order + first + i, mask=mine, other=-1)
    there = index >= 0
    column = tl.arange(0, BLOCK_D)
    inside = there[:, None] & (column[None, :] < D)

    # As queries: against the keys before.
    reach_i = tl.load(reach + first + i, mask=mine, other=0) if WINDOWS else i
    query = _rows(q, index, there, D, BLOCK_D)
    upper = _rows(d_out, index, there, DV, BLOCK_DV)
    lse_i = tl.load(lse + index, mask=there, other=0.0)
    delta_i = tl.load(delta + index, mask=there, other=0.0)
    d_query = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    high = BLOCK
    if not WINDOWS:
        high = (_chunk(BLOCK - 1, remainder, chunk) + 1) * chunk - remainder
    for start in range(low, high, TILE):
        j = start + tl.arange(0, TILE)
        index_j = tl.load(order + first + j, mask=(j >= begin) & (j < end), other=-1)
        key = _rows(k, index_j, index_j >= 0, D, BLOCK_D)
        read = index_j + value_offset
        value = _rows(v, read, (index_j >= 0) & (read < n_rows), DV, BLOCK_DV)
        scores = _dot(query, tl.trans(key))
        seen = _seen(
            i, j, index, index_j, reach_i, remainder, chunk, u, windows, u_stride, WINDOWS, ITSELF, EARLIER
        )  # fmt: skip
        weights = tl.where(seen, tl.exp(scores - lse_i[:, None]), 0.0)
        d_weights = _dot(upper, tl.trans(value))
        d_scores = tl.where(seen, weights * (d_weights - delta_i[:, None]), 0.0)
        d_query += _dot(d_scores.to(low_type), key)
    if not SHARED:
        rows = dq + index[:, None] * D + column[None, :]
        if not FIRST:
            d_query += tl.load(rows, mask=inside, other=0.0)
        tl.store(rows, d_query.to(dq.dtype.element_ty), mask=inside)

    # As keys: against the queries after.
    if WINDOWS:
        low = 0
        high = BLOCK + window - 1
        if SCAN > 0:
            far = BLOCK + tl.arange(0, SCAN)
            possible = (far < end) & (far < high)
            begins = far - tl.load(reach + first + far, mask=possible, other=0) + 1
            high = BLOCK + tl.sum(((begins < BLOCK) & possible).to(tl.int32), 0)
    else:
        low = -remainder
        high = (_chunk(BLOCK - 1, remainder, chunk) + 2) * chunk - remainder
    high = tl.minimum(high, end)
    key = _rows(k, index, there, D, BLOCK_D)
    read = index + value_offset
    has_value = there & (read < n_rows)
    value = _rows(v, read, has_value, DV, BLOCK_DV)
    d_key = tl.zeros([BLOCK, BLOCK_D], tl.float32)
    if SHARED:
        d_key = d_query
    d_value = tl.zeros([BLOCK, BLOCK_DV], tl.float32)
    for start in range(low, high, TILE):
        j = start + tl.arange(0, TILE)
        inner = (j >= begin) & (j < end)
        index_j = tl.load(order + first + j, mask=inner, other=-1)
        real = index_j >= 0
        reach_j = tl.load(reach + first + j, mask=inner, other=0) if WINDOWS else j
        other = _rows(q, index_j, real, D, BLOCK_D)
        above = _rows(d_out, index_j, real, DV, BLOCK_DV)
        lse_j = tl.load(lse + index_j, mask=real, other=0.0)
        delta_j = tl.load(delta + index_j, mask=real, other=0.0)
        scores = _dot(other, tl.trans(key))
        seen = _seen(
            j, i, index_j, index, reach_j, remainder, chunk, u, windows, u_stride, WINDOWS, ITSELF, EARLIER
        )  # fmt: skip
        weights = tl.where(seen, tl.exp(scores - lse_j[:, None]), 0.0)
        d_value += _dot(tl.trans(weights.to(low_type)), above)
        d_weights = _dot(above, tl.trans(value))
        d_scores = tl.where(seen, weights * (d_weights - delta_j[:, None]), 0.0)
        d_key += _dot(tl.trans(d_scores.to(low_type)), other)
    rows = dk + index[:, None] * D + column[None, :]
    wide = tl.arange(0, BLOCK_DV)
    value_rows = dv + read[:, None] * DV + wide[None, :]
    value_inside = has_value[:, None] & (wide[None, :] < DV)
    if not FIRST:
        d_key += tl.load(rows, mask=inside, other=0.0)
        d_value += tl.load(value_rows, mask=value_inside, other=0.0)
    tl.store(rows, d_key.to(dk.dtype.element_ty), mask=inside)
    tl.store(value_rows, d_value.to(dv.dtype.element_ty), mask=value_inside)
