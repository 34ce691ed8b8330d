"""Plain text and Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from reformer_cli.data.formats.base import Document
from reformer_cli.data.gutenberg import cut_licence
from reformer_cli.data.text_decoding import OpenFile, decoded


def read_text(file: OpenFile) -> Iterator[Document]:
    """Plain text, Markdown: one document, a Gutenberg one without its licence."""
    yield Document(file.name, cut_licence(decoded(file), file.replaced.count_cut))
