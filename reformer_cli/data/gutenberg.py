"""Project Gutenberg: its books by number, and texts without its licence."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import cache_folder, write_file

GUTENBERG = "gutenberg:"
START = re.compile(r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*$", re.MULTILINE | re.IGNORECASE)
END = re.compile(r"^\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG EBOOK.*$", re.MULTILINE | re.IGNORECASE)
HEAD = 2**17  # characters within which a text says that it is one of theirs
LONGEST_MARKER = 500  # characters of a line that is looked at as a marker
LARGEST_DOWNLOAD = 2**28  # bytes


def cut_licence(pieces: Iterable[str]) -> Iterator[str]:
    """A text, piece by piece, without what stands outside the START and END markers, if it has them; of several books
    put together, each."""
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
    yield from _stripped(_between(head[start.end() :], stream))


def _between(first: str, rest: Iterator[str]) -> Iterator[str]:
    """What stands between markers, the first START being behind."""
    held, inside = first, True
    while True:
        # A START is looked for in whole lines: of half of one, the rest would be taken for text.
        while marker := END.search(held) if inside else START.search(held, 0, held.rfind("\n") + 1):
            if inside:
                yield held[: marker.start()]
            held, inside = held[marker.end() :], not inside
        piece = next(rest, None)
        if piece is None:
            break
        # What may still turn out to hold a marker: from the start of a line on.
        keep = max(held.rfind("\n") + 1, len(held) - LONGEST_MARKER)
        if inside:
            yield held[:keep]
        held = held[keep:] + piece
    if inside:
        yield held


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
