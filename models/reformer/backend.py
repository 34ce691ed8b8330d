"""By what an operation is carried out: PyTorch anywhere, or C compiled for this CPU."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from reformer import native, rows
from reformer.config import Backend
from reformer.native import rows as native_rows
from reformer.precision import product_dtype
from reformer.tracing import exporting

NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def choose(backend: Backend, *inputs: Tensor) -> str:
    """torch or native for these inputs. auto: native where it can be; native: that or ValueError."""
    if backend == "torch" or (backend == "auto" and exporting()):
        return "torch"
    if exporting():
        raise ValueError("backend native cannot be exported: use backend auto or torch")
    devices, dtypes = {x.device.type for x in inputs}, {x.dtype for x in inputs}
    fits = devices == {"cpu"} and dtypes <= set(NATIVE_DTYPES)
    if fits and native.library() is not None:
        return "native"
    if backend == "native":
        given = f"{' and '.join(sorted(map(str, dtypes)))} on {' and '.join(sorted(devices))}"
        why = native.problem() if fits else f"it takes float32 or bfloat16 on a CPU, not {given}"
        raise ValueError(f"backend native cannot be used: {why}; use backend auto or torch")
    return "torch"


def rows_for(backend: Backend, x: Tensor) -> ModuleType:
    """The passes over rows like x (reformer/rows.py or its native twin), products being taken as autocast says now."""
    if backend == "auto" and product_dtype(x) not in NATIVE_DTYPES:
        return rows
    return native_rows if choose(backend, x) == "native" else rows
