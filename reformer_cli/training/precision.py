"""In what precision to take products: by measurement, since a CPU that can do bfloat16 may do it slowly."""

from __future__ import annotations

import time

import torch

WORTH = 1.3  # times faster, for the rounding it brings
SIZES = (1024, 256, 512)  # rows, inner, columns of a typical product


def pick_precision(device: str) -> tuple[str, str]:
    """(float32 or bfloat16, the reason)."""
    if device != "cpu":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", "this GPU has it"
        return "float32", "this GPU has no bfloat16"
    ratio = _seconds(torch.float32) / _seconds(torch.bfloat16)
    if ratio >= WORTH:
        return "bfloat16", f"products measure {ratio:.1f} x as fast as in float32 on this CPU"
    return "float32", f"bfloat16 products measure {ratio:.1f} x as fast on this CPU"


def _seconds(dtype: torch.dtype) -> float:
    rows, inner, columns = SIZES
    a, b = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return best
