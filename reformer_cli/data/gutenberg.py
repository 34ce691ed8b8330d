"""Project Gutenberg: its books by number, and texts without its licence."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import cache_folder, write_file

GUTENBERG = "gutenberg:"
_TITLE = (
    r"(?:(?:[^\n]*\n){0,4}?[^\n]*\*\*\*[ \t]*$|[^\n]*$)"  # to the closing stars, which long titles push to a later line
)
_BOOK = r"(?:THE|THIS) (?:COPYRIGHTED )?PROJECT GUTENBERG"
_HOW = re.MULTILINE | re.IGNORECASE
START = re.compile(rf"^\*\*\* ?START OF {_BOOK}{_TITLE}|^\*END.{{0,4}}THE SMALL PRINT[^\n]*$", _HOW)
END = re.compile(rf"^\*\*\* ?END OF {_BOOK}{_TITLE}|^\*\*\*START\*\*THE SMALL PRINT[^\n]*$", _HOW)
LAST_WORDS = re.compile(r"^[ \t]*End of (?:the |this )?Project Gutenberg[^\n]*(?:\n[^\n]+){0,3}$", _HOW)
AFTER_A_BOOK = re.compile(
    rf"{END.pattern}|\A\s*\Z|^(?:This file should be named|Updated editions will|\*+ ?This file|The Project Gutenberg)",
    _HOW,
)
CREDIT = re.compile(  # names follow, or what was copied; a story's own "produced by the frost" is none
    r"\W*(?:(?i:produced|prepared|scanned) by:? +(?=[A-Z]|an? |the Online|the Distributed)|"
    r"(?i:produced|prepared|transcribed|scanned) by:?\s*$|"
    r"(?i:this e?-?(?:text|book) was (?:produced|prepared|transcribed|scanned))|"
    r"(?i:e-?text (?:prepared|produced|scanned)|transcribed (?:from|by)|proofread|html version)|"
    r"(?i:editor's note: it has been called))"
)
NAMES_FOLLOW = re.compile(r"\W*(?:Produced|Prepared|Transcribed|Scanned) by:?\s*", re.IGNORECASE)
OF_THE_COPY = re.compile(
    r"Project Gutenberg|\bpgdp\b|distributed proofread|freeliterature\.org|archive\.org|Internet Archive", re.IGNORECASE
)
BLANK = re.compile(r"\n[ \t]*(?:\n[ \t]*)*\n")
CREDITS, NOTES = 6, 60  # paragraphs after START among which credits, and notes on the electronic copy, stand
LONGEST_NOTE = 1500  # characters of such a paragraph
HEAD = 2**17  # characters within which a text says that it is one of theirs
AHEAD = 3000  # characters after the last words of a book by which they are told from those of a volume in it
LONGEST_BLOCK = 2**16  # characters of a paragraph that are looked at together
LARGEST_DOWNLOAD = 2**28  # bytes


def cut_licence(pieces: Iterable[str], tell: Callable[[int], None] = lambda _: None) -> Iterator[str]:
    """A text of Project Gutenberg, piece by piece, without its header, licence, credits and last words; of several
    books put together, each. Any other text as it is. tell: how many characters were cut off, told bit by bit."""
    stream = iter(pieces)
    head = ""
    for piece in stream:
        head += piece
        if len(head) >= HEAD:
            break
    if START.search(head) is None:
        yield head
        yield from stream
        return
    yield from _stripped(_books(_Blocks(chain([head], stream)), tell))


class _Blocks:
    """A text in paragraphs and the blank lines between them; `ahead` looks at what comes."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._found = self._split(pieces)
        self._waiting: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        while True:
            block = self._waiting.popleft() if self._waiting else next(self._found, None)
            if block is None:
                return
            yield block

    def ahead(self, size: int) -> str:
        """At least so many of the next characters, or all there are."""
        while sum(map(len, self._waiting)) < size and (block := next(self._found, None)) is not None:
            self._waiting.append(block)
        return "".join(self._waiting)

    @staticmethod
    def _split(pieces: Iterable[str]) -> Iterator[str]:
        held = ""
        for piece in pieces:
            held += piece
            start = 0
            for match in BLANK.finditer(held):
                if match.end() < len(held):  # blank lines that end a piece may go on in the next
                    yield held[start : match.start()]
                    yield match.group()
                    start = match.end()
            held = held[start:]
            if len(held) > LONGEST_BLOCK:
                cut = held.rfind("\n") + 1 or len(held)
                yield held[:cut]
                held = held[cut:]
        yield held


def _books(blocks: _Blocks, tell: Callable[[int], None]) -> Iterator[str]:
    """What stands between the markers, less what says who made the electronic copy."""
    inside, count, named = False, 0, False  # count: paragraphs since START; named: the last is "Produced by:" alone
    for block in blocks:
        while block:
            marker = (END.search(block) or _last_words(block)) if inside else START.search(block)
            text = block[: marker.start()] if marker else block
            count += not text.isspace()
            if not inside or named or _is_of_the_copy(text, count):
                tell(len(text))
            else:
                yield text
            if not text.isspace():
                named = inside and count <= CREDITS and NAMES_FOLLOW.fullmatch(text) is not None
            if marker is None:
                break
            tell(len(marker.group()))
            block = block[marker.end() :]
            if END.match(marker.group()) or START.match(marker.group()) or AFTER_A_BOOK.search(blocks.ahead(AHEAD)):
                inside, count, named = not inside, 0, False


def _last_words(block: str) -> re.Match[str] | None:
    return LAST_WORDS.search(block) if "Gutenberg" in block or "GUTENBERG" in block else None


def _is_of_the_copy(text: str, count: int) -> bool:
    if count > NOTES or len(text) > LONGEST_NOTE:
        return False
    return bool((count <= CREDITS and CREDIT.match(text)) or OF_THE_COPY.search(text))


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
