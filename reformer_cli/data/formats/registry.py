"""Formats of text and images: a reader is a function here, or in another file here, and a row in READERS or IMAGES.

A reader turns an open file into documents, in pieces, in bounded memory. What it cannot read is an UnreadableText:
raised by itself, the rest of the file is lost; raised by a document's pieces, that document is.
"""

from __future__ import annotations

import codecs
import gzip
import importlib
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from reformer_cli.data.gutenberg import cut_licence
from reformer_cli.data.text_decoding import (
    BLOCK,
    OpenFile,
    Options,
    Replacements,
    UnreadableText,
    decode_whole,
    decoded,
)
from reformer_cli.utils.extras import missing_package
from reformer_cli.utils.format import as_size

LONGEST_ROW = 2**28  # bytes of one line of .jsonl
LARGEST_GROUP = 2**32  # bytes that a part of a .parquet file may unpack to
BOMB_RATIO, BOMB_SIZE = 250, 2**28  # a compressed file that grows so much, and to more than so many bytes, is refused
WHICH = "say which: --set data.text_field=NAME"
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """One text, in pieces that are read as they are asked for; documents never see each other."""

    name: str
    pieces: Iterable[str]


Reader = Callable[[OpenFile], Iterator[Document]]


def read_text(file: OpenFile) -> Iterator[Document]:
    """Plain text, Markdown: one document, a Gutenberg one without its licence."""
    yield Document(file.name, cut_licence(decoded(file)))


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
    text = decode_whole(line, "utf-8", file, lambda error: _not_utf8(error, name, "line"))
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableText(f"{name} is not JSON ({error})", "a .jsonl file has one object a line") from None
    if not isinstance(row, dict):
        raise UnreadableText(f"{name} is no JSON object", "a .jsonl file has one object a line")
    if field not in row:
        raise UnreadableText(f"{name} has no field {field!r}, it has {_some(row)}", WHICH)
    yield _string(row[field], name, file)


def _not_utf8(error: UnicodeDecodeError, name: str, part: str) -> UnreadableText:
    what = f"byte {error.start} of the {part} is 0x{error.object[error.start]:02x}"
    return UnreadableText(f"{name} is not utf-8: {what}", "mend it, or --set data.errors=replace")


def _string(value: Any, name: str, file: OpenFile) -> str:
    field = file.options.text_field
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = decode_whole(value, "utf-8", file, lambda error: _not_utf8(error, name, "text"))
    if not isinstance(value, str):
        raise UnreadableText(f"{name}: field {field!r} is no text but {type(value).__name__}", WHICH)
    return SURROGATE.sub("\ufffd", value).replace("\r\n", "\n")


def _some(names: Iterable[object]) -> str:
    found = [repr(name)[:40] for name in names]
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "") or "none"


def read_parquet(file: OpenFile) -> Iterator[Document]:
    """A row of a table each: its column `field`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_package("pyarrow", file.name) from None
    field, number = file.options.text_field, 0
    try:
        table = pyarrow.parquet.ParquetFile(file.stream, pre_buffer=False)
        names = table.schema_arrow.names
        if field not in names:
            raise UnreadableText(f"{file.name} has no column {field!r}, it has {_some(names)}", WHICH)
        for n in range(table.num_row_groups):
            size = table.metadata.row_group(n).total_byte_size
            if size > LARGEST_GROUP:
                raise UnreadableText(
                    f"{file.name}: row group {n} has {as_size(size)}, {as_size(LARGEST_GROUP)} are read"
                )
        for batch in table.iter_batches(64, columns=[field], use_threads=False):
            for value in batch.column(0):
                number += 1
                name = f"{file.name}:{number}"
                yield Document(name, _cell(value, name, file))
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UnreadableText(
            f"{file.name} is not a whole parquet file ({str(error)[:200]})", "download it again"
        ) from None


def _cell(value: Any, name: str, file: OpenFile) -> Iterator[str]:
    try:
        found = value.as_py()
    except UnicodeDecodeError:  # a column of strings may hold any bytes
        found = value.as_buffer().to_pybytes()
    yield _string(found, name, file)


def _read_html(file: OpenFile) -> Iterator[Document]:
    from reformer_cli.data.formats.html import read_html

    return read_html(file)


def _read_epub(file: OpenFile) -> Iterator[Document]:
    from reformer_cli.data.formats.html import read_epub

    return read_epub(file)


def read_image(file: OpenFile) -> Iterator[Document]:
    """One document: its bytes in raster order, each as the character of that number."""
    from reformer_cli.data.formats.images import pixels

    size = file.options.image_size
    assert size is not None
    found, notes = pixels(file.stream, file.name, size)
    if notes:
        file.replaced.note(1, f"{file.name} {', '.join(notes)}")
    yield Document(file.name, [found.tobytes().decode("latin-1")])


IMAGES: dict[str, Reader] = {".png": read_image, ".jpg": read_image, ".jpeg": read_image, ".webp": read_image}
READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".text": read_text,
    ".md": read_text,
    ".markdown": read_text,
    ".html": _read_html,
    ".htm": _read_html,
    ".xhtml": _read_html,
    ".epub": _read_epub,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".parquet": read_parquet,
}


def _gzip(file: BinaryIO, name: str) -> Any:
    return gzip.GzipFile(fileobj=file)


def _zstd(file: BinaryIO, name: str) -> Any:
    # Unlike the package zstandard, this one tells a file that was cut off.
    try:
        zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError:
        raise missing_package("backports.zstd", name) from None
    return zstd.ZstdFile(file)


UNPACKERS: dict[str, Callable[[BinaryIO, str], Any]] = {".gz": _gzip, ".zst": _zstd}


def format_of(name: str, images: bool = False) -> tuple[str, str] | None:
    """(ending, compression or "") of a file's name in READERS and UNPACKERS, or in IMAGES; None: unknown."""
    stem, packed = _cut(name.lower())
    if images:
        return (packed, "") if packed in IMAGES else None
    if packed not in UNPACKERS:
        return (packed, "") if packed in READERS else None
    ending = _cut(stem)[1] or ".txt"
    return (ending, packed) if ending in READERS else None


def _cut(name: str) -> tuple[str, str]:
    stem, dot, ending = name.rpartition(".")
    return (stem, dot + ending) if stem else (name, "")


def documents(
    path: str, name: str, ending: str, packed: str, options: Options, replaced: Replacements
) -> Iterator[Document]:
    """The documents of a file. Raises UnreadableText, OSError."""
    with open(path, "rb") as file:
        stream: Any = file
        if packed:
            unpacked = _Unpacked(UNPACKERS[packed](file, name), os.fstat(file.fileno()).st_size, name)
            stream = io.BufferedReader(unpacked, BLOCK)
        yield from (IMAGES if options.image_size else READERS)[ending](OpenFile(name, stream, options, replaced))


class _Unpacked(io.RawIOBase):
    """A stream that unpacks, and refuses to unpack to far more than a text would."""

    def __init__(self, stream: Any, packed: int, name: str) -> None:
        self.stream, self.file = stream, name
        self.left = max(BOMB_SIZE, packed * BOMB_RATIO)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.stream.read(len(buffer))
        except Exception as error:
            kind = type(error).__name__
            if isinstance(error, (EOFError, zlib.error)) or kind in ("BadGzipFile", "ZstdError"):
                what = "zstd" if type(self.stream).__name__ == "ZstdFile" else "gzip"
                hint = "unpack or download it again"
                raise UnreadableText(f"{self.file} is not a whole {what} file ({error})", hint) from None
            raise
        self.left -= len(data)
        if self.left < 0:
            raise UnreadableText(
                f"{self.file} unpacks to more than {BOMB_RATIO} times its size", "unpack it yourself if that is right"
            )
        buffer[: len(data)] = data
        return len(data)
