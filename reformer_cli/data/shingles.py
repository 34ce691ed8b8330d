"""Hashed shingles of a text: equal ones for equal passages, whatever their case, line ends, punctuation and numbers.

Of the letters of a text, each stretch of 40 is a shingle, and about one in 64 is kept: those that begin with eight
letters whose hash is small (Manber 1994, Broder 1997), so two copies of a passage keep the same ones. 32 bits of each
hash are kept. A text too short for that gives two numbers from its digest, so it equals exact copies alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LENGTH, WORD = 40, 8  # letters of a shingle, and hashed at once
BITS = 6  # of the hash of the first eight letters that are 0 in what is kept
FEWEST = 6  # shingles: a text of fewer is told by its digest
AT_ONCE = 2**16  # bytes of text from which it pays to look at them
Hashes = npt.NDArray[np.uint32]
_MULTIPLIER, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)
# Left out: all ASCII but letters, and the bytes of UTF-8 of which typographic quotation marks, dashes and spaces
# consist, in which editions differ. What is left of other scripts is still enough to tell passages apart.
_KEPT = bytes(b for b in range(256) if (b < 128 and chr(b).isalpha()) or (b >= 0xA0 and b not in (0xC2, 0xE2)))
LEFT_OUT = bytes(b for b in range(256) if b not in _KEPT)
LOWER = bytes(range(256)).lower()


class Shingles:
    """The shingles of one text, which comes bit by bit as UTF-8."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._size, self._letters = 0, b""
        self._found: list[Hashes] = []

    def add(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= AT_ONCE:
            self._look()

    def finish(self, digest: bytes) -> Hashes:
        """All of them in the order of the text; digest: of the text."""
        if self._size + len(self._letters) >= LENGTH * FEWEST:
            self._look()
        if sum(map(len, self._found)) >= FEWEST:
            return np.concatenate(self._found)
        two = np.frombuffer(digest, "<u4", 2).astype(np.uint32)
        two[1] = two[0] & 0xFF000000 | two[1] & 0xFFFFFF  # a sample by size takes both or none
        return two

    def _look(self) -> None:
        letters = self._letters + b"".join(self._waiting).translate(LOWER, LEFT_OUT)
        found = hashes(letters, shingle_starts(letters))
        # A text that repeats itself without end has as many shingles as letters: of a stretch, each counts once.
        self._found.append(found[np.sort(np.unique(found, return_index=True)[1])])
        self._letters = letters[max(0, len(letters) - LENGTH + 1) :]
        self._waiting, self._size = [], 0


def shingle_starts(letters: bytes) -> npt.NDArray[np.int64]:
    """Places in letters at which the shingles that are kept begin."""
    n = len(letters) - LENGTH + 1
    if n <= 0:
        return np.zeros(0, np.int64)
    return np.flatnonzero(_words(letters)[:n] * _MULTIPLIER < np.uint64(1 << 64 - BITS))


def hashes(letters: bytes, starts: npt.NDArray[np.int64]) -> Hashes:
    """Of the shingles that begin there."""
    words, found = _words(letters), np.zeros(len(starts), np.uint64)
    for at in range(0, LENGTH, WORD):
        found = (found ^ words[starts + at]) * _MIX
        found ^= found >> np.uint64(32)
    return found.astype(np.uint32)


def _words(letters: bytes) -> npt.NDArray[np.uint64]:
    """Eight letters from each place on, as a number."""
    return np.ndarray((max(0, len(letters) - WORD + 1),), "<u8", letters, strides=(1,))
