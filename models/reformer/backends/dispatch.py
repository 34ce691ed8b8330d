"""By what an operation is carried out: PyTorch anywhere, C compiled for this CPU, or Triton on a GPU."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from reformer.backends import gpu
from reformer.backends.native import library
from reformer.backends.torch_compile import is_exporting
from reformer.config import Backend

NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def choose(backend: Backend, *inputs: Tensor) -> str:
    """torch, native or triton for these inputs. auto: what is fastest there; native, triton: that or ValueError."""
    if backend == "torch" or (backend == "auto" and is_exporting()):
        return "torch"
    if is_exporting():
        raise ValueError(f"backend {backend} cannot be exported: use backend auto or torch")
    devices, dtypes = {x.device for x in inputs}, {x.dtype for x in inputs}
    kinds = {x.type for x in devices}
    if backend == "triton" or (backend == "auto" and kinds == {"cuda"}):
        fits = len(devices) == 1 and dtypes <= set(gpu.DTYPES)
        why = gpu.problem(next(iter(devices))) if fits else ""
        if fits and not why:
            return "triton"
        if backend == "auto":
            return "torch"
        why = why or f"it takes float32, bfloat16 or float16 on one GPU, not {_listed(dtypes)} on {_listed(devices)}"
        raise ValueError(f"backend triton cannot be used: {why}; use backend auto or torch")
    fits = kinds == {"cpu"} and dtypes <= set(NATIVE_DTYPES)
    if fits and library.library() is not None:
        return "native"
    if backend == "native":
        given = f"{_listed(dtypes)} on {_listed(kinds)}"
        why = library.problem() if fits else f"it takes float32 or bfloat16 on a CPU, not {given}"
        raise ValueError(f"backend native cannot be used: {why}; use backend auto or torch")
    return "torch"


def explain(backend: Backend, device: torch.device) -> tuple[str, str]:
    """(what computes a float32 model on a device, why). ValueError for a backend that cannot be had there."""
    if backend == "torch":
        return "torch", "as the config asks"
    if backend == "triton" or (backend == "auto" and device.type != "cpu"):
        why = gpu.problem(device)
        if not why:
            return "triton", "kernels compiled for this GPU"
    else:
        why = library.problem() if device.type == "cpu" else "this is a GPU"
        if not why:
            return "native", "C compiled for this CPU"
    if backend != "auto":
        raise ValueError(f"backend {backend} cannot be used: {why}")
    return "torch", why


def _listed(things: Iterable[object]) -> str:
    return " and ".join(sorted(map(str, things)))
