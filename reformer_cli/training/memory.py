"""What a training step will hold in memory, item by item, from the sizes alone (docs/memory.md)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from reformer import ReformerConfig, ReformerLM
from reformer.config import MOST_KEPT_ACTIVATIONS
from reformer.ops.bucket_attention.layout import SCORES_AT_ONCE
from reformer.reversible.coupling import KEPT
from reformer.reversible.sequence import graph_bytes

from reformer_cli.training.optimizers import is_hidden_matrix

CONTEXT_STEP = 1024  # the largest context is named in such steps
MOST_LAYERS, MOST_CONTEXT = 1024, 2**27
# What the allocator holds besides what is asked for (measured on twelve configurations): a share, up to so many bytes.
FRAGMENTS, MOST_FRAGMENTS = 0.12, 2**27
LIBRARIES = 56 * 2**20  # bytes of the libraries that a first step touches (measured on a CPU: a step of 1,024 tokens)


@dataclass(frozen=True)
class Item:
    """One thing that is held, in bytes, and what it is made of."""

    name: str
    size: int
    what: str


@dataclass(frozen=True)
class Step:
    """A training step. precision: of products, as in TrainConfig; program: bytes held before anything is made; native:
    whether C does what lies between the products; optimizer: as in TrainConfig; copied: whether checkpoints are written
    from a copy of what they hold; accumulate: parts of the batch."""

    model: ReformerConfig
    batch: int
    context: int
    precision: str
    program: int
    native: bool
    optimizer: str = "adamw"
    copied: bool = False
    accumulate: int = 1

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
    c, n = step.model, step.tokens
    weights, state = count_parameters(c), optimizer_bytes(c, step.optimizer)
    half = 2 if c.gradient_streams == "bfloat16" else 4
    groups = replace(step, context=step.context // c.shorten).tokens if c.group_layers else 0
    moments = _attention(step, set(range(c.n_layers)) - set(c.group_layers), 0)
    if groups:
        gradients = 2 * half * groups * c.d_model
        moments += _attention(replace(step, context=step.context // c.shorten), c.group_layers, gradients)
    of_a_slice = f"a slice of {c.workspace_tokens:,} tokens"
    moments.append(Item("feed-forward", feed_forward_bytes(step), of_a_slice))
    moments.append(Item("head and loss", head_bytes(step), of_a_slice))
    moments.append(Item("handing over", 4 * weights, "the parameters' gradients again, as autograd takes them"))
    asked = [
        Item("parameters", 4 * weights, f"{weights:,} in float32"),
        Item("their gradients", 4 * weights, "float32"),
        Item("optimiser", state, OPTIMIZER_STATES[step.optimizer]),
        Item("streams", 8 * n * c.d_model, "2 x int32 x tokens x d_model, whatever the depth"),
        Item("their gradients", 2 * half * n * c.d_model, f"2 x {8 * half} bits x tokens x d_model"),
        Item("buckets", routing_bytes(step), "of every layer's hash, kept for backward"),
        Item("text", 4 * 8 * n, "tokens, targets and what indexes them"),
        max(moments, key=lambda item: item.size),
    ]
    if groups:
        asked.append(Item("groups", 8 * groups * c.d_model, f"their 2 streams: 1 / {c.shorten} of the tokens'"))
    if kept := kept_bytes(step):
        asked.append(Item("activations", kept, "of all layers, kept for backward: a step is one slice"))
    if step.copied:
        size = 4 * weights + state
        asked.append(Item("checkpoint", size, "a copy, while it is written in the background"))
    fragments = min(MOST_FRAGMENTS, int(FRAGMENTS * sum(item.size for item in asked)))
    return [
        Item("program", step.program + LIBRARIES, "interpreter and libraries"),
        *asked,
        Item("allocator", fragments, "lost between blocks"),
    ]


def _attention(step: Step, layers: Collection[int], beside: int) -> list[Item]:
    """What some layers' heads take, so many at a time; beside: bytes that exist as long as these layers run."""
    more = ", and gradients of the groups' streams" if beside else ""
    found = []
    for heads, kind in kinds(step.model, layers):
        what = f"{min(heads, group(step.model))} {kind} heads at a time{more}"
        found.append(Item("attention", beside + attention_bytes(step, heads, kind), what))
    return found


def count_parameters(config: ReformerConfig) -> int:
    """Of the whole model."""
    return _counts(config)[0]


def optimizer_bytes(config: ReformerConfig, optimizer: str) -> int:
    """Of its state."""
    weights, hidden, factors = _counts(config)
    return {"adamw": 8 * weights, "muon": 8 * weights - 4 * hidden, "adafactor": 4 * factors}[optimizer]


OPTIMIZER_STATES = {
    "adamw": "two moments in float32",
    "muon": "one moment of the layers' matrices, two of the rest, in float32",
    "adafactor": "means of rows and columns, in float32",
}
Counts = tuple[int, int, int]  # parameters; those in matrices of layers; rows and columns of matrices, and the rest


def _counts(config: ReformerConfig) -> Counts:
    """Layers repeat: deep models are counted from shallow ones."""
    if config.shorten > 1:  # layers are alike on tokens and on groups; what lies between is counted by itself
        small = replace(config, n_layers=1, layers_before=0, layers_after=0)
        parts = (_counts(replace(config, shorten=1)), _count(small), _count(replace(small, shorten=1)))
        found = [a + b - c for a, b, c in zip(*parts, strict=True)]
        return found[0], found[1], found[2]
    period = len(config.layers)
    repeats, rest = divmod(config.n_layers, period)
    if repeats < 2:
        return _count(config)
    one, two, end = (_count(replace(config, n_layers=n)) for n in (period, 2 * period, period + rest))
    found = [e + (repeats - 1) * (b - a) for a, b, e in zip(one, two, end, strict=True)]
    return found[0], found[1], found[2]


@lru_cache(maxsize=256)
def _count(config: ReformerConfig) -> Counts:
    with torch.device("meta"):
        named = list(ReformerLM(config).named_parameters())
    hidden = sum(p.numel() for name, p in named if is_hidden_matrix(name, p))
    factors = sum(sum(p.shape) if p.dim() == 2 else p.numel() for _, p in named)
    return sum(p.numel() for _, p in named), hidden, factors


def kinds(c: ReformerConfig, layers: Iterable[int]) -> list[tuple[int, str]]:
    """(heads, kind) of the branches of attention that some of the layers have."""
    found: set[tuple[int, str]] = set()
    for layer in {c.layers[n % len(c.layers)] for n in layers}:
        local, lsh = {"mixed": c.head_split, "lsh": (0, c.n_heads)}.get(layer, (c.n_heads, 0))
        found |= {(local, "full" if layer == "full" else "local")} if local else set()
        found |= {(lsh, "LSH")} if lsh else set()
    return sorted(found)


def group(c: ReformerConfig) -> int:
    """Heads worked on together at most."""
    return c.head_group or c.n_heads


def attention_bytes(step: Step, heads: int, kind: str) -> int:
    """Of one group of heads in backward: parts, output, the gradients of both, what sorts them, and scores."""
    c, low = step.model, step.low
    rows = step.tokens * min(heads, group(c))
    parts = 2 if kind == "LSH" else 3
    rounds = c.n_hashes + far_rounds(step) if kind == "LSH" else 1
    vectors = parts * low + low  # the output's gradient comes in its place
    if c.pattern == "published":  # keys are made of queries, or scaled, under autograd
        vectors += (4 if kind == "LSH" else 2) * low
    if kind == "full":
        vectors += low
    if kind == "LSH" and c.key_tokens > 1:  # the keys, beside what they are made of, and a gradient more
        vectors += 2 * low
    if rounds > 1:  # added up in float32, then brought to the products' type one after the other
        vectors += parts * 4 + (low if low == 2 else 0)
    else:
        reused = step.native and kind == "local"  # C puts the queries' gradients in the queries' place
        vectors += (parts - reused) * low
    indices = 4 + 4 + rounds * (8 + 4 + 4)
    kept = step.tokens * c.d_model <= KEPT
    graph = step.tokens * (low + 4) * c.d_model + rows * c.d_head * parts * low if kept else 0
    scores = 0 if step.native else 6 * 4 * SCORES_AT_ONCE
    return rows * (c.d_head * vectors + indices) + graph + scores


def kept_bytes(step: Step) -> int:
    """Of the graphs that forward leaves to backward; 0 where it makes them again."""
    c = step.model
    size = step.tokens * graph_bytes(c, 4)
    fits = step.tokens <= c.workspace_tokens and size <= MOST_KEPT_ACTIVATIONS
    return step.tokens * graph_bytes(c, 4, step.low) if fits else 0


def feed_forward_bytes(step: Step) -> int:
    """Of a slice in backward: input and its gradient in float32, the rest in the products' type."""
    c = step.model
    tokens, d_ff = min(c.workspace_tokens, step.tokens), c.d_ff or 4 * c.d_model
    plain = c.feed_forward == "squared_relu" and c.norm == "rms"
    wide = 3 if plain else 8 if c.feed_forward == "swiglu" else 5
    return tokens * (c.d_model * (2 * 4 + 4 * step.low) + d_ff * wide * step.low)


def head_bytes(step: Step) -> int:
    """Of a slice: logits, squashed and not, their softmax, and the gradients of each, in float32."""
    c = step.model
    return min(c.workspace_tokens, step.tokens) * 4 * (5 * c.vocab_size + 3 * c.d_model)


def far_rounds(step: Step) -> int:
    """1 where training has the far round."""
    return int(step.model.has_far_round and not step.model.trains_near(step.context))


def routing_bytes(step: Step) -> int:
    """Over all layers: the smallest integers that hold a bucket, for each token or group."""
    c = step.model
    n = max(c.round_buckets) if far_rounds(step) else c.round_buckets[-1]
    width = 1 if n <= 256 else 2 if n <= 2**15 else 4
    rounds = c.n_hashes + far_rounds(step)
    hashed = 0
    for i in range(c.n_layers):
        heads = {"mixed": c.head_split[1], "lsh": c.n_heads}.get(c.layers[i % len(c.layers)], 0)
        hashed += heads * step.rows * (step.context // c.shorten if i in c.group_layers else step.context)
    return width * rounds * hashed


def largest_context(step: Step, memory: int) -> int:
    """Most tokens of context that fit, in steps of CONTEXT_STEP; 0 if none do."""
    limit = step.model.max_length or MOST_CONTEXT
    most = limit // CONTEXT_STEP
    return CONTEXT_STEP * _largest(most, lambda n: replace(step, context=n * CONTEXT_STEP).total <= memory)


def largest_depth(step: Step, memory: int) -> int:
    """Most layers that fit; 0 if none do."""
    model = step.model
    least = model.layers_before + model.layers_after + 1 if model.shorten > 1 else 1

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
