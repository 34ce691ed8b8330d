"""What the interpreter runs also compiles for GPUs: it takes types and shapes that the compiler refuses.

No GPU is needed: Triton brings its own compiler and assembler.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


# Every kernel once; attention in two of its fourteen cases, of which each other one takes two seconds.
FEW = ("attention 32", "hash 64", "rows", "fused LSH 64", "fused _")


@pytest.mark.parametrize(
    "some", [(90, *FEW), *(pytest.param((n,), marks=pytest.mark.slow) for n in (80, 90, 100))], ids=str
)
def test_kernels_compile(some: tuple[object, ...]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    line = [sys.executable, str(Path(__file__).parents[2] / "builders" / "compile_kernels.py"), *map(str, some)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) > 10
    spilled = [int(x.split()[-3]) for x in lines]
    assert max(spilled) < 1024, lines  # of 488 a kernel was still faster than with twice the warps (LOG.md, 2026-11-27)
