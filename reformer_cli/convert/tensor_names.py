"""Which tensors of transformers' Reformer are which of ours: one table, read in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reformer import ReformerConfig

# Constants that older versions of transformers kept among the weights.
MASKS = ("mask_value_float16", "mask_value_float32", "self_mask_value_float16", "self_mask_value_float32")
# Of the output layer: transformers 4 adds it, transformers 5 has it and does not.
HEAD_BIASES = ("lm_head.bias", "lm_head.decoder.bias")


@dataclass(frozen=True)
class Row:
    """One of our tensors. theirs: the tensors whose rows, one after the other, are its rows, and their shapes."""

    ours: str
    theirs: tuple[tuple[str, tuple[int, ...]], ...]


def kind_of(config: ReformerConfig, layer: int) -> str:
    """local or lsh: the attention of a layer in chunks, as transformers names it."""
    return config.attn_layers[layer % len(config.attn_layers)].removeprefix("chunked_")


def rows(config: ReformerConfig) -> Iterator[Row]:
    """Every tensor of a model in chunks but rotations and the head's bias."""
    d, wide, inner = config.d_model, 2 * config.d_model, config.n_heads * config.d_head
    d_ff = config.d_ff or 4 * d
    yield _one("embedding", "reformer.embeddings.word_embeddings.weight", config.vocab_size, d)
    if config.positions == "axial":
        yield from _positions(config)
    for i in range(config.n_layers):
        there = f"reformer.encoder.layers.{i}."
        attention, feed = f"layers.{i}.0.", f"layers.{i}.1."
        yield from _norm(attention + "norm", there + "attention.layer_norm", d)
        parts = ("query_key", "value") if kind_of(config, i) == "lsh" else ("query", "key", "value")
        projections = tuple((f"{there}attention.self_attention.{part}.weight", (inner, d)) for part in parts)
        yield Row(attention + "project.weight", projections)
        yield _one(attention + "output.weight", there + "attention.output.dense.weight", d, inner)
        yield from _norm(feed + "norm", there + "feed_forward.layer_norm", d)
        yield _one(feed + "widen.weight", there + "feed_forward.dense.dense.weight", d_ff, d)
        yield _one(feed + "widen.bias", there + "feed_forward.dense.dense.bias", d_ff)
        yield _one(feed + "output.weight", there + "feed_forward.output.dense.weight", d, d_ff)
        yield _one(feed + "output.bias", there + "feed_forward.output.dense.bias", d)
    yield from _norm("head.norm", "reformer.encoder.layer_norm", wide)
    yield _one("head.weight", "lm_head.decoder.weight", config.vocab_size, wide)


def _positions(config: ReformerConfig) -> Iterator[Row]:
    """Axial tables, or with one axis the ordinary table of positions."""
    shape, there = config.axial_shape, "reformer.embeddings.position_embeddings."
    if len(shape) == 1:
        yield _one("axial.tables.0", there + "embedding.weight", *shape, config.d_model)
        return
    for axis, width in enumerate(config.axial_dims):
        spread = tuple(n if axis == other else 1 for other, n in enumerate(shape))
        yield _one(f"axial.tables.{axis}", f"{there}weights.{axis}", *spread, width)


def _norm(ours: str, theirs: str, width: int) -> Iterator[Row]:
    for name in ("weight", "bias"):
        yield _one(f"{ours}.{name}", f"{theirs}.{name}", width)


def _one(ours: str, theirs: str, *shape: int) -> Row:
    return Row(ours, ((theirs, shape),))
