"""Words as they are compared: without case, punctuation, quotation marks and hyphens.

"“Don’t!” he said" is dont, he, said; well-known is two words; a decomposed letter is its composed one. In scripts that
put no space between words, each character is one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

# Chinese and Japanese; Thai, Lao, Burmese and Khmer.
SINGLE = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
JOINING = "'’‘ʼ\xad\u200c\u200d"  # within a word they are left out: don't, soft hyphens


def _marks() -> str:
    """What changes the letter before it, as ranges."""
    marks = (n for n in range(0x300, 0x1F000) if unicodedata.category(chr(n))[0] == "M")
    runs = ([n for _, n in run] for _, run in groupby(enumerate(marks), lambda pair: pair[1] - pair[0]))
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)


MARKS = _marks()
LETTER = rf"[^\W_{SINGLE}]"
INNER = rf"[{MARKS}]*[{JOINING}]?[{MARKS}]*"  # between the letters of a word; two signs are a quotation's end
WORD = re.compile(rf"{LETTER}+(?:{INNER}{LETTER}+)*[{MARKS}]*|[{SINGLE}]")
WORD_OR_LINE = re.compile(rf"{WORD.pattern}|\n")
APOSTROPHES = "'’‘ʼ"
_ALIKE = str.maketrans(dict.fromkeys(APOSTROPHES, "'") | dict.fromkeys(set(JOINING) - set(APOSTROPHES)))


class Word(NamedTuple):
    """text: as compared; start, stop: characters of the text that it is of."""

    text: str
    start: int
    stop: int


def normalised(word: str) -> str:
    """A match of WORD as it is compared."""
    return spelling(word).replace("'", "")


def spelling(word: str) -> str:
    """The same with its apostrophes, all of one kind: don't."""
    return unicodedata.normalize("NFKC", word.casefold().translate(_ALIKE))


def words_of(text: str) -> Iterator[Word]:
    """In order."""
    for match in WORD.finditer(text):
        yield Word(normalised(match.group()), match.start(), match.end())
