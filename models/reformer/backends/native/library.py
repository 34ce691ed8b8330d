"""C for the CPU, compiled on first use by the machine's own compiler for the machine's own instructions.

Nothing depends on it: where there is no compiler, PyTorch does the same work (`library` returns None and `problem` says
why). The compiled file is kept in $XDG_CACHE_HOME/reformer/native, under a name that any change of source, compiler or
processor changes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

SOURCES: tuple[str, ...] = ("attention_forward.c", "attention_backward.c", "norm_rope_relu.c", "caches.c")
SOURCES += ("program_ops.c", "program_run.c")
# No -ffast-math: -inf and NaN mean something here, and sums keep the order they are written in.
FLAGS = ["-O3", "-fPIC", "-shared", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
# The best that compiles is taken: some compilers lack OpenMP, some name the processor otherwise.
# -flto: the interpreter and its operations are two files, and a token is a tenth slower if they are compiled apart.
VARIANTS: tuple[list[str], ...] = (
    ["-march=native", "-fopenmp", "-flto"], ["-march=native", "-fopenmp"], ["-mcpu=native", "-fopenmp"],
    ["-march=native"], [],
)  # fmt: skip
PATIENCE = 120  # seconds for the compiler

_problem = ""


def library() -> ctypes.CDLL | None:
    """The compiled functions; None where they cannot be had."""
    return _load(os.environ.get("CC", ""))


def problem() -> str:
    """Why `library` is None."""
    library()
    return _problem


def pointer(x: Tensor | None) -> int | None:
    """Where a contiguous tensor's numbers begin."""
    assert x is None or x.is_contiguous()
    return x.data_ptr() if x is not None else None


def threads() -> int:
    """As many as PyTorch uses."""
    return torch.get_num_threads()


@lru_cache(maxsize=4)
def _load(cc: str) -> ctypes.CDLL | None:
    global _problem
    compiler = next((found for name in (cc, "cc", "gcc", "clang") if name and (found := shutil.which(name))), None)
    if compiler is None:
        _problem = "no C compiler was found (cc, gcc, clang or $CC)"
        return None
    try:
        target = _folder() / f"{_key(compiler)}.so"
        if not target.exists():
            _compile(compiler, target)
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError) as error:
        _problem = f"{compiler} could not compile it ({error})"
        return None


def _folder() -> Path:
    """The cache if it is ours alone, since what lies there is executed; else a folder for this process."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reformer" / "native"
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = cache.stat()
        ours = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
        if ours and os.access(cache, os.W_OK):
            return cache
    except OSError:
        pass
    return Path(_for_this_process().name)


@lru_cache(maxsize=1)
def _for_this_process() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="reformer-native-")


def _sources() -> list[Path]:
    return [Path(__file__).with_name(name) for name in SOURCES]


def _key(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=PATIENCE, check=True).stdout
    found = hashlib.sha256(version)
    for path in [*_sources(), *sorted(Path(__file__).parent.glob("*.h"))]:
        found.update(path.read_bytes())
    found.update(repr((FLAGS, VARIANTS, platform.machine(), _processor())).encode())
    return found.hexdigest()[:32]


def _processor() -> str:
    """What -march=native looks at: a home folder may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({x for x in lines if x.startswith(("model name", "flags", "Features", "CPU part"))}))


def _compile(compiler: str, target: Path) -> None:
    """Written aside and renamed: several processes may do it at once."""
    aside = target.with_name(f".{target.stem}.{os.getpid()}.so")
    try:
        for number, variant in enumerate(VARIANTS, 1):
            line = [compiler, *FLAGS, *variant, "-o", str(aside), *map(str, _sources()), "-lm"]
            done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
            if done.returncode == 0:
                os.replace(aside, target)
                return
            if number == len(VARIANTS):
                raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message")
    finally:
        aside.unlink(missing_ok=True)
