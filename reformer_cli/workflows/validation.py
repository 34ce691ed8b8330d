"""How well a model that is being trained predicts what it is not trained on, and how evenly its hash fills buckets."""

from __future__ import annotations

from typing import Any

import torch
from reformer.analysis import hash_statistics

from reformer_cli.data.batches import ValidationWindow, ValidationWindows
from reformer_cli.evaluation.likelihood import Score, nats
from reformer_cli.evaluation.scorers import ContextRule
from reformer_cli.tokenizers.base import Tokenizer

STATISTICS_TOKENS, STATISTICS_NEAREST = 4096, 16  # of the hash, at each validation


def score(
    model: Any, windows: ValidationWindows, tokenizer: Tokenizer, rule: ContextRule, most: int | None = None,
    each: int | None = None,
) -> Score:  # fmt: skip
    """Held-out parts after as much of their documents as a training step reads; at most `most` tokens, and `each` of a
    window."""
    total, lengths = Score(0, 0.0, 0, 0, 0.0), tokenizer.byte_lengths()
    for window in windows:
        scored = window.scored[: None if each is None else max(1, each)]
        n_bytes = float(lengths[scored.numpy()].sum())
        total += Score(len(scored), n_bytes, 0, 0, nats(model, window.prefix, scored, rule))
        if most is not None and total.tokens >= most:
            break
    return total


def effective_buckets(model: Any, window: ValidationWindow, context: int) -> list[float]:
    """Of each LSH layer, on held-out text: rounds and heads averaged. A collapse to few shows here first."""
    text = torch.cat([window.prefix, window.scored])[-min(STATISTICS_TOKENS, context) :]
    if len(text) < (STATISTICS_NEAREST + 1) * model.config.shorten_factor:
        return []
    text = text[None].to(next(model.parameters()).device)
    found = hash_statistics(model, text, nearest=STATISTICS_NEAREST, queries=1)
    return [round(float(s.effective_buckets.mean()), 1) for s in found]
