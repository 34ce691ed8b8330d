"""What may be drawn: pure functions of logits [batch, vocab_size], and the draw.

A number that a filter is given is one for all rows, or one of each, [batch, 1]. No row knows of the others: it has the
bits that it has alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Number = float | Tensor


def scale(logits: Tensor, temperature: Number) -> Tensor:
    """Divide by a temperature > 0; the likeliest stay the likeliest."""
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest, and whatever ties with the last of them."""
    last = logits.topk(min(k, logits.shape[-1]), -1).values[:, -1:]
    return logits.masked_fill(logits < last, -torch.inf)


def keep_top_p(logits: Tensor, p: Number) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probabilities reach p (nucleus sampling, arXiv 1904.09751)."""
    shares = logits.softmax(-1)
    ordered, before = _likeliest(shares, p)
    kept = (before < p).sum(-1, keepdim=True)  # others reach p without them: the first always stays
    last = ordered.gather(1, kept - 1)
    beyond = shares < last
    after = ordered.gather(1, kept.clamp_max(ordered.shape[1] - 1))
    if bool(((after == last) & (kept < ordered.shape[1])).any()):  # of equals, the first
        tied = shares == last
        beyond |= tied & (tied.cumsum(-1) > kept - (shares > last).sum(-1, keepdim=True))
    return logits.masked_fill(beyond, -torch.inf)


def _likeliest(shares: Tensor, p: Number) -> tuple[Tensor, Tensor]:
    """Probabilities in falling order, at least as many as reach p, and the sum of those before each.

    On a CPU values alone are sorted by numpy, in a tenth of torch's time, and of a large vocabulary first a quarter.
    """
    size = shares.shape[-1]
    if shares.device.type != "cpu" or shares.dtype != torch.float32:
        ordered = shares.sort(-1, descending=True).values
        return ordered, ordered.cumsum(-1) - ordered
    rising = -shares.numpy()
    for n in (size // 4, size) if size >= 1024 else (size,):
        found = np.sort(np.partition(rising, n, -1)[:, :n] if n < size else rising, -1)
        ordered = torch.from_numpy(-found)
        before = ordered.cumsum(-1) - ordered
        if n == size or bool((before[:, -1:] >= p).all()):
            break
    return ordered, before


def keep_min_p(logits: Tensor, share: Number) -> Tensor:
    """Keep what is at least `share` times as likely as the likeliest (arXiv 2407.01082)."""
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < share * probabilities.amax(-1, keepdim=True), -torch.inf)


def keep_typical(logits: Tensor, p: Number) -> Tensor:
    """Keep the smallest set that reaches p of tokens about as surprising as expected (arXiv 2202.00666)."""
    logprob = logits.log_softmax(-1)
    entropy = -(logprob.exp() * logprob.nan_to_num(neginf=0.0)).sum(-1, keepdim=True)
    order = (logprob + entropy).abs().argsort(-1)
    shares = logprob.exp().gather(1, order)
    beyond = shares.cumsum(-1) - shares >= p
    return logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)


def keep_top_n_sigma(logits: Tensor, n: Number) -> Tensor:
    """Keep what is at most n standard deviations of the logits below the highest (arXiv 2411.07641)."""
    there = logits > -torch.inf
    count = there.sum(-1, keepdim=True)
    known = logits.masked_fill(~there, 0)
    mean = known.sum(-1, keepdim=True) / count
    spread = (((known - mean) * there).square().sum(-1, keepdim=True) / count).sqrt()
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) - n * spread, -torch.inf)


def exclude_top_choices(logits: Tensor, threshold: Number) -> Tensor:
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


def draw(
    logits: Tensor, generator: torch.Generator, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
    min_p: float = 0.0,
) -> Tensor:  # fmt: skip
    """One token a row, int64 [batch]: the likeliest at temperature 0, else drawn among what the filters keep, in this
    order, the conventional one."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = scale(logits, temperature)
    logits = keep_top_k(logits, top_k) if top_k else logits
    logits = keep_top_p(logits, top_p) if top_p < 1 else logits
    logits = keep_min_p(logits, min_p) if min_p else logits
    wide = torch.float32 if logits.device.type == "mps" else torch.float64  # which Apple's GPUs have not
    numbers = torch.rand(len(logits), dtype=wide, device=logits.device, generator=generator)
    return pick(logits.softmax(-1), numbers)


def pick(shares: Tensor, numbers: Tensor) -> Tensor:
    """A token a row by probabilities [batch, vocab_size] and a number in [0, 1) each, [batch], in whose type they are
    summed: the first at which the sum up to it is beyond that part of the whole. int64 [batch]."""
    sums = shares.cumsum(-1, dtype=numbers.dtype)
    whole = sums[:, -1:]
    found = torch.searchsorted(sums, numbers[:, None] * whole, right=True)
    return torch.minimum(found, torch.searchsorted(sums, whole.contiguous()))[:, 0]  # rounding may reach the whole
