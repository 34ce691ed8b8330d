"""Where Triton's kernels are tested: in its interpreter, and by `make gpu` on a GPU."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from reformer.backends.gpu import interpreted

_here = find_spec("triton") is not None and interpreted()
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(not _here, reason="Triton is missing, or compiles for a GPU")),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
LOW = [torch.bfloat16, torch.float16]
