"""Books: the text that comes out, and what is said of those that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.formats import epub
from builders.reading import faults, only

from reformer_cli.data.formats import epub as epub_format
from reformer_cli.data.formats import html


def test_epub(tmp_path: Path) -> None:
    pages = {"two.xhtml": b"<p>Second.</p>", "cover.html": b"<img src='x'>", "one.html": "<h1>Erste</h1><p>é".encode()}
    (tmp_path / "b.epub").write_bytes(epub(pages, ["cover.html", "one.html", "two.xhtml"], prefix="opf:"))
    assert only(tmp_path / "b.epub") == "Erste\n\né\n\nSecond.\n\n"


def test_contents_that_the_guide_names(tmp_path: Path) -> None:
    """EPUB 2 has no other name for them. One that is mostly text, such as a book of one page, is kept."""
    links = "".join(f'<p><a href="{n}.html">Chapter {n}</a></p>' for n in range(9)).encode()
    guide = '<guide><reference type="toc" href="toc.html{}"/></guide>'
    for text, expected in ((b"<h1>Contents</h1>", ""), (b"<p>" + b"Story. " * 40, "Story. " * 39 + "Story.")):
        (tmp_path / "b.epub").write_bytes(
            epub({"toc.html": text + links, "1.html": b"<p>One"}, guide=guide.format("#c"))
        )
        found = only(tmp_path / "b.epub")
        assert found.startswith(expected)
        assert found.endswith("One\n\n")
        assert ("Chapter 3" in found) == bool(expected)


def test_epubs_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = tmp_path / "b.epub"
    whole = epub({"one.html": b"<p>text"})
    for data in (b"PK no zip", whole[: len(whole) // 2]):
        book.write_bytes(data)
        assert "b.epub is not a whole EPUB book" in faults(book)[0]
    for container in ("nowhere.opf", "../../../etc/passwd"):  # looked up in the archive alone
        book.write_bytes(epub({"one.html": b"<p>text"}, container=container))
        assert "is not a whole EPUB book" in faults(book)[0]
    book.write_bytes(epub({"../../etc/passwd": b"<p>inside"}))
    assert "is not a whole EPUB book" in faults(book)[0]
    monkeypatch.setattr(html, "LARGEST", 2**20)
    book.write_bytes(epub({"bomb.html": b"<p>" + b" " * 2**24}))
    assert "OPS/bomb.html unpacks to more than 1.0 MiB" in faults(book)[0]
    monkeypatch.setattr(epub_format, "LARGEST_BOOK", 2**21)
    book.write_bytes(epub({f"{n}.html": b"<p>" + b" " * 2**19 for n in range(9)}))
    assert "unpacks to more than" in faults(book)[0]


def test_an_encrypted_book_is_told_from_a_broken_one(tmp_path: Path) -> None:
    raw = bytearray(epub({"one.html": b"<p>text"}))
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of encryption in both headers
        start = 0
        while (start := raw.find(sign, start)) >= 0:
            raw[start + offset] |= 1
            start += 4
    (tmp_path / "b.epub").write_bytes(raw)
    assert "is encrypted" in faults(tmp_path)[0]
