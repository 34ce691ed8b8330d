"""What readers of all formats have in common: documents, limits, and the text of a field of a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from reformer_cli.data.gutenberg import cut_licence
from reformer_cli.data.text_decoding import OpenFile, UnreadableText, decode_whole, decoded, plain_line_ends
from reformer_cli.utils.format import as_size

WHICH = "say which: --set data.text_field=NAME"
AGAIN = "download it again"
SURROGATE = re.compile("[\ud800-\udfff]")
SOFT_HYPHEN = "\xad"
LARGEST = 2**26  # bytes of a file that its reader needs as a whole


@dataclass(frozen=True)
class Document:
    """One text, in pieces that are read as they are asked for; documents never see each other."""

    name: str
    pieces: Iterable[str]


Reader = Callable[[OpenFile], Iterator[Document]]


class NoText(UnreadableText):
    """A file of data such as lies beside texts: left out, for the reason `why`, unless it was named outright."""

    def __init__(self, message: str, hint: str, why: str) -> None:
        super().__init__(message, hint)
        self.why = why


def book(file: OpenFile, pieces: Iterable[str]) -> Document:
    """The one document of a file, without the licence of Project Gutenberg."""
    return Document(file.name, cut_licence(pieces, file.replaced.count_cut))


def whole(file: OpenFile, largest: int = LARGEST) -> bytes:
    """All bytes of a file. Raises UnreadableText where they are more than a text of its format would have."""
    data = file.stream.read(largest + 1)
    if len(data) > largest:
        raise UnreadableText(f"{file.name} has more than {as_size(largest)}", "turn it into text, or split it")
    return data


def whole_text(file: OpenFile) -> str:
    """All of a file of text, decoded. Raises UnreadableText."""
    pieces, size = [], 0
    for piece in decoded(file):
        pieces.append(piece)
        if (size := size + len(piece)) > LARGEST:
            raise UnreadableText(f"{file.name} has more than {as_size(LARGEST)}", "turn it into text, or split it")
    return "".join(pieces)


def single_spaced(text: str) -> str:
    """With one space for all white space of ASCII that stands together, which markup does not tell from one, and
    without the hyphens that show only where a line is broken."""
    text = text.replace(SOFT_HYPHEN, "")
    for sign in "\n\t\r\f":
        if sign in text:
            text = text.replace(sign, " ")
    while "  " in text:  # each time half of them; a regular expression would look at every space
        text = text.replace("  ", " ")
    return text


def not_whole(file: OpenFile, what: str, error: Exception) -> UnreadableText:
    """What is said where a library gives up."""
    told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return UnreadableText(f"{file.name} is not a whole {what} ({told})", AGAIN)


def not_utf8(error: UnicodeDecodeError, name: str, part: str) -> UnreadableText:
    what = f"byte {error.start} of the {part} is 0x{error.object[error.start]:02x}"
    return UnreadableText(f"{name} is not utf-8: {what}", "mend it, or --set data.errors=replace")


def field_text(value: Any, name: str, file: OpenFile) -> str:
    field = file.options.text_field
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = decode_whole(value, "utf-8", file, lambda error: not_utf8(error, name, "text"))
    if not isinstance(value, str):
        raise UnreadableText(f"{name}: field {field!r} is no text but {type(value).__name__}", WHICH)
    return plain_line_ends(SURROGATE.sub("\ufffd", value))


def some_names(names: Iterable[object]) -> str:
    found = [repr(name)[:40] for name in names]
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "") or "none"
