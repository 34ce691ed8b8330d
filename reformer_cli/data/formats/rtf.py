"""Text of Rich Text Format files, by striprtf."""

from __future__ import annotations

from collections.abc import Iterator

from reformer_cli.data.formats.base import SOFT_HYPHEN, SURROGATE, Document, book, not_whole, whole
from reformer_cli.data.text_decoding import OpenFile, UnreadableText
from reformer_cli.utils.extras import missing_package


def read_rtf(file: OpenFile) -> Iterator[Document]:
    """The text of a document, without its fonts, styles and pictures."""
    yield book(file, _text(file))


def _text(file: OpenFile) -> Iterator[str]:
    try:
        from striprtf.striprtf import rtf_to_text
    except ImportError:
        raise missing_package("striprtf", file.name) from None
    data = whole(file)
    if not data.startswith(b"{\\rtf"):
        raise UnreadableText(f"{file.name} is no RTF document: it does not begin with {{\\rtf", "download it again")
    try:  # a document is ASCII; other bytes are characters of its code page all the same
        found = rtf_to_text(data.decode("latin-1"), errors="replace")
    except Exception as error:  # of many kinds, where the codes are not what it expects
        raise not_whole(file, "RTF document", error) from None
    yield SURROGATE.sub("\ufffd", found).replace("\0", "").replace(SOFT_HYPHEN, "")
