"""Layer kinds: what attends in a layer. A new kind is a file here and a row in KINDS."""

from __future__ import annotations

from collections.abc import Callable

from reformer.attention.base import Attention
from reformer.attention.chunked import PublishedLocalHeads, PublishedLSHHeads
from reformer.attention.full import FullHeads
from reformer.attention.local import LocalHeads
from reformer.attention.lsh import LSHHeads
from reformer.config import LayerKind, Pattern, ReformerConfig

HeadsOf = Callable[[ReformerConfig, int], Attention]
# pattern -> (local heads, LSH heads)
PATTERNS: dict[Pattern, tuple[HeadsOf, HeadsOf]] = {
    "recent": (LocalHeads, LSHHeads),
    "published": (PublishedLocalHeads, PublishedLSHHeads),
}
# kind -> the branches of its attention, given the heads of the pattern
KINDS: dict[LayerKind, Callable[[ReformerConfig, HeadsOf, HeadsOf], list[Attention]]] = {
    "mixed": lambda c, local, lsh: [local(c, c.head_split[0]), lsh(c, c.head_split[1])],
    "local": lambda c, local, lsh: [local(c, c.n_heads)],
    "lsh": lambda c, local, lsh: [lsh(c, c.n_heads)],
    "full": lambda c, local, lsh: [FullHeads(c, c.n_heads)],
}


def make_attention(config: ReformerConfig, layer: int) -> list[Attention]:
    """The attention branches of a layer."""
    return KINDS[config.layers[layer % len(config.layers)]](config, *PATTERNS[config.pattern])
