"""What sampling knows of one text so far: what filters and rules ask for."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from reformer_cli.sampling.characters import NONE, Characters
from reformer_cli.sampling.repeats import Repeats
from reformer_cli.sampling.word_rules import WordWatch
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

    def copy(self) -> BiasFollower:
        """An independent one."""
        other = copy.copy(self)
        other.decoder, other.matched = copy.deepcopy(self.decoder), list(self.matched)
        return other

    def biases(self) -> list[tuple[Tensor, float]]:
        """(tokens, what is added to their logits)."""
        found = ((self.of.completing(n, self.matched[n], self.decoder), v) for n, (_, v) in enumerate(self.of.texts))
        return [(tokens, value) for tokens, value in found if len(tokens)]


class History:
    """The tokens of one text, prompt included. ngram: which sequences may not come twice; 0: all may; repeats: what
    would come again; characters: which tokens spell any. mirostat: the surprise beyond which nothing is drawn; None:
    nothing was drawn yet; words: which ones may come."""

    def __init__(
        self, *, ngram: int = 0, end: int | None = None, bias: TextBias | None = None,
        repeats: Repeats | None = None, characters: Characters | None = None, words: WordWatch | None = None,
    ) -> None:  # fmt: skip
        self.tokens: list[int] = []
        self.ngram, self.end, self.characters, self.words = ngram, end, characters, words
        self.repeats = repeats
        self.mirostat: float | None = None
        self._after: dict[tuple[int, ...], set[int]] = defaultdict(set)
        self._follower = bias.follow() if bias is not None else None
        self.after: list[int] = []  # the only tokens that may come next; none: any
        self._waiting = NONE
        self.added: Tensor | None = None  # to logits in any case, float [vocab_size]

    def extend(self, tokens: Sequence[int], drawn: bool = False) -> None:
        """These came next; drawn: as filters and rules had them."""
        if self.words is not None:
            self.words.extend(tokens, drawn)
        if self.repeats is not None:
            self.repeats.extend(tokens)
        if self.characters is not None:
            self._waiting = self.characters.follow(tokens, self._waiting)
        self.after = self.after if not tokens else []
        if not self.ngram and self._follower is None:
            self.tokens.extend(tokens)
            return
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
        """Tokens that would make a sequence of `ngram` tokens a second time. The end of a text always may come, and
        that of a prompt."""
        if self.after:
            return []
        return [t for t in self._after.get(self._newest(), ()) if t != self.end]

    def mask(self, device: torch.device) -> Tensor | None:
        """What is added to logits, float [vocab_size]: `added`, and -inf at tokens that cannot become characters, or
        would not begin as the prompt ends. None: nothing."""
        if self.characters is None:
            return self.added
        mask = self.characters.mask(self._waiting, device)
        if self.after:
            mask = torch.full_like(mask, -torch.inf).index_fill_(0, torch.tensor(self.after, device=device), 0.0)
        return mask if self.added is None else mask + self.added

    def biases(self) -> list[tuple[Tensor, float]]:
        """(tokens, what is added to their logits)."""
        return self._follower.biases() if self._follower is not None else []

    def _newest(self) -> tuple[int, ...]:
        return tuple(self.tokens[len(self.tokens) - self.ngram + 1 :])

    def copy(self) -> History:
        """An independent one, for a text that branches off."""
        other = copy.copy(self)
        other.tokens = list(self.tokens)
        other._after = defaultdict(set, {key: set(found) for key, found in self._after.items()})
        other.words = self.words.copy() if self.words is not None else None
        other.repeats = self.repeats.copy() if self.repeats is not None else None
        other._follower = self._follower.copy() if self._follower is not None else None
        return other
