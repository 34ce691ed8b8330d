"""Text of HTML pages, which may come from anyone: how large they are and how they nest is bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np

from reformer_cli.data.formats.base import Document, book, single_spaced, whole
from reformer_cli.data.formats.html_encoding import decode_page
from reformer_cli.data.text_decoding import OpenFile, UnreadableText, plain_line_ends
from reformer_cli.utils.extras import missing_package

LARGEST = 2**26  # bytes of one page; its tree takes some ten times as much memory
HARDEST = 2e10  # tags x nesting of a page: the parser's time grows with it
SILENT = {
    "script",
    "style",
    "head",
    "template",
    "noscript",
    "svg",
    "math",
    "iframe",
    "object",
    "select",
    "button",
    "nav",
}
PARAGRAPHS = {
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "table", "ul", "ol", "dl", "section", "article", "hr",
    "figure", "main", "header", "footer", "aside", "nav", "form", "address", "fieldset", "body",
}  # fmt: skip
LINES = {
    "div", "li", "tr", "br", "dt", "dd", "caption", "figcaption", "summary", "details", "legend", "option", "center",
}  # fmt: skip
CELLS = {"td", "th"}
UNCLOSED = {"br", "img", "hr", "meta", "link", "input", "p", "li", "td", "tr", "th", "dt", "dd", "wbr", "col"}
KEEPING = {"pre", "textarea"}
TAG = re.compile(rb"<(/?)([a-zA-Z][^\s/>]*)")
EMPTY = "area|base|br|col|embed|hr|img|input|link|meta|source|track|wbr"  # HTML has no end tags of these
XML = re.compile(  # comments, CDATA, tags that close themselves; no two of them share a `<`, so the search is linear
    rf"""<!--(?:.*?-->|.*)|<!\[CDATA\[(.*?)(?:\]\]>|\Z)|<(?!(?:{EMPTY})\b)([A-Za-z][^\s/<>]*)((?:[^<>"']|"[^"<]*"|'[^'<]*')*)/>""",
    re.DOTALL,
)
READINGS = {"rt", "rp", "rtc"}  # of ruby: how the words beside them are spoken
# Values of epub:type or role of what is no text.
NOTES, LONGEST_REFERENCE = {"noteref", "doc-noteref"}, 5  # characters, as in [123]
LISTS = {"toc", "landmarks", "page-list", "doc-toc", "doc-pagelist", "lot", "loi"}
TEXT_NODE = "-text"


def read_html(file: OpenFile) -> Iterator[Document]:
    """A page: its text, blocks on lines of their own, without scripts, styles and forms' buttons."""
    yield book(file, _pages(file))


def _pages(file: OpenFile) -> Iterator[str]:
    data = whole(file, LARGEST)
    yield page_text(data, file.name, file.options.encoding, file, ".xhtml" in file.name.lower())


def page_text(data: bytes, name: str, encoding: str, file: OpenFile, xml: bool = False, contents: bool = False) -> str:
    """The text of one page of a file. encoding: used where the page declares none; xml: it is XHTML; contents: it is
    said to be a table of contents, which is no text if it is half links.

    Raises UnreadableText.
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise missing_package("selectolax", name) from None
    tags, depth = nesting(data)
    if tags * depth > HARDEST:
        raise UnreadableText(f"{name} nests {tags:,} tags {depth:,} deep", "no page for readers does; leave it out")
    text = decode_page(data, name, encoding, file)
    if xml or data[:200].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<?xml"):
        text = xml_as_html(text)
    root = LexborHTMLParser(text).root
    if root is None:
        return ""
    found = "".join(_flow(root, _Silence(text, file)))
    if contents and 2 * sum(len(link.text()) for link in root.css("a[href]")) > len(found):
        return ""
    return found.strip("\n") + "\n"


def xml_as_html(text: str) -> str:
    """XHTML so that a parser of HTML understands it: what closes itself is closed, CDATA is text."""
    return XML.sub(_as_html, text)


def _as_html(found: re.Match[str]) -> str:
    cdata, tag, attributes = found.groups()
    if cdata is not None:
        return escape(cdata, quote=False)
    return f"<{tag}{attributes}></{tag}>" if tag else ""


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


class _Silence:
    """Which elements of a page are no text of it."""

    def __init__(self, text: str, file: OpenFile) -> None:
        self.tags = SILENT if file.options.ruby == "keep" else SILENT | READINGS
        self.asked = {"a", "sup", "section"} | ({"div"} if "pg-" in text or "pgheader" in text else set())
        self.file = file

    def holds(self, tag: str, node: Any) -> bool:
        """Whether the element, and all inside it, is left out."""
        if tag in self.tags or tag not in self.asked:
            return tag in self.tags
        found = node.attributes
        kinds = {*(found.get("epub:type") or "").split(), *(found.get("role") or "").split()}
        if tag in ("a", "sup"):
            return bool(NOTES & kinds) or _refers_to_a_note(tag, node)
        if LISTS & kinds:
            return True
        if (found.get("id") or "") in ("pg-header", "pg-footer") or "pg-boilerplate" in (found.get("class") or ""):
            self.file.replaced.count_cut(len(node.text(deep=True)))
            return True
        return False


def _refers_to_a_note(tag: str, node: Any) -> bool:
    """Whether a link, or what is raised, is both: a number behind a word, which would become part of it."""
    other, inner = "sup" if tag == "a" else "a", node.first_child
    if inner is None or inner.tag != other or inner.next is not None:
        return False
    link = node if tag == "a" else inner
    return "#" in (link.attributes.get("href") or "") and len(node.text(deep=True).strip()) <= LONGEST_REFERENCE


def _flow(root: Any, silence: _Silence) -> Iterator[str]:
    """Pieces of text in order. Breaks between blocks wait until text follows, so that they never pile up."""
    node, path = root, [root.tag]
    waiting, begun, spaced, kept = "", False, True, 0  # kept: how many open tags keep spaces and line ends as they are
    while True:
        tag = path[-1]
        if tag == TEXT_NODE:
            text = node.text_content or ""
            text = plain_line_ends(text) if kept else single_spaced(text)
            text = text.lstrip(" ") if (waiting or spaced) and not kept else text
            if text:
                yield (waiting if begun else "") + text
                waiting, begun, spaced = "", True, text.endswith(" ")
        else:
            waiting = _break(waiting, tag)
            kept += tag in KEEPING
        if not silence.holds(tag, node) and (child := node.first_child) is not None:
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
