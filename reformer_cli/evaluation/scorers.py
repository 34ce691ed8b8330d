"""Who scores tokens given those before: all that came before, or stretches of a context; and which of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from reformer import IGNORE_INDEX, DecodingState, ReformerConfig, ReformerLM
from torch import Tensor

AT_ONCE = 4096  # tokens scored at a time on a CPU
MOST_AT_ONCE = 2**20  # elsewhere, where there is memory for them

DECODING, FORWARD = "decoding", "forward"
FIRST_OF_TEXT = "a file's first one, given the end-of-text token"


def tokens_at_once(model: ReformerLM) -> int:
    """How many tokens a model best scores at a time."""
    return AT_ONCE if model.embedding.device.type == "cpu" else min(MOST_AT_ONCE, model.tokens_at_once(1))


class Scorer(Protocol):
    """Scores tokens that come in order; at_once: how many at a time are best."""

    at_once: int

    def score(self, ids: Tensor) -> Tensor:
        """Nats of the next tokens, int64 [n] -> float64 [n], on the CPU."""


class FullContextScorer:
    """Every token sees everything before it: through `extend`, in bounded memory."""

    def __init__(self, model: ReformerLM, prefix: Tensor, progress: Callable[[int], None] | None = None) -> None:
        self.model, self.at_once = model, tokens_at_once(model)
        self.state: DecodingState | None = None
        device = model.embedding.device
        with torch.inference_mode():
            for part in prefix[:-1].to(device).split(self.at_once):
                if len(part):
                    _, self.state = model.extend(part[None], self.state, last_only=True)
                    if progress is not None:
                        progress(len(part))
        self.last = prefix[-1:].to(device)

    def score(self, ids: Tensor) -> Tensor:
        ids = ids.to(self.last.device)
        inputs = torch.cat([self.last, ids[:-1]])
        self.last = ids[-1:]
        with torch.inference_mode():
            found, self.state = self.model.score(inputs[None], ids[None], self.state)
        return found[0].cpu().double()


class WindowScorer:
    """Every token sees the half of a context before it, and less than the whole: the text is taken in stretches of half
    a context, each read anew after the half before it; at the beginning of a text, there is less to see.

    forward: each is read by one pass, as in training; else as decoding reads, which is the same but for
    attention in chunks. A GPU reads by one pass whatever is the same."""

    def __init__(self, model: ReformerLM, prefix: Tensor, context: int, forward: bool = False) -> None:
        self.model, self.most = model, tokens_at_once(model)
        self.forward = forward or (model.embedding.device.type != "cpu" and not model.config.chunked)
        self.half = max(1, context // 2)
        self.before = context - self.half
        self.at_once = self.half * max(1, self.most // context)
        self.tail = prefix[-self.before :].to(model.embedding.device)

    def score(self, ids: Tensor) -> Tensor:
        whole, first = torch.cat([self.tail, ids.to(self.tail.device)]), len(self.tail)
        self.tail = whole[-self.before :]
        found = torch.empty(len(ids), dtype=torch.float64)
        alike: dict[tuple[int, int], list[int]] = {}  # (tokens before, tokens scored) -> where stretches begin
        for start in range(first, len(whole), self.half):
            shape = min(start, self.before), min(self.half, len(whole) - start)
            alike.setdefault(shape, []).append(start)
        for (seen, scored), starts in alike.items():
            rows = max(1, self.most // (seen + scored))
            for begin in torch.tensor(starts).split(rows):
                found[begin[:, None] - first + torch.arange(scored)] = self._stretches(whole, begin, seen, scored)
        return found

    def _stretches(self, whole: Tensor, begin: Tensor, seen: int, scored: int) -> Tensor:
        """Nats float64 [rows, scored] of the tokens from each `begin` [rows] on, given the `seen` before."""
        tokens = whole[begin[:, None].to(whole.device) + torch.arange(-seen, scored, device=whole.device)]
        targets = tokens[:, 1:].clone()
        targets[:, : seen - 1] = IGNORE_INDEX
        with torch.inference_mode():
            inputs = tokens[:, :-1]
            nats = self.model.score_forward(inputs, targets) if self.forward else self.model.score(inputs, targets)[0]
        return nats[:, seen - 1 :].cpu().double()


@dataclass(frozen=True)
class ContextRule:
    """How texts are read. context: a token sees at least half of it and less than the whole, see `WindowScorer`; None:
    everything before it. forward: by passes as in training, of which only contexts can be taken."""

    context: int | None = None
    forward: bool = False

    @classmethod
    def for_model(
        cls, config: ReformerConfig, trained: int, context: int | None, likelihood: str | None
    ) -> ContextRule:
        """What is meant by a context and a likelihood (DECODING, FORWARD) that may be left out. trained: tokens that a
        training step reads in one piece.

        Loss, decoding and perplexity are one function but for attention in chunks, where training's is preferred.
        """
        forward = (likelihood or (FORWARD if config.chunked else DECODING)) == FORWARD
        return cls(trained if forward and context is None else context, forward)

    @classmethod
    def for_images(cls, config: ReformerConfig, values: int, likelihood: str | None = None) -> ContextRule:
        """Images of so many values: each value sees all before it, also where an image is read by one pass."""
        return cls(2 * values, True) if cls.for_model(config, values, None, likelihood).forward else cls()

    def scorer(self, model: ReformerLM, prefix: Tensor) -> Scorer:
        """What scores tokens after a prefix [m >= 1]."""
        if self.context is None:
            return FullContextScorer(model, prefix)
        return WindowScorer(model, prefix, self.context, self.forward)

    def rule(self, config: ReformerConfig, images: bool = False) -> str:
        """What is scored given what, in words."""
        sees = "everything before it"
        if self.context is not None:
            half = max(1, self.context // 2)
            sees = f"{self.context - half:,} to {self.context - 1:,} tokens before it (fewer where a text begins)"
        first = "an image's first one, given the token that begins it" if images else FIRST_OF_TEXT
        text = f"Each token is scored once, given {sees}; {first} alone."
        if config.chunked:
            text += "\nAttention in chunks has two likelihoods: this is that of "
            text += (
                "the forward pass, as trained and released" if self.forward else "decoding, which generation follows"
            )
            text += f" (--likelihood {DECODING if self.forward else FORWARD} gives the other)."
        return text
