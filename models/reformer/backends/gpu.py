"""Triton for GPUs: when it can be had. The kernels are in `triton_kernels.py` of each op.

Nothing depends on it: triton is imported where a kernel runs, and PyTorch does the same work elsewhere. With
TRITON_INTERPRET=1 in the environment before that import, Triton's interpreter runs the kernels on a CPU, slowly: for
tests, and only where `backend: triton` asks for it.
"""

from __future__ import annotations

import contextlib
import os
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from reformer.config import MOST_KEPT_ACTIVATIONS

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHARE_KEPT = 0.6  # of a GPU's free memory; the rest is for what a step makes for a moment
LEAST_CAPABILITY = (8, 0)  # what Triton supports of NVIDIA's


def interpreted() -> bool:
    """Whether kernels run in the interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@lru_cache(maxsize=16)
def problem(device: torch.device) -> str:
    """Why kernels cannot run on a device; empty where they can."""
    if find_spec("triton") is None:
        return "triton is not installed (it comes with PyTorch's CUDA builds)"
    if device.type == "cpu":
        return "" if interpreted() else "it needs a GPU"
    if device.type != "cuda":
        return f"Triton does not run on {device.type}"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < LEAST_CAPABILITY:
        wanted, found = (".".join(map(str, x)) for x in (LEAST_CAPABILITY, capability))
        return f"it needs compute capability {wanted}, this GPU has {found}"
    return ""


def on(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """The GPU of x as the current one, which is where Triton launches."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else contextlib.nullcontext()


_UNUSED: dict[torch.device, int] = {}  # as `unused` last found it


def room(device: torch.device) -> int:
    """Bytes that may be taken for what backward would otherwise make again: a share of what a GPU has left, a constant
    elsewhere."""
    return int(SHARE_KEPT * unused(device)) if device.type == "cuda" else MOST_KEPT_ACTIVATIONS


def unused(device: torch.device) -> int:
    """Bytes that a GPU has left; elsewhere nobody asks."""
    if device.type != "cuda":
        return 2**62
    if not torch.cuda.is_current_stream_capturing():  # which has no say in it: what is captured is what was run before
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        _UNUSED[device] = torch.cuda.mem_get_info(device)[0] + held
    return _UNUSED.get(device, 0)
