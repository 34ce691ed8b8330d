"""Beam search: the likeliest texts, as far as so many at a time can find them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from reformer import ReformerLM
from torch import Tensor

from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.filters import Texts, apply_filters, apply_rules
from reformer_cli.sampling.history import TextBias
from reformer_cli.sampling.sampler import Sampler
from reformer_cli.tokenizers.base import Spelling, Tokenizer


@dataclass
class Found:
    """A text: its new tokens, the nats of each, and whether it came to its end. spelt: tokens of the prompt's end."""

    tokens: list[int]
    logprobs: list[float]
    ended: bool
    spelt: Sequence[int] = ()

    def rank(self) -> float:
        """Lowest is best: minus nats a token, since sums would favour short texts."""
        return -sum(self.logprobs) / max(1, len(self.tokens))

    def with_token(self, token: int, logprob: float, ended: bool) -> Found:
        """This text and one more token."""
        return Found([*self.tokens, token], [*self.logprobs, logprob], ended, self.spelt)


def search(
    model: ReformerLM, prompt: Sequence[int], config: SamplingConfig, *, end: int, bias: TextBias | None = None,
    tokenizer: Tokenizer | None = None, spelt: Sequence[Spelling] = (),
    on_read: Callable[[int], None] | None = None, on_token: Callable[[int], None] | None = None,
) -> list[Found]:  # fmt: skip
    """The config.num_samples best texts, best first; penalties, DRY and biases count in the search.

    Stops at config.max_tokens, or once as many texts have ended and none that goes on is better than they are.
    """
    texts = Sampler(model, dataclasses.replace(config, num_samples=1), end, bias, tokenizer)
    texts.read(prompt, on_read, spelt)
    live, done = [Found([], [], False, texts.histories[0].tokens[len(prompt) :])], list[Found]()
    scores = torch.zeros(1, device=texts.pending.device)
    for n in range(config.max_tokens):
        logits = texts.logits()
        judged = apply_rules(logits, texts.histories)
        known = Texts([config] * len(texts.histories), texts.histories, scores.new_empty(0))
        judged = apply_filters(judged, known, only=("penalties", "dry")).log_softmax(-1)
        logprob = logits.log_softmax(-1)
        found: list[tuple[int, float, Found]] = []
        for place, (row, token, score) in enumerate(best(scores, judged, 2 * config.num_beams)):
            text = live[row].with_token(token, float(logprob[row, token]), token == end)
            if text.ended and place < config.num_beams:
                done = sorted([*done, text], key=Found.rank)[: config.num_samples]
            elif not text.ended and len(found) < config.num_beams:
                found.append((row, score, text))
        live = [text for _, _, text in found]
        if on_token is not None:
            on_token(1)
        if not live or (len(done) == config.num_samples and min(map(Found.rank, live)) >= done[-1].rank()):
            break
        if n + 1 < config.max_tokens:
            scores = torch.tensor([score for _, score, _ in found], device=scores.device)
            texts.branch([row for row, _, _ in found], [text.tokens[-1] for text in live])
    return sorted([*done, *live], key=Found.rank)[: config.num_samples]


def best(scores: Tensor, judged: Tensor, n: int) -> list[tuple[int, int, float]]:
    """Of continuations [rows, vocab_size] of texts with scores [rows], the n best: (row, token, sum), best first."""
    sums = (scores[:, None] + judged).flatten()
    top = sums.topk(min(n, int(sums.isfinite().sum())))
    size = judged.shape[1]
    return [(at // size, at % size, score) for at, score in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
