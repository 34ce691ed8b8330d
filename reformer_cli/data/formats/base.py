"""What readers of all formats have in common: documents, and the text of a field of a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from reformer_cli.data.text_decoding import OpenFile, UnreadableText, decode_whole, plain_line_ends

WHICH = "say which: --set data.text_field=NAME"
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """One text, in pieces that are read as they are asked for; documents never see each other."""

    name: str
    pieces: Iterable[str]


Reader = Callable[[OpenFile], Iterator[Document]]


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
