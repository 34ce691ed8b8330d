"""Decoding in C: a list of operations that takes a few tokens through the whole model
(backends/native/program.c), and rings of buckets filled one token after the other (caches.c). float32 on a CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reformer.backends.native.library import library, pointer, threads
from reformer.layers.line_position import UNKNOWN

if TYPE_CHECKING:
    from reformer.decode.bucket_cache import BucketState
    from reformer.decode.state import WindowState
    from reformer.layers.line_position import Columns
    from reformer.ops.rotary import Rotary

# As in program.c.
KINDS = [
    "columns",
    "embed",
    "phase",
    "norm",
    "matmul",
    "blend",
    "heads",
    "window",
    "buckets",
    "gate",
    "squared_relu",
    "relu",
    "gelu",
    "gelu_tanh",
    "swiglu",
    "add",
    "softcap",
]
MOST_TOKENS = 64  # of all rows, that a tape takes at once; far more are faster through the large products
SHARED = 2**20  # bytes of weights, from which threads share them; below, they would wait for each other longer


class _Window(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ctypes.c_int64) for name in ("heads", "d", "window", "chunk")),
    ]


class _Buckets(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("pairs", "times", "ids", "counts", "last")),
        *((name, ctypes.c_void_p) for name in ("sizes", "capacities", "sink")),
        *((name, ctypes.c_int64) for name in ("heads", "d", "rounds", "slots", "buckets", "next", "each")),
    ]


class _Operation(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int64), ("p", ctypes.c_void_p * 8), ("n", ctypes.c_int64 * 8), ("x", ctypes.c_float * 4),
    ]  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = [
        ("operations", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("n_operations", "batch", "new_tokens", "threads")),
        *((name, ctypes.c_void_p) for name in ("tokens", "positions")),
        ("bad", ctypes.c_int64),
    ]


def _window(state: WindowState) -> _Window:
    _, heads, window, d = state.keys.shape
    return _Window(pointer(state.keys), pointer(state.values), heads, d, window, state.chunk)


def _buckets(state: BucketState, sink: Tensor | None) -> tuple[_Buckets, list[Any]]:
    """And what must live as long."""
    rounds = len(state.sizes)
    sizes, capacities = ((ctypes.c_int64 * rounds)(*x) for x in (state.sizes, state.capacities))
    tensors = (state.pairs, state.times, state.ids, state.counts, state.last)
    sink = sink.detach().contiguous() if sink is not None else None
    addresses = [*(pointer(x) for x in tensors), ctypes.addressof(sizes), ctypes.addressof(capacities)]
    addresses.append(pointer(sink) if sink is not None else None)
    numbers = (state.heads, state.pairs.shape[3], rounds, state.times.shape[1], state.counts.shape[1])
    return _Buckets(*addresses, *numbers, state.next, state.each), [sizes, capacities, sink]


def _panels(weight: Tensor) -> Tensor:
    """[out, in] -> [panels, in, width]: what the outputs of a panel multiply with the same input lies side by side."""
    lib = library()
    assert lib is not None
    width = lib.panel_width()
    padded = F.pad(weight.detach(), (0, 0, 0, -weight.shape[0] % width))
    return padded.unflatten(0, (-1, width)).transpose(1, 2).contiguous()


def buckets(
    state: BucketState, q: Tensor, k: Tensor, v: Tensor, ids: Tensor, starts: Tensor, counts: Tensor,
    sink: Tensor | None,
) -> Tensor:  # fmt: skip
    """BucketState.advance: q, k, v [batch, heads, new, d_head], ids [rounds, batch, heads, new]."""
    lib = library()
    assert lib is not None
    batch, _, new, _ = v.shape
    flat = [x.transpose(1, 2).contiguous() for x in (q, k, v)]
    out, struct = torch.zeros_like(flat[2]), _buckets(state, sink)
    ids, starts, counts = ids.long().contiguous(), starts.contiguous(), counts.contiguous()
    good = lib.state_buckets(
        ctypes.byref(struct[0]), *(ctypes.c_void_p(pointer(x)) for x in (*flat, ids, out, starts, counts)),
        *(ctypes.c_int64(n) for n in (batch, new, threads())),
    )  # fmt: skip
    if not good:
        raise MemoryError("state_buckets found no memory for its workspace")
    return out.transpose(1, 2)


class Tape:
    """What takes up to MOST_TOKENS tokens of a batch through a model: operations in order, recorded once for a state.

    It holds every tensor it points to, weights included: a model that is trained on meanwhile needs a new state.
    """

    def __init__(self, batch: int, d_model: int, bits: int) -> None:
        self.batch, self.d_model, self.units = batch, d_model, 2.0**bits
        self.rows = MOST_TOKENS
        self.operations: list[_Operation] = []
        self.held: list[Any] = []
        self.weights = 0  # bytes that a token's products read
        self.streams = [torch.zeros(self.rows, d_model, dtype=torch.int32) for _ in range(2)]
        self.turns: Tensor | None = None  # rotary positions
        self.rotary: Rotary | None = None  # the same, for what a pause does
        self.pauses: list[tuple[int, Callable[[int, Tensor], None]]] = []

    def buffer(self, width: int) -> Tensor:
        """float32 [rows, width]."""
        return torch.zeros(self.rows, width)

    def put(self, kind: str, tensors: Sequence[Any], sizes: Sequence[int] = (), numbers: Sequence[float] = ()) -> None:
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

    def columns(self, columns: Columns, column: Tensor) -> tuple[Tensor, Tensor]:
        """The table [.., d_model] for places on a line, and its row [rows] for each token; `column` of the state moves
        on."""
        index, added, ends = torch.zeros(self.rows, dtype=torch.int64), columns.added(), (columns.ends > 0.5).long()
        table = columns.table.detach().contiguous()
        self.put("columns", [index, column, added, ends], [len(table), UNKNOWN // 2])
        return table, index

    def embed(self, table: Tensor, axial: Sequence[Tensor], columns: tuple[Tensor, Tensor] | None = None) -> None:
        """Both streams start as the tokens' rows of a table [vocab_size, d_model], plus those of their positions."""
        places = [n for t in axial for n in t.shape]
        tensors = [table, *self.streams, *[*axial, None, None, None][:3], *(columns or ())]
        self.put("embed", tensors, [self.d_model, len(axial), *places], [self.units])

    def phase(self, speed: Tensor) -> Tensor:
        """Cosines and sines of rotary positions [rows, d_head], from float64 speeds [d_head / 2]."""
        out = self.buffer(2 * len(speed))
        self.put("phase", [out, speed], [2 * len(speed)])
        return out

    def norm(
        self, streams: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float, *, concat: bool
    ) -> Tensor:
        """A stream, or two as their sum or side by side, at unit mean square; with weight and bias, LayerNorm."""
        first, second = self.streams[streams[0]], self.streams[streams[1]] if len(streams) > 1 else None
        out = self.buffer(self.d_model * (2 if concat else 1))
        self.put("norm", [first, out, second, weight, bias], [self.d_model, concat], [self.units, eps])
        return out

    def matmul(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [rows, in] @ weight.T + bias."""
        out = self.buffer(weight.shape[0])
        self.put("matmul", [x, _panels(weight), out, bias], [weight.shape[1], weight.shape[0]])
        self.weights += weight.numel() * 4
        return out

    def add(self, stream: int, x: Tensor, coupling: int) -> None:
        """stream += x, in fixed point."""
        self.put("add", [self.streams[stream], x], [self.d_model, coupling], [self.units, 2.0**30])

    def blend(self, y: Tensor, state: BucketState, weight: Tensor, lengths: Tensor) -> None:
        """The first of y's two parts becomes the keys made of several tokens (attention/blend.py), in place."""
        heads, tokens, d = weight.shape
        scratch = torch.zeros(threads(), tokens * d)
        self.put("blend", [y, weight, lengths.detach().clone(), state.before, scratch], [heads, tokens, d])

    def heads(self, y: Tensor, lengths: Tensor, phase: Tensor | None, parts: int, heads: int, d: int) -> None:
        """Vectors of all parts but the last are brought to their lengths and turned, in place."""
        self.put("heads", [y, lengths.detach().clone(), phase], [parts, heads, d])

    def window(self, y: Tensor, state: WindowState) -> Tensor:
        """Attention of y's queries, keys and values over a window."""
        _, heads, window, d = state.keys.shape
        out, each = self.buffer(heads * d), window + 64
        self.put("window", [y, out, _window(state), torch.zeros(threads(), each)], [each])
        self.held.append(state)
        return out

    def buckets(
        self, y: Tensor, state: BucketState, rotations: Tensor, centre: Tensor | None, factors: Sequence[int], *,
        local_round: bool, unit: bool, sink: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Attention of y's shared queries and keys, and values, over their buckets. unit: keys are queries brought to
        unit length, as released."""
        _, d, hashed, width = rotations.shape
        out, each = self.buffer(state.heads * d), hashed * width + d + sum(state.capacities) + 64
        struct, held = _buckets(state, sink)
        numbers = torch.tensor(list(factors))
        self.put(
            "buckets", [y, out, struct, torch.zeros(threads(), each), rotations, centre, numbers],
            [each, hashed, width, len(factors), local_round, unit],
        )  # fmt: skip
        self.held += [state, held]
        return out

    def gate(self, out: Tensor, scores: Tensor) -> None:
        """out [rows, heads * d_head] times 2 sigmoid(scores [rows, heads]), in place."""
        heads = scores.shape[1]
        self.put("gate", [out, scores], [heads, out.shape[1] // heads])

    def activate(self, kind: str, h: Tensor, limit: float = 0.0) -> Tensor:
        """squared_relu, relu, gelu, gelu_tanh, softcap in place; swiglu into a buffer of half the width."""
        width = h.shape[1] // 2 if kind == "swiglu" else h.shape[1]
        out = self.buffer(width) if kind == "swiglu" else h
        self.put(kind, [h, out], [width], [limit])
        return out

    def pause(self, call: Callable[[int, Tensor], None]) -> None:
        """Between the last operation and the next, call(new, starts) is made: new tokens of each row, which begin at
        int64 starts [batch]."""
        self.pauses.append((len(self.operations), call))

    def finish(self, logits: Tensor) -> None:
        """Nothing more is appended; logits: where the last operation leaves them."""
        self.logits = logits
        self.list = (_Operation * len(self.operations))(*self.operations)

    def run(self, tokens: Tensor | None, new: int, starts: Tensor) -> tuple[Tensor, int | None]:
        """int64 tokens [batch, new] -> (logits [batch, new, vocab_size], the coupling whose sum left the range).

        tokens None: of a tape without `embed`, whose streams the caller has filled."""
        lib = library()
        assert lib is not None
        found = self.logits[: self.batch * new].view(self.batch, new, -1)
        ids, team, first = pointer(tokens) if tokens is not None else None, threads(), 0
        team = team if self.weights >= SHARED else 1
        for stop, call in [*self.pauses, (len(self.list), None)]:
            start = ctypes.addressof(self.list) + first * ctypes.sizeof(_Operation)
            program = _Program(start, stop - first, self.batch, new, team, ids, pointer(starts), 0)
            lib.decode(ctypes.byref(program))
            if program.bad:
                return found, program.bad - 1
            if call is not None:
                call(new, starts)
            first = stop
        return found.clone(), None
