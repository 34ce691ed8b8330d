"""Text of word processors' files: .docx (Office Open XML) and .odt (OpenDocument), by expat, as its elements come.

They are zip archives of XML, and may come from anyone: entities are refused, and what they unpack to is bounded.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from typing import IO, Any
from xml.parsers import expat

from reformer_cli.data.formats.archives import BROKEN_ZIP
from reformer_cli.data.formats.base import Document, book, not_whole, single_spaced
from reformer_cli.data.text_decoding import OpenFile, UnreadableText
from reformer_cli.utils.format import as_size

LARGEST = 2**29  # bytes that a part of a file may unpack to
LONGEST = 2**25  # bytes of XML in which a paragraph or a row must end: its text is held in memory
DEEPEST = 1_000  # elements in elements
BLOCK = 2**16
MARKS = {"\ufdd0": " ", "\ufdd1": "\t", "\ufdd2": "\n", "\ufdd3": "-"}  # noncharacters: no text has them
BLANK, TAB, BREAK, HYPHEN = MARKS
MOST_BLANKS = 1000  # that one element stands for
CONTENTS = re.compile(r"TOC ?\d", re.IGNORECASE)  # styles of a table of contents
DOCX_PARTS = re.compile(r"word/document\d*\.xml|word/(?:foot|end)notes\.xml")
OFFICE = "http://schemas.openxmlformats.org"
WORD = (
    f"{OFFICE}/wordprocessingml/2006/main",
    "http://purl.oclc.org/ooxml/wordprocessingml/main",
)  # the latter: strict
OPEN = "urn:oasis:names:tc:opendocument:xmlns:{}:1.0}}{}"
PARAGRAPHS = {"paragraph", "passage", "note"}
# What elements are, by name. A run is text; a passage is a paragraph in which all is text; a note is none, but may hold
# paragraphs, which follow the one that it is in; a mark is the character that it stands for; the rest is left out.
ELEMENTS = {f"{space}}}{name}": what for space in WORD for name, what in {
    "p": "paragraph", "t": "run", "tr": "row", "tc": "cell", "pStyle": "style", "rt": "reading", "tabs": "dropped",
    "moveFrom": "dropped", "del": "dropped", "tab": TAB, "br": BREAK, "cr": BREAK, "noBreakHyphen": HYPHEN,
}.items()} | {
    f"{OFFICE}/officeDocument/2006/math}}t": "run", f"{OFFICE}/markup-compatibility/2006}}Fallback": "dropped",
} | {OPEN.format(space, name): what for space, names in {
    "text": {
        "p": "passage", "h": "passage", "note": "note", "ruby-text": "reading", "s": BLANK, "tab": TAB,
        "line-break": BREAK, **dict.fromkeys(
            ("note-citation", "tracked-changes", "table-of-content", "alphabetical-index"), "dropped"),
    },
    "table": {"table-row": "row", "table-cell": "cell"}, "office": {"annotation": "dropped"},
}.items() for name, what in names.items()}  # fmt: skip


def read_docx(file: OpenFile) -> Iterator[Document]:
    """A document of Word: its paragraphs, tables a row a line; then its notes."""
    yield book(file, _text(file, DOCX_PARTS))


def read_odt(file: OpenFile) -> Iterator[Document]:
    """A document of LibreOffice: its paragraphs, tables a row a line; notes after the paragraph that they belong to."""
    yield book(file, _text(file, re.compile(r"content\.xml")))


def _text(file: OpenFile, parts: re.Pattern[str]) -> Iterator[str]:
    what = ".docx document" if parts is DOCX_PARTS else ".odt document"
    try:
        with zipfile.ZipFile(file.stream) as archive:
            names = [name for name in archive.namelist() if parts.fullmatch(name)]
            if not names:
                raise ValueError("it has no text")
            for name in sorted(names, key=lambda name: "notes" in name):
                with archive.open(name) as part:
                    yield from _Paragraphs(f"{file.name}: {name}", file.options.ruby == "keep").read(part)
    except (*BROKEN_ZIP, expat.ExpatError) as error:
        raise not_whole(file, what, error) from None


class _Paragraphs:
    """The text of a part of XML; only what was not given out yet is in memory."""

    def __init__(self, name: str, readings: bool) -> None:
        self.name, self.readings = name, readings
        self.depth = self.dropped = self.cells = 0  # dropped: depth of what is left out; cells: that are open
        self.in_table = False
        self.found: list[str] = []  # text to be given out
        self.row: list[str] = []  # cells
        self.lines: list[str] = []  # of the paragraph or cell that is open
        # The text of the innermost paragraph, its place in lines, whether it is one of a table of contents; and those
        # of the paragraphs around it, with what listened there.
        self.parts: list[str] = []
        self.place, self.contents = 0, False
        self.around: list[tuple[list[str], int, bool, Any]] = []
        self.heard: Any = None  # what listens behind what is left out
        self.parser = expat.ParserCreate(namespace_separator="}")
        self.parser.buffer_text = self.parser.ordered_attributes = True
        self.parser.StartElementHandler, self.parser.EndElementHandler = self._start, self._end
        self.parser.EntityDeclHandler = self._entity

    def read(self, part: IO[bytes]) -> Iterator[str]:
        size = held = 0
        while data := part.read(BLOCK):
            size, held = size + len(data), held + len(data)
            if size > LARGEST or held > LONGEST:
                what = "unpacks to" if size > LARGEST else "has a paragraph of"
                raise UnreadableText(f"{self.name} {what} more than {as_size(min(size, LARGEST))}", "leave it out")
            self.parser.Parse(data, False)
            held = 0 if self.found else held
            yield "".join(self.found)
            self.found.clear()
        self.parser.Parse(b"", True)

    def _entity(self, *_: Any) -> None:
        raise UnreadableText(f"{self.name} declares entities", "no word processor does; leave it out")

    def _start(self, name: str, attributes: list[str]) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise UnreadableText(f"{self.name} nests more than {DEEPEST:,} elements", "leave it out")
        what = ELEMENTS.get(name)
        if what is None or self.dropped:
            return
        if what == "run":
            self.parser.CharacterDataHandler = self.parts.append
        elif what in PARAGRAPHS:
            self.around.append((self.parts, self.place, self.contents, self.parser.CharacterDataHandler))
            self.parts, self.place, self.contents = [], len(self.lines), False
            self.parser.CharacterDataHandler = self.parts.append if what == "passage" else None
        elif what in MARKS:
            count = next((attributes[n + 1] for n in range(0, len(attributes), 2) if attributes[n].endswith("}c")), "1")
            self.parts.append(what * min(int(count) if count.isdecimal() else 1, MOST_BLANKS))
        elif what == "style":
            self.contents = self.contents or any(map(CONTENTS.fullmatch, attributes[1::2]))
        elif what == "cell":
            self.cells += not self.around
        elif what == "dropped" or (what == "reading" and not self.readings):
            self.dropped, self.heard = self.depth, self.parser.CharacterDataHandler
            self.parser.CharacterDataHandler = None

    def _end(self, name: str) -> None:
        self.depth -= 1
        if self.dropped:
            if self.depth < self.dropped:
                self.dropped, self.parser.CharacterDataHandler = 0, self.heard
            return
        what = ELEMENTS.get(name)
        if what is None:
            return
        if what == "run":
            self.parser.CharacterDataHandler = None
        elif what in PARAGRAPHS:
            text = "" if self.contents or what == "note" else _line(self.parts)
            if text:
                self.lines.insert(self.place, text)
            self.parts, self.place, self.contents, self.parser.CharacterDataHandler = self.around.pop()
            if not self.around and not self.cells and self.lines:
                self._give("".join(f"{line}\n\n" for line in self.lines), in_table=False)
        elif what == "cell" and not self.around:
            self.cells -= 1
            if not self.cells:
                self.row.append(" ".join(self.lines).replace("\n", " "))
                self.lines.clear()
        elif what == "row" and not self.around and not self.cells:
            if any(self.row):
                self._give("\t".join(self.row) + "\n", in_table=True)
            self.row.clear()

    def _give(self, text: str, in_table: bool) -> None:
        self.found.append("\n" + text if self.in_table and not in_table else text)
        self.in_table = in_table
        self.lines.clear()


def _line(parts: list[str]) -> str:
    text = single_spaced("".join(parts))
    if not text.isascii():  # where a mark may be; `translate` would take longer than all else together
        for mark, meant in MARKS.items():
            text = text.replace(mark, meant)
    return text.strip()
