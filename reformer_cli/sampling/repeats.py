"""Don't Repeat Yourself (DRY): what would make a stretch of the text come again, and how long that stretch is.

As p-e-w described it for text-generation-webui (pull request 5677) and llama.cpp took it over, over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from reformer_cli.tokenizers.base import Tokenizer

WINDOW = 4096  # tokens back that are looked at: loops are nearer, and a token costs this much time
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
    """Of one text: at each earlier token, how many tokens before it are also the newest ones."""

    def __init__(self, breakers: npt.NDArray[np.bool_]) -> None:
        self.breakers = breakers
        self.tokens = np.zeros(2 * WINDOW, np.int64)
        self.matched = np.zeros(2 * WINDOW, np.int32)
        self.n = 0

    def extend(self, tokens: Sequence[int]) -> None:
        """These came next; of many, the last decide all that `lengths` says."""
        for token in tokens[-(WINDOW + LONGEST) :]:
            n = self.n
            if n == len(self.tokens):
                n = WINDOW
                self.tokens[:n], self.matched[:n] = self.tokens[-n:], self.matched[-n:]
            self.matched[1 : n + 1] = np.where(self.tokens[:n] == token, self.matched[:n] + 1, 0)
            if self.breakers[token]:
                self.matched[: n + 1] = 0
            self.tokens[n], self.n = token, n + 1

    def lengths(self, least: int) -> dict[int, int]:
        """Tokens that would go on with a stretch of at least so many tokens which was there before: its length."""
        found: dict[int, int] = {}
        start = max(0, self.n - WINDOW)
        for at in np.flatnonzero(self.matched[start : self.n] >= least) + start:
            token = int(self.tokens[at])
            found[token] = max(found.get(token, 0), min(int(self.matched[at]), LONGEST))
        return found

    def copy(self) -> Repeats:
        """An independent one."""
        other = Repeats(self.breakers)
        other.tokens, other.matched, other.n = self.tokens.copy(), self.matched.copy(), self.n
        return other
