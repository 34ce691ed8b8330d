"""What one more token of a row enters the layers as, and what its heads read, in Triton. A program is a row, or a head
of a row: it reads its own part of a cache, and then files the token there."""

from __future__ import annotations

import triton
import triton.language as tl

from reformer.ops.fused_decode.triton_products import _rounded
from reformer.ops.norm_rope_relu.triton_kernels import _turned


@triton.jit
def _begin(
    tokens, embedding, lines, characters, ends, line, seen, speeds, first, second, phase, bad, eps, units, limit,
    most, unknown, longest, vocab_size,
    D: tl.constexpr, BLOCK_D: tl.constexpr, HALF: tl.constexpr, BLOCK_HALF: tl.constexpr, LINES: tl.constexpr,
    TURNED: tl.constexpr,
):  # fmt: skip
    """A row of both streams: its token's row of the embedding, normed, and of the line positions; its rotary phase
    [HALF, 2]; the characters of its line move on."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK_D)
    inside = column < D
    token = tl.load(tokens + row)
    token = tl.minimum(tl.maximum(token, 0), vocab_size - 1)
    x = tl.load(embedding + token * D + column, mask=inside, other=0.0).to(tl.float32)
    x = x * (1.0 / tl.sqrt(tl.sum(x * x, 0) / D + eps))
    if LINES:  # layers/line_position.py, for one token
        before = tl.load(line + row)
        added = tl.load(characters + token).to(tl.float32)
        added = tl.minimum(tl.maximum(added, -longest), longest).to(tl.int64)
        place = added + tl.where(tl.load(ends + token).to(tl.float32) > 0.5, 0, before)
        index = tl.where(place < unknown, 0, tl.minimum(tl.maximum(place, 0), most) + 1)
        x += tl.load(lines + index * D + column, mask=inside, other=0.0).to(tl.float32)
        tl.debug_barrier()
        tl.store(line + row, place)
    scaled = x * units
    count = _rounded(scaled)
    tl.store(first + row * D + column, count, mask=inside)
    tl.store(second + row * D + column, count, mask=inside)
    fits = (tl.abs(scaled) < limit) | (column >= D)
    tl.store(bad, 1, mask=tl.min(fits.to(tl.int32), 0) == 0)
    if TURNED:
        pair = tl.arange(0, BLOCK_HALF)
        angle = tl.load(seen + row).to(tl.float64) * tl.load(speeds + pair, mask=pair < HALF, other=0.0)
        at = phase + (row * HALF + pair) * 2
        tl.store(at, tl.cos(angle).to(tl.float32), mask=pair < HALF)
        tl.store(at + 1, tl.sin(angle).to(tl.float32), mask=pair < HALF)


@triton.jit
def _vector(x, length, tiny):
    """x, brought to a length."""
    return x * (length / tl.maximum(tl.sqrt(tl.sum(x * x, 0)), tiny))


@triton.jit
def _turned_once(x, phase, D: tl.constexpr):
    """x [D], turned by phase [D / 2, 2]."""
    one = tl.arange(0, 1)
    return tl.reshape(_turned(tl.reshape(x, [1, D]), phase, one, 1, (one < 1)[:, None], D, D, 1, 1), [D])


@triton.jit
def _more(peak, total, found, score, there, value):
    """Attention so far, and of more keys: scores [TILE], values [TILE, D]."""
    score = tl.where(there, score, -float("inf"))
    higher = tl.maximum(peak, tl.max(score, 0))
    weight = tl.exp(score - higher)
    share = tl.exp(peak - higher)
    return higher, total * share + tl.sum(weight, 0), found * share + tl.sum(weight[:, None] * value, 0)


@triton.jit
def _window(
    start, warm, keys, values, phase, line, head, seen, tiny,
    D: tl.constexpr, LOCAL: tl.constexpr, WINDOW: tl.constexpr, TILE: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """What a local head reads [D]; start: of its row's products; line: of its ring [WINDOW, D] (WindowCache)."""
    column = tl.arange(0, D)
    q = _vector(tl.load(start + head * D + column), tl.load(warm + head).to(tl.float32), tiny)
    k = _vector(tl.load(start + (LOCAL + head) * D + column), 1.0, tiny)
    v = tl.load(start + (2 * LOCAL + head) * D + column)
    if TURNED:
        q = _turned_once(q, phase, D)
        k = _turned_once(k, phase, D)
    own = (seen % WINDOW).to(tl.int32)
    known = tl.minimum(seen, WINDOW).to(tl.int32)
    ring = line * WINDOW
    peak = tl.sum(q * k, 0)
    total = peak * 0.0 + 1.0
    found = v
    for first in range(0, WINDOW, TILE):
        slot = first + tl.arange(0, TILE)
        age = own - slot
        age = tl.where(age < 0, age + WINDOW, age)
        there = (slot < WINDOW) & (age > 0) & (age <= known)
        place = (ring + slot)[:, None] * D + column[None, :]
        key = tl.load(keys + place, mask=there[:, None], other=0.0).to(tl.float32)
        value = tl.load(values + place, mask=there[:, None], other=0.0).to(tl.float32)
        peak, total, found = _more(peak, total, found, tl.sum(key * q[None, :], 1), there, value)
    tl.debug_barrier()  # all have read before one writes
    place = (ring + own) * D + column
    tl.store(keys + place, k.to(keys.dtype.element_ty))
    tl.store(values + place, v.to(values.dtype.element_ty))
    return found / total


@triton.jit
def _hashed(
    x, rotations, head, width, near,
    D: tl.constexpr, ROUNDS: tl.constexpr, R: tl.constexpr, COLUMNS: tl.constexpr, FACTORS: tl.constexpr,
    N_FACTORS: tl.constexpr,
):  # fmt: skip
    """Buckets int32 [R] of a vector [D] in every round, as ops/lsh_hash/triton_kernels.py has them; 0 beyond ROUNDS."""
    dim = tl.arange(0, D)
    flat = tl.arange(0, R * COLUMNS)
    r = flat // COLUMNS
    turned = rotations + (head * D + dim)[:, None] * (ROUNDS * width) + (r * width + flat % COLUMNS)[None, :]
    bucket = tl.zeros([R], tl.int32)
    scale = 1
    before = 0
    for f in tl.static_range(N_FACTORS):
        half = FACTORS[f] // 2
        best = tl.full([R], -float("inf"), tl.float32)
        digit = tl.zeros([R], tl.int32)
        for first in range(0, half, COLUMNS):
            real = (first + flat % COLUMNS < half) & (r < ROUNDS)
            matrix = tl.load(turned + before + first, mask=(dim >= 0)[:, None] & real[None, :], other=0.0)
            found = tl.reshape(tl.sum(matrix.to(tl.float32) * x[:, None], 0), [R, COLUMNS])
            column = (first + tl.arange(0, COLUMNS))[None, :]
            # argmax over [x R; -x R]: of equals the first
            size = tl.where(column < half, tl.abs(found), -1.0)
            largest = tl.max(size, 1)
            place = tl.where(found >= 0, column, column + half)
            place = tl.min(tl.where(size == largest[:, None], place, 2 * half), 1)
            better = (largest > best) | ((largest == best) & (place < digit))
            better = better & (largest >= 0) & (place < 2 * half)  # of what is no number bucket 0
            digit = tl.where(better, place, digit)
            best = tl.maximum(best, largest)
        bucket += scale * digit
        scale *= 2 * half
        before += half
    return tl.where((near > 0) & (tl.arange(0, R) > 0), bucket % tl.maximum(near, 1), bucket)


@triton.jit
def _blended(x, conv, inputs, D: tl.constexpr, TAPS: tl.constexpr, T: tl.constexpr):
    """(a learned sum over x [D] and the TAPS - 1 before it, which `inputs` has; those for the next token [T, D])."""
    column = tl.arange(0, D)
    s = tl.arange(0, T)
    more = TAPS - 1
    weight = tl.load(conv + s[:, None] * D + column[None, :], mask=(s < TAPS)[:, None], other=0.0).to(tl.float32)
    there = ((s > 0) & (s < TAPS))[:, None]
    before = tl.load(inputs + (more - s)[:, None] * D + column[None, :], mask=there, other=0.0).to(tl.float32)
    u = tl.sum(weight * tl.where((s == 0)[:, None], x[None, :], before), 0)
    later = tl.load(inputs + (s + 1)[:, None] * D + column[None, :], mask=(s + 1 < more)[:, None], other=0.0)
    return u, tl.where((s + 1 == more)[:, None], x[None, :], later.to(tl.float32))


@triton.jit
def _rings(
    start, warm, conv, sink, rotations, hash_mean, inputs, pairs, times, ids, counts, last, line, head, seen, slots,
    buckets, first_size, size, width, near,
    D: tl.constexpr, LOCAL: tl.constexpr, LSH: tl.constexpr, TAPS: tl.constexpr, T: tl.constexpr, TILE: tl.constexpr,
    CAPACITY: tl.constexpr, ROUNDS: tl.constexpr, R: tl.constexpr, COLUMNS: tl.constexpr, FACTORS: tl.constexpr,
    N_FACTORS: tl.constexpr, COOLEST: tl.constexpr,
):  # fmt: skip
    """What an LSH head reads [D], as BucketCache.single has it; line: of its rings (BucketCache)."""
    column = tl.arange(0, D)
    x = tl.load(start + (3 * LOCAL + head) * D + column)
    v = tl.load(start + (3 * LOCAL + LSH + head) * D + column)
    inputs += line * ((TAPS - 1) * D)
    u, later = _blended(x, conv + head * (TAPS * D), inputs, D, TAPS, T)
    length = tl.sqrt(tl.maximum(tl.load(warm + head).to(tl.float32), COOLEST))
    k = u * (length / tl.sqrt(tl.maximum(tl.sum(u * u, 0), 1e-12)))
    centre = tl.load(hash_mean + head * D + column).to(tl.float32) * length
    bucket = _hashed(k - centre, rotations, head, width, near, D, ROUNDS, R, COLUMNS, FACTORS, N_FACTORS)
    r = tl.arange(0, R)
    real = r < ROUNDS
    row = line * slots
    which = tl.where(r > 0, first_size + (r - 1) * size, 0) + bucket  # among those of all rounds
    filed = tl.load(counts + line * buckets + which, mask=real, other=0)
    newest = tl.load(last + line * ROUNDS + r, mask=real, other=-1)
    ring = which.to(tl.int64) * CAPACITY
    at = ring + filed % CAPACITY
    oldest = tl.load(times + row + at, mask=real & (filed >= CAPACITY), other=0)
    peak = tl.load(sink + head).to(tl.float32)
    total = peak * 0.0 + 1.0
    found = tl.zeros([D], tl.float32)
    for first in range(0, ROUNDS * CAPACITY, TILE):
        entry = first + tl.arange(0, TILE)
        inside = entry < ROUNDS * CAPACITY
        own = entry // CAPACITY  # round
        slot = tl.sum(tl.where(r[None, :] == own[:, None], ring[None, :], 0), 1) + entry % CAPACITY
        place = (row + slot)[:, None] * (2 * D) + column[None, :]
        key = tl.load(pairs + place, mask=inside[:, None], other=0.0).to(tl.float32)
        value = tl.load(pairs + place + D, mask=inside[:, None], other=0.0).to(tl.float32)
        time = tl.load(times + row + slot, mask=inside, other=0)
        there = inside & (time > 0)
        if ROUNDS > 1:  # seen in an earlier round: counts once
            theirs = tl.load(
                ids + (row + slot)[:, None] * ROUNDS + r[None, :], mask=inside[:, None] & real[None, :], other=-1
            )
            met = (theirs == bucket[None, :]) & (r[None, :] < own[:, None]) & (time[:, None] >= oldest[None, :])
            there = there & (tl.max(met.to(tl.int32), 1) == 0)
        # The newest entry's value is this token's: k_{t-1} goes with v_t.
        current = tl.max((slot[:, None] == newest[None, :]).to(tl.int32), 1) > 0
        value = tl.where(current[:, None], v[None, :], value)
        peak, total, found = _more(peak, total, found, tl.sum(key * k[None, :], 1), there, value)
    tl.debug_barrier()  # all have read before one writes
    kind = pairs.dtype.element_ty
    wide = tl.zeros([R, D], tl.float32)
    completed = pairs + (row + newest)[:, None] * (2 * D) + D + column[None, :]
    tl.store(completed, (wide + v[None, :]).to(kind), mask=(real & (newest >= 0) & (newest != at))[:, None])
    new = pairs + (row + at)[:, None] * (2 * D) + column[None, :]
    tl.store(new, (wide + k[None, :]).to(kind), mask=real[:, None])
    tl.store(new + D, wide.to(kind), mask=real[:, None])
    tl.store(times + row + at, tl.zeros([R], tl.int64) + (seen + 1), mask=real)
    all_ids = tl.zeros([R, R], tl.int32) + bucket[None, :]
    tl.store(ids + (row + at)[:, None] * ROUNDS + r[None, :], all_ids, mask=real[:, None] & real[None, :])
    tl.store(last + line * ROUNDS + r, at, mask=real)
    tl.store(counts + line * buckets + which, filed + 1, mask=real)
    s = tl.arange(0, T)
    tl.store(
        inputs + s[:, None] * D + column[None, :], later.to(inputs.dtype.element_ty), mask=(s < TAPS - 1)[:, None]
    )  # fmt: skip
    return found / total


@triton.jit
def _attend_new(
    raw, out, seen, warm, keys, values, phase, warm_lsh, conv, sink, rotations, hash_mean, inputs, pairs, times, ids,
    counts, last, columns, slots, buckets, first_size, size, width, near, tiny,
    D: tl.constexpr, LOCAL: tl.constexpr, LSH: tl.constexpr, WINDOW: tl.constexpr, TURNED: tl.constexpr,
    TAPS: tl.constexpr, T: tl.constexpr, TILE: tl.constexpr, CAPACITY: tl.constexpr, ROUNDS: tl.constexpr,
    R: tl.constexpr, COLUMNS: tl.constexpr, FACTORS: tl.constexpr, N_FACTORS: tl.constexpr, COOLEST: tl.constexpr,
):  # fmt: skip
    """out [n, heads, D]: what a head of a row reads, times its gate; the caches take the token in. raw [n, columns]:
    as ops/fused_rows has it."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    start = raw + row * columns
    now = tl.load(seen + row)
    column = tl.arange(0, D)
    gate = tl.load(start + (3 * LOCAL + 2 * LSH) * D + head)
    gate = 2.0 / (1.0 + tl.exp(-gate))
    to = out + (row * (LOCAL + LSH) + head) * D + column
    if head < LOCAL:
        found = _window(
            start, warm, keys, values, phase + row * D, row * LOCAL + head, head, now, tiny, D, LOCAL, WINDOW, TILE,
            TURNED,
        )  # fmt: skip
        tl.store(to, found * gate)
    else:
        found = _rings(
            start, warm_lsh, conv, sink, rotations, hash_mean, inputs, pairs, times, ids, counts, last,
            row * LSH + (head - LOCAL), head - LOCAL, now, slots, buckets, first_size, size, width, near, D, LOCAL,
            LSH, TAPS, T, TILE, CAPACITY, ROUNDS, R, COLUMNS, FACTORS, N_FACTORS, COOLEST,
        )  # fmt: skip
        tl.store(to, found * gate)
