"""What may be drawn: pure functions of logits [batch, vocab_size], and the draw."""

from __future__ import annotations

import numpy as np
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
    ordered = _descending(logits)
    shares = ordered.softmax(-1)
    kept = (shares.cumsum(-1) - shares < p).sum(-1, keepdim=True)  # others reach p without them: the first always stays
    last = ordered.gather(1, kept - 1)
    beyond, tied = logits < last, logits == last
    fits = kept - (logits > last).sum(-1, keepdim=True)  # of equals, the first
    if bool((tied.sum(-1, keepdim=True) > fits).any()):
        beyond |= tied & (tied.cumsum(-1) > fits)
    return logits.masked_fill(beyond, -torch.inf)


def _descending(logits: Tensor) -> Tensor:
    """Values alone, sorted; on a CPU by numpy, in a tenth of the time."""
    if logits.device.type != "cpu" or logits.dtype != torch.float32:
        return logits.sort(-1, descending=True).values
    return -torch.from_numpy(np.sort(-logits.detach().numpy(), -1))


def keep_min_p(logits: Tensor, share: float) -> Tensor:
    """Keep what is at least `share` times as likely as the likeliest (arXiv 2407.01082)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < share * probabilities.amax(-1, keepdim=True), -torch.inf)


def keep_typical(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set that reaches p of tokens about as surprising as expected (arXiv 2202.00666)."""
    logprob = logits.log_softmax(-1)
    entropy = -(logprob.exp() * logprob.nan_to_num(neginf=0.0)).sum(-1, keepdim=True)
    order = (logprob + entropy).abs().argsort(-1)
    shares = logprob.exp().gather(1, order)
    beyond = shares.cumsum(-1) - shares >= p
    return logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)


def keep_top_n_sigma(logits: Tensor, n: float) -> Tensor:
    """Keep what is at most n standard deviations of the logits below the highest (arXiv 2411.07641)."""
    there = logits > -torch.inf
    count = there.sum(-1, keepdim=True)
    known = logits.masked_fill(~there, 0)
    mean = known.sum(-1, keepdim=True) / count
    spread = (((known - mean) * there).square().sum(-1, keepdim=True) / count).sqrt()
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) - n * spread, -torch.inf)


def exclude_top_choices(logits: Tensor, threshold: float) -> Tensor:
    """Leave out every token of at least this probability but the least likely of them (XTC, by p-e-w)."""
    likely = logits.softmax(-1) >= threshold
    lowest = logits.masked_fill(~likely, torch.inf).amin(-1, keepdim=True)
    return logits.masked_fill(likely & (logits > lowest), -torch.inf)


def scale_by_entropy(logits: Tensor, temperature: float, reach: float, exponent: float) -> Tensor:
    """Divide by a temperature from temperature - reach, where one token is certain, to temperature + reach, where all
    are alike (dynamic temperature, by kalomaze)."""
    logprob = logits.log_softmax(-1)
    entropy = -(logprob.exp() * logprob.nan_to_num(neginf=0.0)).sum(-1, keepdim=True)
    share = entropy / (logits > -torch.inf).sum(-1, keepdim=True).clamp_min(2).log()
    low, high = max(0.0, temperature - reach), temperature + reach
    return logits / (low + (high - low) * share**exponent).clamp_min(1e-4)


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
