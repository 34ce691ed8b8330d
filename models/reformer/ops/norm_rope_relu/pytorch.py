"""What happens to rows of vectors between the large products: norms, lengths, rotary positions, squared ReLU, streams.

These are the definitions, in PyTorch; native.py and triton_kernels.py have the same functions, each in one pass over
memory (`rows_for` says which of the three).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reformer.backends.dtypes import upcast
from reformer.ops.rotary import rotate_

TINY = 1e-12  # what a shorter vector is divided by


def rms_norm(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x [n, d] -> (x / rms(x) in dtype, 1 / rms(x) [n, 1]): arXiv 1910.07467, without gains."""
    mean = torch.linalg.vector_norm(upcast(x), dim=-1, keepdim=True).square_().div_(x.shape[-1])
    inverse = mean.add_(torch.finfo(x.dtype).eps).rsqrt_()
    return (x * inverse).to(dtype), inverse


def rms_norm_backward(dy: Tensor, y: Tensor, inverse: Tensor, dtype: torch.dtype) -> Tensor:
    """dx = (dy - y mean(dy y)) / rms(x), of what `rms_norm` returned."""
    g, at = upcast(dy), upcast(y)
    return (inverse * (g - at * (g * at).mean(-1, keepdim=True))).to(dtype)


def qk_norm_rope(
    raw: Tensor, parts: int, heads: int, scale: Tensor | None, phase: Tensor | None
) -> tuple[list[Tensor], Tensor | None]:
    """raw [n, parts * heads * d] -> parts of [n, heads, d], and the lengths [n, parts - 1, heads] that vectors had.

    scale [parts - 1, heads]: the lengths that vectors of all parts but the last are brought to, None: they stay as they
    are. phase: complex [m, d / 2], by which those are then turned, row i by number i modulo m.
    """
    whole = raw.view(len(raw), parts, heads, -1)
    if scale is None:
        return [part.contiguous() for part in whole.unbind(1)], None
    lengths = torch.linalg.vector_norm(upcast(whole[:, :-1]), dim=-1).clamp_min_(TINY)
    first = (whole[:, :-1] * (scale / lengths)[..., None]).to(raw.dtype)
    outs = [part.contiguous() for part in [*first.unbind(1), whole[:, -1]]]
    if phase is not None:
        turns = phase.repeat(len(raw) // len(phase), 1)
        for out in outs[:-1]:
            rotate_(out, turns)
    return outs, lengths


def qk_norm_rope_backward(
    grads: Sequence[Tensor], outs: Sequence[Tensor], lengths: Tensor | None, scale: Tensor | None, phase: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of `qk_norm_rope`: (d_raw [n, parts * heads * d], d_scale)."""
    n = len(outs[0])
    if scale is None or lengths is None:
        return torch.stack(list(grads), 1).view(n, -1), None
    # y = s u with u of unit length: d_raw = (s g - y (y . g) / s) / length
    g, y = torch.stack([upcast(x) for x in grads[:-1]], 1), torch.stack([upcast(x) for x in outs[:-1]], 1)
    along = (g * y).sum(-1)
    d_raw = (g * scale[..., None] - y * (along / scale)[..., None]) / lengths[..., None]
    if phase is not None:
        turns = phase.conj().repeat(n // len(phase), 1)
        for p in range(d_raw.shape[1]):
            d_raw[:, p] = rotate_(d_raw[:, p].contiguous(), turns)
    whole = torch.cat([d_raw.to(outs[0].dtype), grads[-1][:, None]], 1)
    return whole.view(n, -1), (along / scale).sum(0).to(scale.dtype)


def squared_relu_(h: Tensor) -> Tensor:
    """h = relu(h), in place; returns its square."""
    return h.relu_().square()


def squared_relu_backward_(d: Tensor, h: Tensor) -> Tensor:
    """d = 2 h d, in place: from the gradient of relu(x)^2 to that of x, where h is relu(x)."""
    return d.mul_(h).mul_(2)


def from_fixed(stream: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """A fixed-point stream, int32 in units of 2^-bits, as floating point numbers."""
    return stream.to(dtype).mul_(2.0**-bits)


def add_fixed_(stream: Tensor, x: Tensor, bits: int, sign: int, limit: int | None) -> bool | Tensor:
    """stream += sign * round(x * 2^bits), in place. True if all |x| * 2^bits and |stream| stay below `limit`, which
    nothing that is no number does; None: not looked at. On a GPU a tensor says so, for which nobody waits yet."""
    scaled = upcast(x) * 2.0**bits
    if limit is None:
        stream.add_(scaled.round_().to(torch.int32), alpha=sign)
        return True
    fits = (scaled.abs() < limit).all()
    stream.add_(scaled.round_().to(torch.int32), alpha=sign)
    fits &= (stream.abs() < limit).all()
    return fits if fits.is_cuda else bool(fits)
