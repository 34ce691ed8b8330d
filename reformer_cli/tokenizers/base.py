"""What a tokenizer is; those whose tokens are bytes, of texts and of images."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from reformer_cli.tokenizers.case_markers import NOTHING, Pending, after_marker, resolve_markers
from reformer_cli.utils.errors import UserError

Ids = npt.NDArray[np.int32]
REMEMBERED = 1_000  # tokens before a text that can matter to how it is read: those of the longest marked word
CHUNK = 50_000  # characters, or up to twice as many, that are encoded at once
# Where text can be cut: no token crosses a line's end or begins before a space; but how a word is marked depends on
# what it follows.
CUTS = re.compile(r"(?<=\n)(?![^\W\d_])|(?<=[^ ])(?= )")


class Spelling(NamedTuple):
    """One way to write the end of a prompt. tokens: those that are sure; then one of `after`, which writes the rest of
    the prompt and goes beyond it; where there are none, any."""

    tokens: list[int]
    after: list[int]


class Prompt(NamedTuple):
    """A text to go on from: its ids but for its last word, and the ways in which that may be spelt, depending on how it
    goes on: "She opened the doo" ends in tokens that no text has before "r" (token healing, Lundberg, 2023). spelt
    empty: ids are all of it."""

    text: str
    ids: list[int]
    spelt: list[Spelling] = []  # noqa: RUF012  (never changed)

    @property
    def whole(self) -> list[int]:
        """Its ids if nothing followed."""
        return [*self.ids, *next((way.tokens for way in self.spelt if not way.after), [])]


class Tokenizer(Protocol):
    """Text <-> token ids; lossless: decode(encode(x)) == x for every text."""

    kind: str
    vocab_size: int
    lossless: bool
    end: int  # id of the token that separates documents; no text encodes to it

    def encode(self, text: str) -> Ids:
        """Ids of a text."""

    def decode(self, ids: Ids) -> str:
        """The text of ids; what is no UTF-8 becomes U+FFFD, `end` nothing."""

    def byte_lengths(self) -> npt.NDArray[np.float64]:
        """UTF-8 bytes each token stands for, [vocab_size]; `end`: 0. The nibbles of a rare character count 1/2."""

    def prompt(self, text: str, first: bool = True) -> Prompt:
        """A text that is to be gone on with; first: nothing comes before it."""

    def stream(self) -> StreamDecoder:
        """A decoder that is handed one token at a time."""

    def serialise(self) -> bytes:
        """The content of tokenizer.model, which load.py reads."""

    def __hash__(self) -> int:
        """By identity: what is made of one, once, is kept beside it."""


class StreamDecoder:
    """Text of tokens that arrive one by one; an incomplete UTF-8 sequence waits for its rest, and is left out where
    that never comes: half a character is nothing that can be shown.

    pieces: the bytes of each token; nibbles: the tokens that are half a byte, high half first; markers: those that say
    how the next ones are to be read (case_markers.py).
    """

    def __init__(self, pieces: list[bytes], nibbles: dict[int, int], markers: Mapping[int, str] | None = None) -> None:
        self.pieces, self.nibbles, self.markers = pieces, nibbles, markers or {}
        self.state: tuple[int | None, Pending] = (None, NOTHING)  # the half of a byte, and the markers, that wait
        self._utf8 = codecs.getincrementaldecoder("utf-8")("ignore")

    def feed(self, token: int) -> bytes:
        """What this token completes."""
        found, self.state = self.after(token)
        return found

    def after(self, token: int) -> tuple[bytes, tuple[int | None, Pending]]:
        """What this token would complete, and what would then wait."""
        high, pending = self.state
        if (nibble := self.nibbles.get(token)) is not None:
            return (b"", (nibble, NOTHING)) if high is None else (bytes([high * 16 + nibble]), (None, NOTHING))
        if (marker := self.markers.get(token)) is not None:
            text, pending = after_marker(marker, pending)
        elif pending is NOTHING:
            return self.pieces[token], (None, NOTHING)
        else:
            text, pending = resolve_markers(self.pieces[token].decode(), pending)
        return text.encode(), (None, pending)

    def follow(self, tokens: Sequence[int]) -> None:
        """These came before the text."""
        for token in tokens[-REMEMBERED:]:
            self.feed(token)

    def push(self, token: int) -> str:
        """What can be shown for certain after this token."""
        return self._utf8.decode(self.feed(token))

    def finish(self) -> str:
        """What was still held back; no more tokens come."""
        return self._utf8.decode(b"", final=True)


class StatelessTokenizer(ABC):
    """A tokenizer of which each token stands for the same bytes wherever it is."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """As `Tokenizer.encode`."""

    def prompt(self, text: str, first: bool = True) -> Prompt:
        """As `Tokenizer.prompt`: what comes before or after a text changes none of its tokens."""
        return Prompt(text, self.encode(text).tolist())


class ByteTokenizer(StatelessTokenizer):
    """A token per byte, and one for the end of a document."""

    kind = "bytes"
    vocab_size = 257
    end = 256
    lossless = True

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int32)

    def decode(self, ids: Ids) -> str:
        ids = np.asarray(ids)
        return ids[ids != self.end].astype(np.uint8).tobytes().decode("utf-8", "replace")

    def byte_lengths(self) -> npt.NDArray[np.float64]:
        return np.r_[np.ones(256), 0.0]

    def stream(self) -> StreamDecoder:
        return StreamDecoder([bytes([b]) for b in range(256)] + [b""], {})

    def serialise(self) -> bytes:
        return json.dumps({"kind": self.kind}).encode()


class PixelTokenizer(StatelessTokenizer):
    """A token per byte of an image, which comes as a text of characters U+0000 to U+00FF; `end` begins one."""

    kind = "pixels"
    vocab_size = 257
    end = 256
    lossless = True  # of every image; other texts it refuses

    def encode(self, text: str) -> Ids:
        try:
            return np.frombuffer(text.encode("latin-1"), dtype=np.uint8).astype(np.int32)
        except UnicodeEncodeError:
            raise UserError("a tokenizer of images has no tokens for text", "name another with --tokenizer") from None

    def decode(self, ids: Ids) -> str:
        ids = np.asarray(ids)
        return ids[ids != self.end].astype(np.uint8).tobytes().decode("latin-1")

    def byte_lengths(self) -> npt.NDArray[np.float64]:
        return np.r_[np.ones(256), 0.0]

    def stream(self) -> StreamDecoder:
        return StreamDecoder([chr(b).encode() for b in range(256)] + [b""], {})

    def serialise(self) -> bytes:
        return json.dumps({"kind": self.kind}).encode()


def safe_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces of which the tokens, one after another, are those of the whole.

    Where they are cut depends on the text alone. Where CUTS has no place, at most 2 * CHUNK characters are a piece, cut
    between words if there are any.
    """
    waiting = ""
    for piece in pieces:
        waiting += piece
        start = 0
        while len(waiting) - start > 2 * CHUNK:
            found = CUTS.search(waiting, start + CHUNK, start + 2 * CHUNK)
            stop = found.start() if found else _between_words(waiting, start + CHUNK, start + 2 * CHUNK)
            yield waiting[start:stop]
            start = stop
        waiting = waiting[start:]
    if waiting:
        yield waiting


def _between_words(text: str, start: int, stop: int) -> int:
    """The last place up to `stop` that is not between two letters, or `stop`."""
    return next((n for n in range(stop, start, -1) if not (text[n - 1] + text[n]).isalpha()), stop)


def is_foreign(tokenizer: Tokenizer, text: str) -> bool:
    """Whether the vocabulary spells most of a text out, half a byte a token: it was made of another script."""
    ids = tokenizer.encode(text[:CHUNK])
    spelt = int((tokenizer.byte_lengths()[ids] == 0.5).sum())
    return spelt > len(text[:CHUNK].encode())  # two halves a byte: more than half of the bytes


def digest(tokenizer: Tokenizer) -> str:
    """SHA-256 of a tokenizer."""
    return hashlib.sha256(tokenizer.serialise()).hexdigest()
