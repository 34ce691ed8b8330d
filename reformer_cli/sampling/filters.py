"""What may be drawn: pure functions of logits [batch, vocab_size]. A new knob: a function, and a line below."""

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


def temperature(logits: Tensor, value: float) -> Tensor:
    """Scale; the likeliest stay the likeliest."""
    return logits / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest, and whatever ties with the last of them."""
    last = logits.topk(min(k, logits.shape[-1]), -1).values[:, -1:]
    return logits.masked_fill(logits < last, -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probabilities reach p (nucleus sampling, arXiv 1904.09751)."""
    ordered, order = logits.sort(-1, descending=True)
    shares = ordered.softmax(-1)
    beyond = shares.cumsum(-1) - shares >= p  # what the likelier ones before it reach already: the first always stays
    return logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)


def min_p(logits: Tensor, share: float) -> Tensor:
    """Keep what is at least `share` times as likely as the likeliest (arXiv 2407.01082)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < share * probabilities.amax(-1, keepdim=True), -torch.inf)


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


def apply_filters(logits: Tensor, config: SamplingConfig) -> Tensor:
    """What depends on the logits alone, in the order of SamplingConfig; temperature 0 is left to the caller."""
    if config.temperature not in (0, 1):
        logits = temperature(logits, config.temperature)
    if config.top_k:
        logits = top_k(logits, config.top_k)
    if config.top_p < 1:
        logits = top_p(logits, config.top_p)
    if config.min_p:
        logits = min_p(logits, config.min_p)
    return logits
