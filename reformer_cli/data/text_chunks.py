"""Text piece by piece, so that a file larger than memory can be scored: the same tokens as if it were read at once."""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from reformer_cli.data.text_decoding import OpenFile, Options, Replacements, UnreadableText, decoded
from reformer_cli.utils.errors import UserError

SIZE = 2**20  # characters of a piece, or a word more
# Of every tokenizer, text up to here has the same tokens whatever comes after, as `base.CUTS` says.
SAFE = re.compile(r"\n(?=[ \n\x21-\x40])|[^ \t\r\n](?= )")


def read_pieces(name: str, size: int = SIZE) -> Iterator[str]:
    """A UTF-8 text (also .gz; - for standard input) in pieces that can be tokenised one by one; a byte order
    mark goes, \\r\\n becomes \\n. Holds one piece, or the longest word.

    Raises UserError for a file that is missing, unreadable, binary or not UTF-8, saying where, at the first such place.
    """
    held, searched = "", 0
    for text in _decoded(name):
        held += text
        start = 0
        while match := SAFE.search(held, max(start + size, searched)):
            yield held[start : match.end()]
            start = searched = match.end()
        held = held[start:]
        searched = max(0, len(held) - 1)  # whether its last character is a place, the next text says
    if held:
        yield held


def read_text(name: str) -> str:
    """All of such a text at once."""
    return "".join(_decoded(name))


def _decoded(name: str) -> Iterator[str]:
    file = _open(name)
    try:
        with nullcontext() if name == "-" else file:
            where = "standard input" if name == "-" else name
            yield from decoded(OpenFile(where, file, Options(), Replacements()))  # type: ignore[arg-type]
    except UnreadableText as error:  # --encoding, which a corpus is read with, is no option here
        hint = "give plain text" if "binary" in error.message else "convert it: iconv -f latin1 -t utf-8"
        raise UserError(error.message, hint) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{name} is not a whole gzip file ({error})", "unpack or download it again") from None
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from None


def _open(name: str) -> IO[bytes]:
    if name == "-":
        return sys.stdin.buffer
    try:
        return gzip.open(name) if name.endswith(".gz") else open(name, "rb")  # type: ignore[return-value]
    except FileNotFoundError:
        raise UserError(f"no file {name!r}") from None
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from None


def check_readable(name: str) -> None:
    """Raises UserError for a file that is missing or cannot be opened."""
    if name != "-":
        _open(name).close()


def size_of(name: str) -> int | None:
    """Bytes that `read_pieces` will read, for a progress bar; None where that is not known before."""
    path = Path(name)
    return path.stat().st_size if name != "-" and path.suffix != ".gz" and path.is_file() else None
