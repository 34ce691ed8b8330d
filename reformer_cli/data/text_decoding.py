"""From bytes to text, and what is said of bytes that are none."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

from reformer_cli.utils.errors import UserError

BLOCK = 2**18  # bytes of plain text read at once
MOST_NOTES = 100  # of one file
REPLACEMENT = "\ufffd"
COUNTING = "reformer-count-and-replace"  # an error handler of codecs
MOST_ALWAYS, MOST_SHARE = 1000, 0.3  # characters, and share of a block, that may be replaced: more is no text at all
WIDE = ("utf_16", "utf_32")  # begins the names of encodings in which text is full of zero bytes


class UnreadableText(UserError):
    """A file, or a document in it, that cannot be read as text."""


@dataclass(frozen=True)
class Options:
    """What else decides what is read from a file: data.encoding, .text_field, .errors, .ruby, .image_size."""

    encoding: str = "utf-8"
    text_field: str = "text"
    errors: Literal["strict", "replace", "skip"] = "strict"
    ruby: Literal["drop", "keep"] = "drop"
    image_size: tuple[int, int] | None = None  # height, width; None: files are texts

    @property
    def replacing(self) -> bool:
        return self.errors == "replace"

    def bytes_of(self, piece: str) -> bytes:
        """What a piece of a document stands for: UTF-8 of text; of an image its own bytes, one for each character."""
        return piece.encode("utf-8" if self.image_size is None else "latin-1")


@dataclass
class Replacements:
    """What was replaced in a file: in how many places, and where the first one of each document was; or, of images,
    how many were converted, and how. cut: characters left out, such as a licence."""

    places: int = 0
    cut: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, places: int, what: str) -> None:
        self.places += places
        if what and len(self.notes) < MOST_NOTES:
            self.notes.append(what)

    def count_cut(self, characters: int) -> None:
        self.cut += characters


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
    decoder = _decoder(file.options.encoding, COUNTING if replacing else "strict")
    size, lines, first, carriage, told = 0, 0, True, "", False
    while True:
        data = file.stream.read(BLOCK)
        _met.clear()
        try:
            text = decoder.decode(data, final=not data)
            error = _met.first
        except UnicodeDecodeError as found:
            text, error = "", found
        zero, fault = text.find("\0"), None
        if error is not None:  # its object: what waited in the decoder, and data
            fault = _not_text(file, error, size + len(data) - len(error.object), lines)
        elif zero >= 0:
            fault = _binary(file.name, _place_of_zero(data, size, file.options.encoding))
        if fault is not None:
            places = _met.count + text.count("\0")
            if not replacing or (places > MOST_ALWAYS and places > MOST_SHARE * len(text)):
                raise fault
            file.replaced.note(places, "" if told else fault.message)
            text, told = text.replace("\0", REPLACEMENT), True
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        size += len(data)
        lines += text.count("\n")
        text = (carriage + text).replace("\r\n", "\n")
        carriage = "\r" if text.endswith("\r") and data else ""  # its \n may come in the next block
        yield text[: len(text) - len(carriage)]
        if not data:
            return


def decode_whole(
    data: bytes, encoding: str, file: OpenFile, fault: Callable[[UnicodeDecodeError], UnreadableText]
) -> str:
    """The text of a part of a file, with what is no text replaced or, where the options refuse that, raised as `fault`.

    Raises LookupError for an encoding that is not known.
    """
    _met.clear()
    try:
        text = data.decode(encoding, COUNTING if file.options.replacing else "strict")
    except UnicodeDecodeError as error:
        raise fault(error) from None
    if _met.first is not None:
        file.replaced.note(_met.count, fault(_met.first).message)
    return text


def _decoder(encoding: str, errors: str) -> codecs.IncrementalDecoder:
    try:
        b"".decode(encoding)
        return codecs.getincrementaldecoder(encoding)(errors)
    except LookupError:
        raise UserError(f"unknown encoding {encoding!r}", "try utf-8, latin-1, cp1252 or utf-16") from None


def _not_text(file: OpenFile, error: UnicodeDecodeError, before: int, lines: int) -> UnreadableText:
    encoding = file.options.encoding
    if (zero := error.object[:8192].find(b"\0")) >= 0 and not _wide(encoding):
        return _binary(file.name, before + zero)
    lines += error.object[: error.start].decode(encoding, "ignore").count("\n")
    where, found = before + error.start, error.object[error.start]
    hint = "give its encoding, such as --encoding latin-1, or --set data.errors=replace"
    return UnreadableText(f"{file.name} is not {encoding}: byte {where} (line {lines + 1}) is 0x{found:02x}", hint)


def _wide(encoding: str) -> bool:
    return codecs.lookup(encoding).name.replace("-", "_").startswith(WIDE)


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
