"""What C does with the rings of a BucketCache (backends/native/caches.c); float32 on a CPU."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from reformer.backends.native.library import library, pointer, threads
from reformer.decode.native_structs import Held
from reformer.decode.step import DecodeStep


def extend_rings(held: Held, q: Tensor, k: Tensor, v: Tensor, ids: Tensor, step: DecodeStep) -> Tensor:
    """`BucketCache.attend_and_append`, one token after the other."""
    lib = library()
    assert lib is not None
    batch, _, new, _ = v.shape
    flat = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
    out = torch.zeros_like(flat[2])
    ids, seen, counts = ids.long().contiguous(), step.seen.contiguous(), step.new.contiguous()
    good = lib.extend_bucket_cache(
        ctypes.byref(held.struct), *(ctypes.c_void_p(pointer(x)) for x in (*flat, ids, out, seen, counts)),
        *(ctypes.c_int64(n) for n in (batch, new, threads())),
    )  # fmt: skip
    if not good:
        raise MemoryError("extend_bucket_cache found no memory for its workspace")
    return out.transpose(1, 2)


def copy_rings(old: Held, new: Held, rows: Tensor) -> None:
    """Rows of another cache, int64 [n], into an empty one of n rows (batch x heads)."""
    lib, rows = library(), rows.contiguous()
    assert lib is not None
    lib.copy_bucket_cache(
        ctypes.byref(old.struct), ctypes.byref(new.struct), ctypes.c_void_p(pointer(rows)), ctypes.c_int64(len(rows))
    )


def rewind_rings(held: Held, left: Tensor) -> None:
    """Take back what the journal holds beyond `left` entries, int64 [rows], of each row."""
    lib = library()
    assert lib is not None
    lib.rewind_bucket_cache(ctypes.byref(held.struct), ctypes.c_void_p(pointer(left)), ctypes.c_int64(len(left)))
