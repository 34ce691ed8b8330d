"""How well a model that is being trained predicts what it is not trained on, and how evenly its hash fills buckets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from reformer.analysis import hash_statistics

from reformer_cli.data.batches import LEAST_SCORED, ValidationWindow, ValidationWindows
from reformer_cli.evaluation.bootstrap import interval
from reformer_cli.evaluation.likelihood import FIGURES, Score, nats
from reformer_cli.evaluation.scorers import ContextRule
from reformer_cli.sampling.generate import generate
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.utils.progress_bar import Advance, shown

STATISTICS_TOKENS, STATISTICS_NEAREST = 4096, 16  # of the hash, at each validation
STRETCH, LEAST_STRETCHES = 4096, 8  # tokens of a stretch of a sample, at most; of which there are at least so many


@dataclass(frozen=True)
class Probe:
    """What a validation during a run scores: the first tokens of each of these windows."""

    windows: ValidationWindows
    each: int


def probe_of(windows: ValidationWindows, tokens: int, most: int, context: int, images: bool) -> Probe:
    """As is worked on in about so many tokens, those included that are only read before others; at most `most` are
    scored. An image is scored whole."""
    before, least = (1, context) if images else (context, LEAST_SCORED)
    wanted = max(1, min(tokens // (before + least), most // least))
    chosen = windows.some(wanted * least, least)
    each = max(least, tokens // len(chosen) - before)
    return Probe(chosen, max(1, min(each, max(most, least if images else 1) // len(chosen))))


@dataclass(frozen=True)
class HeldOut:
    """The final figure. sample: share of the held-out text that was scored; between: the 95 % interval then."""

    score: Score
    sample: float = 1.0
    between: tuple[float, float] | None = None

    def line(self, unit: str) -> str:
        score, which = self.score, "all of them "
        of = f"{score.tokens:,} tokens, {round(score.bytes):,} bytes"
        if self.sample < 1:
            which = f"a sample, {self.sample:.0%} of what was held out, "
        sure = f" ({self.between[0]:.3f} to {self.between[1]:.3f} with 95 %)" if self.between is not None else ""
        return (
            f"{score.bits_per_byte:.3f} {unit}{sure}, perplexity {score.perplexity:.1f} a token "
            f"({of}, {which}never trained on)"
        )


def held_out(
    model: Any, windows: ValidationWindows, tokenizer: Tokenizer, rule: ContextRule, context: int, seconds: float,
    report: Callable[[str], None],
) -> HeldOut:  # fmt: skip
    """The score of all windows, or of evenly spread stretches of them where all would take more than about so many
    seconds; a bar is shown. context: tokens read before a stretch."""
    total, length, what = windows.total, max(LEAST_SCORED, min(STRETCH, context)), "scoring what was held out"
    began = time.perf_counter()
    first = windows.stretch(0, length)
    score(model, [first], tokenizer, rule)
    affordable = seconds * (len(first.scored) + len(first.prefix)) / max(1e-6, time.perf_counter() - began)
    count = max(LEAST_STRETCHES, int(affordable / (length + context)))
    if total + len(windows) * context <= affordable or total <= count * length:
        with shown(what, total, report) as advance:
            return HeldOut(score(model, windows, tokenizer, rule, advance=advance))
    found = []
    with shown(what, count * length, report) as advance:
        for n in range(count):
            found.append(
                score(
                    model, [windows.stretch((2 * n + 1) * total // (2 * count), length)], tokenizer, rule, None, advance
                )
            )
    whole = sum(found, Score(0, 0.0, 0, 0, 0.0))
    between = interval(np.array([astuple(part) for part in found]), FIGURES["bits_per_byte"])
    return HeldOut(whole, whole.tokens / total, between)


def score(
    model: Any, windows: Iterable[ValidationWindow], tokenizer: Tokenizer, rule: ContextRule, each: int | None = None,
    advance: Advance | None = None,
) -> Score:  # fmt: skip
    """Held-out parts after as much of their documents as a training step reads; at most `each` tokens of a window.
    advance: is told how many are done."""
    total, lengths = Score(0, 0.0, 0, 0, 0.0), tokenizer.byte_lengths()
    for window in windows:
        scored = window.scored[: None if each is None else max(1, each)]
        n_bytes = float(lengths[scored.numpy()].sum())
        total += Score(len(scored), n_bytes, 0, 0, nats(model, window.prefix, scored, rule, advance))
    return total


def sample_text(model: Any, tokenizer: Tokenizer, tokens: int, seconds: float) -> str:
    """What a model writes by itself: so many tokens, or as many as come in about so many seconds."""
    began, text, most = time.monotonic(), "", model.config.max_length
    for part in generate(model, tokenizer, max_tokens=min(tokens, most or tokens), seed=0):
        text += part
        if time.monotonic() - began > seconds:
            break
    return text


def effective_buckets(model: Any, window: ValidationWindow, context: int) -> list[float]:
    """Of each LSH layer, on held-out text: rounds and heads averaged. A collapse to few shows here first."""
    text = torch.cat([window.prefix, window.scored])[-min(STATISTICS_TOKENS, context) :]
    if len(text) < (STATISTICS_NEAREST + 1) * model.config.shorten_factor:
        return []
    text = text[None].to(next(model.parameters()).device)
    found = hash_statistics(model, text, nearest=STATISTICS_NEAREST, queries=1)
    return [round(float(s.effective_buckets.mean()), 1) for s in found]
