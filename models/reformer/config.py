"""What a model is: one frozen dataclass with every default. It validates itself and imports no torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import ConfigDict, Field, NonNegativeInt, model_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Self

AttentionKind = Literal["mixed", "local", "lsh", "full", "chunked_local", "chunked_lsh"]
CHUNKED = ("chunked_local", "chunked_lsh")
Backend = Literal["auto", "torch", "native", "triton"]

# Bytes of activations that training may keep for backward, where a step is one slice; beyond, they are made again:
# slower, the same bits, memory independent of depth.
MOST_KEPT_ACTIVATIONS = 256 * 2**20
FAR_TIMES = 64  # buckets of the far round where nobody says how many: times those of the others


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=False))
class ReformerConfig:
    """Sizes and choices of a model. Raises pydantic.ValidationError (a ValueError) naming every fault."""

    vocab_size: int = Field(ge=2, le=2**20, description="number of tokens, special ones included")
    d_model: int = Field(default=256, ge=1, le=2**16, description="width of each of the two residual streams")
    n_layers: int = Field(default=6, ge=1, le=1024, description="pairs of attention and feed-forward")
    n_heads: int = Field(default=4, ge=1, le=1024, description="attention heads of a layer")
    n_lsh_heads: int | None = Field(
        default=None, ge=1, description="heads of a mixed layer that look by hash; null: a quarter, at least one"
    )
    d_head: int = Field(default=64, ge=2, le=1024, description="width of a head")
    d_ff: int | None = Field(default=None, ge=1, description="width of the feed-forward layer; null: 4 x d_model")
    attn_layers: tuple[AttentionKind, ...] = Field(
        default=("mixed",),
        min_length=1,
        description="attention of the layers, cycled: mixed (local and LSH heads), local, lsh, full; or the released "
        "checkpoints', chunked_local and chunked_lsh (documents of one context see each other)",
    )
    shorten_factor: int = Field(
        default=1,
        ge=1,
        le=256,
        description="tokens of a group: above 1, the middle layers run on groups, which takes less time and reaches "
        "further; any length is right",
    )
    vanilla_layers: tuple[NonNegativeInt, NonNegativeInt] = Field(
        default=(1, 1), description="shorten_factor above 1: how many of the first and of the last layers run on tokens"
    )
    local_window: int = Field(
        default=64, ge=1, le=2**20, description="tokens a local head sees, itself included; chunked_local: of a chunk"
    )
    lsh_window: int = Field(
        default=64,
        ge=1,
        le=2**30,
        description="most recent tokens of a bucket that a hash round sees; chunked_lsh: tokens of a chunk",
    )
    lsh_key_conv: int = Field(
        default=3,
        ge=1,
        le=16,
        description="lsh: most recent tokens that a hashed vector is made of, so that a match is a context",
    )
    n_hashes: int = Field(default=2, ge=1, le=64, description="hash rounds of an LSH head, beside the far one")
    n_buckets: tuple[int, ...] = Field(
        default=(64,), min_length=1, description="buckets of a round, as even factors: [64, 128] means 8,192"
    )
    far_buckets: int | None = Field(
        default=None,
        ge=0,
        description="lsh: buckets of one more round, which finds what is the same from further off; training on "
        f"contexts that the others look back over leaves it out; null: {FAR_TIMES} times the others', 0: no such round",
    )
    backend: Backend = Field(
        default="auto",
        description="native (C, compiled on first use for this CPU), triton (kernels for a GPU), torch (PyTorch alone) "
        "or auto: what can be",
    )
    activation: Literal["squared_relu", "relu", "gelu", "gelu_tanh", "swiglu"] = Field(
        default="squared_relu",
        description="non-linearity of the feed-forward layer; gelu_tanh: gelu as the original approximates it",
    )
    block_style: Literal["modern", "published"] = Field(
        default="modern",
        description="modern: RMS norm without parameters, no biases, the head reads the sum of the streams, logits "
        "softcapped at 20; published: LayerNorm and biases, both streams side by side at the head, no softcap",
    )
    norm_epsilon: float = Field(
        default=1e-12, gt=0, lt=1, description="block_style published: LayerNorm adds this to the variance"
    )
    positions: Literal["rotary", "axial", "none"] = Field(
        default="rotary", description="rotary (local and full heads, any length), axial (added, as published), or none"
    )
    axial_shape: tuple[int, ...] = Field(
        default=(512, 1024), description="axial positions: the grid; its product is the length"
    )
    axial_dims: tuple[int, ...] = Field(
        default=(64, 192), description="axial positions: widths per axis; their sum is d_model"
    )
    line_positions: int | None = Field(
        default=None,
        ge=0,
        le=4096,
        description="what a token starts as says how many characters its line has so far, up to this many; the "
        "tokenizer's lengths are saved with the weights; 0: it does not; null: train chooses by the lines of the text "
        "where attention is not chunked, and nothing else does",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of each sub-layer's outputs dropped while training"
    )
    stream_bits: int = Field(default=16, ge=8, le=26, description="residual streams count in units of 2^-stream_bits")
    gradient_dtype: Literal["full", "bfloat16"] = Field(
        default="full", description="gradients of the streams: as wide as the weights, or half of it, and rounded"
    )
    chunk_heads: int | None = Field(
        default=None, ge=1, description="attention heads worked on together; null: all; fewer need less memory"
    )
    chunk_tokens: int = Field(
        default=4_096, ge=64, description="tokens that feed-forward, head and loss work on at a time"
    )
    seed: int = Field(
        default=0,
        ge=-(2**63),
        lt=2**64,
        description="draws the weights and the hash rotations; chunked_lsh: the same for all layers, as transformers "
        "draws them",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        faults = self.faults()
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def faults(self) -> list[str]:
        """Combinations that cannot work, each as one sentence with its numbers."""
        found = []
        for name in ("n_buckets", "axial_shape", "axial_dims"):
            if any(value < 1 for value in getattr(self, name)):
                found.append(f"{name} {list(getattr(self, name))} must all be at least 1")
        if odd := [n for n in self.n_buckets if n % 2]:
            found.append(f"n_buckets factors must be even (a hash has two directions per projection), not {odd}")
        if "mixed" in self.attn_layers and self.n_heads < 2:
            found.append("attn_layers: mixed needs n_heads >= 2 (one local, one LSH); else use [lsh] or [local]")
        elif self.n_lsh_heads is not None and self.n_lsh_heads >= self.n_heads:
            found.append(
                f"n_lsh_heads {self.n_lsh_heads} must be below n_heads {self.n_heads}; for LSH alone use attn_layers: "
                "[lsh]"
            )
        if self.positions == "rotary" and self.d_head % 2:
            found.append(f"rotary positions need an even d_head, not {self.d_head}")
        if self.positions == "axial":
            if sum(self.axial_dims) != self.d_model:
                found.append(
                    f"axial_dims {list(self.axial_dims)} sum to {sum(self.axial_dims)}, not d_model {self.d_model}"
                )
            if len(self.axial_dims) != len(self.axial_shape):
                found.append(
                    f"axial_dims {list(self.axial_dims)} and axial_shape {list(self.axial_shape)} differ in length"
                )
        found += self.far_faults(self.far_buckets or 0)
        if self.chunked:
            wrong = [f"attn_layers: {kind}" for kind in dict.fromkeys(self.attn_layers) if kind not in CHUNKED]
            wrong += ["positions: rotary (axial or none)"] if self.positions == "rotary" else []
            wrong += [f"line_positions: {self.line_positions} (0)"] if self.line_positions else []
            wrong += ["backend: native (auto or torch)"] if self.backend == "native" else []
            wrong += [f"shorten_factor: {self.shorten_factor} (1)"] if self.shorten_factor > 1 else []
            if wrong:
                found.append(f"attention in chunks does not go with {', '.join(wrong)}")
        if self.shorten_factor > 1 and sum(self.vanilla_layers) >= self.n_layers:
            found.append(
                f"vanilla_layers {list(self.vanilla_layers)} leave none of n_layers {self.n_layers} for groups of "
                f"shorten_factor {self.shorten_factor} tokens"
            )
        return found

    def far_faults(self, buckets: int) -> list[str]:
        """Why so many buckets cannot be the far round's."""
        near = math.prod(self.n_buckets)
        if near < 1 or (buckets % near == 0 and buckets // near % 2 == 0):
            return []
        return [
            f"far_buckets {buckets:,} is no even multiple of the {near:,} buckets that the other hash rounds have; "
            f"such as {8 * near:,}; 0 leaves the far round out"
        ]

    @property
    def head_split(self) -> tuple[int, int]:
        """(local, LSH) heads of a mixed layer."""
        lsh = self.n_lsh_heads if self.n_lsh_heads is not None else max(1, self.n_heads // 4)
        return self.n_heads - lsh, lsh

    @property
    def chunked(self) -> bool:
        """Whether heads see chunks of the sorted sequence, as released; all layers then do."""
        return any(kind in CHUNKED for kind in self.attn_layers)

    @property
    def hash_factors(self) -> tuple[int, ...]:
        """Factors of the finest hash: those of n_buckets, then how often the far round, if any, splits each bucket."""
        near = math.prod(self.n_buckets)
        far = FAR_TIMES * near if self.far_buckets is None else self.far_buckets
        return (*self.n_buckets, far // near) if far and not self.chunked else self.n_buckets

    @property
    def has_far_round(self) -> bool:
        """Whether one more hash round than n_hashes looks further back."""
        return len(self.hash_factors) > len(self.n_buckets)

    @property
    def hash_rounds(self) -> list[int]:
        """Buckets of each hash round; the far one, if any, comes first."""
        return [math.prod(self.hash_factors)] * self.has_far_round + [math.prod(self.n_buckets)] * self.n_hashes

    @property
    def look_back(self) -> int:
        """About how many tokens back hashed heads find anything, where all buckets are used alike: those of a bucket's
        window, in every bucket."""
        return self.shorten_factor * max(self.hash_rounds) * self.lsh_window

    def skips_far_round(self, length: int) -> bool:
        """Whether training on contexts of this many rows leaves the far round out: where the others look back over all
        of them, its finer buckets could only see less."""
        return self.has_far_round and length <= math.prod(self.n_buckets) * self.lsh_window

    @property
    def group_layers(self) -> range:
        """The layers that run on groups of `shorten_factor` tokens."""
        first, last = self.vanilla_layers
        return range(first, self.n_layers - last) if self.shorten_factor > 1 else range(0)

    @property
    def _chunks(self) -> list[int]:
        """Chunked kinds: the lengths of the chunks that its layers have."""
        lengths = {"chunked_local": self.local_window, "chunked_lsh": self.lsh_window}
        return [lengths[kind] for kind in CHUNKED if kind in self.attn_layers]

    @property
    def chunk_multiple(self) -> int:
        """Chunked kinds: the length is padded to a multiple of this, the common multiple of all chunks."""
        return math.lcm(*self._chunks)

    def hashes(self, length: int) -> bool:
        """Chunked kinds: whether an LSH layer hashes a text of this length, which is more than a chunk."""
        padded = length if length <= min(self._chunks) else -(-length // self.chunk_multiple) * self.chunk_multiple
        return padded > self.lsh_window

    @property
    def max_length(self) -> int | None:
        """Longest text the positions can number; None where there is no limit."""
        if self.positions != "axial":
            return None
        return math.prod(self.axial_shape)

    def check_length(self, tokens: int) -> None:
        """Raises ValueError for a text of more tokens than the positions can number."""
        if (limit := self.max_length) is not None and tokens > limit:
            raise ValueError(f"{tokens:,} tokens exceed the {limit:,} positions of this model")
