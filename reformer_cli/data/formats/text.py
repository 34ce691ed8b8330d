"""Plain text and Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reformer_cli.data.formats.base import Document, book
from reformer_cli.data.text_decoding import OpenFile, UnreadableText, decoded

CONTROL = re.compile("[\0-\x06\x0e-\x1a\x7f-\x84\x86-\x9f\ufffe\uffff]")
MOST_CONTROLS = 0.01  # share of the first characters of what is still a text


def read_text(file: OpenFile) -> Iterator[Document]:
    """Plain text, Markdown: one document, a Gutenberg one without its licence."""
    yield book(file, decoded(file))


def read_unknown(file: OpenFile) -> Iterator[Document]:
    """A file of an unknown ending, if it looks like text."""
    yield book(file, _checked(file))


def _checked(file: OpenFile) -> Iterator[str]:
    begun = False
    for piece in decoded(file):
        if piece and not begun and (count := len(CONTROL.findall(piece))) > MOST_CONTROLS * len(piece):
            what = f"{file.name} is no text: {count:,} of {len(piece):,} characters are control characters"
            raise UnreadableText(what, "give plain text, or one of the formats that are read")
        begun = begun or bool(piece)
        yield piece
