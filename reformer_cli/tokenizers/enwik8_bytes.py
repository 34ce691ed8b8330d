"""The published enwik8 model's coding of text: a token is a byte plus two."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from reformer_cli.tokenizers.base import Ids, StatelessTokenizer, StreamDecoder

SHIFT = 2  # 0 and 1 are reserved: padding and end, as in the program that the coding comes from


class ShiftedByteTokenizer(StatelessTokenizer):
    """Byte b is token b + 2. Token 0 separates documents: it is what the original put before every text."""

    kind = "bytes+2"
    vocab_size = 256 + SHIFT
    end = 0
    lossless = True

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int32) + SHIFT

    def decode(self, ids: Ids) -> str:
        ids = np.asarray(ids)
        return (ids[ids >= SHIFT] - SHIFT).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def byte_lengths(self) -> npt.NDArray[np.float64]:
        return np.r_[np.zeros(SHIFT), np.ones(256)]

    def stream(self) -> StreamDecoder:
        return StreamDecoder([b""] * SHIFT + [bytes([b]) for b in range(256)], {})

    def serialise(self) -> bytes:
        return json.dumps({"kind": self.kind}).encode()
