"""Tokenizers from files, which may come from anyone: a run's tokenizer.model, and models of other programs."""

from __future__ import annotations

from pathlib import Path

from reformer_cli.tokenizers import sentencepiece
from reformer_cli.tokenizers.base import ByteTokenizer, PixelTokenizer, Tokenizer
from reformer_cli.tokenizers.enwik8_bytes import ShiftedByteTokenizer
from reformer_cli.tokenizers.sentencepiece import SentencePieceTokenizer
from reformer_cli.tokenizers.subword import AnotherProgramsError, SubwordTokenizer
from reformer_cli.utils.errors import UserError

LARGEST = 2**26  # bytes of a tokenizer file


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a run's tokenizer.model. Raises UserError if it is missing or damaged."""
    try:
        data = _read_limited(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing", "the run is not complete") from None
    return deserialise(data, str(path))


def open_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer of ours, or a sentencepiece model of whoever's. Raises UserError for any other file."""
    try:
        data = _read_limited(path)
    except FileNotFoundError:
        raise UserError(f"no file {str(path)!r}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    try:
        return deserialise(data, str(path))
    except AnotherProgramsError:
        return SentencePieceTokenizer(data, str(path))


def deserialise(data: bytes, where: str = "the tokenizer") -> Tokenizer:
    """The tokenizer that some `serialise` wrote. Raises UserError for other bytes."""
    for plain in (ByteTokenizer(), PixelTokenizer(), ShiftedByteTokenizer()):
        if data == plain.serialise():
            return plain
    if data.startswith(sentencepiece.HEADER):
        return sentencepiece.deserialise(data, where)
    return SubwordTokenizer(data, where)


def _read_limited(path: Path) -> bytes:
    if (size := path.stat().st_size) > LARGEST:
        raise UserError(f"{path} has {size} bytes, a tokenizer at most {LARGEST}")
    return path.read_bytes()
