"""One more token of texts that have nothing to do with each other: those with the same settings are filtered together,
each with the bits that it has alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.filters import Texts, apply_filters, apply_rules, draw
from reformer_cli.sampling.sampler import NextTokens, Sampler

OF_ONE = {"seed", "max_tokens", "max_words", "stop_at", "num_samples"}  # what does not decide how a token is drawn


def drawn_alike(config: SamplingConfig) -> tuple[object, ...]:
    """Equal for settings by which tokens are drawn alike."""
    return tuple(getattr(config, field.name) for field in fields(config) if field.name not in OF_ONE)


def draw_each(samplers: Sequence[Sampler], logits: Tensor, own: Sequence[Tensor | None]) -> list[NextTokens]:
    """As `take` of each, a sampler of one text, by its row of logits [texts, vocab_size]. own: what is added to the row
    of a text before its token is drawn, float [vocab_size], or None."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for n, sampler in enumerate(samplers):
        groups.setdefault(drawn_alike(sampler.config), []).append(n)
    found: list[NextTokens] = [NextTokens([], [])] * len(samplers)
    with torch.inference_mode():
        for rows in groups.values():
            some = [samplers[n] for n in rows]
            mine = logits[rows] if len(rows) < len(samplers) else logits
            biased = mine.clone() if any(own[n] is not None for n in rows) else mine
            for at, n in enumerate(rows):
                if (added := own[n]) is not None:
                    biased[at] += added
            histories = [sampler.histories[0] for sampler in some]
            texts = Texts(some[0].config, histories, [sampler.generators[0] for sampler in some])
            allowed, before = apply_rules(biased, histories, texts.config), [h.mirostat for h in histories]
            drawn = draw(apply_filters(allowed, texts), texts).tolist()
            each = zip(some, allowed.split(1), drawn, before, strict=True)
            tokens = torch.tensor([s.keep_to_rules(*given) for s, *given in each], device=mine.device)
            logprobs = (mine.gather(1, tokens[:, None])[:, 0] - mine.logsumexp(1)).tolist()
            for sampler, n, token, logprob in zip(some, rows, tokens.tolist(), logprobs, strict=True):
                sampler.pending = sampler.pending.new_full((1, 1), token)
                sampler.histories[0].extend([token], drawn=True)
                found[n] = NextTokens([token], [logprob])
    return found
