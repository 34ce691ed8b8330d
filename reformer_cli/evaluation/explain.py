"""What each token was drawn from: the earlier places that a model's hashed heads read when they gave it.

`explain(model, ids, first)` -> for each token from `first` on, a list of Read (position, distance, weight), most read
first; it prints nothing. Dense, by the definitions that attention is tested against: for texts of some thousand tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from reformer import ReformerLM
from torch import Tensor

from reformer_cli.evaluation.hash_view import LayerView, look

MOST = 3  # places of a token
LEAST = 0.01  # of the attention, below which a place is not told of


@dataclass(frozen=True)
class Read:
    """A token that was read: where it is, how many before the one that came of it, and its share of the attention of
    all hashed heads. What was read there is the token after it: that is what a hashed head's values are."""

    position: int
    distance: int
    weight: float


def explain(model: ReformerLM, ids: Tensor, first: int, most: int = MOST) -> list[list[Read]]:
    """Of tokens int64 [n], those from `first` >= 1 on; empty lists for a model without hashed heads."""
    n = len(ids)
    total, heads = torch.zeros(n, n), 0

    def add(view: LayerView) -> None:
        nonlocal heads
        if view.tokens == 1:  # layers on groups read groups
            total.add_(view.weights.sum(0).cpu())
            heads += view.scores.shape[0]

    look(model, ids.to(model.embedding.device), add)
    best = (total / max(1, heads)).topk(min(most, n), -1)
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    found = [
        [Read(at, row + 1 - at, w) for w, at in zip(*pair, strict=True) if w >= LEAST] for row, pair in enumerate(rows)
    ]
    return found[first - 1 : n - 1]  # what a token was drawn from was read at the one before it
