"""What the text so far does to logits [batch, vocab_size]: pure functions. What needs the logits alone is the core's
(reformer/sampling.py). A new filter (such as DRY): a function, a line in `apply_penalties`, fields in config.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.history import History


def bias(logits: Tensor, rows: Sequence[Sequence[tuple[Tensor, float]]]) -> Tensor:
    """Add a value to the logits of some tokens: per row, pairs of int64 [n] and what is added."""
    logits = logits.clone()
    for n, row in enumerate(rows):
        for tokens, value in row:
            logits[n, tokens] += value
    return logits


def repetition_penalty(logits: Tensor, recent: Tensor, penalty: float) -> Tensor:
    """Divide positive logits of tokens in recent [batch, n] by the penalty, multiply negative ones (CTRL, 4.1)."""
    found = logits.gather(1, recent)
    return logits.scatter(1, recent, torch.where(found > 0, found / penalty, found * penalty))


def forbid(logits: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """Leave out some tokens of each row."""
    logits = logits.clone()
    for n, tokens in enumerate(rows):
        logits[n, list(tokens)] = -torch.inf
    return logits


def apply_penalties(logits: Tensor, histories: Sequence[History], config: SamplingConfig) -> Tensor:
    """What depends on the text so far, in the order of SamplingConfig; one history a row."""
    if any(history.biased for history in histories):
        logits = bias(logits, [history.biases() for history in histories])
    if config.repetition_penalty != 1:
        recent = [history.recent(config.repetition_window) for history in histories]
        if recent[0]:
            logits = repetition_penalty(logits, torch.tensor(recent, device=logits.device), config.repetition_penalty)
    if config.no_repeat_ngram_size:
        logits = forbid(logits, [history.repeating() for history in histories])
    return logits
