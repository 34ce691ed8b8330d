"""Don't Repeat Yourself (DRY): what would make a stretch of the text come again, and how long that stretch is.

As p-e-w described it for text-generation-webui (pull request 5677) and llama.cpp took it over, over tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from reformer_cli.tokenizers.base import Tokenizer

WINDOW = 4096  # tokens back that are looked at: loops are nearer, and each takes memory
LONGEST = 50  # a longer stretch is made no less likely than this: base ** 50 is beyond every logit


@lru_cache(maxsize=16)  # each text of a server asks for them
def breakers(tokenizer: Tokenizer, texts: str) -> npt.NDArray[np.bool_]:
    """Tokens that no repeated stretch goes across, [vocab_size]: those that hold one of these texts, and the last one
    of a text that no token holds."""
    pieces = tokenizer.stream().pieces
    found = np.zeros(tokenizer.vocab_size, bool)
    for text in filter(None, texts):
        held = [token for token, piece in enumerate(pieces) if text.encode() in piece]
        found[held or tokenizer.encode(text)[-1:]] = True
    return found


class Repeats:
    """Of one text: the earlier places before which its newest tokens stand, at least `least` of them."""

    def __init__(self, breakers: npt.NDArray[np.bool_], least: int) -> None:
        self.breakers, self.least = breakers, least
        self.tokens: list[int] = []  # the newest ones; `gone` came before them
        self.gone = 0
        self._unbroken = 0  # tokens since the last breaker
        self._newest: tuple[int, ...] | None = None  # `least` of them; None: not so many, or a breaker among them
        self._places: dict[tuple[int, ...], list[int]] = {}  # of so many tokens, where each time the next one stands
        self._matched: dict[int, int] = {}  # of a place, how many tokens before it are also the newest ones

    def extend(self, tokens: Sequence[int]) -> None:
        """These came next; of many, the last decide all that `lengths` says."""
        tokens = tokens[-(WINDOW + LONGEST) :]
        for left, token in zip(range(len(tokens), 0, -1), tokens, strict=True):
            at = self.gone + len(self.tokens)
            if self._newest is not None:
                self._places.setdefault(self._newest, []).append(at)
            self.tokens.append(token)
            self._unbroken = 0 if self.breakers[token] else self._unbroken + 1
            self._newest = tuple(self.tokens[-self.least :]) if self._unbroken >= self.least else None
            # One longer than a token ago; what was no stretch then is the shortest one now.
            places = self._places.get(self._newest, ()) if self._newest is not None and left <= LONGEST else ()
            before, shortest = self._matched, self.least - 1
            self._matched = {place: before.get(place - 1, shortest) + 1 for place in places}
        if len(self.tokens) > 2 * (WINDOW + LONGEST):
            self._forget()

    def lengths(self) -> dict[int, int]:
        """Tokens that would go on with a stretch which was there before: its length."""
        found: dict[int, int] = {}
        start = self.gone + len(self.tokens) - WINDOW
        for place, length in self._matched.items():
            if place >= start:
                token = self.tokens[place - self.gone]
                found[token] = max(found.get(token, 0), min(length, LONGEST))
        return found

    def _forget(self) -> None:
        """What is out of the window."""
        out = len(self.tokens) - WINDOW - LONGEST
        del self.tokens[:out]
        self.gone += out
        kept = ((key, [at for at in places if at >= self.gone]) for key, places in self._places.items())
        self._places = {key: places for key, places in kept if places}

    def copy(self) -> Repeats:
        """An independent one."""
        other = copy.copy(self)
        other.tokens = list(self.tokens)
        other._places = {key: list(places) for key, places in self._places.items()}
        return other
