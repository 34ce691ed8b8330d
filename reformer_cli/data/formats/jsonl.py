"""JSON, an object a line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator

from reformer_cli.data.formats.base import WHICH, Document, field_text, not_utf8, some_names
from reformer_cli.data.text_decoding import OpenFile, UnreadableText, decode_whole
from reformer_cli.utils.format import as_size

LONGEST_ROW = 2**28  # bytes of one line


def read_jsonl(file: OpenFile) -> Iterator[Document]:
    """A JSON object a line, each a document: its member `field`."""
    number = 0
    while line := file.stream.readline(LONGEST_ROW + 1):
        number += 1
        name = f"{file.name}:{number}"
        if len(line) > LONGEST_ROW:
            raise UnreadableText(
                f"{name}: a line of more than {as_size(LONGEST_ROW)}", "split the document into several"
            )
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if line.strip():
            yield Document(name, _member(line, name, file))


def _member(line: bytes, name: str, file: OpenFile) -> Iterator[str]:
    field = file.options.text_field
    text = decode_whole(line, "utf-8", file, lambda error: not_utf8(error, name, "line"))
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableText(f"{name} is not JSON ({error})", "a .jsonl file has one object a line") from None
    if not isinstance(row, dict):
        raise UnreadableText(f"{name} is no JSON object", "a .jsonl file has one object a line")
    if field not in row:
        raise UnreadableText(f"{name} has no field {field!r}, it has {some_names(row)}", WHICH)
    yield field_text(row[field], name, file)
