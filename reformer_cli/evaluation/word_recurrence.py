"""How far back a word last occurred: what there is to gain from a long context, token by token."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reformer_cli.evaluation.token_facts import character_bytes, starts
from reformer_cli.tokenizers.base import Ids

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")  # letters and digits, inner apostrophes and hyphens
RARE = 20  # occurrences in a text, up to which a name is rare

NO_WORD, NEW = -1, 0  # instead of a distance


@dataclass(frozen=True)
class Recurrence:
    """Of each token: distance, int64 [n], the tokens from where its word (whatever its case) last began to where it
    begins now, NEW where it had not occurred, NO_WORD outside words; rare_name, bool [n]: in a rare name."""

    distance: npt.NDArray[np.int64]
    rare_name: npt.NDArray[np.bool_]

    def __getitem__(self, here: slice) -> Recurrence:
        return Recurrence(self.distance[here], self.rare_name[here])


def recurrence(text: str, ids: Ids, byte_lengths: npt.NDArray[np.float64]) -> Recurrence:
    """Of the tokens of a text. A token is in the word that its visible part begins in.

    A rare name is a word that occurs at most RARE times, at least one of them capitalised and never in small letters
    (so that the first word of a sentence is none), and not all in capitals.
    """
    distance = np.full(len(ids), NO_WORD, np.int64)
    rare_name = np.zeros(len(ids), np.bool_)
    words = list(WORD.finditer(text))
    if not words or len(ids) == 0:
        return Recurrence(distance, rare_name)
    begins, bytes_at = starts(ids, byte_lengths), character_bytes(text)
    # A word's tokens: from the one that holds its first byte to the one that holds its last.
    first = np.searchsorted(begins[:-1], bytes_at[[m.start() for m in words]], side="right") - 1
    last = np.searchsorted(begins[:-1], bytes_at[[m.end() for m in words]], side="left") - 1
    names = _rare_names([m.group() for m in words])
    seen: dict[str, int] = {}
    for match, a, b in zip(words, first.tolist(), last.tolist(), strict=True):
        word = match.group().casefold()
        # Where one token ends a word and begins the next, it stays with the first.
        a_own = a if distance[a] == NO_WORD else a + 1
        distance[a_own : b + 1] = a - seen[word] if word in seen else NEW
        rare_name[a_own : b + 1] = word in names
        seen[word] = a
    return Recurrence(distance, rare_name)


def _rare_names(words: list[str]) -> set[str]:
    """Of a text's words in order, casefolded."""
    counts: Counter[str] = Counter()
    small: set[str] = set()
    capitalised: set[str] = set()
    for word in words:
        key = word.casefold()
        counts[key] += 1
        if not word[0].isupper():
            small.add(key)
        elif len(word) > 1 and not word.isupper():
            capitalised.add(key)
    return {key for key in capitalised - small if counts[key] <= RARE}
