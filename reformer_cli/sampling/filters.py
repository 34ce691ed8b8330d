"""What may be drawn next: functions of logits [batch, vocab_size] and of each text so far, by the names of --samplers.

A new filter (such as DRY): a function here, a row in FILTERS, its fields and a row of STEPS in config.py. What needs
the logits alone is done by the core's functions (reformer/sampling.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from reformer import sampling
from torch import Tensor

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.history import History


@dataclass(frozen=True)
class Texts:
    """What filters know: the settings, the texts so far, and the random numbers of each; one a row."""

    config: SamplingConfig
    histories: Sequence[History]
    generators: Sequence[torch.Generator]


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


def count_penalties(logits: Tensor, recent: Tensor, presence: float, frequency: float) -> Tensor:
    """Lower each token in recent [batch, n]: by `presence`, and by `frequency` for each time that it is there."""
    counts = torch.zeros_like(logits).scatter_add(1, recent, torch.ones_like(recent, dtype=logits.dtype))
    return logits - presence * (counts > 0) - frequency * counts


def forbid(logits: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """Leave out some tokens of each row."""
    logits = logits.clone()
    for n, tokens in enumerate(rows):
        logits[n, list(tokens)] = -torch.inf
    return logits


def penalties(logits: Tensor, texts: Texts) -> Tensor:
    """Of tokens that occurred in the last repetition_window."""
    c = texts.config
    return torch.cat([_penalised(row, h, c) for row, h in zip(logits.split(1), texts.histories, strict=True)])


def _penalised(logits: Tensor, history: History, c: SamplingConfig) -> Tensor:
    """`penalties` of one text, which may be of another length than the others."""
    if not (recent := history.recent(c.repetition_window)):
        return logits
    ids = torch.tensor([recent], device=logits.device)
    if c.repetition_penalty != 1:
        logits = repetition_penalty(logits, ids, c.repetition_penalty)
    if c.presence_penalty or c.frequency_penalty:
        logits = count_penalties(logits, ids, c.presence_penalty, c.frequency_penalty)
    return logits


def dry(logits: Tensor, texts: Texts) -> Tensor:
    """Lower by multiplier x base ** (length - allowed length) what would repeat a stretch of that length."""
    c, rows = texts.config, [history.repeats for history in texts.histories]
    logits = logits.clone()
    for n, repeats in enumerate(rows):
        found = repeats.lengths(c.dry_allowed_length) if repeats is not None else {}
        for token, length in found.items():
            logits[n, token] -= c.dry_multiplier * c.dry_base ** (length - c.dry_allowed_length)
    return logits


def temperature(logits: Tensor, texts: Texts) -> Tensor:
    """At 0 the likeliest is taken in the end, whatever the scale."""
    c = texts.config
    if c.temperature == 0:
        return logits
    if c.dynatemp_range:
        return sampling.scale_by_entropy(logits, c.temperature, c.dynatemp_range, c.dynatemp_exponent)
    return sampling.scale(logits, c.temperature) if c.temperature != 1 else logits


def exclude_top_choices(logits: Tensor, texts: Texts) -> Tensor:
    """XTC, of those rows whose number says so."""
    c = texts.config
    drawn = [float(torch.rand((), generator=g, device=g.device)) < c.xtc_probability for g in texts.generators]
    if not any(drawn):
        return logits
    chosen = torch.tensor(drawn, device=logits.device)[:, None]
    return torch.where(chosen, sampling.exclude_top_choices(logits, c.xtc_threshold), logits)


FILTERS: dict[str, Callable[[Tensor, Texts], Tensor]] = {
    "penalties": penalties,
    "dry": dry,
    "temperature": temperature,
    "top_k": lambda logits, texts: sampling.keep_top_k(logits, texts.config.top_k),
    "typical_p": lambda logits, texts: sampling.keep_typical(logits, texts.config.typical_p),
    "top_p": lambda logits, texts: sampling.keep_top_p(logits, texts.config.top_p),
    "min_p": lambda logits, texts: sampling.keep_min_p(logits, texts.config.min_p),
    "top_n_sigma": lambda logits, texts: sampling.keep_top_n_sigma(logits, texts.config.top_n_sigma),
    "xtc": exclude_top_choices,
}


def apply_rules(logits: Tensor, histories: Sequence[History], config: SamplingConfig) -> Tensor:
    """What is so in any order: no token that cannot become a character, --logit-bias, no n-gram twice."""
    if histories and histories[0].characters is not None:
        rows = [row for history in histories if (row := history.refused()) is not None]
        refused = rows[0] if all(row is rows[0] for row in rows) else torch.stack(rows)
        logits = logits.masked_fill(refused.to(logits.device), -torch.inf)
    if any(history.biased for history in histories):
        logits = bias(logits, [history.biases() for history in histories])
    if config.no_repeat_ngram_size:
        logits = forbid(logits, [history.repeating() for history in histories])
    return logits


def apply_filters(logits: Tensor, texts: Texts, only: Sequence[str] | None = None) -> Tensor:
    """The steps of `samplers` that are switched on, in order; only: those of these names."""
    for name in texts.config.switched_on:
        if only is None or name in only:
            logits = FILTERS[name](logits, texts)
    return logits


def draw(logits: Tensor, texts: Texts) -> Tensor:
    """One token a row of filtered logits, each by its own random numbers: int64 [batch]."""
    if texts.config.temperature == 0:
        return logits.argmax(-1)
    if texts.config.mirostat:
        return _draw_by_surprise(logits, texts)
    shares = logits.softmax(-1)
    rows = [torch.multinomial(row, 1, generator=g) for row, g in zip(shares, texts.generators, strict=True)]
    return torch.cat(rows)


def _draw_by_surprise(logits: Tensor, texts: Texts) -> Tensor:
    """Mirostat 2.0 (arXiv 2007.14966): leave out what surprises more than mu, which follows the surprise of what is
    drawn: mu - eta (surprise - tau)."""
    drawn = []
    for row, history, generator in zip(logits, texts.histories, texts.generators, strict=True):
        surprise = -row.log_softmax(-1) / torch.tensor(2.0).log()
        mu = history.mirostat if history.mirostat is not None else 2 * texts.config.mirostat_tau
        kept = (row.masked_fill(surprise > max(mu, float(surprise.min())), -torch.inf)).softmax(-1)
        token = torch.multinomial(kept, 1, generator=generator)
        found = -float(kept[token].log2())
        history.mirostat = mu - texts.config.mirostat_eta * (found - texts.config.mirostat_tau)
        drawn.append(token)
    return torch.cat(drawn)
