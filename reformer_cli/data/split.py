"""Which text is never trained on: how much of each document's end, and where exactly it is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from reformer_cli.config.schema import DataConfig

MOST = 4_000_000  # characters held out of a corpus: enough for a validation, and scored in minutes
MANY = 1_000  # documents of which each gives its end; of more than these, some do
SHORT = 20_000  # characters up to which a document among many is held out whole or not at all
LONGEST_END = 400_000  # characters that one document among many gives
NEAREST_LINE = 2_000  # characters within which the cut moves to a line's end


@dataclass(frozen=True)
class Span:
    """A stretch of a token file, and the text it stands for."""

    start: int
    stop: int
    bytes: int
    characters: int
    words: int


@dataclass(frozen=True)
class ValidationSpan:
    """The part of a document that is for validation, and (context_start, context_stop) where what comes before it is in
    the training tokens."""

    name: str
    span: Span
    context_start: int
    context_stop: int


def share_of(data: DataConfig) -> float:
    """Of the corpus; none where there are texts to validate on."""
    return 0.0 if data.validation else data.val_fraction


class Rule(Protocol):
    """Asked document by document, in the order of the corpus."""

    def tail(self, characters: int) -> int:
        """How many characters at the end of the next document are held out."""

    def skip(self, lengths: npt.NDArray[np.int64]) -> None:
        """As if `tail` had been asked for so many documents."""


class Share:
    """A share of a corpus of so many documents and characters.

    Of few documents each gives its end. Of many, every so-manieth does, short ones whole: the ends of a million short
    documents would be a million scraps. whole: no document is cut, as of images.
    """

    def __init__(self, share: float, documents: int, characters: int, whole: bool = False) -> None:
        self.share, self.whole = share, whole
        self.lowered = min(share, MOST / max(1, characters))
        self.many = documents > MANY or whole
        self.short = self.long = 0

    def tail(self, characters: int) -> int:
        if not self.many:
            return characters - round(characters * (1 - self.lowered))
        if characters <= SHORT or self.whole:
            self.short += 1
            return characters if _falls(self.short, self.lowered) else 0
        self.long += 1
        end = min(LONGEST_END, round(characters * self.share))
        return end if self.share and _falls(self.long, self.lowered / self.share) else 0

    def skip(self, lengths: npt.NDArray[np.int64]) -> None:
        short = len(lengths) if self.whole else int((lengths <= SHORT).sum())
        self.short += short
        self.long += len(lengths) - short


def _falls(n: int, share: float) -> bool:
    """Whether the n-th of a row, from 1, is one of the share, which is spread evenly."""
    return int(n * share + 0.5) > int((n - 1) * share + 0.5)


class Everything:
    """Files that are there for validation alone."""

    def tail(self, characters: int) -> int:
        return characters

    def skip(self, lengths: npt.NDArray[np.int64]) -> None: ...


def split(pieces: Iterable[str], characters: int, tail: int) -> Iterator[tuple[bool, str]]:
    """(whether it is held out, text) of a document of so many characters that gives its last `tail` ones.

    The cut moves to the next line's end if one is near; a document that is held out whole is not cut.
    """
    at = characters - tail
    if at in (0, characters):
        yield from ((at == 0, piece) for piece in pieces)
        return
    done, after, held = 0, "", False  # after: text behind the place, while the line's end is looked for
    for piece in pieces:
        if held:
            yield True, piece
            continue
        if done < at:
            part = piece[: at - done]
            yield False, part
            done, piece = done + len(part), piece[len(part) :]
        after += piece
        if len(after) >= NEAREST_LINE:
            yield from _cut(after, characters - at)
            after, held = "", True
    if not held:
        yield from _cut(after, characters - at)


def _cut(after: str, left: int) -> Iterator[tuple[bool, str]]:
    line = after.find("\n", 0, NEAREST_LINE - 1) + 1
    line = line if line < left else 0
    yield False, after[:line]
    yield True, after[line:]
