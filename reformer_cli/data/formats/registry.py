"""Formats of text and images by the endings of files: one is a file in this folder and a row in READERS or IMAGES.

A reader turns an open file into documents, in pieces, in bounded memory. What it cannot read is an UnreadableText:
raised by itself, the rest of the file is lost; raised by a document's pieces, that document is.
"""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

from reformer_cli.data.formats import archives
from reformer_cli.data.formats.base import Document, NoText, Reader
from reformer_cli.data.formats.chat import read_json
from reformer_cli.data.formats.epub import read_epub
from reformer_cli.data.formats.html import read_html
from reformer_cli.data.formats.images import read_image
from reformer_cli.data.formats.jsonl import read_jsonl
from reformer_cli.data.formats.office import read_docx, read_odt
from reformer_cli.data.formats.packed import UNPACKERS, Budget, Unpacked
from reformer_cli.data.formats.parquet import read_parquet
from reformer_cli.data.formats.pdf import read_pdf
from reformer_cli.data.formats.rtf import read_rtf
from reformer_cli.data.formats.subtitles import read_subtitles
from reformer_cli.data.formats.tables import read_csv
from reformer_cli.data.formats.tex import read_tex
from reformer_cli.data.formats.text import read_text, read_unknown
from reformer_cli.data.text_decoding import BLOCK, OpenFile, Options, Replacements, UnreadableText

DEEPEST = 3  # archives in archives
HEAD = 4096  # bytes by which a format is recognised
CALIBRE = "convert it with Calibre: ebook-convert BOOK.mobi BOOK.epub"
UNPACK = "unpack it, and name what was in it"


IMAGES: dict[str, Reader] = {".png": read_image, ".jpg": read_image, ".jpeg": read_image, ".webp": read_image}
READERS: dict[str, Reader] = {
    "": read_unknown,  # a file that was named outright, or standard input
    ".txt": read_text, ".text": read_text, ".md": read_text, ".markdown": read_text, ".rst": read_text,
    ".org": read_text, ".adoc": read_text, ".fountain": read_text,
    ".html": read_html, ".htm": read_html, ".xhtml": read_html,
    ".epub": read_epub, ".docx": read_docx, ".odt": read_odt, ".rtf": read_rtf, ".pdf": read_pdf, ".tex": read_tex,
    ".srt": read_subtitles, ".vtt": read_subtitles,
    ".jsonl": read_jsonl, ".ndjson": read_jsonl, ".json": read_json,
    ".parquet": read_parquet, ".csv": read_csv, ".tsv": read_csv,
}  # fmt: skip
ARCHIVES = {".zip": archives.read_zip, ".tar": archives.read_tar}
ENDINGS = [*filter(None, READERS), *ARCHIVES, *UNPACKERS]
SHORT = {".tgz": (".tar", ".gz")}
SEEKING = {".epub", ".docx", ".odt", ".pdf", ".parquet", ".zip"}  # of which the end is read first
MAGIC = {b"%PDF-": ".pdf", b"{\\rtf": ".rtf", b"PAR1": ".parquet", b"PK\x03\x04": ".zip"}
PACKED = {b"\x1f\x8b\x08": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
REFUSED = {  # place in the file, what is there: what it is, and what to do
    (60, b"BOOKMOBI"): ("a Kindle book", CALIBRE),
    (0, b"\xd0\xcf\x11\xe0"): (
        "a Word or other Office file of the old kind, or encrypted",
        "save it as .docx without a password",
    ),
    (0, b"Rar!"): ("a RAR archive", UNPACK),
    (0, b"7z\xbc\xaf"): ("a 7-Zip archive", UNPACK),
    (0, b"\x89PNG"): ("an image", "for images, see --set data.image_size"),
    (0, b"\xff\xd8\xff"): ("an image", "for images, see --set data.image_size"),
    (0, b"SQLite format 3"): ("a database", "export its texts as .csv or .jsonl"),
}
INSTEAD = {  # what to do with files that are not read
    **dict.fromkeys((".mobi", ".azw3", ".azw", ".prc"), CALIBRE),
    **{ending: CALIBRE.replace(".mobi", ending) for ending in (".fb2", ".lit", ".lrf", ".pdb")},
    **dict.fromkeys((".doc", ".wpd", ".wps", ".sxw"), "save it as .docx"), ".pages": "export it as .docx",
    ".gdoc": "it is a link: download it as .docx",
    **dict.fromkeys((".rar", ".7z", ".bz2", ".xz"), UNPACK),
}  # fmt: skip


def format_of(name: str, images: bool = False) -> tuple[str, str] | None:
    """(ending, compression or "") of a file's name in READERS and UNPACKERS, or in IMAGES; None: unknown."""
    stem, packed = _cut(name.lower())
    if images:
        return (packed, "") if packed in IMAGES else None
    if packed in SHORT:
        return SHORT[packed]
    ending, packed = (_cut(stem)[1] or ".txt", packed) if packed in UNPACKERS else (packed, "")
    return (ending, packed) if ending and (ending in READERS or ending in ARCHIVES) else None


def _cut(name: str) -> tuple[str, str]:
    stem, dot, ending = name.rpartition(".")
    return (stem, dot + ending) if stem else (name, "")


def documents(
    path: str, name: str, ending: str, packed: str, options: Options, replaced: Replacements
) -> Iterator[Document]:
    """The documents of a file. Raises UnreadableText, OSError."""
    with open(path, "rb") as file:
        opened = OpenFile(name, file, options, replaced)
        if options.image_size:
            replaced.formats[ending] += 1
            yield from IMAGES[ending](opened)
        else:
            yield from _documents(opened, ending, packed, Budget(os.fstat(file.fileno()).st_size), 0)


def _documents(file: OpenFile, ending: str, packed: str, budget: Budget, depth: int) -> Iterator[Document]:
    with ExitStack() as stack:
        if not packed:
            head = _head(file.stream)
            packed = next((kind for sign, kind in PACKED.items() if head.startswith(sign)), "")
        if packed:
            file = dataclasses.replace(file, stream=_buffered(Unpacked(file.stream, packed, file.name, budget)))
        head = _head(file.stream)
        if not head and ending in SEEKING | {".rtf"}:
            raise UnreadableText(f"{file.name} is empty: 0 bytes", "get it again; is it still being synchronised?")
        for (place, sign), (what, hint) in REFUSED.items():
            if head.startswith(sign, place):
                raise UnreadableText(f"{file.name} is {what}", hint)
        kind = next((kind for sign, kind in MAGIC.items() if head.startswith(sign)), "")
        kind = kind or (".tar" if head.startswith(b"ustar", 257) else ending)
        if kind in SEEKING and not file.stream.seekable():
            kept = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file.stream, kept, BLOCK)
            kept.seek(0)
            file = dataclasses.replace(file, stream=kept)
        if kind == ".zip":
            inside = _kind_of_zip(file.stream)
            kind = ending if inside == ".zip" and ending in SEEKING else inside
        file.replaced.formats[(kind or ".txt") + packed] += 1
        if kind not in ARCHIVES:
            yield from READERS[kind](file)
        elif depth < DEEPEST:
            nested = archives.Registry(budget, format_of, lambda file, kind: _documents(file, *kind, budget, depth + 1))
            found = False
            for document in ARCHIVES[kind](file, nested):
                yield document
                found = True
            if not found:
                hint = INSTEAD.get(_cut(file.name.lower())[1], UNPACK)
                raise NoText(f"{file.name} holds no file of a known format", hint, "archives without texts")
        else:
            raise UnreadableText(f"{file.name} is an archive in {depth} others", UNPACK)


def _head(stream: BinaryIO) -> bytes:
    return stream.peek(HEAD)[:HEAD]  # type: ignore[attr-defined]


def _buffered(stream: Any) -> Any:
    return io.BufferedReader(stream, BLOCK)


def _kind_of_zip(stream: BinaryIO) -> str:
    """Which of the formats that are zip archives inside, by what it holds."""
    try:
        with zipfile.ZipFile(stream) as archive:
            names = archive.NameToInfo
            if "word/document.xml" in names:
                return ".docx"
            if "META-INF/container.xml" in names:
                return ".epub"
            return ".odt" if {"content.xml", "styles.xml"} <= names.keys() else ".zip"
    except Exception:  # it says so itself when it is read
        return ".zip"
    finally:
        stream.seek(0)
