"""What the reversible trunk is made of: branches, each a function of one stream that is added to the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reformer.config import ReformerConfig
from reformer.ops.linear import squared_relu_mlp
from reformer.ops.rotary import Rotary

if TYPE_CHECKING:
    from reformer.decode.program import Tape
    from reformer.reversible.backward import Undo
    from reformer.reversible.sequence import Coupling, Trunk

APPROXIMATION = {"gelu": "none", "gelu_tanh": "tanh"}


@dataclass(frozen=True)
class Context:
    """What a pass knows besides its activations; a replay is handed the same one. documents: int [batch, length] or
    None; dropout_seed: None for no dropout."""

    rotary: Rotary | None = None
    documents: Tensor | None = None
    dropout_seed: int | None = None

    def phase(self, here: slice) -> Tensor | None:
        """The rotary positions of a slice."""
        return self.rotary.phase(here) if self.rotary is not None else None


@dataclass(frozen=True)
class Progress:
    """Where decoding is. starts: int64 [batch], tokens that each row has seen; counts: int64 [batch], how many of the
    new ones are real; rotary: positions of the new ones; whole: it is known that all of them are real."""

    rotary: Rotary | None
    starts: Tensor
    counts: Tensor
    whole: bool = False

    def phase(self, new: int) -> Tensor | None:
        """The rotary positions of the new tokens, row after row."""
        return self.rotary.phase(slice(0, new)) if self.rotary is not None else None


class Branch(nn.Module, ABC):
    """A sub-layer: what it adds to a stream, given the other one."""

    def start(self, batch: int) -> Any:
        """What decoding keeps between tokens; None for a branch without memory."""
        return None

    @abstractmethod
    def step(self, x: Tensor, progress: Progress, state: Any) -> Tensor:
        """What to add for new tokens x [batch, new, d_model], given the state of those before; updates it."""

    def record(self, tape: Tape, source: int, state: Any) -> Tensor | None:
        """Append to a tape what `step` does with stream `source`, and return what is to be added; None where a tape has
        no operation for it."""
        return None


class Pointwise(Branch):
    """A branch in which positions do not meet: the trunk runs it on slices of the length."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, d_model] -> [batch, length, d_model]."""

    def step(self, x: Tensor, progress: Progress, state: Any) -> Tensor:
        added: Tensor = self(x)
        return added


class Mixing(Branch):
    """A branch in which positions meet, in three stages. The first and last are pointwise, so that the trunk runs them
    on slices; heads do not meet, so that it can run a group of them at a time. Nothing as wide as the model exists for
    the whole length."""

    heads: int
    takes_delta = False  # whether `mix` can do without its output in backward

    @abstractmethod
    def split(self, x: Tensor, phase: Tensor | None, group: slice) -> tuple[Tensor, ...]:
        """x [batch, length, d_model] and its positions' phase -> parts of [batch, heads of group, length, d_head]."""

    @abstractmethod
    def mix(
        self, parts: tuple[Tensor, ...], context: Context, group: slice, routing: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Parts of the whole length -> ([batch, heads of group, length, d_head], routing); a replay hands the routing
        in. delta (where `takes_delta`): see `attend`."""

    @abstractmethod
    def joined(self, out: Tensor, group: slice) -> Tensor:
        """[batch, heads of group, length, d_head] -> what to add, [batch, length, d_model]."""

    @property
    def all(self) -> slice:
        """The group of all heads."""
        return slice(0, self.heads)


class Composite(ABC):
    """What stands for a branch and has steps of its own, forwards and backwards."""

    @abstractmethod
    def parameters(self) -> Iterator[nn.Parameter]:
        """All of them."""

    @abstractmethod
    def run(
        self, trunk: Trunk, coupling: Coupling, number: int, streams: Sequence[Tensor], context: Context, kept: Any,
        watch: Callable[[Coupling, slice, tuple[Tensor, ...]], None] | None,
    ) -> Any:  # fmt: skip
        """Advance the coupling's target as step `number` of `Trunk.run`, and return what is to be kept for backward; a
        replay hands in what an earlier run had kept."""

    @abstractmethod
    def whole(self, trunk: Trunk, x: Tensor, number: int, context: Context) -> tuple[Tensor, Any]:
        """What it adds for x, all of a stream, under ordinary autograd, and what `run` would keep."""

    @abstractmethod
    def back(self, undo: Undo, kept: Any) -> None:
        """Undo `run`, advancing gradients too."""

    @abstractmethod
    def start(self, batch: int) -> Any:
        """As `Branch.start`."""

    @abstractmethod
    def step(self, x: Tensor, progress: Progress, state: Any) -> Tensor:
        """As `Branch.step`."""

    def record(self, tape: Tape, source: int, state: Any) -> Tensor | None:
        """As `Branch.record`."""
        return None


def make_norm(config: ReformerConfig, width: int) -> Callable[[Tensor], Tensor]:
    """RMSNorm without parameters (arXiv 1910.07467), or LayerNorm as published."""
    if config.norm == "layer":
        return nn.LayerNorm(width, eps=config.norm_epsilon)
    return _RMSNorm(width)


def record_norm(norm: Callable[[Tensor], Tensor], tape: Tape, *streams: int, concat: bool = False) -> Tensor:
    """What `make_norm` made, on a tape."""
    if isinstance(norm, nn.LayerNorm):
        return tape.norm(streams, norm.weight, norm.bias, norm.eps, concat=concat)
    return tape.norm(streams, None, None, torch.finfo(torch.float32).eps, concat=concat)


class _RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.width,))


class FeedForward(Pointwise):
    """norm, widen, non-linearity, narrow. squared_relu: arXiv 2109.08668; swiglu: arXiv 2002.05202."""

    def __init__(self, config: ReformerConfig) -> None:
        super().__init__()
        d_ff = config.d_ff or 4 * config.d_model
        biases = config.norm == "layer"
        self.kind, self.backend = config.feed_forward, config.backend
        self.fused = self.kind == "squared_relu" and not biases
        self.norm = make_norm(config, config.d_model)
        self.widen = nn.Linear(config.d_model, d_ff * (2 if self.kind == "swiglu" else 1), bias=biases)
        self.output = nn.Linear(d_ff, config.d_model, bias=biases)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return squared_relu_mlp(x.flatten(0, 1), self.widen.weight, self.output.weight, self.backend).view(x.shape)
        h = self.widen(self.norm(x))
        if self.kind == "squared_relu":
            h = F.relu(h).square()
        elif self.kind == "swiglu":
            gate, h = h.chunk(2, -1)
            h = F.silu(gate) * h
        else:
            h = F.relu(h) if self.kind == "relu" else F.gelu(h, approximate=APPROXIMATION[self.kind])
        added: Tensor = self.output(h)
        return added

    def record(self, tape: Tape, source: int, state: Any) -> Tensor | None:
        h = tape.matmul(record_norm(self.norm, tape, source), self.widen.weight, self.widen.bias)
        return tape.matmul(tape.activate(self.kind, h), self.output.weight, self.output.bias)
