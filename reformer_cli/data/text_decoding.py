"""From bytes to text, and what is said of bytes that are none."""

from __future__ import annotations

import codecs
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from reformer_cli.data.encodings import AUTO, ISO_2022_JP, SURE, Guess, codec_of, errors_of, guess, marked
from reformer_cli.utils.errors import UserError

BLOCK = 2**18  # bytes of plain text read at once
MOST_NOTES = 100  # of one file
REPLACEMENT = "\ufffd"
COUNTING = "reformer-count-and-replace"  # an error handler of codecs
MOST_ALWAYS, MOST_SHARE = 1000, 0.3  # characters, and share of a block, that may be replaced: more is no text at all
WIDE = ("utf-16", "utf-32")  # begins the names of encodings in which text is full of zero bytes


class UnreadableText(UserError):
    """A file, or a document in it, that cannot be read as text."""


@dataclass(frozen=True)
class Options:
    """What else decides what is read from a file: data.encoding, .text_field, .errors, .ruby, .image_size, .unwrap,
    .duplicates."""

    encoding: str = AUTO
    text_field: str = "text"
    errors: Literal["strict", "replace", "skip"] = "strict"
    ruby: Literal["drop", "keep"] = "drop"
    image_size: tuple[int, int] | None = None  # height, width; None: files are texts
    unwrap: Literal["keep", "count", "join"] = "keep"  # hard line ends: left, left but counted, made spaces
    duplicates: Literal["keep", "heads", "drop"] = "keep"  # left out: nothing, running heads, all that stands before

    @property
    def replacing(self) -> bool:
        return self.errors == "replace"

    def bytes_of(self, piece: str) -> bytes:
        """What a piece of a document stands for: UTF-8 of text; of an image its own bytes, one for each character."""
        return piece.encode("utf-8" if self.image_size is None else "latin-1")


@dataclass
class Replacements:
    """What was replaced in a file: in how many places, and where the first one of each document was; or, of images,
    how many were converted, and how. cut: characters left out, such as a licence; joined: lines, with the next one.
    encodings: that were found, and how surely, UTF-8 apart. formats: files by what has read them, those in archives
    too; skipped: what was left out, by reason, how often, and one of them. heads: how many
    running heads, by one of them."""

    places: int = 0
    cut: int = 0
    joined: int = 0
    heads: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    encodings: dict[str, float] = field(default_factory=dict)
    formats: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(self, places: int, what: str) -> None:
        self.places += places
        if what and len(self.notes) < MOST_NOTES:
            self.notes.append(what)

    def found(self, encoding: Guess) -> None:
        if encoding.name != "utf-8":
            self.encodings[encoding.name] = min(encoding.confidence, self.encodings.get(encoding.name, 1.0))

    def skip(self, name: str, why: str) -> None:
        count, first = self.skipped.get(why, (0, name))
        self.skipped[why] = count + 1, first

    def count_cut(self, characters: int) -> None:
        self.cut += characters

    def count_heads(self, lines: int, head: str) -> None:
        if head in self.heads or len(self.heads) < MOST_NOTES:
            self.heads[head] = self.heads.get(head, 0) + lines

    def count_joined(self, lines: int) -> None:
        self.joined += lines


@dataclass(frozen=True)
class OpenFile:
    """A file to read: its name for people, its unpacked bytes, the options; replaced: what is told of invalid bytes."""

    name: str
    stream: BinaryIO
    options: Options
    replaced: Replacements


class _Met(threading.local):
    """Decoding errors that were replaced since `clear`."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.count, self.first = 0, None

    count: int
    first: UnicodeDecodeError | None


_met = _Met()


def _count_and_replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    _met.count += 1
    if _met.first is None:  # a copy: the decoder changes its error where it meets further ones
        _met.first = UnicodeDecodeError(error.encoding, error.object, error.start, error.end, error.reason)
    return REPLACEMENT, error.end


codecs.register_error(COUNTING, _count_and_replace)


def decoded(file: OpenFile) -> Iterator[str]:
    """The text of a file with \\n line ends and no byte order mark. Raises UnreadableText, which says where."""
    replacing = file.options.replacing
    data = file.stream.read(BLOCK)
    decoder = _Decoder(file, data)
    size, lines, first, carriage, told = 0, 0, True, "", False
    while True:
        _met.clear()
        try:
            text, data = decoder.decode(data)
            error = _met.first
        except UnicodeDecodeError as found:
            text, error = "", found
        zero, fault = text.find("\0"), None
        if error is not None:  # its object: what waited in the decoder, and data
            fault = _not_text(file, error, size + len(data) - len(error.object), lines, decoder)
        elif zero >= 0:
            fault = _binary(file.name, _place_of_zero(data, size, decoder.name))
        if fault is not None:
            places = _met.count + text.count("\0")
            if not replacing or (places > MOST_ALWAYS and places > MOST_SHARE * len(text)):
                raise fault
            file.replaced.note(places, "" if told else fault.message)
            text, told = text.replace("\0", REPLACEMENT), True
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        size += len(data)
        text, carriage = carriage + text, ""
        if data and text.endswith("\r"):  # its \n may come in the next block
            carriage = "\r\r" if text.endswith("\r\r") else "\r"
            text = text[: len(text) - len(carriage)]
        text = plain_line_ends(text)
        lines += text.count("\n")
        yield text
        if not data:
            return
        data = file.stream.read(BLOCK)


def plain_line_ends(text: str) -> str:
    """With \\n for \\r\\n, for \\r alone, and for the \\r\\r\\n that writing in text mode twice makes."""
    if "\r" not in text:
        return text
    return text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


class _Decoder:
    """Of the blocks of a file, in the encoding that its options name or, as soon as they tell, that its bytes do."""

    def __init__(self, file: OpenFile, data: bytes) -> None:
        self.file, self.name = file, file.options.encoding
        self.guessing = self.name == AUTO  # until a character beyond ASCII
        self.guess: Guess | None = None
        if self.guessing:
            self.name = "utf-8"
            if (mark := marked(data)) is not None:
                self._settle(Guess(mark, 1.0))
            elif b"\0" in data or ISO_2022_JP.search(data):
                self.guess = guess(data)
                if self.guess is not None and self.guess.confidence >= SURE:
                    self._settle(self.guess)
        self._open()

    def _settle(self, found: Guess) -> None:
        self.name, self.guessing = found.name, False
        self.file.replaced.found(found)

    def _open(self) -> None:
        lenient = COUNTING if self.file.options.replacing and not self.guessing else "strict"
        self._decoder = codecs.getincrementaldecoder(codec_of(self.name))(errors_of(self.name, lenient))

    def decode(self, data: bytes) -> tuple[str, bytes]:
        """The text of a block, of none the rest; and the block, or two where it took more to tell the encoding."""
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            if not self.guessing:
                raise
            more = self.file.stream.read(BLOCK) if data else b""
            self.guess, waited = guess(error.object + more) if data else None, error.object
            if self.guess is not None and self.guess.confidence >= SURE:
                self._settle(self.guess)
            elif not self.file.options.replacing:
                raise
            self.guessing = False
            self._open()
            return self._decoder.decode(waited + more, final=not data), data + more
        self.guessing = self.guessing and text.isascii()
        return text, data


def decode_whole(
    data: bytes, encoding: str, file: OpenFile, fault: Callable[[UnicodeDecodeError], UnreadableText]
) -> str:
    """The text of a part of a file, with what is no text replaced or, where the options refuse that, raised as `fault`.

    Raises UserError for an encoding that is not known.
    """
    _met.clear()
    try:
        lenient = COUNTING if file.options.replacing else "strict"
        text = data.decode(codec_of(encoding), errors_of(encoding, lenient))
    except UnicodeDecodeError as error:
        raise fault(error) from None
    if _met.first is not None:
        file.replaced.note(_met.count, fault(_met.first).message)
    return text


def _not_text(file: OpenFile, error: UnicodeDecodeError, before: int, lines: int, decoder: _Decoder) -> UnreadableText:
    if (zero := error.object[:8192].find(b"\0")) >= 0 and not _wide(decoder.name):
        return _binary(file.name, before + zero)
    lines += plain_line_ends(error.object[: error.start].decode(codec_of(decoder.name), "ignore")).count("\n")
    where, found = before + error.start, error.object[error.start]
    what = f"{file.name} is not {decoder.name}: byte {where} (line {lines + 1}) is 0x{found:02x}"
    return UnreadableText(what, encoding_hint(decoder.guess))


def encoding_hint(found: Guess | None) -> str:
    """What to do about a text of which the encoding is not sure."""
    known = found is not None and found.confidence > 0
    what = f"if it is {found}, add --encoding {found.name}" if found and known else "give its --encoding, such as cp850"
    return f"{what}, or --set data.errors=replace"


def _wide(encoding: str) -> bool:
    return codec_of(encoding).startswith(WIDE)


def _place_of_zero(data: bytes, before: int, encoding: str) -> int:
    """Byte of a file at which a block that follows `before` bytes has its first zero character."""
    if not _wide(encoding):
        return before + max(0, data.find(b"\0"))
    unit = 2 if "16" in encoding else 4
    units = len(data) // unit * unit
    zeros = (n for n in range(0, units, unit) if not any(data[n : n + unit]))
    return before + next(zeros, 0)


def _binary(name: str, where: int) -> UnreadableText:
    hint = "give plain text, --encoding utf-16, or --set data.errors=replace"
    return UnreadableText(f"{name} looks binary: a zero byte at {where}", hint)
