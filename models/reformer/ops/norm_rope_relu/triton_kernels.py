"""The functions of pytorch.py in Triton, each in one pass over memory, for rows on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from reformer.backends.gpu import on
from reformer.ops.norm_rope_relu import pytorch
from reformer.ops.norm_rope_relu.pytorch import TINY

NUMBERS = 4096  # of a program that works on rows
FLAT = 1024  # of one that does not: more would only take registers
MOST_COLUMNS = 8192  # of a row that one program holds; wider ones are left to PyTorch


@triton.jit
def _normalise(x, out, inverse, n, eps, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < n)[:, None] & (column < D)[None, :]
    places = row[:, None] * D + column[None, :]
    value = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 1) / D + eps)
    tl.store(out + places, (value * scale[:, None]).to(out.dtype.element_ty), mask=inside)
    tl.store(inverse + row, scale, mask=row < n)


@triton.jit
def _normalise_back(dy, y, inverse, dx, n, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < n)[:, None] & (column < D)[None, :]
    places = row[:, None] * D + column[None, :]
    g = tl.load(dy + places, mask=inside, other=0.0).to(tl.float32)
    at = tl.load(y + places, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(inverse + row, mask=row < n, other=0.0)
    found = scale[:, None] * (g - at * (tl.sum(g * at, 1) / D)[:, None])
    tl.store(dx + places, found.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def _turned(x, phase, row, m, inside, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, SIGN: tl.constexpr):
    """Pairs (2i, 2i + 1) of rows [ROWS, BLOCK_D], turned by phase [m, D / 2, 2], row t by number t modulo m."""
    column = tl.arange(0, BLOCK_D // 2)
    real = inside & (column < D // 2)[None, :]
    at = phase + ((row % m) * D)[:, None] + 2 * column[None, :]
    cos = tl.load(at, mask=real, other=1.0)
    sin = SIGN * tl.load(at + 1, mask=real, other=0.0)
    a, b = tl.split(tl.reshape(x, [ROWS, BLOCK_D // 2, 2]))
    return tl.reshape(tl.join(a * cos - b * sin, a * sin + b * cos), [ROWS, BLOCK_D])


@triton.jit
def _split(
    raw, out, lengths, scale, phase, n, m, part, parts, heads, tiny,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, SCALED: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < n)[:, None] & (column < D)[None, :]
    place = (row * parts + part) * heads + head
    value = tl.load(raw + place[:, None] * D + column[None, :], mask=inside, other=0.0)
    if SCALED:
        wide = value.to(tl.float32)
        length = tl.maximum(tl.sqrt(tl.sum(wide * wide, 1)), tiny)
        tl.store(lengths + (row * (parts - 1) + part) * heads + head, length, mask=row < n)
        wide = wide * (tl.load(scale + part * heads + head) / length)[:, None]
        if TURNED:
            wide = wide.to(out.dtype.element_ty).to(tl.float32)  # as pytorch.py rounds in between
            wide = _turned(wide, phase, row, m, (row < n)[:, None], D, BLOCK_D, ROWS, 1)
        value = wide.to(out.dtype.element_ty)
    tl.store(out + (row * heads + head)[:, None] * D + column[None, :], value, mask=inside)


@triton.jit
def _split_back(
    grad, out, lengths, scale, phase, d_raw, d_scale, n, m, part, parts, heads,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, SCALED: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK_D)
    inside = (row < n)[:, None] & (column < D)[None, :]
    here = (row * heads + head)[:, None] * D + column[None, :]
    value = tl.load(grad + here, mask=inside, other=0.0)
    if SCALED:
        # y = s u with u of unit length: d_raw = (s g - y (y . g) / s) / length
        g = value.to(tl.float32)
        y = tl.load(out + here, mask=inside, other=0.0).to(tl.float32)
        s = tl.load(scale + part * heads + head)
        length = tl.load(lengths + (row * (parts - 1) + part) * heads + head, mask=row < n, other=1.0)
        along = tl.sum(g * y, 1) / s
        tl.store(d_scale + (tl.program_id(0) * (parts - 1) + part) * heads + head, tl.sum(along, 0))
        g = (g * s - y * along[:, None]) / length[:, None]
        if TURNED:
            g = _turned(g, phase, row, m, (row < n)[:, None], D, BLOCK_D, ROWS, -1)
        value = g.to(d_raw.dtype.element_ty)
    place = (row * parts + part) * heads + head
    tl.store(d_raw + place[:, None] * D + column[None, :], value, mask=inside)


@triton.jit
def _squared_relu(h, square, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(h + at, mask=at < n, other=0.0).to(tl.float32)
    x = tl.where(x < 0.0, 0.0, x)  # NaN stays
    tl.store(h + at, x.to(h.dtype.element_ty), mask=at < n)
    tl.store(square + at, (x * x).to(h.dtype.element_ty), mask=at < n)


@triton.jit
def _squared_relu_back(d, h, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(h + at, mask=at < n, other=0.0).to(tl.float32)
    g = tl.load(d + at, mask=at < n, other=0.0).to(tl.float32)
    tl.store(d + at, (2.0 * x * g).to(d.dtype.element_ty), mask=at < n)


@triton.jit
def _read(stream, out, n, unit, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(stream + at, mask=at < n, other=0).to(tl.float32)
    tl.store(out + at, (x * unit).to(out.dtype.element_ty), mask=at < n)


@triton.jit
def _add(stream, x, bad, n, units, sign, limit, BLOCK: tl.constexpr, GUARDED: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    scaled = tl.load(x + at, mask=at < n, other=0.0).to(tl.float32) * units
    # Halves to even, as torch.round: from 2^23 on every float32 is whole; below, adding that rounds.
    large = tl.where(scaled < 0.0, -8388608.0, 8388608.0)
    rounded = tl.where(tl.abs(scaled) < 8388608.0, (scaled + large) - large, scaled)
    total = tl.load(stream + at, mask=at < n, other=0) + sign * rounded.to(tl.int32)
    tl.store(stream + at, total, mask=at < n)
    if GUARDED:
        fits = (tl.abs(scaled) < limit) & (total < limit) & (total > -limit)
        # Every program that finds something writes the same 1: no order, no atomics.
        tl.store(bad, 1, mask=tl.min(fits.to(tl.int32), 0) == 0)


def _of_rows(d: int) -> dict[str, int]:
    block = max(16, triton.next_power_of_2(d))
    return {"D": d, "BLOCK_D": block, "ROWS": max(1, NUMBERS // block)}


def rms_norm(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    n, d = x.shape
    if d > MOST_COLUMNS:
        return pytorch.rms_norm(x, dtype)
    x, sizes = x.contiguous(), _of_rows(d)
    out, inverse = torch.empty_like(x, dtype=dtype), x.new_empty(n, 1, dtype=torch.float32)
    with on(x):
        _normalise[(triton.cdiv(n, sizes["ROWS"]),)](x, out, inverse, n, torch.finfo(x.dtype).eps, **sizes)
    return out, inverse


def rms_norm_backward(dy: Tensor, y: Tensor, inverse: Tensor, dtype: torch.dtype) -> Tensor:
    n, d = y.shape
    if d > MOST_COLUMNS:
        return pytorch.rms_norm_backward(dy, y, inverse, dtype)
    dx, sizes = torch.empty_like(y, dtype=dtype), _of_rows(d)
    with on(y):
        _normalise_back[(triton.cdiv(n, sizes["ROWS"]),)](dy.contiguous(), y, inverse, dx, n, **sizes)
    return dx


def qk_norm_rope(
    raw: Tensor, parts: int, heads: int, scale: Tensor | None, phase: Tensor | None
) -> tuple[list[Tensor], Tensor | None]:
    n, d = len(raw), raw.shape[1] // (parts * heads)
    outs = [raw.new_empty(n, heads, d) for _ in range(parts)]
    lengths = raw.new_empty(n, parts - 1, heads, dtype=torch.float32) if scale is not None else None
    sizes, (turns, m) = _of_rows(d), _phase(phase)
    for part, out in enumerate(outs):
        scaled = scale is not None and part < parts - 1
        flags = {"SCALED": scaled, "TURNED": scaled and turns is not None}
        with on(raw):
            _split[(triton.cdiv(n, sizes["ROWS"]), heads)](
                raw, out, _or(lengths, raw), _or(_float(scale), raw), _or(turns, raw), n, m, part, parts, heads, TINY,
                **sizes, **flags,
            )  # fmt: skip
    return outs, lengths


def qk_norm_rope_backward(
    grads: Sequence[Tensor], outs: Sequence[Tensor], lengths: Tensor | None, scale: Tensor | None, phase: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    (n, heads, d), parts = outs[0].shape, len(outs)
    d_raw, sizes, (turns, m) = outs[0].new_empty(n, parts * heads * d), _of_rows(d), _phase(phase)
    blocks = triton.cdiv(n, sizes["ROWS"])
    d_scale = outs[0].new_empty(blocks, parts - 1, heads, dtype=torch.float32)
    for part, (grad, out) in enumerate(zip(grads, outs, strict=True)):
        scaled = scale is not None and part < parts - 1
        flags = {"SCALED": scaled, "TURNED": scaled and turns is not None}
        with on(d_raw):
            _split_back[(blocks, heads)](
                grad.contiguous(), out, _or(lengths, d_raw), _or(_float(scale), d_raw), _or(turns, d_raw), d_raw,
                d_scale, n, m, part, parts, heads, **sizes, **flags,
            )  # fmt: skip
    return d_raw, None if scale is None else d_scale.sum(0).to(scale.dtype)


def squared_relu_(h: Tensor) -> Tensor:
    square = torch.empty_like(h)
    with on(h):
        _squared_relu[(triton.cdiv(h.numel(), FLAT),)](h, square, h.numel(), BLOCK=FLAT)
    return square


def squared_relu_backward_(d: Tensor, h: Tensor) -> Tensor:
    with on(h):
        _squared_relu_back[(triton.cdiv(h.numel(), FLAT),)](d, h, h.numel(), BLOCK=FLAT)
    return d


def from_fixed(stream: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    x = torch.empty(stream.shape, dtype=dtype, device=stream.device)
    for part, out in _contiguous(stream, x):
        with on(x):
            _read[(triton.cdiv(part.numel(), FLAT),)](part, out, part.numel(), 2.0**-bits, BLOCK=FLAT)
    return x


def add_fixed_(stream: Tensor, x: Tensor, bits: int, sign: int, limit: int | None) -> Tensor | bool:
    guarded = limit is not None
    bad = torch.zeros((), dtype=torch.int32, device=x.device) if guarded else stream
    for part, added in _contiguous(stream, x.contiguous()):
        n = part.numel()
        with on(x):
            _add[(triton.cdiv(n, FLAT),)](
                part, added, bad, n, 2.0**bits, sign, limit or 0, BLOCK=FLAT, GUARDED=guarded
            )  # fmt: skip
    return bad == 0 if guarded else True


def _contiguous(stream: Tensor, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Both [batch, length, d], in parts that lie in one piece."""
    return [(stream, x)] if stream.is_contiguous() else list(zip(stream, x, strict=True))


def _phase(phase: Tensor | None) -> tuple[Tensor | None, int]:
    """complex64 [m, d / 2] as pairs of float32."""
    if phase is None:
        return None, 1
    return torch.view_as_real(phase.to(torch.complex64).contiguous()), len(phase)


def _float(scale: Tensor | None) -> Tensor | None:
    return None if scale is None else scale.float().contiguous()


def _or(x: Tensor | None, some: Tensor) -> Tensor:
    """What is handed over where there is nothing; it is not read."""
    return some if x is None else x
