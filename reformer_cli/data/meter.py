"""Counts, digest and shingles of a document."""

from __future__ import annotations

import hashlib

import numpy as np

from reformer_cli.data.shingles import Hashes, Shingles
from reformer_cli.data.text_decoding import Options, UnreadableText

FEW = 2_000  # characters up to which Python counts words faster than numpy
_RARE = "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_RARE_CODES = [int.from_bytes(sign.encode().ljust(3, b"\0"), "big") for sign in _RARE]
# Of a byte of UTF-8: 1, white space; 2, may begin such.
_KINDS = bytes(1 if b in b"\t\n\v\f\r\x1c\x1d\x1e\x1f " else 2 * (b in (0xC2, 0xE1, 0xE2, 0xE3)) for b in range(256))


class Meter:
    """Counts and digests a document that comes in pieces."""

    def __init__(self, name: str, options: Options, count_words: bool = True) -> None:
        self.name, self.options = name, options
        self.characters = self.bytes = self.words = 0
        self._sum, self._count_words, self._inside = hashlib.sha256(), count_words, False
        self._shingles = Shingles()

    def add(self, piece: str) -> None:
        try:
            data = self.options.bytes_of(piece)
        except UnicodeEncodeError:
            raise UnreadableText(
                f"{self.name} holds half of a character (a lone surrogate)", "give its encoding"
            ) from None
        self._sum.update(data)
        self.characters += len(piece)
        self.bytes += len(data)
        text = self.options.image_size is None
        if self._count_words and text:
            self._shingles.add(data)
        if self._count_words and piece:
            self.words += count_words(piece, data if text else None) - (self._inside and not piece[0].isspace())
            self._inside = not piece[-1].isspace()

    def digest(self) -> bytes:
        return self._sum.digest()

    def shingles(self) -> Hashes:
        return self._shingles.finish(self.digest())


def count_words(text: str, data: bytes | None = None) -> int:
    """len(text.split()), faster where the text is long. data: its UTF-8, where that is known."""
    if len(text) <= FEW:
        return len(text.split())
    data = (text.encode() if data is None else data) + b"\0\0"
    kinds = np.frombuffer(data.translate(_KINDS), np.uint8).copy()
    if not text.isascii() and len(at := np.flatnonzero(kinds == 2)):
        first, second, third = (np.frombuffer(data, np.uint8)[at + n].astype(np.int32) for n in range(3))
        short = first == 0xC2
        rare = np.isin(first << 16 | second << 8 | np.where(short, 0, third), _RARE_CODES)
        kinds[at] = 0
        for n in range(3):
            kinds[at[rare & ~short] + n] = 1
            kinds[at[rare & short] + min(n, 1)] = 1
    space = kinds[:-2] == 1
    return int(np.count_nonzero(space[:-1] > space[1:])) + (not space[0])
