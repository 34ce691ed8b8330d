"""Text of PDF files, by PDFium: the text layer that a program has written, or text recognition has added."""

from __future__ import annotations

from collections.abc import Iterator

from reformer_cli.data.formats.base import SOFT_HYPHEN, Document, book, not_whole
from reformer_cli.data.text_decoding import OpenFile, UnreadableText
from reformer_cli.utils.extras import missing_package

MOST_PAGES = 100_000
SPLIT_WORD = "\ufffe"  # PDFium's sign for the hyphen of a word that goes on in the next line


def read_pdf(file: OpenFile) -> Iterator[Document]:
    """The lines of all pages in order, words put together that are split at a line's end."""
    yield book(file, _pages(file))


def _pages(file: OpenFile) -> Iterator[str]:
    try:
        import pypdfium2
    except ImportError:
        raise missing_package("pypdfium2", file.name) from None
    try:
        pdf = pypdfium2.PdfDocument(file.stream)
        try:
            if not 0 < len(pdf) <= MOST_PAGES:
                raise UnreadableText(f"{file.name} has {len(pdf)} pages", f"1 to {MOST_PAGES:,} are read")
            if not any(_page(pdf, n).strip() for n in range(len(pdf))):
                what = f"{file.name} is scanned: its {len(pdf):,} pages are images without text"
                raise UnreadableText(what, "recognise the text first: ocrmypdf IN.pdf OUT.pdf")
            for n in range(len(pdf)):
                if text := _page(pdf, n).strip():
                    yield text + "\n"
        finally:
            pdf.close()
    except pypdfium2.PdfiumError as error:
        if "assword" in str(error):
            raise UnreadableText(f"{file.name} is encrypted", "save it without a password") from None
        raise not_whole(file, "PDF file", error) from None


def _page(pdf: object, n: int) -> str:
    page = pdf[n]  # type: ignore[index]
    text = page.get_textpage()
    try:
        found: str = text.get_text_range()
    finally:
        text.close()
        page.close()
    found = found.replace("\r\n", "\n").replace(f"{SOFT_HYPHEN}\n", "")
    return found.replace(SPLIT_WORD, "").replace(SOFT_HYPHEN, "").replace("\0", "")
