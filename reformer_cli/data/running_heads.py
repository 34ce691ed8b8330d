"""Running heads, as "CRIME AND PUNISHMENT  213" on each page of a book from a PDF, and page numbers on their own lines.

A line is one if its letters stand six times or more in a block of the text (numbers: if they go up), at even distances
of 0.5 to 12 thousand characters, and if in 0.4 of these places it stands in the middle of a sentence: a page ends
anywhere, so no heading, refrain or line of code does. Once found, it is one in the rest of the text
too; while none is, of the blocks of a text the first three, the fifth, ninth and so on are looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from reformer_cli.data.unwrap import blocks

BLOCK = 2**17  # characters that are looked at together
LEAST, LONGEST, LETTERS = 6, 90, 4  # times it stands in a block; characters of the line, letters in it
NEAREST, FARTHEST, EVEN = 500, 12_000, 2.0  # characters between two; quartiles of these distances may differ so much
WITHIN = 0.4  # share of places in the middle of a sentence
NEAR = 4  # lines around it in which the sentence must go on
MOST_KNOWN = 1000  # heads of one text
GOING_UP = 0.8  # share of numbers that are one or two more than the one before
NUMBER = b"#"  # stands for the letters of a line that is a number
_KEPT = bytes(b for b in range(256) if b == 10 or b >= 128 or chr(b).isalnum())
_OTHERS = bytes(b for b in range(256) if b not in _KEPT)
_LOWER = re.sub(rb"\d", b"0", bytes(range(256))).lower()  # a digit becomes 0
_AROUND = " \t-\u2013\u2014[]().|"
_ENDS = ".!?:\"'\u201d\u2019\u00bb)\u2026*_\u3002\uff01\uff1f"


def cut_heads(pieces: Iterable[str], cut: bool, tell: Callable[[int, str], None]) -> Iterator[str]:
    """A text, without its running heads if they are to be cut. tell: how many there are, and one of them."""
    known: set[bytes] = set()
    for n, block in enumerate(blocks(pieces, BLOCK)):
        looked_at = known or (len(block) >= NEAREST * LEAST and n & (n - 1) == 0)
        heads = _heads(block, known) if looked_at else []
        if heads:
            lines = block.split("\n")
            tell(len(heads), lines[heads[0]].strip())
            block = _without(lines, heads) if cut else block
        yield block


def _heads(block: str, known: set[bytes]) -> list[int]:
    """Numbers of the lines of a block that are heads; further ones go to the known ones."""
    text = block.encode("utf-8", "surrogatepass").translate(_LOWER, _OTHERS)
    numbers = text.count(b"0\n") >= LEAST
    keys = text.replace(b"0", b"").split(b"\n")
    likely = {key for key, n in Counter(keys).items() if n >= LEAST and len(key) >= LETTERS and key not in known}
    if not likely and not known and not numbers:
        return []
    lines = block.split("\n")
    for n, key in enumerate(text.split(b"\n")):
        if key and not key.strip(b"0"):
            keys[n] = NUMBER
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)])
    for key in sorted({*likely, NUMBER} - known):
        places = [n for n, k in enumerate(keys) if k == key and len(lines[n]) <= LONGEST]
        if len(known) < MOST_KNOWN and len(places) >= LEAST and _is_head(lines, starts[places], places, key):
            known.add(key)
    return [n for n, key in enumerate(keys) if key in known and len(lines[n]) <= LONGEST]


def _is_head(lines: list[str], starts: npt.NDArray[np.int64], places: list[int], key: bytes) -> bool:
    low, middle, high = np.quantile(np.diff(starts), (0.25, 0.5, 0.75))
    if not (low >= NEAREST and middle <= FARTHEST and high <= EVEN * low):
        return False
    if key == NUMBER:
        numbers = [int(re.sub(r"\D", "", lines[n])[:9]) for n in places]
        if sum(0 < b - a <= 2 for a, b in pairwise(numbers)) < GOING_UP * (len(numbers) - 1):
            return False
    return sum(_within(lines, n) for n in places) >= WITHIN * len(places)


def _within(lines: list[str], n: int) -> bool:
    """Whether a line parts a sentence."""
    before = next(filter(_is_text, reversed(lines[max(0, n - NEAR) : n])), ".").rstrip()
    after = next(filter(_is_text, lines[n + 1 : n + 1 + NEAR]), "A").strip(_AROUND + "\"'\u201c\u2018")[:1]
    return before[-1] not in _ENDS and not after.isupper()


def _is_text(line: str) -> bool:
    text = line.strip(_AROUND)
    return bool(text) and not text.isdecimal()


def _without(lines: list[str], heads: list[int]) -> str:
    """The lines but for those, and for the blank ones around them where they part a sentence."""
    gone = set(heads)
    for n in heads:
        if _within(lines, n):
            for step in (-1, 1):
                at = n + step
                while 0 <= at < len(lines) - 1 and not lines[at].strip():
                    gone.add(at)
                    at += step
    return "\n".join(line for n, line in enumerate(lines) if n not in gone)
