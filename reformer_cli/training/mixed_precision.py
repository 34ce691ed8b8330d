"""In what precision to take products: by measurement, since a CPU that can do bfloat16 may do it slowly. And what
float16 needs besides, whose smallest numbers are larger than many gradients."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cache

import torch
from torch import Tensor

WORTH = 1.3  # times faster, for the rounding it brings
HOPELESS = 8  # times as slow as float32 at the first try: emulated, and not worth another
SIZES = (1024, 256, 512)  # rows, inner, columns of a typical product
LOW = {"bfloat16": torch.bfloat16, "float16": torch.float16}
FIRST_SCALE, LARGEST_SCALE = 2.0**16, 2.0**24
STEADY = 500  # steps without overflow after which the scale doubles


def pick_precision(device: str) -> tuple[str, str]:
    """(float32, bfloat16 or float16, the reason)."""
    if device.startswith("mps"):
        return "float32", "bfloat16 was never measured on an Apple GPU"
    if device != "cpu":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "this GPU has it"
        return "float16", "this GPU has no bfloat16; the loss is scaled"
    ratio = _ratio()
    if ratio >= WORTH:
        return "bfloat16", f"products measure {ratio:.1f} x as fast as in float32 on this CPU"
    return "float32", f"products in bfloat16 take {1 / ratio:.{0 if ratio < 0.1 else 1}f} x as long on this CPU"


def products_in(precision: str, device: str) -> AbstractContextManager[object]:
    """Products are taken in float32, bfloat16 or float16 inside."""
    low = LOW.get(precision)
    return torch.autocast(torch.device(device).type, low or torch.bfloat16, enabled=low is not None)


def unscale_(parameters: Iterable[Tensor], scale: float) -> None:
    """Gradients of a loss that was multiplied by scale become those of the loss."""
    if scale != 1:
        for p in parameters:
            if p.grad is not None:
                p.grad /= scale


def rescaled(scale: float, steady: int, overflowed: bool) -> tuple[float, int]:
    """(scale, steps since it last moved) after a step: half where gradients overflowed, double after many that did not;
    a power of two, so that scaling rounds nothing."""
    if overflowed:
        return max(1.0, scale / 2), 0
    if steady + 1 >= STEADY:
        return min(LARGEST_SCALE, scale * 2), 0
    return scale, steady + 1


@cache  # the CPU stays the one it is
def _ratio() -> float:
    """Seconds of products in float32 against those in bfloat16: measured twice, and where the two disagree once more,
    of which the middle one is not the one that something else disturbed."""
    found = [_measured(), _measured()]
    if (found[0] >= WORTH) != (found[1] >= WORTH):
        found.append(_measured())
    return sorted(found)[len(found) // 2]


def _measured() -> float:
    low, high = _seconds(torch.bfloat16, 1), _seconds(torch.float32, 6)
    return high / (low if low > HOPELESS * high else min(low, _seconds(torch.bfloat16, 5)))


def _seconds(dtype: torch.dtype, times: int) -> float:
    rows, inner, columns = SIZES
    a, b = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return best
