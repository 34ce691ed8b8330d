"""What may be drawn: pure functions of logits [batch, vocab_size]. A new knob: a function, a line in `filtered`."""

from __future__ import annotations

import torch
from torch import Tensor

from reformer_cli.sampling.config import SamplingConfig

REMEMBERED = 256  # tokens the repetition penalty looks back


def repetition_penalty(logits: Tensor, recent: Tensor, penalty: float) -> Tensor:
    """Divide positive logits of tokens in recent [batch, n] by the penalty, multiply negative ones (CTRL, 4.1)."""
    found = logits.gather(1, recent)
    return logits.scatter(1, recent, torch.where(found > 0, found / penalty, found * penalty))


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


def filtered(logits: Tensor, recent: Tensor, config: SamplingConfig) -> Tensor:
    """All filters that are on, in the order of SamplingConfig; temperature 0 is left to the caller."""
    if config.repetition_penalty != 1 and recent.shape[1]:
        logits = repetition_penalty(logits, recent[:, -REMEMBERED:], config.repetition_penalty)
    if config.temperature not in (0, 1):
        logits = temperature(logits, config.temperature)
    if config.top_k:
        logits = top_k(logits, config.top_k)
    if config.top_p < 1:
        logits = top_p(logits, config.top_p)
    if config.min_p:
        logits = min_p(logits, config.min_p)
    return logits
