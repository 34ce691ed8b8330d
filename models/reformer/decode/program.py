"""Decoding in C: a list of operations that takes a few tokens through the whole model (native/program_run.c)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reformer.backends.native.library import library, pointer, threads
from reformer.decode.bucket_cache import BucketCache
from reformer.decode.cache import Cache
from reformer.decode.native_structs import Held
from reformer.decode.window_cache import WindowCache
from reformer.ops.rotary import Rotary

# As in program.h.
KINDS = [
    "line_position", "embed", "phase", "norm", "matmul", "key_conv", "heads", "window", "buckets", "head_gate",
    "squared_relu", "relu", "gelu", "gelu_tanh", "swiglu", "add", "softcap",
]  # fmt: skip
MOST_TOKENS = 64  # of all rows, that a program takes at once; far more are faster through the large products
SHARED = 2**20  # bytes of weights, from which threads share them; below, they would wait for each other longer


class _Operation(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int64), ("p", ctypes.c_void_p * 8), ("n", ctypes.c_int64 * 8), ("x", ctypes.c_float * 4),
    ]  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = [
        ("operations", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("n_operations", "batch", "new_tokens", "threads")),
        *((name, ctypes.c_void_p) for name in ("tokens", "positions", "counts")),
        ("bad", ctypes.c_int64),
    ]


def _panels(weight: Tensor) -> Tensor:
    """[out, in] -> [panels, in, width]: what the outputs of a panel multiply with the same input lies side by side."""
    lib = library()
    assert lib is not None
    width = lib.panel_width()
    padded = F.pad(weight.detach(), (0, 0, 0, -weight.shape[0] % width))
    return padded.unflatten(0, (-1, width)).transpose(1, 2).contiguous()


@dataclass
class Kept:
    """What a program works on: the caches of a state of `batch` rows, and its line_position. They must stay where they
    are. addresses: of each row, what each table of `program` has of it; alive: what is there."""

    batch: int
    caches: Sequence[Cache | None]
    line_position: Tensor | None = None
    program: NativeProgram | None = field(default=None, repr=False)
    addresses: list[list[int]] = field(default_factory=list, repr=False)
    alive: list[Any] = field(default_factory=list, repr=False)


class NativeProgram:
    """What takes up to MOST_TOKENS tokens of a batch through a model: operations in order, emitted once over the caches
    of any state, and run on those of others as well, side by side.

    float32 on a CPU. It holds every tensor it points to, weights included: a model that is trained on meanwhile needs
    another.
    """

    def __init__(self, d_model: int, bits: int, caches: Sequence[Cache | None]) -> None:
        self.d_model, self.units, self.caches = d_model, 2.0**bits, caches
        self.tables: list[tuple[Any, Callable[[Kept, int], Any]]] = []
        self.bound: list[Kept] = []  # whose addresses the tables hold
        self.rows = MOST_TOKENS
        self.operations: list[_Operation] = []
        self.held: list[Any] = []
        self.weights = 0  # bytes that a token's products read
        self.streams = [torch.zeros(self.rows, d_model, dtype=torch.int32) for _ in range(2)]
        self.phases: Tensor | None = None  # rotary positions
        self.rotary: Rotary | None = None  # the same, for callbacks
        self.callbacks: list[tuple[int, Callable[[int, Tensor], None]]] = []
        self.head_at: int | None = None  # the operation with which the head begins; None: there is none

    def buffer(self, width: int) -> Tensor:
        """float32 [rows, width]."""
        return torch.zeros(self.rows, width)

    def emit(self, kind: str, tensors: Sequence[Any], sizes: Sequence[int] = (), numbers: Sequence[float] = ()) -> None:
        """Append an operation; tensors may be None, or a ctypes structure."""
        addresses: list[int | None] = []
        for x in tensors:
            if isinstance(x, Tensor):
                x = x.detach()
                assert x.is_contiguous()
                addresses.append(x.data_ptr())
            else:
                addresses.append(ctypes.addressof(x) if x is not None else None)
            self.held.append(x)
        p, n, x = (ctypes.c_void_p * 8)(*addresses), (ctypes.c_int64 * 8)(*sizes), (ctypes.c_float * 4)(*numbers)
        self.operations.append(_Operation(KINDS.index(kind), p, n, x))

    def table(self, find: Callable[[Kept, int], Any]) -> Any:
        """Addresses of what a row of the batch keeps, filled in before each run: of find(kept, row), a structure or a
        tensor."""
        addresses = (ctypes.c_void_p * MOST_TOKENS)()
        self.tables.append((addresses, find))
        return addresses

    def _number(self, cache: Cache) -> int:
        return next(n for n, one in enumerate(self.caches) if one is cache)

    def embed(self, table: Tensor, axial: Sequence[Tensor], lines: tuple[Tensor, Tensor] | None = None) -> None:
        """Both streams start as the tokens' rows of a table [vocab_size, d_model], plus those of their positions.
        lines: the rows [.., d_model] of places on a line, and which of them each token has, int64 [rows]."""
        places = [n for t in axial for n in t.shape]
        tensors = [table, *self.streams, *[*axial, None, None, None][:3], *(lines or ())]
        self.emit("embed", tensors, [self.d_model, len(axial), *places], [self.units])

    def phase(self, speed: Tensor) -> Tensor:
        """Cosines and sines of rotary positions [rows, d_head], from float64 speeds [d_head / 2]."""
        out = self.buffer(2 * len(speed))
        self.emit("phase", [out, speed], [2 * len(speed)])
        return out

    def norm(
        self, streams: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float, *, concat: bool
    ) -> Tensor:
        """A stream, or two as their sum or side by side, at unit mean square; with weight and bias, LayerNorm."""
        first, second = self.streams[streams[0]], self.streams[streams[1]] if len(streams) > 1 else None
        out = self.buffer(self.d_model * (2 if concat else 1))
        self.emit("norm", [first, out, second, weight, bias], [self.d_model, concat], [self.units, eps])
        return out

    def matmul(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [rows, in] @ weight.T + bias."""
        out = self.buffer(weight.shape[0])
        self.emit("matmul", [x, _panels(weight), out, bias], [weight.shape[1], weight.shape[0]])
        self.weights += weight.numel() * 4
        return out

    def add(self, stream: int, x: Tensor, coupling: int) -> None:
        """stream += x, in fixed point."""
        self.emit("add", [self.streams[stream], x], [self.d_model, coupling], [self.units, 2.0**30])

    def key_conv(self, y: Tensor, cache: BucketCache, weight: Tensor, lengths: Tensor) -> None:
        """The first of y's two parts becomes the keys made of several tokens (ops/key_conv.py), in place."""
        heads, tokens, d = weight.shape
        scratch, n = torch.zeros(threads(), tokens * d), self._number(cache)
        before = self.table(lambda kept, row: kept.caches[n].key_inputs[row])  # type: ignore[union-attr]
        self.emit("key_conv", [y, weight, lengths.detach().clone(), before, scratch], [heads, tokens, d])

    def heads(self, y: Tensor, lengths: Tensor, phase: Tensor | None, parts: int, heads: int, d: int) -> None:
        """Vectors of all parts but the last are brought to their lengths and turned, in place."""
        self.emit("heads", [y, lengths.detach().clone(), phase], [parts, heads, d])

    def window(self, y: Tensor, cache: WindowCache) -> Tensor:
        """Attention of y's queries, keys and values over a window."""
        _, heads, window, d = cache.keys.shape
        out, each, n = self.buffer(heads * d), window + 64, self._number(cache)
        windows = self.table(lambda kept, row: kept.caches[n].struct(row))  # type: ignore[union-attr]
        self.emit("window", [y, out, windows, torch.zeros(threads(), each)], [each])
        return out

    def buckets(
        self, y: Tensor, cache: BucketCache, rotations: Tensor, hash_mean: Tensor | None, factors: Sequence[int], *,
        unit: bool, sink: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Attention of y's shared queries and keys, and values, over their buckets. unit: keys are queries brought to
        unit length, as released."""
        _, d, hashed, width = rotations.shape
        out, each = self.buffer(cache.heads * d), hashed * width + d + sum(cache.capacities) + 64
        n, numbers = self._number(cache), torch.tensor(list(factors))
        buckets = self.table(lambda kept, row: kept.caches[n].struct(sink, row))  # type: ignore[union-attr]
        self.emit(
            "buckets", [y, out, buckets, torch.zeros(threads(), each), rotations, hash_mean, numbers],
            [each, hashed, width, len(factors), unit],
        )  # fmt: skip
        return out

    def head_gate(self, out: Tensor, scores: Tensor) -> None:
        """out [rows, heads * d_head] times 2 sigmoid(scores [rows, heads]), in place."""
        heads = scores.shape[1]
        self.emit("head_gate", [out, scores], [heads, out.shape[1] // heads])

    def activate(self, kind: str, h: Tensor, limit: float = 0.0) -> Tensor:
        """squared_relu, relu, gelu, gelu_tanh, softcap in place; swiglu into a buffer of half the width."""
        width = h.shape[1] // 2 if kind == "swiglu" else h.shape[1]
        out = self.buffer(width) if kind == "swiglu" else h
        self.emit(kind, [h, out], [width], [limit])
        return out

    def callback(self, call: Callable[[int, Tensor], None]) -> None:
        """Between the last operation and the next, call(new, seen) is made: new tokens of each row, after int64 seen
        [batch]."""
        self.callbacks.append((len(self.operations), call))

    def begin_head(self) -> None:
        """What is appended from here on looks at a token's streams alone."""
        self.head_at = len(self.operations)

    def finish(self, logits: Tensor) -> None:
        """Nothing more is appended; logits: where the last operation leaves them."""
        self.logits, self.caches = logits, ()  # a state is not held that nobody else needs
        self.list = (_Operation * len(self.operations))(*self.operations)

    @property
    def is_shared(self) -> bool:
        """Whether it can be run on other states than the one it was emitted over: callbacks know but that one."""
        return not self.callbacks

    def bind(self, kept: Sequence[Kept]) -> None:
        """From here on, `run` works on these, one after the other in the batch."""
        if len(kept) == len(self.bound) and all(a is b for a, b in zip(kept, self.bound, strict=True)):
            return
        row = 0
        for one in kept:
            if one.program is not self:
                one.program, one.addresses, one.alive = self, [], []
                for n in range(one.batch):
                    found = [find(one, n) for _, find in self.tables]
                    one.addresses.append([_address(x) for x in found])
                    one.alive += found
            for addresses in one.addresses:
                for (table, _), address in zip(self.tables, addresses, strict=True):
                    table[row] = address
                row += 1
        self.bound = list(kept)

    def run(
        self, tokens: Tensor | None, new: int, seen: Tensor, last_only: bool = False, counts: Tensor | None = None
    ) -> tuple[Tensor, int | None]:
        """int64 tokens [batch, new] after int64 seen [batch], of what it is bound to -> (logits [batch, new,
        vocab_size], or [batch, 1, vocab_size] of the last ones; the coupling whose sum left the range).

        tokens None: of a program without `embed`, whose streams the caller has filled. counts: int64 [batch], how many
        of a row's are real; only with last_only, and without callbacks."""
        batch, bad = len(seen), None
        if last_only and self.head_at is not None and (new > 1 or counts is not None):
            bad = self._go(range(self.head_at), tokens, new, seen, counts)
            ends = counts - 1 if counts is not None else seen.new_full((batch,), new - 1)
            rows = torch.arange(batch) * new + ends.clamp_min(0)
            for stream in self.streams:
                stream[:batch] = stream[rows]
            start, tokens, new = self.head_at, None, 1
        else:
            start = 0
        bad = bad or self._go(range(start, len(self.list)), tokens, new, seen)
        found = self.logits[: batch * new].view(batch, new, -1).clone()
        return (found[:, -1:] if last_only else found), bad - 1 if bad else None

    def _go(
        self, operations: range, tokens: Tensor | None, new: int, seen: Tensor, counts: Tensor | None = None
    ) -> int | None:
        """These operations, and the calls between them. None, or 1 + the coupling whose sum left the range."""
        lib = library()
        assert lib is not None
        counts = counts.contiguous() if counts is not None else None
        data = [pointer(x) for x in (tokens, seen, counts)]
        team, first = threads() if self.weights >= SHARED else 1, operations.start
        calls = [one for one in self.callbacks if (operations.start or -1) < one[0] <= operations.stop]
        for stop, call in [*calls, (operations.stop, None)]:
            start = ctypes.addressof(self.list) + first * ctypes.sizeof(_Operation)
            program = _Program(start, stop - first, len(seen), new, team, *data, 0)
            lib.decode(ctypes.byref(program))
            if program.bad:
                return int(program.bad)
            if call is not None:
                call(new, seen)
            first = stop
        return None


def _address(x: Any) -> int:
    """Of a tensor's numbers, or of a structure."""
    if isinstance(x, Tensor):
        assert x.is_contiguous()
        return x.data_ptr()
    return ctypes.addressof(x.struct if isinstance(x, Held) else x)
