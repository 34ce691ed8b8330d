"""What of a text stands in another one too: `find_copies(index, text)`, a list of Copy, in the order of the text.

A Copy has words (how many), start and stop (characters of the text), text (those characters), and place: name, line,
before, copied, after. Copies are as long as can be: none lies within another, but two may overlap. Nothing is printed.

    index = reformer_cli.workflows.novelty.index_of(run)      # a reformer_cli.novelty.index.TextIndex; made if need be
    for copy in find_copies(index, text): print(copy.words, copy.place.name, copy.place.line)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer_cli.novelty.index import OVERLAP, Place, TextIndex
from reformer_cli.novelty.words import Word, words_of

LEAST = 5  # words of what is called a copy
LENGTHS = (5, 8, 13, 20)  # words in copies of so many and more are counted
LONGEST = 50  # up to which shares are kept


@dataclass(frozen=True)
class Copy:
    """So many words that stand in another text too; start, stop: characters of the text."""

    words: int
    start: int
    stop: int
    text: str
    place: Place

    def as_dict(self) -> dict[str, Any]:
        """The same by name."""
        return asdict(self) | {"place": self.place._asdict()}


@dataclass(frozen=True)
class Matches:
    """Of each word of a text: how many words from it on stand together in the index, and where."""

    words: Sequence[Word]
    lengths: npt.NDArray[np.int64]
    where: Sequence[int]

    @property
    def longest(self) -> int:
        return int(self.lengths.max(initial=0))

    def novel(self, n: int) -> float:
        """Of all stretches of n words, the share that stands nowhere in the index."""
        from_here = self.lengths[: max(0, len(self.words) - n + 1)]
        return float((from_here < n).mean()) if len(from_here) else 0.0

    def shares(self, most: int = LONGEST) -> list[float]:
        """Of all words, those in copies of at least 1, 2, ... most words."""
        n = np.arange(len(self.words))
        ends = (np.where(self.lengths >= least, n + self.lengths, 0) for least in range(1, most + 1))
        return [float((np.maximum.accumulate(end) > n).mean()) if len(n) else 0.0 for end in ends]


def find_matches(index: TextIndex, text: str) -> Matches:
    """Each word's longest stretch: matching statistics, by the suffix array."""
    words = list(words_of(text))
    codes = memoryview(index.codes(word.text for word in words))
    lengths, where = np.zeros(len(words), np.int64), list[int]()
    length, at = 0, -1
    for n in range(len(words)):
        known = max(0, length - 1)  # of what stood at the word before, the rest stands behind it
        if known >= OVERLAP:  # a whole chapter: what else shares so many words is not told apart
            length, at = known, at + 1
            lengths[n] = length
            where.append(at)
            continue
        length, found = index.longest(codes[4 * n :], known)
        at = found if found >= 0 else at + 1
        lengths[n] = length
        where.append(at)
    return Matches(words, lengths, where)


def copies_of(index: TextIndex, text: str, found: Matches, least: int = LEAST) -> list[Copy]:
    """The stretches of at least so many words that lie within no other."""
    copies = []
    for n, length in enumerate(found.lengths.tolist()):
        if length >= least and (n == 0 or found.lengths[n - 1] <= length):
            start, stop = found.words[n].start, found.words[n + length - 1].stop
            copies.append(Copy(length, start, stop, text[start:stop], index.place(found.where[n], length)))
    return copies


def find_copies(index: TextIndex, text: str, least: int = LEAST) -> list[Copy]:
    """Copies of at least so many words, in order."""
    return copies_of(index, text, find_matches(index, text), least)
