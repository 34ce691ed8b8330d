"""What each token of a text holds: bytes, characters and words, so that scores are of the text and not of tokens."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from reformer_cli.tokenizers.base import Ids

WORD = re.compile(r"\S+")
Facts = npt.NDArray[np.float64]  # [tokens, 3]: bytes, characters and words that begin in each


def starts(ids: Ids, byte_lengths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The byte of the text at which each token begins, and the text's length: [tokens + 1]. A nibble is half a byte."""
    return np.concatenate([[0.0], np.cumsum(byte_lengths[ids])])


def character_bytes(text: str) -> npt.NDArray[np.int64]:
    """The UTF-8 byte at which each character begins, and the length in bytes: [characters + 1]."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    widths = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([[0], np.cumsum(widths)])


def facts_of(text: str, ids: Ids, byte_lengths: npt.NDArray[np.float64]) -> Facts:
    """What each token of a text holds: bytes, characters that begin in it, words (runs of visible characters) too."""
    if len(ids) == 0:
        return np.zeros((0, 3))
    begins, characters = starts(ids, byte_lengths)[:-1], character_bytes(text)
    words = characters[[m.start() for m in WORD.finditer(text)]]
    columns = [byte_lengths[ids]]
    for places in (characters[:-1], words):
        owner = np.searchsorted(begins, places, side="right") - 1
        columns.append(np.bincount(owner, minlength=len(ids)).astype(np.float64))
    return np.stack(columns, 1)
