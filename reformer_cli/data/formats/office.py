"""Text of word processors' files: .docx (Office Open XML) and .odt (OpenDocument), by lxml, a paragraph at a time.

They are zip archives of XML, and may come from anyone: entities are not expanded, and what they unpack to is bounded.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from reformer_cli.data.formats.archives import BROKEN_ZIP
from reformer_cli.data.formats.base import Document, book, not_whole
from reformer_cli.data.text_decoding import OpenFile, UnreadableText
from reformer_cli.utils.extras import missing_package
from reformer_cli.utils.format import as_size

LARGEST = 2**29  # bytes that a part of a file may unpack to
LONGEST = 2**25  # bytes of XML in which a paragraph or a row must end: they are held in memory
BLOCK = 2**16
SPACE = re.compile(r"[ \t\r\n]{2,}|[\t\r\n]")
MARKS = {"\ufdd0": " ", "\ufdd1": "\t", "\ufdd2": "\n", "\ufdd3": "-"}  # noncharacters: no text has them
BLANK, TAB, BREAK, HYPHEN = MARKS
MOST_BLANKS = 1000  # that one element stands for
CONTENTS = re.compile(r"TOC ?\d", re.IGNORECASE)  # styles of a table of contents


@dataclass(frozen=True)
class Kind:
    """Names of elements. marks: those that stand for a character; dropped: what is no text, with all in it; notes:
    paragraphs in them follow the one that they are in; texts: the only ones that hold text, where not all do."""

    paragraphs: tuple[str, ...]
    row: str
    cell: str
    style: str
    marks: dict[str, str]
    dropped: tuple[str, ...]
    readings: str
    notes: tuple[str, ...]
    texts: tuple[str, ...] = ()


def _docx(w: str) -> Kind:
    fallback = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
    marks = {f"{w}tab": TAB, f"{w}br": BREAK, f"{w}cr": BREAK, f"{w}noBreakHyphen": HYPHEN}
    dropped, texts = (f"{w}moveFrom", f"{w}pPr", fallback), (f"{w}t", *marks)
    return Kind((f"{w}p",), f"{w}tr", f"{w}tc", f"{w}pStyle", marks, dropped, f"{w}rt", (f"{w}txbxContent",), texts)


def _odt(t: str, x: str, office: str) -> Kind:
    marks = {f"{t}s": BLANK, f"{t}tab": TAB, f"{t}line-break": BREAK}
    dropped = ("note-citation", "tracked-changes", "table-of-content", "alphabetical-index")
    names = (*(t + name for name in dropped), f"{office}annotation")
    paragraphs = (f"{t}p", f"{t}h")
    return Kind(paragraphs, f"{x}table-row", f"{x}table-cell", "", marks, names, f"{t}ruby-text", (f"{t}note",))


STRICT_WORD = "http://purl.oclc.org/ooxml/wordprocessingml/main"
DOCX = _docx("{http://schemas.openxmlformats.org/wordprocessingml/2006/main}")
STRICT = _docx(f"{{{STRICT_WORD}}}")
ODT = _odt(*(f"{{urn:oasis:names:tc:opendocument:xmlns:{name}:1.0}}" for name in ("text", "table", "office")))
DOCX_PARTS = re.compile(r"word/document\d*\.xml|word/(?:foot|end)notes\.xml")


def read_docx(file: OpenFile) -> Iterator[Document]:
    """A document of Word: its paragraphs, tables a row a line; then its notes."""
    yield book(file, _text(file, DOCX_PARTS))


def read_odt(file: OpenFile) -> Iterator[Document]:
    """A document of LibreOffice: its paragraphs, tables a row a line; notes after the paragraph that they belong to."""
    yield book(file, _text(file, re.compile(r"content\.xml")))


def _text(file: OpenFile, parts: re.Pattern[str]) -> Iterator[str]:
    try:
        from lxml.etree import XMLSyntaxError
    except ImportError:
        raise missing_package("lxml", file.name) from None
    broken = (*BROKEN_ZIP, XMLSyntaxError)
    what = ".docx document" if parts is DOCX_PARTS else ".odt document"
    try:
        with zipfile.ZipFile(file.stream) as archive:
            names = [name for name in archive.namelist() if parts.fullmatch(name)]
            if not names:
                raise ValueError("it has no text")
            for name in sorted(names, key=lambda name: "notes" in name):
                with archive.open(name) as part:
                    yield from _Paragraphs(file, part, name).pieces()
    except broken as error:
        raise not_whole(file, what, error) from None


class _Paragraphs:
    """The text of a part of XML; only what was not given out yet is in memory."""

    def __init__(self, file: OpenFile, part: IO[bytes], name: str) -> None:
        self.name, self.part, self.ruby = f"{file.name}: {name}", part, file.options.ruby
        self.in_table = False

    def pieces(self) -> Iterator[str]:
        from lxml import etree

        data = self.part.read(BLOCK)
        self.kind = ODT if "content" in self.name else STRICT if STRICT_WORD.encode() in data else DOCX
        self.drop = (*self.kind.dropped, *((self.kind.readings,) if self.ruby == "drop" else ()))
        tags = (*self.kind.paragraphs, self.kind.row)
        parser = etree.XMLPullParser(("end",), tag=tags, resolve_entities=False, no_network=True, huge_tree=False)
        size = held = 0
        while data:
            size, held = size + len(data), held + len(data)
            if size > LARGEST or held > LONGEST:
                what = "unpacks to" if size > LARGEST else "has a paragraph of"
                raise UnreadableText(f"{self.name} {what} more than {as_size(min(size, LARGEST))}", "leave it out")
            parser.feed(data)
            found = []
            for _, element in parser.read_events():
                if next(element.iterancestors(self.kind.cell, *self.kind.notes, *self.drop), None) is None:
                    found.append(self._block(element))
                    _forget(element)
                    held = 0
            yield "".join(found)
            data = self.part.read(BLOCK)
        parser.close()

    def _block(self, element: Any) -> str:
        """A paragraph with the notes in it, or a row."""
        if element.tag != self.kind.row:
            text = "".join(line + "\n\n" for line in self._lines(element))
            after = "\n" if text and self.in_table else ""
            self.in_table = self.in_table and not text
            return after + text
        cells = [c for c in element.iter(self.kind.cell) if next(c.iterancestors(self.kind.cell), None) is None]
        found = [[line for p in cell.iter(*self.kind.paragraphs) for line in self._lines(p)] for cell in cells]
        text = "\t".join(" ".join(lines).replace("\n", " ") for lines in found)
        self.in_table = self.in_table or bool(text.strip())
        return text + "\n" if text.strip() else ""

    def _lines(self, paragraph: Any) -> Iterator[str]:
        from lxml import etree

        kind = self.kind
        if kind.style and any(CONTENTS.fullmatch(str(s.values()[0])) for s in paragraph.iter(kind.style) if s.values()):
            return
        etree.strip_elements(paragraph, *self.drop, with_tail=False)
        notes = [p for note in paragraph.iter(*kind.notes) for p in note.iter(*kind.paragraphs)]
        etree.strip_elements(paragraph, *kind.notes, with_tail=False)
        for element in paragraph.iter(*kind.marks):
            count = next((value for name, value in element.items() if name.endswith("}c")), "1")
            element.text = kind.marks[element.tag] * min(int(count) if count.isdecimal() else 1, MOST_BLANKS)
        found = paragraph.itertext(*kind.texts, with_tail=not kind.texts) if kind.texts else paragraph.itertext()
        text = SPACE.sub(" ", "".join(found))
        if not text.isascii():  # where a mark may be; `translate` would take longer than all else together
            for mark, meant in MARKS.items():
                text = text.replace(mark, meant)
        if text := text.strip():
            yield text
        for note in notes:
            yield from self._lines(note)


def _forget(element: Any) -> None:
    """Take out of the tree what was given out, and all before it."""
    element.clear()
    for node in (element, *element.iterancestors()):
        parent = node.getparent()
        while parent is not None and node.getprevious() is not None:
            del parent[0]
