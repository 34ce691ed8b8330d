"""What benchmarks/cost.py counts with: `meta` tensors stand for a GPU's, and every kernel asked for is written down."""

from __future__ import annotations

import collections
import contextlib
import functools
import operator
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# One H200. Copy 4.19 TB/s and bfloat16 products 745 TFLOP/s were measured; kernels reach about four fifths of either.
MEMORY, LOW, WIDE = 3.4e12, 600e12, 50e12  # bytes/s; products a second in half precision, in float32
LEAST, HOST = 2e-6, 17e-6  # seconds: of the smallest kernel; that a host takes to start one from Python
FREE = 80 * 2**30  # bytes of its 141 GB that activations may take
# Attention by index is far from the speed of memory: shares of it that were measured, forward and backward.
SHARES = (0.28, 0.18)

VIEWS = re.compile(
    r"_?(unsafe_)?(reshape_)?(view|alias|view_as_(complex|real)|t|transpose|permute|unsqueeze|squeeze|slice|select|split"
    r"|split_with_sizes|expand|detach|as_strided|unbind|chunk|conj|unflatten|reshape|lift_fresh|(new_)?empty(_strided)?"
    r"|empty_like|narrow|diagonal|unfold|is_same_size|set_|resize_|movedim|real|imag|result_type)"
)
SEVERAL = {"sort": 7, "cummax": 3, "cumsum": 3, "embedding_dense_backward": 6}  # kernels of one call
SMALL_SORT = 4096  # numbers that one kernel sorts, between two that copy and number them
PASSES = 4  # over a large one's numbers, a byte of the key at a time
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}

# Where in the source a call stands, innermost first: file and function -> the part of a step.
PARTS = [
    (r"lsh_hash/|key_conv\.py|attention/lsh\.py", "hash"), (r":.*sort_lines|windows\.py:.*sort", "sort"),
    (r"windows\.py", "layout"), (r"(bucket|fused)_attention/|head_gate\.py|attention/full\.py", "attention"),
    (r"linear\.py:_SquaredReluMLP|feed_forward\.py|fused_mlp", "feed-forward"),
    (r"(lm_head|loss)\.py|cross_entropy/|fused_loss|_loss$", "head and loss"),
    (r"linear\.py:.*norm", "norms and streams"), (r"linear\.py|attention/fused", "projections"),
    (r"optim|clip_grad", "optimiser"), (r"embedding\.py|axial|rotary", "embedding and positions"),
]  # fmt: skip
KERNELS = [
    (r"hash|conv", "hash"), (r"layout|_order", "layout"), (r"split|gate|qk_", "projections"),
    (r"entropy", "head and loss"), (r"squared", "feed-forward"), (r"norm|_read|_add|stream", "norms and streams"),
]  # fmt: skip


class Cost(NamedTuple):
    """Of some kernels: how many, bytes read and written, products, and seconds of the device."""

    launches: int = 0
    bytes: float = 0.0
    products: float = 0.0
    seconds: float = 0.0

    def plus(self, other: Cost) -> Cost:
        return Cost(*map(operator.add, self, other))


@dataclass
class Tally:
    """Everything that was asked for. waits: where the host would have to wait for the device."""

    parts: dict[str, Cost] = field(default_factory=lambda: collections.defaultdict(Cost))
    kernels: dict[str, Cost] = field(default_factory=lambda: collections.defaultdict(Cost))
    waits: list[str] = field(default_factory=list)

    def add(self, name: str, part: str, tensors: Iterable[Tensor], products: float = 0.0, low: bool = True) -> None:
        # Each tensor or part of one is counted once, also where a kernel reads it and writes it again.
        whole = {(t.untyped_storage()._cdata, t.storage_offset(), t.shape): t.nbytes for t in tensors}
        size, launches = float(sum(whole.values())), SEVERAL.get(name, 1)
        if name == "sort" and max(t.numel() for t in tensors) <= SMALL_SORT:
            launches = 3
        size *= PASSES if name == "sort" and launches > 3 else 1
        share = SHARES["back" in name] if part == "attention kernel" else 1.0
        part = part.removesuffix(" kernel")
        seconds = max(size / MEMORY / share, products / (LOW if low else WIDE), LEAST * launches)
        for table, key in ((self.parts, part), (self.kernels, name)):
            table[key] = table[key].plus(Cost(launches, size, products, seconds))

    @property
    def total(self) -> Cost:
        return functools.reduce(Cost.plus, self.parts.values(), Cost())


class Watch(TorchDispatchMode):
    """Adds every kernel of PyTorch's own to a tally."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        on_device = any(t.is_meta for t in tensors)
        if on_device and (name in WAITS or (kwargs or {}).get("device") == torch.device("cpu")):
            self.tally.waits.append(f"{name} at {_place()}")
            if name == "_to_copy":
                return torch.ones(tensors[0].shape, dtype=tensors[0].dtype, device="cpu")
            return 1.0 if tensors[0].dtype.is_floating_point else 1
        out = func(*args, **(kwargs or {}))
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if VIEWS.fullmatch(name) or not (on_device or any(t.is_meta for t in outs)):
            return out
        products, low = 0.0, True
        if name in PRODUCTS:
            products, low = 2.0 * tensors[-2].numel() * outs[0].shape[-1], tensors[-2].dtype != torch.float32
        if "scaled_dot" in name:
            products = 2.0 * tensors[0].numel() * tensors[1].shape[-2] * (2.5 if "backward" in name else 1)
        if name in ("embedding", "gather") or name.startswith("index"):
            tensors = outs  # as much is read as is written
        self.tally.add(name, part_of(_place()), [*tensors, *outs], products, low)
        return out


def _place() -> str:
    """file:function of the innermost frame of ours, with a few of those around it."""
    frame, found = sys._getframe(2), list[str]()
    while frame is not None and len(found) < 4:
        path, name = frame.f_code.co_filename.replace("\\", "/"), frame.f_code.co_name
        if "/reformer" in path or re.search(r"optim/|clip_grad", path):
            kind = type(frame.f_locals.get("ctx")).__name__.removesuffix("Backward")
            found.append(f"{path.rpartition('/reformer/')[2]}:{kind if kind != 'NoneType' else ''}.{name}")
        frame = frame.f_back  # type: ignore[assignment]
    return " < ".join(found)


def part_of(place: str) -> str:
    """Of a step, by where the call stands."""
    for one in place.split(" < "):
        if part := next((part for pattern, part in PARTS if re.search(pattern, one)), None):
            return part
    return "norms and streams"


class Autocast(contextlib.ContextDecorator):
    """torch.autocast for a device that has none: on or off, in bfloat16."""

    on = False

    def __init__(self, device_type: str = "cuda", dtype: Any = None, enabled: bool = True, **_: Any) -> None:
        self.enabled = enabled

    def __enter__(self) -> None:
        self.before, Autocast.on = Autocast.on, self.enabled

    def __exit__(self, *_: object) -> None:
        Autocast.on = self.before


@contextlib.contextmanager
def pretended(tally: Tally) -> Iterator[None]:
    """`meta` stands for a GPU that Triton serves, whose kernels are written down."""
    from reformer.backends import dispatch, gpu
    from reformer.reversible import sequence
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    def run(self: Any, *args: Any, grid: Any, warmup: Any, **kwargs: Any) -> None:
        name = self.fn.__name__
        part = next((part for pattern, part in KERNELS if re.search(pattern, name)), "attention")
        part += " kernel" if re.search("^(_forward|_backward|_attend|_attend_back)$", name) else ""
        tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
        if name == "_attend_new":  # of rings it reads those of a bucket, by chance the first of each round
            read, rings = (
                kwargs["ROUNDS"] * kwargs["CAPACITY"],
                dict(zip(self.fn.__code__.co_varnames, args, strict=False)),
            )
            tensors = [t[:, :read] if t.dim() > 1 and t.shape[1] == rings["slots"] else t for t in tensors]
        tally.add(f"triton {name}", part, tensors)

    real = dispatch.choose

    def choose(backend: Any, *inputs: Tensor) -> str:
        serves = all(x.is_meta and x.dtype in gpu.DTYPES for x in inputs)
        return "triton" if serves and backend in ("auto", "triton") else real(backend, *inputs)

    with contextlib.ExitStack() as stack:
        for module in [m for name, m in list(sys.modules.items()) if name.startswith("reformer")]:
            if getattr(module, "choose", None) is real:
                stack.enter_context(mock.patch.object(module, "choose", choose))
        for target, name, value in (
            (torch, "autocast", Autocast), (torch, "is_autocast_enabled", lambda kind=None: Autocast.on),
            (torch, "get_autocast_dtype", lambda kind=None: torch.bfloat16),
            (JITFunction, "run", run), (InterpretedFunction, "run", run), (gpu, "problem", lambda device: ""),
            (sequence, "room", lambda device: FREE),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(Watch(tally))
        yield
