"""PDF files: lines, words split at a line's end, and what is said of those without text."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.formats import pdf
from builders.reading import faults, only

pytest.importorskip("pypdfium2")


def test_pdf(tmp_path: Path) -> None:
    (tmp_path / "b.pdf").write_bytes(pdf(["A dark and stormy exam-", "ple of a night."], [], ["The end."]))
    assert only(tmp_path / "b.pdf") == "A dark and stormy example of a night.\nThe end.\n"


def test_a_scanned_book_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "b.pdf").write_bytes(pdf([], []))
    assert "b.pdf is scanned: its 2 pages are images without text; recognise the text first" in faults(tmp_path)[0]


def test_a_damaged_pdf(tmp_path: Path) -> None:
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 no more")
    assert "b.pdf is not a whole PDF file" in faults(tmp_path)[0]
