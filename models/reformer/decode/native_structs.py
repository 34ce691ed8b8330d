"""Caches as C knows them (backends/native/caches.h): addresses of plain tensors, and sizes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from reformer.backends.native.library import pointer


class WindowStruct(ctypes.Structure):
    """A ring of keys and values."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ctypes.c_int64) for name in ("heads", "d", "window", "chunk")),
    ]


class Journal(ctypes.Structure):
    """What was overwritten in a BucketCache."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("capacity", "mark")),
        *((name, ctypes.c_void_p) for name in ("used", "slots", "times", "pairs", "ids")),
    ]


class BucketStruct(ctypes.Structure):
    """Rings of all buckets of all rounds."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("pairs", "times", "ids", "counts", "last")),
        *((name, ctypes.c_void_p) for name in ("sizes", "capacities", "sink")),
        *((name, ctypes.c_int64) for name in ("heads", "d", "rounds", "slots", "buckets", "next", "each")),
        ("journal", ctypes.c_void_p),
        ("first", ctypes.c_int64),
    ]


@dataclass(frozen=True)
class Held:
    """A struct, and what must live as long as it is pointed to."""

    struct: BucketStruct
    alive: tuple[object, ...]


def window_struct(keys: Tensor, values: Tensor, chunk: int) -> WindowStruct:
    """keys, values: [heads, window, d_head]."""
    heads, window, d = keys.shape
    return WindowStruct(pointer(keys), pointer(values), heads, d, window, chunk)


def bucket_struct(
    pairs: Tensor, times: Tensor, ids: Tensor, counts: Tensor, last: Tensor, sizes: Sequence[int],
    capacities: Sequence[int], sink: Tensor | None, heads: int, *, next_values: bool, once: bool, journal: Journal,
    first: int,
) -> Held:  # fmt: skip
    """Of the tensors of a BucketCache; sink: [heads] or None; first: row of the journal that these begin at."""
    rounds = len(sizes)
    sizes_in_c, capacities_in_c = ((ctypes.c_int64 * rounds)(*x) for x in (sizes, capacities))
    sink = sink.detach().contiguous() if sink is not None else None
    addresses = [
        *(pointer(x) for x in (pairs, times, ids, counts, last)),
        *(ctypes.addressof(x) for x in (sizes_in_c, capacities_in_c)), pointer(sink),
    ]  # fmt: skip
    numbers = (heads, pairs.shape[3], rounds, times.shape[1], counts.shape[1])
    struct = BucketStruct(*addresses, *numbers, next_values, once, ctypes.addressof(journal), first)
    return Held(struct, (sizes_in_c, capacities_in_c, sink, journal))
