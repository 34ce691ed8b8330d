"""What a training step will hold in memory, item by item, from the sizes alone (docs/memory.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from reformer import ReformerConfig, ReformerLM
from reformer.memory import Item, Pass

from reformer_cli.training.optimizers import OPTIMIZERS, Weights, is_hidden_matrix

CONTEXT_STEP = 1024  # the largest context is named in such steps
MOST_LAYERS, MOST_CONTEXT = 1024, 2**27
# What the allocator holds besides what is asked for (measured on twelve configurations): a share, up to so many bytes.
FRAGMENTS, MOST_FRAGMENTS = 0.12, 2**27
LIBRARIES = 56 * 2**20  # bytes of the libraries that a first step touches (measured on a CPU: a step of 1,024 tokens)


@dataclass(frozen=True)
class Step:
    """A training step. precision: of products, as in TrainConfig; program: bytes held before anything is made; native:
    whether C does what lies between the products; gpu: whether Triton does; optimizer: as in TrainConfig; copied:
    whether checkpoints are written from a copy of what they hold; accumulate: parts of the batch."""

    model: ReformerConfig
    batch: int
    context: int
    precision: str
    program: int
    native: bool
    optimizer: str = "adamw"
    copied: bool = False
    accumulate: int = 1
    gpu: bool = False

    @property
    def tokens(self) -> int:
        """Worked on at once."""
        return self.rows * self.context

    @property
    def rows(self) -> int:
        """Contexts worked on at once."""
        return -(-self.batch // self.accumulate)

    @property
    def low(self) -> int:
        """Bytes of a number that products are taken of."""
        return 4 if self.precision == "float32" else 2

    @property
    def total(self) -> int:
        return sum(item.size for item in forecast(self))


def forecast(step: Step) -> list[Item]:
    """What exists throughout a step from the second on, and the most that exists beside it for a moment."""
    counts, optimizer = _counts(step.model), OPTIMIZERS[step.optimizer]
    weights, state = counts.all, optimizer.bytes(counts)
    asked = [
        Item("parameters", 4 * weights, f"{weights:,} in float32"),
        Item("their gradients", 4 * weights, "float32"),
        Item("optimiser", state, optimizer.state),
        *_pass(step).items(weights),
    ]
    if step.copied:
        size = 4 * weights + state
        asked.append(Item("checkpoint", size, "a copy, while it is written in the background"))
    fragments = min(MOST_FRAGMENTS, int(FRAGMENTS * sum(item.size for item in asked)))
    return [
        Item("program", step.program + LIBRARIES, "interpreter and libraries"),
        *asked,
        Item("allocator", fragments, "lost between blocks"),
    ]


def kept_on_gpu(step: Step) -> int:
    """Bytes of activations that a GPU keeps, beside the forecast, where it has room for them."""
    return _pass(step).kept_on_gpu()


def _pass(step: Step) -> Pass:
    return Pass(step.model, step.rows, step.context, step.low, step.native, step.gpu)


def count_parameters(config: ReformerConfig) -> int:
    """Of the whole model."""
    return _counts(config).all


def hidden_numbers(config: ReformerConfig) -> int:
    """Of the matrices of its layers."""
    return _counts(config).hidden


def _counts(config: ReformerConfig) -> Weights:
    """Layers repeat: deep models are counted from shallow ones."""
    if config.shorten_factor > 1:  # layers are alike on tokens and on groups; what lies between is counted by itself
        small = replace(config, n_layers=1, vanilla_layers=(0, 0))
        parts = (_counts(replace(config, shorten_factor=1)), _count(small), _count(replace(small, shorten_factor=1)))
        return Weights(*(a + b - c for a, b, c in zip(*parts, strict=True)))
    period = len(config.attn_layers)
    repeats, rest = divmod(config.n_layers, period)
    if repeats < 2:
        return _count(config)
    one, two, end = (_count(replace(config, n_layers=n)) for n in (period, 2 * period, period + rest))
    return Weights(*(e + (repeats - 1) * (b - a) for a, b, e in zip(one, two, end, strict=True)))


@lru_cache(maxsize=256)
def _count(config: ReformerConfig) -> Weights:
    with torch.device("meta"):
        named = list(ReformerLM(config).named_parameters())
    hidden = sum(p.numel() for name, p in named if is_hidden_matrix(name, p))
    factors = sum(sum(p.shape) if p.dim() == 2 else p.numel() for _, p in named)
    return Weights(sum(p.numel() for _, p in named), hidden, factors)


def largest_context(step: Step, memory: int) -> int:
    """Most tokens of context that fit, in steps of CONTEXT_STEP; 0 if none do."""
    limit = step.model.max_length or MOST_CONTEXT
    most = limit // CONTEXT_STEP
    return CONTEXT_STEP * _largest(most, lambda n: replace(step, context=n * CONTEXT_STEP).total <= memory)


def largest_depth(step: Step, memory: int) -> int:
    """Most layers that fit; 0 if none do."""
    model = step.model
    least = sum(model.vanilla_layers) + 1 if model.shorten_factor > 1 else 1

    def fits(n: int) -> bool:
        return replace(step, model=replace(model, n_layers=n)).total <= memory

    return _largest(MOST_LAYERS, lambda n: fits(max(least, n))) if fits(least) else 0


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest n up to `most` that fits, where smaller ones fit too."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
