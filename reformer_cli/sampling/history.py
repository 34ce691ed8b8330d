"""What sampling knows of one text so far: for the repetition penalty, n-grams that may not come again, bias by text."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from reformer_cli.tokenizers.base import StreamDecoder, Tokenizer


class TextBias:
    """For texts and what is added where one would be completed: which tokens that are, however they split the text."""

    def __init__(self, texts: Sequence[tuple[str, float]], tokenizer: Tokenizer) -> None:
        self.texts = [(text.encode(), value) for text, value in texts]
        self.tokenizer = tokenizer
        self._known: dict[tuple[object, ...], Tensor] = {}

    def follow(self) -> BiasFollower:
        """Of one text that is made."""
        return BiasFollower(self)

    def completing(self, n: int, matched: int, decoder: StreamDecoder) -> Tensor:
        """Tokens (int64) after which text n has occurred, if its first `matched` bytes are the newest ones."""
        key = (n, matched, decoder.state)
        if key not in self._known:
            text = self.texts[n][0]
            found = [t for t in range(len(decoder.pieces)) if text in text[:matched] + decoder.after(t)[0]]
            self._known[key] = torch.tensor(found, dtype=torch.int64)
        return self._known[key]


class BiasFollower:
    """How much of each of TextBias's texts the newest bytes are."""

    def __init__(self, of: TextBias) -> None:
        self.of, self.decoder = of, of.tokenizer.stream()
        self.matched = [0] * len(of.texts)

    def push(self, token: int) -> None:
        """A token was made."""
        new = self.decoder.feed(token)
        for n, (text, _) in enumerate(self.of.texts):
            # Less than the whole: what of a complete occurrence may begin the next one (Knuth, Morris and Pratt).
            tail = text[: self.matched[n]] + new
            self.matched[n] = next((k for k in range(len(text) - 1, 0, -1) if tail.endswith(text[:k])), 0)

    def biases(self) -> list[tuple[Tensor, float]]:
        """(tokens, what is added to their logits)."""
        found = ((self.of.completing(n, self.matched[n], self.decoder), v) for n, (_, v) in enumerate(self.of.texts))
        return [(tokens, value) for tokens, value in found if len(tokens)]


class History:
    """The tokens of one text, prompt included. ngram: which sequences may not come twice; 0: all may."""

    def __init__(self, *, ngram: int = 0, end: int | None = None, bias: TextBias | None = None) -> None:
        self.tokens: list[int] = []
        self.ngram, self.end = ngram, end
        self._after: dict[tuple[int, ...], set[int]] = defaultdict(set)
        self._follower = bias.follow() if bias is not None else None

    @property
    def biased(self) -> bool:
        """Whether `biases` may say anything."""
        return self._follower is not None

    def extend(self, tokens: Iterable[int]) -> None:
        """These came next."""
        for token in tokens:
            if self.ngram and len(self.tokens) >= self.ngram - 1:
                self._after[self._newest()].add(token)
            if self._follower is not None:
                self._follower.push(token)
            self.tokens.append(token)

    def recent(self, n: int) -> list[int]:
        """The last n tokens."""
        return self.tokens[-n:]

    def repeating(self) -> list[int]:
        """Tokens that would make a sequence of `ngram` tokens a second time. The end of a text always may come."""
        return [t for t in self._after.get(self._newest(), ()) if t != self.end]

    def biases(self) -> list[tuple[Tensor, float]]:
        """(tokens, what is added to their logits)."""
        return self._follower.biases() if self._follower is not None else []

    def _newest(self) -> tuple[int, ...]:
        return tuple(self.tokens[len(self.tokens) - self.ngram + 1 :])

    def copy(self) -> History:
        """An independent one, for a text that branches off."""
        other = History(ngram=self.ngram, end=self.end)
        other.tokens = list(self.tokens)
        other._after.update((key, set(found)) for key, found in self._after.items())
        other._follower = copy.deepcopy(
            self._follower, {id(self._follower.of): self._follower.of} if self._follower else {}
        )
        return other
