"""Layer kinds: what attends in a layer. A new kind is a file here and a row in KINDS."""

from __future__ import annotations

from collections.abc import Callable

from reformer.attention.full import FullHeads
from reformer.attention.local import LocalHeads
from reformer.attention.lsh import LSHHeads
from reformer.branch import Branch
from reformer.config import LayerKind, ReformerConfig

KINDS: dict[LayerKind, Callable[[ReformerConfig], list[Branch]]] = {
    "mixed": lambda c: [LocalHeads(c, c.head_split[0]), LSHHeads(c, c.head_split[1])],
    "local": lambda c: [LocalHeads(c, c.n_heads)],
    "lsh": lambda c: [LSHHeads(c, c.n_heads)],
    "full": lambda c: [FullHeads(c, c.n_heads)],
}
