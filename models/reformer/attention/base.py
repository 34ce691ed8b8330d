"""What all kinds of attention share: projections, vectors of a learned length, gates, and the way back."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from reformer.config import ReformerConfig
from reformer.decode.program import NativeProgram
from reformer.decode.step import DecodeStep
from reformer.layers.context import PassContext
from reformer.layers.norm import make_norm, record_norm
from reformer.layers.sublayer import Sublayer
from reformer.ops.bucket_attention.layout import SCORES_AT_ONCE
from reformer.ops.head_gate import head_gate
from reformer.ops.linear import linear, project


@dataclass(frozen=True)
class Hashed:
    """keys [batch, heads, n, d_head], buckets [rounds, batch, heads, n]; of each round: how many buckets there are, and
    of how many of a bucket's last rows a query sees."""

    keys: Tensor
    buckets: Tensor
    sizes: list[int]
    windows: list[int]


@dataclass(frozen=True)
class DenseView:
    """Of hashed heads on n rows: scores [batch, heads, n, n] of all pairs, seen bool [rounds, batch, heads, n, n],
    together bool [batch, heads, n, n], buckets [rounds, batch, heads, n]; by ops/bucket_attention/reference.py."""

    scores: Tensor
    seen: Tensor
    together: Tensor
    buckets: Tensor


class Attention(Sublayer):
    """Some heads as one sub-layer, in three stages; subclasses say who sees whom. The first and the last are pointwise,
    so that they are run on slices of the length; heads do not meet, so that a group of them can be run at a time.
    Nothing as wide as the model exists for the whole length.

    parts: how many projections, the values' the last; unit: scores are a learned temperature times a cosine, and what a
    head has read is multiplied by a learned number between 0 and 2, of the token that reads. What a kind costs is asked
    of the class, for a config alone: nothing has to be made.
    """

    parts: ClassVar[int]
    unit: ClassVar[bool] = True
    rotary = False  # queries and keys are turned by their positions
    takes_delta = False  # whether `attend` can do without its output in backward

    def __init__(self, config: ReformerConfig, heads: int) -> None:
        super().__init__()
        self.config, self.n_heads = config, heads
        self.rms = config.block_style == "modern"
        self.norm = nn.Identity() if self.rms else make_norm(config, config.d_model)  # project has the RMS norm inside
        self.project = nn.Linear(config.d_model, self.parts * heads * config.d_head, bias=False)
        self.output = nn.Linear(heads * config.d_head, config.d_model, bias=False)
        self.gate = nn.Parameter(torch.empty(heads, config.d_model)) if self.unit else None
        if self.unit:
            self.temperature = nn.Parameter(torch.empty(heads))

    @classmethod
    def rounds(cls, config: ReformerConfig, length: int) -> list[int]:
        """Buckets of the hash rounds of training on contexts of this many rows; none for a kind that does not hash."""
        return []

    @classmethod
    @abstractmethod
    def cache_bytes(cls, config: ReformerConfig, heads: int, rows: int) -> int:
        """Of `new_cache` after so many rows, in float32: an upper bound, exact for what grows."""

    @classmethod
    def train_vectors(cls, config: ReformerConfig, low: int, native: bool) -> int:
        """Bytes of a row's vectors in backward, for each number of d_head: queries, keys, values and the output, whose
        gradient comes in its place, of `low` bytes; then the gradients of the former."""
        return cls.parts * low + low + cls.parts * low

    @classmethod
    def train_bytes(cls, config: ReformerConfig, rows: int, length: int, low: int, native: bool) -> int:
        """Of a group of heads in backward, rows: heads x tokens; length: of a context; low: bytes of a number that
        products are taken of; native: whether C does what lies between the products."""
        rounds = max(1, len(cls.rounds(config, length)))
        vectors = cls.train_vectors(config, low, native)
        if rounds > 1:  # gradients added up in float32, then brought to the products' type one after the other
            vectors += cls.parts * (4 - low) + (low if low == 2 else 0)
        indices = 4 + 4 + rounds * (8 + 4 + 4)
        return rows * (config.d_head * vectors + indices) + (0 if native else 6 * 4 * SCORES_AT_ONCE)

    def attend_to_all(self, length: int) -> None:
        """See all earlier positions of texts up to this length from here on; a kind without hash stays as it is."""

    def hashed(self, qkv: tuple[Tensor, ...]) -> Hashed | None:
        """What its hash makes of a text; None for a kind without one, or in chunks. qkv: what `project_in` gives."""
        return None

    def dense_view(self, qkv: tuple[Tensor, ...], heads: slice) -> DenseView | None:
        """Who sees whom, for short texts; None for a kind without hash. qkv: what `project_in` gives."""
        return None

    @property
    def all_heads(self) -> slice:
        """As one group."""
        return slice(0, self.n_heads)

    def lengths(self) -> Tensor | None:
        """[parts - 1, heads]: what queries and keys are brought to; None leaves them as they are."""
        return None

    def project_in(self, x: Tensor, phase: Tensor | None, heads: slice) -> tuple[Tensor, ...]:
        """x [batch, length, d_model] and its positions' phase -> queries (where they are not the keys), keys, values
        [batch, heads of the group, length, d_head], and, if there are gates, their scores [batch, heads of the group,
        length, 1]; in memory token by token."""
        flat, turns = self.norm(x).flatten(0, 1), phase if self.rotary else None
        weight, lengths, n = self.project.weight, self.lengths(), heads.stop - heads.start
        if n < self.n_heads:
            weight = weight.view(self.parts, self.n_heads, self.config.d_head, -1)[:, heads].reshape(
                -1, weight.shape[1]
            )
            lengths = lengths[:, heads] if lengths is not None else None
        gate, backend = self.gate[heads] if self.gate is not None else None, self.config.backend
        found = project(flat, weight, self.parts, n, lengths, turns, rms=self.rms, backend=backend, gate=gate)
        return tuple(part.unflatten(0, x.shape[:2]).transpose(1, 2) for part in found)

    def without_gate(self, qkv: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """What `project_in` gives -> (queries, keys, values; the scores of the gates, if any)."""
        return (qkv, None) if self.gate is None else (qkv[:-1], qkv[-1])

    @abstractmethod
    def attend(
        self, qkv: tuple[Tensor, ...], context: PassContext, heads: slice, buckets: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """What `project_in` gives of the whole length -> ([batch, heads of the group, length, d_head], buckets if any),
        which a replay hands in. delta (where `takes_delta`): see `attend` of ops/bucket_attention."""

    def fill(self, qkv: tuple[Tensor, ...], buckets: Tensor | None, cache: Any) -> None:
        """Put whole texts into an empty cache: what `project_in` gives of them, and `attend` found. Of kinds whose
        decoding is what `attend` computes."""
        raise NotImplementedError

    def project_out(self, out: Tensor, heads: slice) -> Tensor:
        """[batch, heads of the group, length, d_head] -> what to add, [batch, length, d_model]."""
        joined, weight, d = out.transpose(1, 2).flatten(2), self.output.weight, self.config.d_head
        if heads.stop - heads.start < self.n_heads:
            weight = weight[:, heads.start * d : heads.stop * d]
        return linear(joined.flatten(0, 1), weight).unflatten(0, joined.shape[:2])

    def decode(self, x: Tensor, step: DecodeStep, cache: Any) -> Tensor:
        qkv, gate = self.without_gate(self.project_in(x, step.phase(x.shape[1]), self.all_heads))
        out = self.attend_cached(qkv, step, cache)
        return self.project_out(head_gate(out, gate) if gate is not None else out, self.all_heads)

    @abstractmethod
    def attend_cached(self, qkv: tuple[Tensor, ...], step: DecodeStep, cache: Any) -> Tensor:
        """What new tokens read [batch, heads, new, d_head], before the gates; the cache takes them in."""

    def record(self, program: NativeProgram, reads: int, cache: Any) -> Tensor | None:
        normed = record_norm(self.norm, program, reads)
        y = program.matmul(normed, self.recorded_weight())
        if (lengths := self.lengths()) is not None:
            phase = program.phases if self.rotary else None
            program.heads(y, lengths, phase, self.parts, self.n_heads, self.config.d_head)
        out = self.record_attention(program, y, cache)
        if self.gate is not None:
            program.head_gate(out, program.matmul(normed, self.gate))
        return program.matmul(out, self.output.weight)

    def recorded_weight(self) -> Tensor:
        """The projections, with whatever constant `attend` applies to their results."""
        return self.project.weight

    @abstractmethod
    def record_attention(self, program: NativeProgram, y: Tensor, cache: Any) -> Tensor:
        """In the C program: what new tokens read before the gates, [rows, heads * d_head], given y [rows, parts * heads
        * d_head]."""
