"""What a training step will hold in memory, item by item, from the sizes alone (design section 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from reformer import ReformerConfig, ReformerLM
from reformer.ops.bucket_attention.blocks import SCORES_AT_ONCE
from reformer.trunk import KEPT

CONTEXT_STEP = 1024  # the largest context is named in such steps
MOST_LAYERS, MOST_CONTEXT = 1024, 2**27


@dataclass(frozen=True)
class Item:
    """One thing that is held, in bytes, and what it is made of."""

    name: str
    size: int
    what: str


@dataclass(frozen=True)
class Step:
    """A training step. precision: of products, as in TrainConfig; program: bytes held before anything is made."""

    model: ReformerConfig
    batch: int
    context: int
    precision: str
    program: int

    @property
    def tokens(self) -> int:
        return self.batch * self.context

    @property
    def total(self) -> int:
        return sum(item.size for item in forecast(self))


def forecast(step: Step) -> list[Item]:
    """What exists at the worst moment of a step, which is in the backward pass of an attention."""
    c, n = step.model, step.tokens
    weights = count_parameters(c)
    half = 2 if c.gradient_streams == "bfloat16" else 4
    widest, of = max((attention_bytes(step, kind), kind) for kind in kinds(c))
    return [
        Item("program", step.program, "interpreter and libraries"),
        Item("parameters", 4 * weights, f"{weights:,} in float32"),
        Item("their gradients", 8 * weights, "float32, and again while autograd hands them over"),
        Item("optimiser", 8 * weights, "two moments in float32"),
        Item("streams", 8 * n * c.d_model, "2 x int32 x tokens x d_model, whatever the depth"),
        Item("their gradients", 2 * half * n * c.d_model, f"2 x {8 * half} bits x tokens x d_model"),
        Item("attention", widest, f"the largest branch: {of}"),
        Item("buckets", routing_bytes(c) * n, "of every layer's hash, kept for backward"),
        Item("slices", slice_bytes(step), f"of {c.workspace_tokens:,} tokens or {SCORES_AT_ONCE:,} scores"),
        Item("text", 4 * 8 * n, "tokens, targets and what indexes them"),
    ]


def count_parameters(config: ReformerConfig) -> int:
    """Of the whole model. Layers repeat: deep models are counted from shallow ones."""
    period = len(config.layers)
    repeats, rest = divmod(config.n_layers, period)
    if repeats < 2:
        return _count(config)
    one, two, end = (_count(replace(config, n_layers=n)) for n in (period, 2 * period, period + rest))
    return end + (repeats - 1) * (two - one)


@lru_cache(maxsize=256)
def _count(config: ReformerConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in ReformerLM(config).parameters())


def kinds(c: ReformerConfig) -> list[str]:
    """The branches of attention that the layers have."""
    found: list[str] = []
    for layer in c.layers:
        local, lsh = {"mixed": c.head_split, "lsh": (0, c.n_heads)}.get(layer, (c.n_heads, 0))
        kind = "full" if layer == "full" else "local"
        found += [f"{local} {kind} heads"] if local else []
        found += [f"{lsh} LSH heads"] if lsh else []
    return sorted(set(found))


def attention_bytes(step: Step, branch: str) -> int:
    """Of one branch: its parts, output, their gradients, and what sorts them."""
    c = step.model
    heads, kind = int(branch.split()[0]), branch.split()[1]
    rows = step.tokens * heads
    low = 2 if step.precision == "bfloat16" else 4
    parts = 2 if kind == "LSH" else 3
    rounds = c.n_hashes + bool(c.local_round) if kind == "LSH" else 1
    vectors = parts * low + 2 * low + parts * (low if rounds == 1 else 4)
    if rounds > 1 and low == 2:
        vectors += parts * low
    indices = 4 + 4 + 8 + rounds * (8 + 4 + 4)
    kept = step.tokens * c.d_model <= KEPT
    inputs = step.tokens * 4 * c.d_model + rows * c.d_head * parts * low if kept else 0
    return rows * (c.d_head * vectors + indices) + inputs


def routing_bytes(c: ReformerConfig) -> int:
    """A token, over all layers: the smallest integers that hold a bucket."""
    n = 1
    for factor in c.n_buckets:
        n *= factor
    width = 1 if n <= 256 else 2 if n <= 2**15 else 4
    rounds = c.n_hashes + bool(c.local_round)
    heads = [
        {"mixed": c.head_split[1], "lsh": c.n_heads}.get(c.layers[i % len(c.layers)], 0) for i in range(c.n_layers)
    ]
    return width * rounds * sum(heads)


def slice_bytes(step: Step) -> int:
    """The largest of what is made slice by slice: feed-forward, head, scores."""
    c = step.model
    tokens = min(c.workspace_tokens, step.tokens)
    d_ff = c.d_ff or 4 * c.d_model
    feed_forward = tokens * 4 * (6 * c.d_model + 3 * d_ff)
    head = tokens * 4 * (5 * c.vocab_size + 3 * c.d_model)
    scores = SCORES_AT_ONCE * 4 * 6
    return max(feed_forward, head, scores)


def largest_context(step: Step, memory: int) -> int:
    """Most tokens of context that fit, in steps of CONTEXT_STEP; 0 if none do."""
    limit = step.model.max_length or MOST_CONTEXT
    most = limit // CONTEXT_STEP
    return CONTEXT_STEP * _largest(most, lambda n: replace(step, context=n * CONTEXT_STEP).total <= memory)


def largest_depth(step: Step, memory: int) -> int:
    """Most layers that fit; 0 if none do."""
    return _largest(MOST_LAYERS, lambda n: replace(step, model=replace(step.model, n_layers=n)).total <= memory)


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest n up to `most` that fits, where smaller ones fit too."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
