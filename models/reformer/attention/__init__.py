"""Layer kinds: what attends in a layer. A new kind is a file here and a row in KINDS."""

from __future__ import annotations

from reformer.attention.base import Attention
from reformer.attention.chunked import ChunkedLocalAttention, ChunkedLSHAttention
from reformer.attention.full import FullAttention
from reformer.attention.local import LocalAttention
from reformer.attention.lsh import LSHAttention
from reformer.config import AttentionKind, ReformerConfig

KINDS: dict[AttentionKind, type[Attention]] = {
    "local": LocalAttention,
    "lsh": LSHAttention,
    "full": FullAttention,
    "chunked_local": ChunkedLocalAttention,
    "chunked_lsh": ChunkedLSHAttention,
}


def sublayers(config: ReformerConfig, layer: int) -> list[tuple[type[Attention], int]]:
    """The attention sub-layers of a layer: (kind, heads). A mixed layer has two."""
    kind = config.attn_layers[layer % len(config.attn_layers)]
    if kind == "mixed":
        return list(zip((LocalAttention, LSHAttention), config.head_split, strict=True))
    return [(KINDS[kind], config.n_heads)]
