"""From the bytes of a page to its text, by the labels of the WHATWG Encoding Standard."""

from __future__ import annotations

import re

from reformer_cli.data.encodings import AUTO, SURE, guess, marked
from reformer_cli.data.text_decoding import BLOCK, OpenFile, UnreadableText, decode_whole, encoding_hint
from reformer_cli.utils.extras import missing_package

DECLARED = re.compile(rb"""<(?:meta[^>]{0,200}charset|\?xml[^>]{0,100}encoding)\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)
COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
HEAD = 4096  # bytes in which a page declares its encoding


def decode_page(data: bytes, name: str, encoding: str, file: OpenFile) -> str:
    """By its byte order mark, else as it declares, else by `encoding`. Raises UnreadableText where it is none of it."""
    mark, found = marked(data), None
    if mark is not None:
        encoding = mark
    elif declared := _declared(data, name):
        encoding = declared
    elif encoding == AUTO:
        encoding = "utf-8"
        if not _is_utf8(data) and (found := guess(data[:BLOCK])) is not None and found.confidence >= SURE:
            encoding = found.name
            file.replaced.found(found)

    def fault(error: UnicodeDecodeError) -> UnreadableText:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte {error.start} (line {line}) is 0x{data[error.start]:02x}"
        return UnreadableText(f"{name} is not {encoding}: {what}", encoding_hint(found))

    return decode_whole(data, encoding, file, fault).lstrip("\ufeff")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _declared(data: bytes, name: str) -> str:
    """The name that the standard gives to the declared label; "" where none is, or one that it does not know."""
    found = DECLARED.search(COMMENT.sub(b"", data[:HEAD]))
    if found is None:
        return ""
    try:
        import webencodings
    except ImportError:
        raise missing_package("webencodings", name) from None
    label = found.group(1).decode("ascii", "replace")
    known = webencodings.lookup(label) or webencodings.lookup(label.replace("-", ""))  # XML may say latin-1
    if known is None or known.name == "replacement":
        return ""
    return "utf-8" if known.name.startswith("utf-16") else str(known.name)  # it could be read, so it is not UTF-16
