"""Formats of text and images by the endings of files: one is a file in this folder and a row in READERS or IMAGES.

A reader turns an open file into documents, in pieces, in bounded memory. What it cannot read is an UnreadableText:
raised by itself, the rest of the file is lost; raised by a document's pieces, that document is.
"""

from __future__ import annotations

import gzip
import importlib
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from reformer_cli.data.formats.base import Document, Reader
from reformer_cli.data.formats.epub import read_epub
from reformer_cli.data.formats.html import read_html
from reformer_cli.data.formats.images import read_image
from reformer_cli.data.formats.jsonl import read_jsonl
from reformer_cli.data.formats.parquet import read_parquet
from reformer_cli.data.formats.text import read_text
from reformer_cli.data.text_decoding import BLOCK, OpenFile, Options, Replacements, UnreadableText
from reformer_cli.utils.extras import missing_package

BOMB_RATIO, BOMB_SIZE = 250, 2**28  # a compressed file that grows so much, and to more than so many bytes, is refused


IMAGES: dict[str, Reader] = {".png": read_image, ".jpg": read_image, ".jpeg": read_image, ".webp": read_image}
READERS: dict[str, Reader] = {
    ".txt": read_text,
    ".text": read_text,
    ".md": read_text,
    ".markdown": read_text,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".epub": read_epub,
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
