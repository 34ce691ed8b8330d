"""The functions of pytorch.py in C (backends/native/norm_rope_relu.c): contiguous float32 or bfloat16 on a CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from reformer.backends.native.library import library, pointer, threads

CHUNK = 64  # rows; as in norm_rope_relu.c


def rms_norm(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    n, d = x.shape
    out, inverse = torch.empty_like(x, dtype=dtype), x.new_empty(n, 1, dtype=torch.float32)
    eps = ctypes.c_float(torch.finfo(x.dtype).eps)
    _call("rows_rms_norm", x, out, inverse, n, d, eps, _half(x), _half(out))
    return out, inverse


def rms_norm_backward(dy: Tensor, y: Tensor, inverse: Tensor, dtype: torch.dtype) -> Tensor:
    dx = torch.empty_like(y, dtype=dtype)
    _call("rows_rms_norm_backward", dy.contiguous(), y, inverse, dx, *y.shape, _half(y), _half(dx))
    return dx


def qk_norm_rope(
    raw: Tensor, parts: int, heads: int, scale: Tensor | None, phase: Tensor | None
) -> tuple[list[Tensor], Tensor | None]:
    n, d = len(raw), raw.shape[1] // (parts * heads)
    outs = [raw.new_empty(n, heads, d) for _ in range(parts)]
    lengths = raw.new_empty(n, parts - 1, heads, dtype=torch.float32) if scale is not None else None
    turns, n_phases = _phase(phase, n)
    floats = None if scale is None else scale.float().contiguous()
    _call(
        "rows_qk_norm_rope",
        raw.contiguous(),
        _pointers(outs),
        lengths,
        floats,
        turns,
        n,
        n_phases,
        parts,
        heads,
        d,
        _half(raw),
    )
    return outs, lengths


def qk_norm_rope_backward(
    grads: Sequence[Tensor], outs: Sequence[Tensor], lengths: Tensor | None, scale: Tensor | None, phase: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    (n, heads, d), parts = outs[0].shape, len(outs)
    grads = [g.contiguous() for g in grads]
    d_raw = outs[0].new_empty(n, parts * heads * d)
    turns, n_phases = _phase(phase, n)
    floats = None if scale is None else scale.float().contiguous()
    d_scale = outs[0].new_zeros(-(-n // CHUNK), parts - 1, heads, dtype=torch.float32)
    _call(
        "rows_qk_norm_rope_backward", _pointers(grads), _pointers(outs), lengths, floats, turns, d_raw, d_scale,
        n, n_phases, parts, heads, d, _half(d_raw),
    )  # fmt: skip
    return d_raw, None if scale is None else d_scale.sum(0).to(scale.dtype)


def squared_relu_(h: Tensor) -> Tensor:
    square = torch.empty_like(h)
    _call("rows_squared_relu", h, square, h.numel(), _half(h))
    return square


def squared_relu_backward_(d: Tensor, h: Tensor) -> Tensor:
    _call("rows_squared_relu_backward", d, h, d.numel(), _half(d))
    return d


def from_fixed(stream: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    x = torch.empty(stream.shape, dtype=dtype)
    for part, out in _contiguous(stream, x):
        _call("rows_from_fixed", part, out, part.numel(), ctypes.c_float(2.0**bits), _half(x))
    return x


def add_fixed_(stream: Tensor, x: Tensor, bits: int, sign: int, limit: int | None) -> bool:
    most, good = limit if limit is not None else 2**31 - 1, True
    for part, added in _contiguous(stream, x.contiguous()):
        units = ctypes.c_float(2.0**bits)
        good &= bool(_call("rows_add_fixed", part, added, part.numel(), units, sign, most, _half(x)))
    return good or limit is None


def _contiguous(stream: Tensor, x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Both [batch, length, d], in parts that lie in one piece."""
    return [(stream, x)] if stream.is_contiguous() else list(zip(stream, x, strict=True))


def _half(x: Tensor) -> int:
    assert x.dtype in (torch.float32, torch.bfloat16)
    return int(x.dtype == torch.bfloat16)


def _phase(phase: Tensor | None, n: int) -> tuple[Tensor | None, int]:
    """complex64 [m, d / 2] as pairs of float32."""
    if phase is None:
        return None, 1
    assert phase.dtype == torch.complex64
    assert n % len(phase) == 0
    return torch.view_as_real(phase.contiguous()), len(phase)


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(pointer(t) for t in tensors))


Argument = Tensor | ctypes.Array[ctypes.c_void_p] | ctypes.c_float | int | None


def _call(function: str, *arguments: Argument) -> int:
    """Tensors as pointers, integers as 64 bits; the last parameter of all is the number of threads."""
    lib = library()
    assert lib is not None
    found: int = getattr(lib, function)(*(_passed(x) for x in arguments), ctypes.c_int64(threads()))
    return found


def _passed(x: Argument) -> object:
    if x is None or isinstance(x, Tensor):
        return ctypes.c_void_p(pointer(x))
    return ctypes.c_int64(x) if isinstance(x, int) else x
