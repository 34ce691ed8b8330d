"""What a model is: one frozen dataclass with every default. It validates itself and imports no torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from typing_extensions import Self

LayerKind = Literal["mixed", "lsh", "local", "full"]
Pattern = Literal["recent", "published"]
Backend = Literal["auto", "torch", "native", "triton"]

# Bytes of activations that training may keep for backward, where a step is one slice; beyond, they are made again:
# slower, the same bits, memory independent of depth.
MOST_KEPT_ACTIVATIONS = 256 * 2**20


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=False))
class ReformerConfig:
    """Sizes and choices of a model. Raises pydantic.ValidationError (a ValueError) naming every fault."""

    vocab_size: int = Field(ge=2, le=2**20, description="number of tokens, special ones included")
    d_model: int = Field(default=256, ge=1, le=2**16, description="width of each of the two residual streams")
    n_layers: int = Field(default=6, ge=1, le=1024, description="pairs of attention and feed-forward")
    n_heads: int = Field(default=4, ge=1, le=1024, description="attention heads of a layer")
    lsh_heads: int | None = Field(
        default=None, ge=1, description="heads of a mixed layer that look by hash; null: a quarter, at least one"
    )
    d_head: int = Field(default=64, ge=2, le=1024, description="width of a head")
    d_ff: int | None = Field(default=None, ge=1, description="width of the feed-forward layer; null: 4 x d_model")
    layers: tuple[LayerKind, ...] = Field(
        default=("mixed",),
        min_length=1,
        description="attention kinds, cycled over the layers: mixed (local and LSH heads), lsh, local, full",
    )
    shorten: int = Field(
        default=1,
        ge=1,
        le=256,
        description="tokens of a group: above 1, the middle layers run on groups, which takes less time and reaches "
        "further; any length is right",
    )
    layers_before: int = Field(
        default=1, ge=0, le=1024, description="shorten above 1: the first of the n_layers, which run on tokens"
    )
    layers_after: int = Field(
        default=1, ge=0, le=1024, description="shorten above 1: the last of the n_layers, which run on tokens"
    )
    pattern: Pattern = Field(
        default="recent",
        description="what heads see: recent (the last ones of each bucket; causal) or published (chunks, as released; "
        "documents of one context see each other)",
    )
    local_window: int = Field(
        default=64,
        ge=1,
        le=2**20,
        description="tokens a local head sees, itself included; pattern published: length of its chunks",
    )
    key_tokens: int = Field(
        default=3,
        ge=1,
        le=16,
        description="most recent tokens that a hashed vector is made of, so that a match is a context; published: 1",
    )
    n_hashes: int = Field(default=2, ge=1, le=64, description="hash rounds of an LSH head, beside the far one")
    windows: tuple[int, ...] = Field(
        default=(64,),
        min_length=1,
        description="most recent tokens of a bucket that a round sees, cycled over rounds; published: chunk length",
    )
    n_buckets: tuple[int, ...] = Field(
        default=(64, 64), min_length=1, description="buckets of a round, as even factors: [64, 128] means 8,192"
    )
    far_round: bool | None = Field(
        default=None,
        description="the n_hashes rounds have all factors of n_buckets but the last, and catch what is alike; one more "
        "has all of them, and finds what is the same from further off. Training on contexts that the others look back "
        "over leaves it out. null: with pattern: recent and several factors, which it needs",
    )
    backend: Backend = Field(
        default="auto",
        description="native (C, compiled on first use for this CPU), triton (kernels for a GPU), torch (PyTorch alone) "
        "or auto: what can be",
    )
    feed_forward: Literal["squared_relu", "relu", "gelu", "gelu_tanh", "swiglu"] = Field(
        default="squared_relu",
        description="non-linearity of the feed-forward layer; gelu_tanh: gelu as the original approximates it",
    )
    norm: Literal["rms", "layer"] = Field(
        default="rms", description="rms (no parameters, no biases in the layer) or layer (as published, with biases)"
    )
    norm_epsilon: float = Field(default=1e-12, gt=0, lt=1, description="norm: layer adds this to the variance")
    positions: Literal["rotary", "axial", "none"] = Field(
        default="rotary", description="rotary (local and full heads, any length), axial (added, as published), or none"
    )
    axial_shape: tuple[int, ...] = Field(
        default=(512, 1024), description="axial positions: the grid; its product is the length"
    )
    axial_dims: tuple[int, ...] = Field(
        default=(64, 192), description="axial positions: widths per axis; their sum is d_model"
    )
    columns: int | None = Field(
        default=None,
        ge=0,
        le=4096,
        description="what a token starts as says how many characters its line has so far, up to this many; the "
        "tokenizer's lengths are saved with the weights; 0: it does not; null: with pattern: recent, train chooses by "
        "the lines of the text, and nothing else does",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of each sub-layer's outputs dropped while training"
    )
    merge: Literal["sum", "concat"] = Field(default="sum", description="how the two streams meet at the head")
    head_bias: bool = Field(
        default=True, description="norm: layer has a bias on the logits, as published; transformers 5 adds none"
    )
    softcap: float = Field(default=20.0, ge=0, description="logits are squashed into +-softcap by tanh; 0 leaves them")
    stream_bits: int = Field(default=16, ge=8, le=26, description="residual streams count in units of 2^-stream_bits")
    gradient_streams: Literal["full", "bfloat16"] = Field(
        default="full", description="gradients of the streams: as wide as the weights, or half of it, and rounded"
    )
    head_group: int | None = Field(
        default=None, ge=1, description="attention heads worked on together; null: all; fewer need less memory"
    )
    workspace_tokens: int = Field(
        default=4_096, ge=64, description="tokens that feed-forward, head and loss work on at a time"
    )
    seed: int = Field(
        default=0,
        ge=-(2**63),
        lt=2**64,
        description="draws the weights and the hash rotations; pattern published: the same for all layers, as "
        "transformers draws them",
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
        for name in ("windows", "n_buckets", "axial_shape", "axial_dims"):
            if any(value < 1 for value in getattr(self, name)):
                found.append(f"{name} {list(getattr(self, name))} must all be at least 1")
        if odd := [n for n in self.n_buckets if n % 2]:
            found.append(f"n_buckets factors must be even (a hash has two directions per projection), not {odd}")
        if "mixed" in self.layers and self.n_heads < 2:
            found.append("layers: mixed needs n_heads >= 2 (one local, one LSH); use layers: [lsh] or [local]")
        elif self.lsh_heads is not None and self.lsh_heads >= self.n_heads:
            found.append(
                f"lsh_heads {self.lsh_heads} must be below n_heads {self.n_heads}; for LSH alone use layers: [lsh]"
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
        if self.far_round and len(self.n_buckets) < 2:
            found.append(f"far_round needs n_buckets of several factors, not {list(self.n_buckets)}")
        if self.pattern == "published":
            wrong = [f"key_tokens: {self.key_tokens} (1)"] if self.key_tokens > 1 else []
            wrong += ["layers: full"] if "full" in self.layers else []
            wrong += [f"positions: {self.positions} (axial or none)"] if self.positions == "rotary" else []
            wrong += [f"windows: {list(self.windows)} (one length)"] if len(self.windows) > 1 else []
            wrong += [f"columns: {self.columns} (0)"] if self.columns else []
            wrong += ["far_round: true (false or null)"] if self.far_round else []
            wrong += ["backend: native (auto or torch)"] if self.backend == "native" else []
            wrong += [f"shorten: {self.shorten} (1)"] if self.shorten > 1 else []
            if wrong:
                found.append(f"pattern published does not go with {', '.join(wrong)}")
        if self.shorten > 1 and self.layers_before + self.layers_after >= self.n_layers:
            found.append(
                f"layers_before {self.layers_before} and layers_after {self.layers_after} leave none of n_layers "
                f"{self.n_layers} for groups of shorten {self.shorten} tokens"
            )
        return found

    @property
    def head_split(self) -> tuple[int, int]:
        """(local, LSH) heads of a mixed layer."""
        lsh = self.lsh_heads if self.lsh_heads is not None else max(1, self.n_heads // 4)
        return self.n_heads - lsh, lsh

    @property
    def has_far_round(self) -> bool:
        """Whether one more hash round than n_hashes looks further back."""
        return self.pattern == "recent" and len(self.n_buckets) > 1 if self.far_round is None else self.far_round

    @property
    def round_buckets(self) -> list[int]:
        """Buckets of each hash round; the far one, if any, comes first."""
        far, buckets = self.has_far_round, math.prod(self.n_buckets)
        return [buckets] * far + [buckets // self.n_buckets[-1] if far else buckets] * self.n_hashes

    @property
    def round_windows(self) -> list[int]:
        """Window of each hash round."""
        windows = [self.windows[r % len(self.windows)] for r in range(self.n_hashes)]
        return [windows[0]] * self.has_far_round + windows

    @property
    def look_back(self) -> int:
        """About how many tokens back hashed heads find anything, where all buckets are used alike: those of a bucket's
        window, in every bucket."""
        return self.shorten * max(n * w for n, w in zip(self.round_buckets, self.round_windows, strict=True))

    def trains_near(self, length: int) -> bool:
        """Whether training on contexts of this many rows leaves the far round out: where the others look back over all
        of them, its finer buckets could only see less."""
        others = zip(self.round_buckets[1:], self.round_windows[1:], strict=True)
        return self.has_far_round and length <= min(n * w for n, w in others)

    @property
    def group_layers(self) -> range:
        """The layers that run on groups of `shorten` tokens."""
        return range(self.layers_before, self.n_layers - self.layers_after) if self.shorten > 1 else range(0)

    @property
    def _chunks(self) -> list[int]:
        """Pattern published: the lengths of the chunks that its layers have."""
        kinds = set(self.layers)
        local = [self.local_window] if kinds & {"mixed", "local"} else []
        return local + ([self.windows[0]] if kinds & {"mixed", "lsh"} else [])

    @property
    def chunk_multiple(self) -> int:
        """Pattern published: the length is padded to a multiple of this, the common multiple of all chunks."""
        return math.lcm(*self._chunks)

    def hashes(self, length: int) -> bool:
        """Pattern published: whether an LSH layer hashes a text of this length, which is more than a chunk."""
        padded = length if length <= min(self._chunks) else -(-length // self.chunk_multiple) * self.chunk_multiple
        return padded > self.windows[0]

    @property
    def max_length(self) -> int | None:
        """Longest text the positions can number; None where there is no limit."""
        if self.positions != "axial":
            return None
        length = 1
        for size in self.axial_shape:
            length *= size
        return length


def field_descriptions() -> dict[str, str]:
    """Name of each field -> its sentence, for generated documentation."""
    fields: dict[str, FieldInfo] = vars(ReformerConfig)["__pydantic_fields__"]
    return {name: info.description or "" for name, info in fields.items()}
