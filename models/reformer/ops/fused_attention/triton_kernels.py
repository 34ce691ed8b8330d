"""Attention of a fused layer in Triton. A line is one head of one row of a batch in one round; its places are tokens,
of local heads in the order of the text, of LSH heads sorted by bucket. Rows are read where the product left them.

A program owns a block of places of a line, forwards as queries, backwards as queries and then as keys: every row is
written by one program, without atomics, the same bits every time."""

from __future__ import annotations

import triton
import triton.language as tl

from reformer.ops.bucket_attention.triton_kernels import _dot

UNROLLED: tl.constexpr = tl.constexpr(3)  # earlier rounds


@triton.jit
def _order_keys(
    sorted_keys, index, starts, order, reach, u, n, n_u, length, heads, lines, window,
    BLOCK: tl.constexpr, STEPS: tl.constexpr, DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """Of each sorted place: its token, how many places are visible from it; of each token u, place + key x window."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < n
    key = tl.load(sorted_keys + place, mask=inside, other=0)
    i = tl.load(index + place, mask=inside, other=0)
    time = i % length
    tl.store(order + place, time.to(order.dtype.element_ty), mask=inside)
    if DOCUMENTS:
        start = tl.load(starts + (i // length) % lines // heads * length + time, mask=inside, other=0)
    high = place  # the first place that is visible, by bisection: from it on all are
    low = tl.maximum(place - window + 1, 0)
    for _ in tl.static_range(STEPS):
        middle = (low + high) // 2
        good = tl.load(sorted_keys + middle, mask=inside, other=0) == key
        if DOCUMENTS:
            good = good & (tl.load(index + middle, mask=inside, other=0) % length >= start)
        high = tl.where(good, middle, high)
        low = tl.where(good, low, tl.minimum(middle + 1, high))
    tl.store(reach + place, (place - high + 1).to(tl.int32), mask=inside)
    apart = place + key.to(tl.int64) * window
    tl.store(u + i, apart.to(u.dtype.element_ty), mask=inside & (i < n_u))


@triton.jit
def _line(
    order, reach, block, i, there, length, heads, window, line, lines, r, SORTED: tl.constexpr, REACH: tl.constexpr
):
    """(tokens at places i of this line, how many places each sees)."""
    base = (r * lines + line).to(tl.int64) * length
    time = tl.load(order + base + i, mask=there, other=0) if SORTED else i
    if not SORTED:
        base = (line // heads).to(tl.int64) * length  # reach of local heads is a row's, cut where documents begin
    seen = tl.load(reach + base + i, mask=there, other=1) if REACH else tl.minimum(i + 1, window)
    return time, seen


@triton.jit
def _apart(u, time_i, time_j, window, real):
    """Whether |u_i - u_j| >= window, which is so of all pairs where a round is not real: one comparison, unsigned."""
    u_i = tl.load(u + time_i, mask=real, other=0) + (window - 1)
    u_j = tl.load(u + time_j, mask=real, other=-(2**30))
    apart = u_i[:, None] - u_j[None, :]
    return apart.to(tl.uint64 if apart.dtype == tl.int64 else tl.uint32, bitcast=True) > 2 * window - 2


@triton.jit
def _meets(
    i, j, time_i, time_j, reach_i, there, u, line, lines, r, length, window, ITSELF: tl.constexpr, EARLIER: tl.constexpr
):
    """Whether queries i, down, see keys j, across; in LSH heads not what one of r earlier rounds has shown."""
    seen = (j[None, :] > i[:, None] - reach_i[:, None]) & (j[None, :] < i[:, None] + ITSELF) & there
    # Unrolled where rounds are few: around a loop of its own the compiler fetches no tile of keys ahead.
    if EARLIER <= UNROLLED:
        for e in tl.static_range(EARLIER):
            seen = seen & _apart(u + (e * lines + line).to(tl.int64) * length, time_i, time_j, window, e < r)
    else:
        for e in range(r):
            seen = seen & _apart(u + (e * lines + line).to(tl.int64) * length, time_i, time_j, window, True)
    return seen


@triton.jit
def _attend(
    q, k, v, gate, out, lse, order, reach, u, length, heads, window, q_row, k_row, v_row, gate_row, out_row, out_round,
    D: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, ITSELF: tl.constexpr, NEXT: tl.constexpr,
    SORTED: tl.constexpr, REACH: tl.constexpr, EARLIER: tl.constexpr,
):  # fmt: skip
    line, lines, r = tl.program_id(1), tl.num_programs(1), tl.program_id(2)
    head = line % heads
    first = (line // heads).to(tl.int64) * length
    block = tl.program_id(0) * BLOCK
    column = tl.arange(0, D)
    i = block + tl.arange(0, BLOCK)
    mine = i < length
    time, reach_i = _line(order, reach, block, i, mine, length, heads, window, line, lines, r, SORTED, REACH)
    row = first + time
    query = tl.load(q + row[:, None] * q_row + head * D + column[None, :], mask=mine[:, None], other=0.0)
    peak = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    summed = tl.zeros([BLOCK, D], tl.float32)
    low = tl.min(tl.where(mine, i - reach_i + 1, length), 0)
    for start in range(low, tl.minimum(block + BLOCK, length), TILE):
        j = start + tl.arange(0, TILE)
        real = j < length
        time_j, _ = _line(order, reach, block, j, real, length, heads, window, line, lines, r, SORTED, False)
        row_j = first + time_j
        key = tl.load(k + row_j[:, None] * k_row + head * D + column[None, :], mask=real[:, None], other=0.0)
        followed = real & (time_j + NEXT < length)
        value = tl.load(
            v + (row_j + NEXT)[:, None] * v_row + head * D + column[None, :], mask=followed[:, None], other=0.0
        )  # fmt: skip
        there = mine[:, None] & real[None, :]
        seen = _meets(i, j, time, time_j, reach_i, there, u, line, lines, r, length, window, ITSELF, EARLIER)
        scores = tl.where(seen, _dot(query, tl.trans(key)), -float("inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        floor = tl.where(higher == -float("inf"), 0.0, higher)  # -inf - -inf would be NaN
        weights = tl.exp(scores - floor[:, None])
        shrink = tl.exp(peak - floor)
        total = total * shrink + tl.sum(weights, 1)
        summed = summed * shrink[:, None] + _dot(weights.to(v.dtype.element_ty), value)
        peak = higher
    nothing = total == 0.0
    found = summed / tl.where(nothing, 1.0, total)[:, None]
    found_lse = tl.where(nothing, -float("inf"), tl.where(nothing, 0.0, peak) + tl.log(tl.where(nothing, 1.0, total)))
    if not SORTED:  # what was read is final
        score = tl.load(gate + row * gate_row + head, mask=mine, other=0.0).to(tl.float32)
        found = found * (2.0 / (1.0 + tl.exp(-score)))[:, None]
    rows = out + r.to(tl.int64) * out_round + row[:, None] * out_row + head * D + column[None, :]
    tl.store(rows, found.to(out.dtype.element_ty), mask=mine[:, None])
    tl.store(lse + (r.to(tl.int64) * (lines // heads) * length + row) * heads + head, found_lse, mask=mine)


@triton.jit
def _attend_back(
    q, k, v, d_out, lse, delta, dq, dk, dv, order, reach, u, length, heads, window, q_row, k_row, v_row, out_row,
    delta_row, dq_row, dv_row, grad_round,
    D: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, SCAN: tl.constexpr, ITSELF: tl.constexpr,
    NEXT: tl.constexpr, SORTED: tl.constexpr, REACH: tl.constexpr, EARLIER: tl.constexpr,
):  # fmt: skip
    line, lines, r = tl.program_id(1), tl.num_programs(1), tl.program_id(2)
    head = line % heads
    first = (line // heads).to(tl.int64) * length
    block = tl.program_id(0) * BLOCK
    column = tl.arange(0, D)
    low_type = v.dtype.element_ty
    i = block + tl.arange(0, BLOCK)
    mine = i < length
    time, reach_i = _line(order, reach, block, i, mine, length, heads, window, line, lines, r, SORTED, REACH)
    row = first + time

    # As queries: against the keys before.
    query = tl.load(q + row[:, None] * q_row + head * D + column[None, :], mask=mine[:, None], other=0.0)
    upper = tl.load(d_out + row[:, None] * out_row + head * D + column[None, :], mask=mine[:, None], other=0.0)
    lse_i = tl.load(lse + row * heads + head, mask=mine, other=0.0)
    delta_i = tl.load(delta + row * delta_row + head, mask=mine, other=0.0)
    d_query = tl.zeros([BLOCK, D], tl.float32)
    low = tl.min(tl.where(mine, i - reach_i + 1, length), 0)
    for start in range(low, tl.minimum(block + BLOCK, length), TILE):
        j = start + tl.arange(0, TILE)
        real = j < length
        time_j, _ = _line(order, reach, block, j, real, length, heads, window, line, lines, r, SORTED, False)
        row_j = first + time_j
        key = tl.load(k + row_j[:, None] * k_row + head * D + column[None, :], mask=real[:, None], other=0.0)
        followed = real & (time_j + NEXT < length)
        value = tl.load(
            v + (row_j + NEXT)[:, None] * v_row + head * D + column[None, :], mask=followed[:, None], other=0.0
        )  # fmt: skip
        there = mine[:, None] & real[None, :]
        seen = _meets(i, j, time, time_j, reach_i, there, u, line, lines, r, length, window, ITSELF, EARLIER)
        weights = tl.where(seen, tl.exp(_dot(query, tl.trans(key)) - lse_i[:, None]), 0.0)
        d_scores = tl.where(seen, weights * (_dot(upper, tl.trans(value)) - delta_i[:, None]), 0.0)
        d_query += _dot(d_scores.to(low_type), key)

    # As keys: against the queries after, up to the last that sees one of them.
    high = tl.minimum(block + BLOCK + window - 1, length)
    if SCAN > 0:
        far = block + BLOCK + tl.arange(0, SCAN)
        possible = far < high
        _, reach_far = _line(order, reach, block, far, possible, length, heads, window, line, lines, r, SORTED, REACH)
        high = block + BLOCK + tl.sum((possible & (far - reach_far + 1 < block + BLOCK)).to(tl.int32), 0)
    key = tl.load(k + row[:, None] * k_row + head * D + column[None, :], mask=mine[:, None], other=0.0)
    followed = mine & (time + NEXT < length)
    value = tl.load(
        v + (row + NEXT)[:, None] * v_row + head * D + column[None, :], mask=followed[:, None], other=0.0
    )  # fmt: skip
    d_key = tl.zeros([BLOCK, D], tl.float32)
    if SORTED:  # query and key are one
        d_key = d_query
    d_value = tl.zeros([BLOCK, D], tl.float32)
    for start in range(block, tl.minimum(high, length), TILE):
        j = start + tl.arange(0, TILE)
        real = j < length
        time_j, reach_j = _line(order, reach, block, j, real, length, heads, window, line, lines, r, SORTED, REACH)
        row_j = first + time_j
        other = tl.load(q + row_j[:, None] * q_row + head * D + column[None, :], mask=real[:, None], other=0.0)
        above = tl.load(d_out + row_j[:, None] * out_row + head * D + column[None, :], mask=real[:, None], other=0.0)
        lse_j = tl.load(lse + row_j * heads + head, mask=real, other=0.0)
        delta_j = tl.load(delta + row_j * delta_row + head, mask=real, other=0.0)
        there = real[:, None] & mine[None, :]
        seen = _meets(j, i, time_j, time, reach_j, there, u, line, lines, r, length, window, ITSELF, EARLIER)
        weights = tl.where(seen, tl.exp(_dot(other, tl.trans(key)) - lse_j[:, None]), 0.0)
        d_value += _dot(tl.trans(weights.to(low_type)), above)
        d_scores = tl.where(seen, weights * (_dot(above, tl.trans(value)) - delta_j[:, None]), 0.0)
        d_key += _dot(tl.trans(d_scores.to(low_type)), other)
    past = r.to(tl.int64) * grad_round + head * D + column[None, :]
    if not SORTED:
        tl.store(dq + past + row[:, None] * dq_row, d_query.to(dq.dtype.element_ty), mask=mine[:, None])
    tl.store(dk + past + row[:, None] * dq_row, d_key.to(dk.dtype.element_ty), mask=mine[:, None])
    # Nobody reads what would follow the last token: its zeros are what the first token's value gets.
    read = first + (time + NEXT) % length
    tl.store(dv + past + read[:, None] * dv_row, d_value.to(dv.dtype.element_ty), mask=mine[:, None])
