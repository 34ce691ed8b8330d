"""What a sub-layer keeps of the tokens it has seen, whatever its kind: the interface, and how a cache is read back."""

from __future__ import annotations

import dataclasses
import math
import mmap
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Self

LARGE = 2**20  # bytes, from which memory is asked for page by page
PRIVATE = hasattr(mmap, "MAP_PRIVATE")  # shared memory, which a mapping is by itself, is dearer to touch


class Cache(ABC):
    """Tensors of a batch, updated in place by decoding; subclasses are dataclasses. Rows (batch x heads) are
    independent and may be at different positions."""

    fixed_shape = True  # its tensors stay where and as large as they are, so that a CUDA graph can work in them

    def own_tensors(self) -> dict[str, Tensor]:
        """Those that it consists of, by name."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return sum(t.numel() * t.element_size() for t in self.own_tensors().values())

    def lazy_tensors(self) -> list[Tensor]:
        """Those that are zeros without memory until they are written (`zeros`), if this is empty."""
        return [t for t in self.own_tensors().values() if t.numel() * t.element_size() >= LARGE]

    def select(self, rows: Tensor) -> Self:
        """An independent copy of these rows of the batch, which may repeat."""
        return dataclasses.replace(self, **{name: t[rows] for name, t in self.own_tensors().items()})  # type: ignore[type-var]

    def mark(self, seen: int, tokens: int, native: bool) -> None:
        """Be ready to `rewind` to here, after `seen` tokens, until `unmark`; marks may be nested. tokens: how many come
        at most before that; native: whether C alone will file them."""
        self.marks = [*self.marks, {name: t.clone() for name, t in self.own_tensors().items()}]

    def rewind(self) -> None:
        """Be what the newest mark saw."""
        for name, t in self.own_tensors().items():
            t.copy_(self.marks[-1][name])

    def unmark(self) -> None:
        """Forget the newest mark."""
        self.marks = self.marks[:-1]

    def reset(self) -> None:
        """Be empty again; the memory stays."""
        self.marks = ()
        for t in self.own_tensors().values():
            t.zero_()

    marks: Sequence[dict[str, Tensor]] = ()

    @abstractmethod
    def tensors(self, seen: int) -> dict[str, Tensor]:
        """What is in use after so many tokens, by name: enough for `load`."""

    @abstractmethod
    def load(self, tensors: dict[str, Tensor], seen: Tensor) -> None:
        """Put what `tensors` gave into this empty cache; seen: int64 [batch]. It may come from anyone. Raises
        ValueError for what does not fit."""


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros. On a CPU they take memory where they are written: most buckets of a short text are never touched."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < LARGE:
        return torch.zeros(*shape, dtype=dtype, device=device)
    memory = mmap.mmap(-1, size, **({"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if PRIVATE else {}))
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(*shape)


def take(
    tensors: dict[str, Tensor], name: str, dtype: torch.dtype, shape: Sequence[int | None],
    low: int | None = None, high: int | None = None,
) -> Tensor:  # fmt: skip
    """A tensor by name, of a type, of a shape (None: any size) and, where given, in [low, high). Raises ValueError."""
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    found = tensors[name]
    fits = found.dim() == len(shape) and all(b in (None, a) for a, b in zip(found.shape, shape, strict=True))
    if found.dtype != dtype or not fits:
        raise ValueError(f"{name} is {found.dtype} {list(found.shape)}, not {dtype} {list(shape)}")
    if found.numel() and low is not None and int(found.min()) < low:
        raise ValueError(f"{name} is below {low}")
    if found.numel() and high is not None and int(found.max()) >= high:
        raise ValueError(f"{name} reaches {int(found.max())}, beyond {high - 1}")
    return found


def tensors_of(caches: Sequence[Cache | None], seen: int) -> dict[str, Tensor]:
    """What all of them hold, each name behind its cache's number."""
    parts = ((n, cache.tensors(seen)) for n, cache in enumerate(caches) if cache is not None)
    return {f"caches.{n}.{name}": t for n, found in parts for name, t in found.items()}


def load_all(caches: Sequence[Cache | None], tensors: dict[str, Tensor], seen: Tensor) -> None:
    """The inverse of `tensors_of`, into empty caches. Raises ValueError for what does not fit."""
    for n, cache in enumerate(caches):
        if cache is not None:
            prefix = f"caches.{n}."
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            cache.load(own, seen)


def select_all(caches: Sequence[Cache | None], rows: Tensor) -> list[Cache | None]:
    """Independent copies of rows of all of them."""
    return [cache.select(rows) if cache is not None else None for cache in caches]
