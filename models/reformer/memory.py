"""What a training step and a decoding state hold in memory, item by item, from the settings alone (docs/memory.md)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from reformer.attention import sublayers
from reformer.attention.local import LocalAttention
from reformer.attention.lsh import LSHAttention
from reformer.config import MOST_KEPT_ACTIVATIONS, ReformerConfig
from reformer.reversible.coupling import KEPT
from reformer.reversible.loss import LOGITS
from reformer.reversible.sequence import AT_ONCE, graph_bytes

FUSED_WIDTHS = (16, 32, 64, 128)  # of heads, as attention/fused.py has them


@dataclass(frozen=True)
class Item:
    """One thing that is held, in bytes, and what it is made of."""

    name: str
    size: int
    what: str


@dataclass(frozen=True)
class Pass:
    """A training pass over `rows` contexts at once. low: bytes of a number that products are taken of; native: whether
    C does what lies between the products; gpu: whether Triton does."""

    config: ReformerConfig
    rows: int
    context: int
    low: int
    native: bool
    gpu: bool = False

    @property
    def tokens(self) -> int:
        return self.rows * self.context

    def length(self, layer: int) -> int:
        """Rows of a context that a layer runs on: tokens, or groups of them."""
        c = self.config
        return self.context // c.shorten_factor if layer in c.group_layers else self.context

    def items(self, parameters: int) -> list[Item]:
        """What exists throughout it, and the most that exists beside it for a moment. parameters: of the model."""
        c, n = self.config, self.tokens
        half = 2 if c.gradient_dtype == "bfloat16" else 4
        groups = self.rows * (self.context // c.shorten_factor) if c.group_layers else 0
        moments = self._fused_moments() if self.is_fused else self._sliced_moments(half, groups)
        moments.append(Item("handing over", 4 * parameters, "the parameters' gradients again, as autograd takes them"))
        found = [
            Item("streams", 8 * n * c.d_model, "2 x int32 x tokens x d_model, whatever the depth"),
            Item("their gradients", 2 * half * n * c.d_model, f"2 x {8 * half} bits x tokens x d_model"),
            Item("buckets", self.bucket_bytes(), "of every layer's hash, kept for backward"),
            Item("text", 4 * 8 * n, "tokens, targets and what indexes them"),
            max(moments, key=lambda item: item.size),
        ]
        if groups:
            size = 8 * groups * c.d_model
            found.append(Item("groups", size, f"their 2 streams: 1 / {c.shorten_factor} of the tokens'"))
        if kept := self.graph_bytes():
            found.append(Item("activations", kept, "of all layers, kept for backward: a step is one slice"))
        return found

    def _sliced_moments(self, half: int, groups: int) -> list[Item]:
        """What layers and head take for a moment, slice by slice."""
        c = self.config
        found = self._attention(set(range(c.n_layers)) - set(c.group_layers), 0)
        found += self._attention(c.group_layers, 2 * half * groups * c.d_model)
        of_a_slice = f"a slice of {c.chunk_tokens:,} tokens"
        found.append(Item("feed-forward", self._feed_forward(), of_a_slice))
        return [*found, Item("head and loss", self._head(), of_a_slice)]

    @property
    def is_fused(self) -> bool:
        """Whether layers run as reversible/fused.py has them."""
        c = self.config
        kinds = {kind for layer in range(c.n_layers) for kind, _ in sublayers(c, layer)}
        plain = c.block_style == "modern" and c.activation == "squared_relu" and not c.group_layers
        return self.gpu and plain and c.d_head in FUSED_WIDTHS and kinds <= {LocalAttention, LSHAttention}

    def _fused_moments(self) -> list[Item]:
        """What they take for a moment, of the whole text."""
        c, n = self.config, self.tokens
        kept = max(max(self._kept(layer)) for layer in range(c.n_layers))
        logits = self.low * min(n * c.vocab_size, LOGITS) + 8 * c.vocab_size * c.d_model
        return [Item("layers", AT_ONCE * kept * n, "one of them at a time"), Item("head and loss", logits, "in slices")]

    def _kept(self, layer: int) -> tuple[int, int]:
        """Bytes a token of what backward wants of a layer's heads, and of its feed-forward."""
        c, heads = self.config, 0
        for kind, n in sublayers(c, layer):
            heads += n * c.d_head * (kind.parts + 1 + bool(kind.rounds(c, 1))) * self.low
        return heads + c.d_model * self.low, (c.d_model + (c.d_ff or 4 * c.d_model)) * self.low

    def _attention(self, layers: Collection[int], beside: int) -> list[Item]:
        """What some layers' heads take, so many at a time; beside: bytes that exist as long as these layers run."""
        c = self.config
        more = ", and gradients of the groups' streams" if beside else ""
        found = {}
        for layer in layers:
            for kind, heads in sublayers(c, layer):
                together, length = min(heads, c.chunk_heads or c.n_heads), self.length(layer)
                size = beside + kind.train_bytes(c, self.rows * length * together, length, self.low, self.native)
                if (tokens := self.rows * length) * c.d_model <= KEPT:
                    graph = (self.low + 4) * c.d_model + together * c.d_head * kind.parts * self.low
                    size += tokens * graph
                what = f"{together} heads of {kind.__name__} at a time{more}"
                found[kind, heads] = Item("attention", size, what)
        return list(found.values())

    def bucket_bytes(self) -> int:
        """Over all layers: the smallest integers that hold a bucket, for each token or group."""
        found = 0
        for layer in range(self.config.n_layers):
            for kind, heads in sublayers(self.config, layer):
                if rounds := kind.rounds(self.config, self.length(layer)):
                    most = max(rounds)
                    width = 1 if most <= 256 else 2 if most <= 2**15 else 4
                    found += width * len(rounds) * heads * self.rows * self.length(layer)
        return found

    def graph_bytes(self) -> int:
        """Of the graphs that forward leaves to backward; 0 where it makes them again."""
        c, n = self.config, self.tokens
        if n > c.chunk_tokens:
            return 0
        steps = 2 * c.n_layers
        share = min(steps, int(MOST_KEPT_ACTIVATIONS / n / graph_bytes(c, 4) * steps)) / steps
        return int(share * n * graph_bytes(c, 4, self.low))

    def kept_on_gpu(self) -> int:
        """Of all layers, about: what a GPU keeps for backward as far as it has room (reversible/fused.py)."""
        return self.rows * sum(self.length(layer) * sum(self._kept(layer)) for layer in range(self.config.n_layers))

    def _feed_forward(self) -> int:
        """Of a slice in backward: input and its gradient in float32, the rest in the products' type."""
        c = self.config
        tokens, d_ff = min(c.chunk_tokens, self.tokens), c.d_ff or 4 * c.d_model
        plain = c.activation == "squared_relu" and c.block_style == "modern"
        wide = 3 if plain else 8 if c.activation == "swiglu" else 5
        return tokens * (c.d_model * (2 * 4 + 4 * self.low) + d_ff * wide * self.low)

    def _head(self) -> int:
        """Of a slice: logits, squashed and not, their softmax, and the gradients of each, in float32."""
        c = self.config
        return min(c.chunk_tokens, self.tokens) * 4 * (5 * c.vocab_size + 3 * c.d_model)


def largest_state(config: ReformerConfig, tokens: int, batch: int) -> int:
    """Bytes that decoding may hold after so many tokens, in float32: an upper bound, exact for what grows."""
    c = config
    total = 2 * c.shorten_factor * c.d_model * 4 if c.shorten_factor > 1 else 0
    for layer in range(c.n_layers):
        rows = tokens // c.shorten_factor if layer in c.group_layers else tokens
        total += sum(kind.cache_bytes(c, heads, rows) for kind, heads in sublayers(c, layer))
    return batch * total
