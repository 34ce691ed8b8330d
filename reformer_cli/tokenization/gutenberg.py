"""Project Gutenberg: its books by number, and texts without its licence."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

from reformer_cli.errors import UserError
from reformer_cli.files import cache_folder, write_file

GUTENBERG = "gutenberg:"
START = re.compile(r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*$", re.MULTILINE | re.IGNORECASE)
END = re.compile(r"^\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*$", re.MULTILINE | re.IGNORECASE)
HEAD = 2**17  # characters within which a text says that it is one of theirs
LONGEST_MARKER = 500  # characters of a line that is looked at as a marker
LARGEST_DOWNLOAD = 2**28  # bytes


def cut_licence(pieces: Iterable[str]) -> Iterator[str]:
    """A text, piece by piece, without what stands outside the START and END markers, if it has them."""
    stream = iter(pieces)
    head = ""
    for piece in stream:
        head += piece
        if len(head) >= HEAD:
            break
    start = START.search(head)
    if start is None:
        yield head
        yield from stream
        return
    yield from _stripped(_until_end(head[start.end() :], stream))


def _until_end(first: str, rest: Iterator[str]) -> Iterator[str]:
    held = first  # what may still turn out to hold the marker: from the start of a line on
    for piece in rest:
        if END.search(held):
            break
        keep = max(held.rfind("\n") + 1, len(held) - LONGEST_MARKER)
        yield held[:keep]
        held = held[keep:] + piece
    end = END.search(held)
    yield held[: end.start()] if end else held
    for _ in rest:  # read to its end, so that what is wrong there is found
        pass


def _stripped(pieces: Iterable[str]) -> Iterator[str]:
    """`"".join(pieces).strip() + "\\n"`, piece by piece."""
    begun, space = False, ""
    for piece in pieces:
        text = piece if begun else piece.lstrip()
        if not text:
            continue
        begun = True
        body = text.rstrip()
        if body:
            yield space + body
            space = text[len(body) :]
        else:
            space += text
    yield "\n"


def download(number: str) -> Path:
    """The file of a book, fetched once. $REFORMER_GUTENBERG: another server's base address."""
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise UserError(f"{GUTENBERG}{number} is not a book's number", f"such as {GUTENBERG}2554")
    cached = cache_folder() / "gutenberg" / f"{number}.txt"
    if not cached.exists():
        base = os.environ.get("REFORMER_GUTENBERG", "https://www.gutenberg.org").rstrip("/")
        address = f"{base}/cache/epub/{number}/pg{number}.txt"
        data = _fetch(address, number)
        if START.search(data.decode("utf-8", "replace")) is None:
            raise UserError(f"{address} is not a Gutenberg text (no START marker)", "is the number right?")
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_file(cached, data)
    return cached


def _fetch(address: str, number: str) -> bytes:
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
