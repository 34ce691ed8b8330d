"""What may be drawn next: functions of logits [batch, vocab_size] and of each text so far, by the names of --samplers.

A new filter (such as DRY): a function here, a row in FILTERS, its fields and a row of STEPS in config.py. What needs
the logits alone is done by the core's functions (reformer/sampling.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from reformer import sampling
from reformer.backends.dtypes import widest
from torch import Tensor

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.history import History


@dataclass(frozen=True)
class Texts:
    """What filters know of each row: its settings, by which all rows are filtered alike (`SamplingConfig.alike`), its
    text so far, and two random numbers in [0, 1), float64 [batch, 2]: that by which its token is drawn, and XTC's."""

    configs: Sequence[SamplingConfig]
    histories: Sequence[History]
    numbers: Tensor

    def each(self, name: str, like: Tensor) -> float | Tensor:
        """A setting: one number if it is the same for all, else [batch, 1]."""
        values = [getattr(config, name) for config in self.configs]
        return values[0] if len(set(values)) == 1 else like.new_tensor(values)[:, None]

    def some(self, rows: Sequence[int]) -> Texts:
        """Of these rows."""
        configs, histories = [self.configs[n] for n in rows], [self.histories[n] for n in rows]
        return Texts(configs, histories, self.numbers[rows])


def random_numbers(generators: Sequence[torch.Generator]) -> Tensor:
    """`Texts.numbers`, of each row by its own generator."""
    return torch.stack([torch.rand(2, generator=g, dtype=widest(g.device), device=g.device) for g in generators])


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
    return bias(logits, [[(torch.tensor(list(tokens), dtype=torch.int64), -torch.inf)] for tokens in rows])


def penalties(logits: Tensor, texts: Texts) -> Tensor:
    """Of tokens that occurred in the last repetition_window."""
    rows = zip(logits.split(1), texts.histories, texts.configs, strict=True)
    return torch.cat([_penalised(*row) for row in rows])


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
    found = [
        (row, token, c.dry_multiplier * c.dry_base ** (length - c.dry_allowed_length))
        for row, (history, c) in enumerate(zip(texts.histories, texts.configs, strict=True))
        if history.repeats is not None
        for token, length in history.repeats.lengths().items()
    ]
    if not found:
        return logits
    rows, tokens, lowered = (torch.tensor(column, device=logits.device) for column in zip(*found, strict=True))
    return logits.index_put((rows, tokens), -lowered.to(logits.dtype), accumulate=True)


def temperature(logits: Tensor, texts: Texts) -> Tensor:
    """At 0 the likeliest is taken in the end, whatever the scale."""
    c = texts.configs[0]
    if c.temperature == 0:
        return logits
    if c.dynatemp_range:
        return sampling.scale_by_entropy(logits, c.temperature, c.dynatemp_range, c.dynatemp_exponent)
    return sampling.scale(logits, texts.each("temperature", logits))


def exclude_top_choices(logits: Tensor, texts: Texts) -> Tensor:
    """XTC, of those rows whose number says so."""
    chosen = texts.numbers[:, 1:] < texts.each("xtc_probability", texts.numbers)
    return torch.where(chosen, sampling.exclude_top_choices(logits, texts.each("xtc_threshold", logits)), logits)


FILTERS: dict[str, Callable[[Tensor, Texts], Tensor]] = {
    "penalties": penalties,
    "dry": dry,
    "temperature": temperature,
    "top_k": lambda logits, texts: sampling.keep_top_k(logits, texts.configs[0].top_k),
    "typical_p": lambda logits, texts: sampling.keep_typical(logits, texts.each("typical_p", logits)),
    "top_p": lambda logits, texts: sampling.keep_top_p(logits, texts.each("top_p", logits)),
    "min_p": lambda logits, texts: sampling.keep_min_p(logits, texts.each("min_p", logits)),
    "top_n_sigma": lambda logits, texts: sampling.keep_top_n_sigma(logits, texts.each("top_n_sigma", logits)),
    "xtc": exclude_top_choices,
}


def apply_rules(logits: Tensor, histories: Sequence[History]) -> Tensor:
    """What is so in any order: no token that cannot become a character, --logit-bias, no n-gram twice."""
    masks = [mask for history in histories if (mask := history.mask(logits.device)) is not None]
    if masks:  # of all rows: their texts are of one tokenizer
        logits = logits + (masks[0] if all(mask is masks[0] for mask in masks) else torch.stack(masks))
    if any(biases := [history.biases() for history in histories]):
        logits = bias(logits, biases)
    if any(history.ngram for history in histories):
        logits = forbid(logits, [history.repeating() for history in histories])
    return logits


def apply_filters(logits: Tensor, texts: Texts, only: Sequence[str] | None = None) -> Tensor:
    """The steps of `samplers` that are switched on, in order; only: those of these names."""
    for name in texts.configs[0].switched_on:
        if only is None or name in only:
            logits = FILTERS[name](logits, texts)
    return logits


def draw(logits: Tensor, texts: Texts) -> Tensor:
    """One token a row of filtered logits, each by its own random number: int64 [batch]."""
    if texts.configs[0].temperature == 0:
        return logits.argmax(-1)
    if texts.configs[0].mirostat:
        return _draw_by_surprise(logits, texts)
    return sampling.pick(logits.softmax(-1), texts.numbers[:, 0])


def _draw_by_surprise(logits: Tensor, texts: Texts) -> Tensor:
    """Mirostat 2.0 (arXiv 2007.14966): leave out what surprises more than mu, which follows the surprise of what is
    drawn: mu - eta (surprise - tau)."""
    rows = list(zip(texts.histories, texts.configs, strict=True))
    known = [history.mirostat if history.mirostat is not None else 2 * c.mirostat_tau for history, c in rows]
    surprise = -logits.log_softmax(-1) / math.log(2)
    most = torch.maximum(logits.new_tensor(known)[:, None], surprise.amin(-1, keepdim=True))
    kept = logits.masked_fill(surprise > most, -torch.inf).softmax(-1)
    drawn = sampling.pick(kept, texts.numbers[:, 0])
    found = (-kept.gather(1, drawn[:, None]).log2())[:, 0].tolist()
    for (history, c), mu, bits in zip(rows, known, found, strict=True):
        history.mirostat = mu - c.mirostat_eta * (bits - c.mirostat_tau)
    return drawn
