"""Where text comes from: files, folders, stdin, Project Gutenberg, the built-in text. A format is a row in READERS."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import sys
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reformer_cli.errors import UserError
from reformer_cli.files import cache_folder, write_file

BUILT_IN = "python-reference"
GUTENBERG = "gutenberg:"
START = re.compile(r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*$", re.MULTILINE | re.IGNORECASE)
END = re.compile(r"^\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*$", re.MULTILINE | re.IGNORECASE)
LARGEST_DOWNLOAD = 2**28  # bytes


@dataclass(frozen=True)
class Document:
    """One text; documents never see each other."""

    name: str
    text: str


def read_gzip(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file ({error})", "unpack or download it again") from None


READERS: dict[str, Callable[[Path], bytes]] = {
    ".txt": Path.read_bytes,
    ".text": Path.read_bytes,
    ".md": Path.read_bytes,
    ".gz": read_gzip,
}


def read_corpus(specs: Sequence[str], encoding: str = "utf-8") -> list[Document]:
    """The documents of a corpus; specs: files, folders, `-`, `gutenberg:ID`, `python-reference`.

    Raises UserError for what is missing, empty, binary or not in this encoding, saying where.
    """
    if not specs:
        raise UserError("no corpus given", f"name a file or folder, or {BUILT_IN} for the built-in text")
    found = [document for spec in specs for document in _read(spec, encoding)]
    if not any(document.text.strip() for document in found):
        raise UserError(f"the corpus {', '.join(specs)} is empty", "there is nothing to learn from")
    return [document for document in found if document.text]


def digest(documents: Sequence[Document]) -> str:
    """SHA-256 over the texts and their order: any change of the corpus changes it."""
    found = hashlib.sha256()
    for document in documents:
        data = document.text.encode("utf-8")
        found.update(len(data).to_bytes(8, "little"))
        found.update(data)
    return found.hexdigest()


def absolute(specs: Sequence[str]) -> tuple[str, ...]:
    """The same corpus from any working directory: paths made absolute."""
    named = (BUILT_IN, "-")
    return tuple(s if s in named or s.startswith(GUTENBERG) else os.path.abspath(s) for s in specs)


def _read(spec: str, encoding: str) -> Iterator[Document]:
    if spec == "-":
        yield Document("stdin", decode(sys.stdin.buffer.read(), "standard input", encoding))
    elif spec == BUILT_IN:
        yield Document(BUILT_IN, python_reference())
    elif spec.startswith(GUTENBERG):
        yield Document(spec, gutenberg(spec.removeprefix(GUTENBERG)))
    elif Path(spec).is_dir():
        files = [
            p for p in sorted(Path(spec).rglob("*")) if p.suffix in READERS and p.is_file() and not _hidden(p, spec)
        ]
        if not files:
            raise UserError(f"the folder {spec} holds no text files", f"known endings: {' '.join(READERS)}")
        for path in files:
            yield _document(path, encoding)
    else:
        yield _document(Path(spec), encoding)


def _hidden(path: Path, folder: str) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _document(path: Path, encoding: str) -> Document:
    # A file named outright is read whatever its ending; only .gz means anything but plain text.
    try:
        data = READERS.get(path.suffix, Path.read_bytes)(path)
    except FileNotFoundError:
        raise UserError(
            f"no file or folder {str(path)!r}",
            f"the built-in text is called {BUILT_IN}, a Gutenberg book {GUTENBERG}2554",
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return Document(str(path), cut_licence(decode(data, str(path), encoding)))


def decode(data: bytes, name: str, encoding: str) -> str:
    """bytes -> text with \\n line ends and no byte order mark; UserError where they are not text, saying where."""
    try:
        text = data.decode(encoding)
    except LookupError:
        raise UserError(f"unknown encoding {encoding!r}", "try utf-8, latin-1, cp1252 or utf-16") from None
    except UnicodeDecodeError as error:
        where = error.start
        if b"\0" in data[:8192]:
            raise _binary(name, data.index(b"\0"), len(data)) from None
        line = data.count(b"\n", 0, where) + 1
        raise UserError(
            f"{name} is not {encoding}: byte {where} (line {line}) is 0x{data[where]:02x}",
            "give its encoding, such as --encoding latin-1",
        ) from None
    if "\0" in text:
        raise _binary(name, text.index("\0"), len(data))
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _binary(name: str, where: int, size: int) -> UserError:
    return UserError(f"{name} looks binary: a zero byte at {where} of {size}", "give plain text, or --encoding utf-16")


def cut_licence(text: str) -> str:
    """A Project Gutenberg text without its licence: what stands between the START and END markers."""
    start = START.search(text)
    if start is None:
        return text
    end = END.search(text, start.end())
    return text[start.end() : end.start() if end else len(text)].strip() + "\n"


def gutenberg(number: str) -> str:
    """A book of Project Gutenberg, downloaded once. $REFORMER_GUTENBERG: another server's base address."""
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise UserError(f"{GUTENBERG}{number} is not a book's number", f"such as {GUTENBERG}2554")
    cached = cache_folder() / "gutenberg" / f"{number}.txt"
    if not cached.exists():
        base = os.environ.get("REFORMER_GUTENBERG", "https://www.gutenberg.org").rstrip("/")
        address = f"{base}/cache/epub/{number}/pg{number}.txt"
        data = _download(address, number)
        text = decode(data, address, "utf-8")
        if START.search(text) is None:
            raise UserError(f"{address} is not a Gutenberg text (no START marker)", "is the number right?")
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_file(cached, data)
    return cut_licence(decode(cached.read_bytes(), str(cached), "utf-8"))


def _download(address: str, number: str) -> bytes:
    request = urllib.request.Request(address, headers={"User-Agent": "reformer-cli"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            data: bytes = answer.read(LARGEST_DOWNLOAD + 1)
    except urllib.error.HTTPError as error:
        hint = "is the number right?" if error.code == 404 else "try again later"
        raise UserError(f"Project Gutenberg has no book {number} for us (HTTP {error.code}, {address})", hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"cannot download {address}: {reason}", "download the book by hand and name the file") from None
    if len(data) > LARGEST_DOWNLOAD:
        raise UserError(f"{address} is larger than {LARGEST_DOWNLOAD} bytes")
    return data


def python_reference() -> str:
    """The language reference that every CPython ships, one topic after another."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"
