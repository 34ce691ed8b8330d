"""Text of one file piece by piece, so that one larger than memory can be scored: the same tokens as if read at once."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from reformer_cli.data.formats import registry
from reformer_cli.data.formats.base import Document
from reformer_cli.data.formats.registry import READERS, format_of
from reformer_cli.data.text_decoding import OpenFile, Options, Replacements, UnreadableText
from reformer_cli.data.unwrap import unwrap
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import not_there

SIZE = 2**20  # characters of a piece, or a word more
PLAIN = (".txt", "")  # the format of what has no known ending
# Of every tokenizer, text up to here has the same tokens whatever comes after, as `base.CUTS` says.
SAFE = re.compile(r"\n(?=[ \n\x21-\x40])|[^ \t\r\n](?= )")


def read_pieces(name: str, size: int = SIZE, join: bool = False) -> Iterator[str]:
    """The text of a file, as training would see it (- for standard input), in pieces that can be tokenised one by one.
    Holds one piece, or the longest word. join: lines of paragraphs become one, as `unwrap` does it.

    Raises UserError for a file that is missing, unreadable or no text, saying where, at the first such place.
    """
    held, searched = "", 0
    for text in _joined(name, join):
        held += text
        start = 0
        while match := SAFE.search(held, max(start + size, searched)):
            yield held[start : match.end()]
            start = searched = match.end()
        held = held[start:]
        searched = max(0, len(held) - 1)  # whether its last character is a place, the next text says
    if held:
        yield held


def read_text(name: str, join: bool = False) -> str:
    """All of such a text at once."""
    return "".join(_joined(name, join))


def _joined(name: str, join: bool) -> Iterator[str]:
    """The documents of a file one after another, a blank line between them; of several the last ends its line."""
    end, number = "", 0  # end: of what was given out
    try:
        for number, document in enumerate(_documents(name)):
            if number and end:
                yield "\n" * (2 - len(end) + len(end.rstrip("\n")))
            for piece in unwrap(document.pieces) if join else document.pieces:
                yield piece
                end = (end + piece)[-2:]
        if number and not end.endswith("\n"):
            yield "\n"
    except UnreadableText as error:  # --encoding, which a corpus is read with, is no option here
        hint = error.hint.partition(", or --set ")[0].replace("add --encoding ", "convert it: iconv -t utf-8 -f ")
        raise UserError(error.message, hint.replace("give its --encoding", "convert it: iconv -t utf-8 -f")) from None


def _documents(name: str) -> Iterator[Document]:
    if name == "-":
        return READERS[PLAIN[0]](OpenFile("standard input", sys.stdin.buffer, Options(), Replacements()))
    check_readable(name)
    kind = format_of(os.path.basename(name)) or PLAIN
    return registry.documents(name, name, *kind, Options(), Replacements())


def check_readable(name: str) -> None:
    """Raises UserError for a file that is missing or cannot be opened."""
    try:
        if name != "-":
            open(name, "rb").close()
    except FileNotFoundError:
        raise not_there(name) from None
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from None


def size_of(name: str) -> int | None:
    """Bytes of text that `read_pieces` will read, for a progress bar; None where that is not known before."""
    path, kind = Path(name), format_of(os.path.basename(name)) or PLAIN
    plain = READERS.get(kind[0]) is READERS[PLAIN[0]] and not kind[1]
    return path.stat().st_size if name != "-" and plain and path.is_file() else None
