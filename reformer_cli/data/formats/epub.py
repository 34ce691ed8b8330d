"""Text of EPUB books, which may come from anyone: what they unpack to is bounded."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import unquote

from reformer_cli.data.formats import html
from reformer_cli.data.formats.archives import BROKEN_ZIP
from reformer_cli.data.formats.base import Document, book
from reformer_cli.data.text_decoding import OpenFile, UnreadableText
from reformer_cli.utils.format import as_size

LARGEST_PACKAGE = 2**22  # bytes of what lists a book's pages
LARGEST_BOOK, MOST_PAGES = 2**29, 50_000  # bytes that a book's pages unpack to, and how many there are


def read_epub(file: OpenFile) -> Iterator[Document]:
    """A book, its pages in reading order."""
    yield book(file, _pages(file))


def _pages(file: OpenFile) -> Iterator[str]:
    try:
        with zipfile.ZipFile(file.stream) as archive:
            left = LARGEST_BOOK
            pages, contents = _spine(archive, file.name)
            for page in pages:
                data = _member(archive, page, file.name, min(html.LARGEST, left))
                left -= len(data)
                text = html.page_text(data, f"{file.name}: {page}", "utf-8", file, True, page in contents).strip("\n")
                if text:
                    yield text + "\n\n"
    except BROKEN_ZIP as error:
        what = "is encrypted" if "encrypted" in str(error) else f"is not a whole EPUB book ({error})"
        raise UnreadableText(f"{file.name} {what}", "get it without copy protection, or download it again") from None


def _member(book: zipfile.ZipFile, path: str, name: str, limit: int) -> bytes:
    with book.open(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UnreadableText(f"{name}: {path} unpacks to more than {as_size(limit)}", "leave it out")
    return data


def _spine(book: zipfile.ZipFile, name: str) -> tuple[list[str], set[str]]:
    """Paths of a book's pages inside the archive, where alone they are looked up; those that EPUB 2 calls contents."""
    tags = _tags(_member(book, "META-INF/container.xml", name, LARGEST_PACKAGE))
    package = next((a["full-path"] for tag, a in tags if tag == "rootfile" and "full-path" in a), None)
    if package is None:
        raise UnreadableText(f"{name} names no package file", "download it again")
    tags = _tags(_member(book, package, name, LARGEST_PACKAGE))
    items = {a["id"]: a.get("href", "") for tag, a in tags if tag == "item" and "id" in a}
    navigation = {a.get("id") for tag, a in tags if tag == "item" and "nav" in a.get("properties", "").split()}
    order = [items[a["idref"]] for tag, a in tags if tag == "itemref" and a.get("idref") in items.keys() - navigation]
    if not order or len(order) > MOST_PAGES:
        raise UnreadableText(f"{name} has {len(order)} pages", f"1 to {MOST_PAGES} are read")
    contents = [a.get("href", "") for tag, a in tags if tag == "reference" and a.get("type", "").lower() == "toc"]

    def path(href: str) -> str:
        return posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(href.partition("#")[0])))

    return [*map(path, order)], {path(href) for href in contents}


class _Collector(HTMLParser):
    """Tags and attributes of small XML files; unlike XML parsers it expands no entities of a file's own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag.rpartition(":")[2], {key: value or "" for key, value in attrs}))


def _tags(data: bytes) -> list[tuple[str, dict[str, str]]]:
    collector = _Collector()
    collector.feed(data.decode("utf-8", "replace"))
    return collector.found
