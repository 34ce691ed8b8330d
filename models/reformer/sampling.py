"""What may be drawn: pure functions of logits [batch, vocab_size], and the draw."""

from __future__ import annotations

import torch
from torch import Tensor


def scale(logits: Tensor, temperature: float) -> Tensor:
    """Divide by a temperature > 0; the likeliest stay the likeliest."""
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest, and whatever ties with the last of them."""
    last = logits.topk(min(k, logits.shape[-1]), -1).values[:, -1:]
    return logits.masked_fill(logits < last, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probabilities reach p (nucleus sampling, arXiv 1904.09751)."""
    ordered, order = logits.sort(-1, descending=True)
    shares = ordered.softmax(-1)
    beyond = shares.cumsum(-1) - shares >= p  # what the likelier ones before it reach already: the first always stays
    return logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)


def keep_min_p(logits: Tensor, share: float) -> Tensor:
    """Keep what is at least `share` times as likely as the likeliest (arXiv 2407.01082)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < share * probabilities.amax(-1, keepdim=True), -torch.inf)


def apply_filters(
    logits: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """All of them in this order, the conventional one; temperature 0 is left to `draw`."""
    if temperature not in (0, 1):
        logits = scale(logits, temperature)
    if top_k:
        logits = keep_top_k(logits, top_k)
    if top_p < 1:
        logits = keep_top_p(logits, top_p)
    if min_p:
        logits = keep_min_p(logits, min_p)
    return logits


def draw(
    logits: Tensor,
    generator: torch.Generator,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Tensor:
    """One token a row, int64 [batch]: the likeliest at temperature 0, else drawn among what the filters keep."""
    if temperature == 0:
        return logits.argmax(-1)
    kept = apply_filters(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    return torch.multinomial(kept.softmax(-1), 1, generator=generator)[:, 0]
