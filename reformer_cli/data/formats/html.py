"""Text of HTML pages, which may come from anyone: how large they are and how they nest is bounded."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from reformer_cli.data.formats.base import Document
from reformer_cli.data.text_decoding import OpenFile, UnreadableText, decode_whole
from reformer_cli.utils.extras import missing_package
from reformer_cli.utils.format import as_size

LARGEST = 2**26  # bytes of one page; its tree takes some ten times as much memory
HARDEST = 2e10  # tags x nesting of a page: the parser's time grows with it
SILENT = {"script", "style", "head", "template", "noscript", "svg", "math", "iframe", "object", "select", "button"}
PARAGRAPHS = {
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "table", "ul", "ol", "dl", "section", "article", "hr",
    "figure", "main", "header", "footer", "aside", "nav", "form", "address", "fieldset", "body",
}  # fmt: skip
LINES = {
    "div",
    "li",
    "tr",
    "br",
    "dt",
    "dd",
    "caption",
    "figcaption",
    "summary",
    "details",
    "legend",
    "option",
    "center",
}
CELLS = {"td", "th"}
UNCLOSED = {"br", "img", "hr", "meta", "link", "input", "p", "li", "td", "tr", "th", "dt", "dd", "wbr", "col"}
KEEPING = {"pre", "textarea"}
SPACE = re.compile(r"[ \t\n\r\f]+")
TAG = re.compile(rb"<(/?)([a-zA-Z][^\s/>]*)")
DECLARED = re.compile(rb"""<(?:meta[^>]{0,200}charset|\?xml[^>]{0,100}encoding)\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)
AS_BROWSERS_DO = {"iso8859-1": "cp1252", "ascii": "cp1252"}
TEXT_NODE = "-text"


def read_html(file: OpenFile) -> Iterator[Document]:
    """A page: its text, blocks on lines of their own, without scripts, styles and forms' buttons."""
    yield Document(file.name, _pages(file))


def _pages(file: OpenFile) -> Iterator[str]:
    data = file.stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise UnreadableText(f"{file.name} has more than {as_size(LARGEST)} of HTML", "turn it into text, or split it")
    yield page_text(data, file.name, file.options.encoding, file)


def page_text(data: bytes, name: str, encoding: str, file: OpenFile) -> str:
    """The text of one page of a file. encoding: used where the page declares none. Raises UnreadableText."""
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise missing_package("selectolax", name) from None
    tags, depth = nesting(data)
    if tags * depth > HARDEST:
        raise UnreadableText(f"{name} nests {tags:,} tags {depth:,} deep", "no page for readers does; leave it out")
    text = _decode(data, name, encoding, file)
    root = LexborHTMLParser(text).root
    return "".join(_flow(root)).strip("\n") + "\n" if root is not None else ""


def _decode(data: bytes, name: str, encoding: str, file: OpenFile) -> str:
    """By its byte order mark, else as it declares, else as the user says."""
    declared = DECLARED.search(data[:2048])
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8"
    elif declared is not None:
        encoding = declared.group(1).decode("ascii", "replace")
        if encoding.lower().startswith("utf-16"):
            encoding = "utf-8"  # the declaration could be read, so it is not true

    def fault(error: UnicodeDecodeError) -> UnreadableText:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte {error.start} (line {line}) is 0x{data[error.start]:02x}"
        hint = "give its encoding, such as --encoding latin-1, or --set data.errors=replace"
        return UnreadableText(f"{name} is not {encoding}: {what}", hint)

    try:
        known = codecs.lookup(encoding).name
        return decode_whole(data, AS_BROWSERS_DO.get(known, known), file, fault).removeprefix("\ufeff")
    except LookupError:
        raise UnreadableText(f"{name} declares the unknown encoding {encoding!r}", "turn it into UTF-8") from None


def nesting(data: bytes) -> tuple[int, int]:
    """(tags, upper bound of how deep they nest) of a page, found without parsing it."""
    letters = np.frombuffer(data + b" ", np.uint8)
    after = letters[np.flatnonzero(letters[:-1] == ord("<")) + 1]
    step = ((after | 32) >= ord("a")).astype(np.int32) * ((after | 32) <= ord("z")) - (after == ord("/"))
    depth = int(np.cumsum(step).max(initial=0))
    if depth * len(step) <= HARDEST:
        return len(step), depth
    now = depth = 0
    for match in TAG.finditer(data):  # again, without the tags that are seldom closed
        if match.group(2).lower().decode("ascii", "replace") not in UNCLOSED:
            now += -1 if match.group(1) else 1
            depth = max(depth, now)
    return len(step), depth


def _flow(root: Any) -> Iterator[str]:
    """Pieces of text in order. Breaks between blocks wait until text follows, so that they never pile up."""
    node, path = root, [root.tag]
    waiting, begun, spaced, kept = "", False, True, 0  # kept: how many open tags keep spaces and line ends as they are
    while True:
        tag = path[-1]
        if tag == TEXT_NODE:
            text = node.text_content or ""
            text = text.replace("\r\n", "\n") if kept else SPACE.sub(" ", text)
            text = text.lstrip(" ") if (waiting or spaced) and not kept else text
            if text:
                yield (waiting if begun else "") + text
                waiting, begun, spaced = "", True, text.endswith(" ")
        else:
            waiting = _break(waiting, tag)
            kept += tag in KEEPING
        if tag not in SILENT and (child := node.first_child) is not None:
            node = child
            path.append(node.tag)
            continue
        while True:  # to what follows, closing what ends
            tag = path.pop()
            kept -= tag in KEEPING
            waiting = _break(waiting, tag) if tag not in CELLS else waiting
            if not path:
                return
            if (following := node.next) is not None:
                node = following
                path.append(node.tag)
                break
            node = node.parent


def _break(waiting: str, tag: str) -> str:
    """What must stand before the next text, now that a tag opens or closes."""
    if tag in PARAGRAPHS:
        return "\n\n"
    if tag in LINES:
        return waiting if "\n" in waiting else "\n"
    return "\t" if tag in CELLS and not waiting else waiting
