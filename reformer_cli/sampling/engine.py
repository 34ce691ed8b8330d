"""Token after token from a model's state: the prompt is read once, and each new token costs the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from reformer import ReformerLM
from torch import Tensor

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.filters import REMEMBERED, filtered

PREFILL_AT_ONCE = 4096  # prompt tokens read at a time


def generate(
    model: ReformerLM,
    prompt: Sequence[int],
    config: SamplingConfig,
    *,
    end: int,
    on_prefill: Callable[[int, int], None] | None = None,
) -> Iterator[list[int | None]]:
    """Draw tokens after `prompt` (at least one token): each item has one token a sample, None where that text ended.

    on_prefill(done, total) is called as the prompt is read. The model's own random state is not used.
    """
    tokens = torch.as_tensor(list(prompt), device=model.embedding.device)[None]
    if config.max_tokens == 0:
        return
    logits, state = None, None
    with torch.inference_mode():
        for part in tokens.split(PREFILL_AT_ONCE, 1):
            logits, state = model.extend(part.expand(config.samples, -1), state, last_only=True)
            if on_prefill is not None:
                on_prefill(state.position, tokens.shape[1])
    if logits is None:
        raise ValueError("the prompt needs at least one token")
    generator = torch.Generator(logits.device).manual_seed(config.seed)
    recent = tokens[:, -REMEMBERED:].expand(config.samples, -1)
    ended = [False] * config.samples
    for n in range(config.max_tokens):
        with torch.inference_mode():
            drawn = draw(logits[:, -1].float(), recent, config, generator)
            recent = torch.cat([recent, drawn[:, None]], 1)[:, -REMEMBERED:]
        ended = [e or t == end for e, t in zip(ended, drawn.tolist(), strict=True)]
        yield [None if e else t for e, t in zip(ended, drawn.tolist(), strict=True)]
        if all(ended) or n + 1 == config.max_tokens:
            return
        with torch.inference_mode():
            logits, state = model.extend(drawn[:, None], state)


def draw(logits: Tensor, recent: Tensor, config: SamplingConfig, generator: torch.Generator) -> Tensor:
    """One token a row: int64 [batch]."""
    logits = filtered(logits, recent, config)
    if config.temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
