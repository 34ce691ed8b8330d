"""How well a model predicts a text: each token scored once, given all that precedes it (design section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from reformer import ReformerLM
from torch import Tensor

AT_ONCE = 4096  # tokens scored at a time

FIRST_TOKEN_RULE = "the first token is scored too, given the end-of-text token alone"


@dataclass(frozen=True)
class Score:
    """Sums over what was scored; scores of several texts add up."""

    tokens: int
    bytes: float
    characters: int
    words: int
    nats: float

    def __add__(self, other: Score) -> Score:
        return Score(
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.characters + other.characters,
            self.words + other.words,
            self.nats + other.nats,
        )

    @property
    def nats_per_token(self) -> float:
        return self.nats / max(1, self.tokens)

    @property
    def perplexity(self) -> float:
        return _exp(self.nats_per_token)

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / max(1, self.bytes)

    @property
    def bits_per_character(self) -> float:
        return self.nats / math.log(2) / max(1, self.characters)

    @property
    def word_perplexity(self) -> float:
        return _exp(self.nats / max(1, self.words))

    @property
    def bits_per_dim(self) -> float:
        return self.bits_per_byte  # of an image each byte is a dimension

    def as_dict(self, images: bool = False) -> dict[str, float]:
        """The figures by the names that `--json` prints."""
        of_kind = ["bits_per_dim"] if images else ["bits_per_character", "word_perplexity"]
        names = ["nats_per_token", "perplexity", "bits_per_byte", *of_kind]
        return {"tokens": self.tokens, "bytes": round(self.bytes)} | {name: getattr(self, name) for name in names}


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def nats(
    model: ReformerLM,
    prefix: Tensor,
    scored: Tensor,
    context: int | None = None,
    progress: Callable[[int], None] | None = None,
    parallel: bool = False,
) -> float:
    """Total nats of tokens scored [n], given prefix [m >= 1] and each other; streamed, bounded memory.

    context: each token sees at least half of and at most so many tokens before it: the text is taken in
    stretches of half a context, each read anew with the half before it. None: everything before it. parallel: every
    stretch in one forward pass, as in training, which for pattern published is another function.
    """
    whole = torch.cat([prefix, scored]).to(model.embedding.device)
    stretch = _at_once if parallel else _stream
    if context is None or len(whole) - 1 <= context:
        return stretch(model, whole, len(prefix), len(whole), progress)
    half = max(1, context // 2)
    total = 0.0
    for start in range(len(prefix), len(whole), half):
        stop = min(start + half, len(whole))
        total += stretch(
            model, whole[max(0, start - (context - half)) : stop], min(start, context - half), None, progress
        )
    return total


def _stream(
    model: ReformerLM, tokens: Tensor, first: int, last: int | None, progress: Callable[[int], None] | None
) -> float:
    """Nats of tokens[first:last], each given those before it."""
    inputs, targets = _aims(tokens, first, last)
    total, state = 0.0, None
    with torch.inference_mode():
        for start in range(0, len(inputs), AT_ONCE):
            here = slice(start, start + AT_ONCE)
            found, state = model.score(inputs[None, here], targets[None, here], state)
            total += float(found.double().sum())
            if progress is not None:
                progress(int((targets[here] >= 0).sum()))
    return total


def _at_once(
    model: ReformerLM, tokens: Tensor, first: int, last: int | None, progress: Callable[[int], None] | None
) -> float:
    """`_stream` in one forward pass."""
    inputs, targets = _aims(tokens, first, last)
    scored = int((targets[: len(inputs)] >= 0).sum())
    with torch.inference_mode():
        found = float(model.loss(inputs[None], targets[None, : len(inputs)])) * scored
    if progress is not None:
        progress(scored)
    return found


def _aims(tokens: Tensor, first: int, last: int | None) -> tuple[Tensor, Tensor]:
    """What is read, and what is to follow; -100 where that is not among tokens[first:]."""
    targets = tokens[1:].clone()
    targets[: max(0, first - 1)] = -100
    return tokens[: -1 if last is None else last - 1], targets
