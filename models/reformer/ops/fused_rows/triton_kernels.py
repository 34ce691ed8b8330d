"""The rows of a fused layer in Triton. Rows are tokens [n], batch by batch; a product's row `raw` holds, one after the
other, queries, keys, values of the local heads, vectors to hash, values of the LSH heads, and all heads' gate
scores."""

from __future__ import annotations

import triton
import triton.language as tl

from reformer.ops.norm_rope_relu.triton_kernels import _turned


@triton.jit
def _add_norm_stream(
    stream, other, added, bad, out, inverse, n, units, unit, limit, eps,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, ADD: tl.constexpr, BOTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < n)[:, None] & (column < D)[None, :]
    places = row[:, None] * D + column[None, :]
    total = tl.load(stream + places, mask=inside, other=0)
    if ADD:
        scaled = tl.load(added + places, mask=inside, other=0.0).to(tl.float32) * units
        # Halves to even, as torch.round: from 2^23 on every float32 is whole; below, adding that rounds.
        large = tl.where(scaled < 0.0, -8388608.0, 8388608.0)
        total += tl.where(tl.abs(scaled) < 8388608.0, (scaled + large) - large, scaled).to(tl.int32)
        tl.store(stream + places, total, mask=inside)
        fits = (tl.abs(scaled) < limit) & (total < limit) & (total > -limit)
        # Every program that finds something writes the same 1: no order, no atomics.
        tl.store(bad, 1, mask=tl.min(tl.min(fits.to(tl.int32), 1), 0) == 0)
    if BOTH:
        total += tl.load(other + places, mask=inside, other=0)
    x = total.to(tl.float32) * unit
    scale = 1.0 / tl.sqrt(tl.sum(x * x, 1) / D + eps)
    tl.store(out + places, (x * scale[:, None]).to(out.dtype.element_ty), mask=inside)
    tl.store(inverse + row, scale, mask=row < n)


@triton.jit
def _norm_stream_back(
    dy, y, inverse, dx, low, n, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, FIRST: tl.constexpr,
    COPY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < n)[:, None] & (column < D)[None, :]
    places = row[:, None] * D + column[None, :]
    g = tl.load(dy + places, mask=inside, other=0.0).to(tl.float32)
    at = tl.load(y + places, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(inverse + row, mask=row < n, other=0.0)
    found = scale[:, None] * (g - at * (tl.sum(g * at, 1) / D)[:, None])
    if not FIRST:
        found += tl.load(dx + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + places, found.to(dx.dtype.element_ty), mask=inside)
    if COPY:
        tl.store(low + places, found.to(low.dtype.element_ty), mask=inside)


@triton.jit
def _blended(
    x, conv, starts, row, time, inside, columns, head, D: tl.constexpr, ROWS: tl.constexpr, TAPS: tl.constexpr,
    DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """(u, 1 / its length) of rows: the learned sum over a token and those before it in its document."""
    column = tl.arange(0, D)
    start = tl.load(starts + row, mask=inside, other=0) if DOCUMENTS else time * 0
    u = tl.zeros([ROWS, D], tl.float32)
    for s in tl.static_range(TAPS):
        there = inside & (time - s >= start)
        before = tl.load(x + (row - s)[:, None] * columns + column[None, :], mask=there[:, None], other=0.0)
        u += before.to(tl.float32) * tl.load(conv + (head * TAPS + s) * D + column).to(tl.float32)[None, :]
    return u, 1.0 / tl.sqrt(tl.maximum(tl.sum(u * u, 1), 1e-12))


@triton.jit
def _split_heads(
    raw, lengths, phase, warm, warm_lsh, conv, starts, keys, means, n, length, columns, tiny, share,
    D: tl.constexpr, ROWS: tl.constexpr, LOCAL: tl.constexpr, LSH: tl.constexpr, TAPS: tl.constexpr,
    TURNED: tl.constexpr, DOCUMENTS: tl.constexpr, COOLEST: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    column = tl.arange(0, D)
    if part < 2 * LOCAL:  # queries, then keys, of local heads: to their length and turned, in place
        places = raw + row[:, None] * columns + part * D + column[None, :]
        wide = tl.load(places, mask=inside[:, None], other=0.0).to(tl.float32)
        norm = tl.maximum(tl.sqrt(tl.sum(wide * wide, 1)), tiny)
        tl.store(lengths + row * (2 * LOCAL) + part, norm, mask=inside)
        scale = 1.0
        if part < LOCAL:
            scale = tl.load(warm + part).to(tl.float32)
        wide = (wide * (scale / norm)[:, None]).to(raw.dtype.element_ty).to(tl.float32)
        if TURNED:
            wide = _turned(wide, phase, row, length, inside[:, None], D, D, ROWS, 1)
        tl.store(places, wide.to(raw.dtype.element_ty), mask=inside[:, None])
    else:
        head = part - 2 * LOCAL
        x = raw + (3 * LOCAL + head) * D
        u, inverse = _blended(x, conv, starts, row, row % length, inside, columns, head, D, ROWS, TAPS, DOCUMENTS)
        size = tl.sqrt(tl.maximum(tl.load(warm_lsh + head).to(tl.float32), COOLEST))
        key = (u * (size * inverse)[:, None]).to(keys.dtype.element_ty)
        tl.store(keys + (row * LSH + head)[:, None] * D + column[None, :], key, mask=inside[:, None])
        total = tl.sum(tl.where(inside[:, None], key.to(tl.float32), 0.0), 0) * (share / size)
        tl.store(means + (tl.program_id(0) * LSH + head) * D + column, total)


@triton.jit
def _split_heads_back(
    d_raw, raw, lengths, phase, warm, warm_lsh, conv, starts, dk, dv, small, n, length, columns, n_small,
    D: tl.constexpr, ROWS: tl.constexpr, LOCAL: tl.constexpr, LSH: tl.constexpr, TAPS: tl.constexpr,
    ROUNDS: tl.constexpr, TURNED: tl.constexpr, DOCUMENTS: tl.constexpr, COOLEST: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    column = tl.arange(0, D)
    sums = small + tl.program_id(0).to(tl.int64) * n_small
    if part < 2 * LOCAL:
        # y = s u with u of unit length: d_raw = (s g - y (y . g) / s) / length
        here = row[:, None] * columns + part * D + column[None, :]
        g = tl.load(d_raw + here, mask=inside[:, None], other=0.0).to(tl.float32)
        y = tl.load(raw + here, mask=inside[:, None], other=0.0).to(tl.float32)
        norm = tl.load(lengths + row * (2 * LOCAL) + part, mask=inside, other=1.0)
        scale = 1.0
        if part < LOCAL:
            scale = tl.load(warm + part).to(tl.float32)
        along = tl.sum(g * y, 1) / scale
        if part < LOCAL:
            tl.store(sums + part, tl.sum(along, 0))
        g = (g * scale - y * along[:, None]) / norm[:, None]
        if TURNED:
            g = _turned(g, phase, row, length, inside[:, None], D, D, ROWS, -1)
        tl.store(d_raw + here, g.to(d_raw.dtype.element_ty), mask=inside[:, None])
    else:
        head = part - 2 * LOCAL
        x = raw + (3 * LOCAL + head) * D
        size = tl.sqrt(tl.maximum(tl.load(warm_lsh + head).to(tl.float32), COOLEST))
        time = row % length
        d_x = tl.zeros([ROWS, D], tl.float32)
        for s in tl.static_range(TAPS):  # x_t is part of so many vectors from it on
            later, now = row + s, time + s
            there = inside & (now < length)
            if DOCUMENTS:
                there = there & (tl.load(starts + later, mask=there, other=0) <= time)
            u, inverse = _blended(x, conv, starts, later, now, there, columns, head, D, ROWS, TAPS, DOCUMENTS)
            g = tl.zeros([ROWS, D], tl.float32)
            for r in tl.static_range(ROUNDS):
                g += tl.load(
                    dk + ((r * n + later) * LSH + head)[:, None] * D + column[None, :], mask=there[:, None], other=0.0
                ).to(tl.float32)  # fmt: skip
            unit = u * inverse[:, None]
            along = tl.sum(unit * g, 1)
            d_u = tl.where(there[:, None], (g - unit * along[:, None]) * (inverse * size)[:, None], 0.0)
            d_x += d_u * tl.load(conv + (head * TAPS + s) * D + column).to(tl.float32)[None, :]
            if s == 0:
                warmth = tl.load(warm_lsh + head).to(tl.float32)
                slope = tl.where(warmth > COOLEST, 0.5 / size, 0.0)
                tl.store(sums + LOCAL + LSH + head, tl.sum(along, 0) * slope)
                start = tl.load(starts + row, mask=inside, other=0) if DOCUMENTS else time * 0
                for a in tl.static_range(TAPS):
                    real = inside & (time - a >= start)
                    before = tl.load(x + (row - a)[:, None] * columns + column[None, :], mask=real[:, None], other=0.0)
                    found = tl.sum(before.to(tl.float32) * d_u, 0)
                    tl.store(sums + LOCAL + 2 * LSH + (head * TAPS + a) * D + column, found)
        tl.store(
            d_raw + row[:, None] * columns + (3 * LOCAL + head) * D + column[None, :], d_x.to(d_raw.dtype.element_ty),
            mask=inside[:, None],
        )  # fmt: skip
        d_v = tl.zeros([ROWS, D], tl.float32)
        for r in tl.static_range(ROUNDS):
            d_v += tl.load(
                dv + ((r * n + row) * LSH + head)[:, None] * D + column[None, :], mask=inside[:, None], other=0.0
            ).to(tl.float32)  # fmt: skip
        tl.store(
            d_raw + row[:, None] * columns + (3 * LOCAL + LSH + head) * D + column[None, :],
            d_v.to(d_raw.dtype.element_ty), mask=inside[:, None],
        )  # fmt: skip


@triton.jit
def _merge_rounds(
    parts, lses, sink, gate, out, lse, n, columns, width,
    D: tl.constexpr, ROWS: tl.constexpr, LSH: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """Rounds of LSH heads, with one more key of value 0 and score `sink`, times their gates."""
    head = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    column = tl.arange(0, D)
    nothing = tl.load(sink + head).to(tl.float32)
    peak = tl.zeros([ROWS], tl.float32) + nothing
    for r in tl.static_range(ROUNDS):
        peak = tl.maximum(peak, tl.load(lses + (r * n + row) * LSH + head, mask=inside, other=-float("inf")))
    total = tl.exp(nothing - peak)
    found = tl.zeros([ROWS, D], tl.float32)
    for r in tl.static_range(ROUNDS):
        weight = tl.exp(tl.load(lses + (r * n + row) * LSH + head, mask=inside, other=-float("inf")) - peak)
        part = tl.load(
            parts + ((r * n + row) * LSH + head)[:, None] * D + column[None, :], mask=inside[:, None], other=0.0
        )  # fmt: skip
        total += weight
        found += weight[:, None] * part.to(tl.float32)
    tl.store(lse + row * LSH + head, peak + tl.log(total), mask=inside)
    score = tl.load(gate + row * columns + head, mask=inside, other=0.0).to(tl.float32)
    found = found * (2.0 / (total * (1.0 + tl.exp(-score))))[:, None]
    tl.store(
        out + row[:, None] * width + head * D + column[None, :], found.to(out.dtype.element_ty), mask=inside[:, None]
    )  # fmt: skip


@triton.jit
def _gate_back(
    out, d_out, gates, d_gates, lse, sink, delta, small, n, columns, n_small,
    D: tl.constexpr, ROWS: tl.constexpr, LOCAL: tl.constexpr, LSH: tl.constexpr, PAD: tl.constexpr,
):  # fmt: skip
    """delta, the gates' gradients, that of the output before the gates (in place), and the sinks'."""
    head = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < n
    heads = LOCAL + LSH
    places = (row * heads + head)[:, None] * D + tl.arange(0, D)[None, :]
    g = tl.load(d_out + places, mask=inside[:, None], other=0.0).to(tl.float32)
    along = tl.sum(g * tl.load(out + places, mask=inside[:, None], other=0.0).to(tl.float32), 1)
    score = tl.load(gates + row * columns + head, mask=inside, other=0.0).to(tl.float32)
    half = 1.0 / (1.0 + tl.exp(-score))
    tl.store(delta + row * heads + head, along, mask=inside)
    tl.store(d_gates + row * columns + head, (along * (1.0 - half)).to(gates.dtype.element_ty), mask=inside)
    tl.store(d_out + places, (g * (2.0 * half)[:, None]).to(d_out.dtype.element_ty), mask=inside[:, None])
    if head >= LOCAL:
        nothing = tl.load(sink + head - LOCAL).to(tl.float32)
        at = tl.load(lse + row * LSH + head - LOCAL, mask=inside, other=0.0)
        found = tl.where(inside, tl.exp(nothing - at) * along, 0.0)
        tl.store(small + tl.program_id(0).to(tl.int64) * n_small + LOCAL + head - LOCAL, -tl.sum(found, 0))
    if head == 0:  # columns that only fill the row up
        for p in tl.static_range(PAD):
            tl.store(d_gates + row * columns + heads + p, tl.zeros([ROWS], gates.dtype.element_ty), mask=inside)


@triton.jit
def _dropout(x, seed, out, n, number, start, share, factor, QUARTER: tl.constexpr):
    """What stays by the numbers of a counter (Philox): the same for the same seed, number and start."""
    key = (tl.load(seed) * 1_000_003 + number) * 1_000_003 + start
    here = tl.program_id(0) * QUARTER + tl.arange(0, QUARTER)
    drawn = tl.rand4x(key, here)
    for part in tl.static_range(4):
        at = (tl.program_id(0).to(tl.int64) * 4 + part) * QUARTER + tl.arange(0, QUARTER)
        value = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32)
        value = tl.where(drawn[part] >= share, value * factor, 0.0)
        tl.store(out + at, value.to(out.dtype.element_ty), mask=at < n)


@triton.jit
def _squared_relu_inplace(h, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(h + at, mask=at < n, other=0.0).to(tl.float32)
    x = tl.where(x < 0.0, 0.0, x)  # NaN stays
    tl.store(h + at, (x * x).to(h.dtype.element_ty), mask=at < n)


@triton.jit
def _squared_relu_inplace_back(d, square, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.sqrt(tl.load(square + at, mask=at < n, other=0.0).to(tl.float32))
    g = tl.load(d + at, mask=at < n, other=0.0).to(tl.float32)
    tl.store(d + at, (2.0 * x * g).to(d.dtype.element_ty), mask=at < n)
