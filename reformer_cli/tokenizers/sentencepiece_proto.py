"""What a sentencepiece model file says of itself beyond what that library's Python interface shows.

The file is one protobuf message; a reader of its wire format is a screen of code, and spares a dependency. Field
numbers are those of sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

USER_DEFINED = 4  # SentencePiece.Type
KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}  # TrainerSpec.ModelType
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class ModelFacts:
    """How a model cuts and normalises. charsmap: its compiled rules of normalisation, empty for none; user_defined: ids
    of pieces that are taken wherever a text holds them."""

    kind: str = "unigram"
    charsmap: bytes = b""
    dummy_prefix: bool = True  # a space is put before every text
    collapses_spaces: bool = True  # spaces at both ends are dropped, several become one
    escapes_spaces: bool = True
    spaces_after_words: bool = False
    user_defined: tuple[int, ...] = ()


def read_facts(model: bytes) -> ModelFacts:
    """Facts about a model that sentencepiece has accepted. Raises ValueError for bytes that are no such message."""
    normalizer: dict[int, int | bytes] = {}
    pieces: list[int | bytes] = []
    for number, value in _fields(model):
        if number == 1 and isinstance(value, bytes):
            pieces.append(dict(_fields(value)).get(3, 1))
        elif number == 3 and isinstance(value, bytes):
            normalizer = dict(_fields(value))
    trainer, charsmap = _trainer(model), normalizer.get(2, b"")
    return ModelFacts(
        kind=_kind(trainer),
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
        dummy_prefix=bool(normalizer.get(3, 1)),
        collapses_spaces=bool(normalizer.get(4, 1)),
        escapes_spaces=bool(normalizer.get(5, 1)),
        spaces_after_words=bool(trainer.get(24, 0)),
        user_defined=tuple(n for n, kind in enumerate(pieces) if kind == USER_DEFINED),
    )


def read_kind(model: bytes) -> str:
    """How a model cuts: one of KINDS, or unknown. Raises ValueError as `read_facts`, which takes longer."""
    return _kind(_trainer(model))


def _trainer(model: bytes) -> dict[int, int | bytes]:
    found = [value for number, value in _fields(model) if number == 2 and isinstance(value, bytes)]
    return dict(_fields(found[-1])) if found else {}


def _kind(trainer: dict[int, int | bytes]) -> str:
    return KINDS.get(int(trainer.get(3, 1)), "unknown")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of every field of a message, in the order of the file."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == LENGTH:
            size, at = _varint(data, at)
        elif kind in (FOUR_BYTES, EIGHT_BYTES):
            size = 4 if kind == FOUR_BYTES else 8
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"a field of {size} bytes at byte {at} of {len(data)}")
        part = data[at : at + size]
        at += size
        yield number, part if kind == LENGTH else struct.unpack("<I" if size == 4 else "<Q", part)[0]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError(f"no number at byte {at}")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
