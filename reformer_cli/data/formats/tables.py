"""Tables of text: .csv, also with semicolons, and .tsv."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from reformer_cli.data.formats.base import WHICH, Document, NoText, field_text, some_names
from reformer_cli.data.text_decoding import OpenFile, UnreadableText, decoded
from reformer_cli.utils.format import as_size

LONGEST_ROW = 2**26  # characters of a line, and of a field over many lines


def read_csv(file: OpenFile) -> Iterator[Document]:
    """A row each, after the first, which names the columns: its column `field`."""
    csv.field_size_limit(LONGEST_ROW)
    field, lines = file.options.text_field, _lines(file)
    try:
        first = next(lines, "")
        separator = max("\t,;" if ".tsv" in file.name.lower() else ",;\t", key=first.count)
        names = next(csv.reader([first], delimiter=separator), [])
        if field not in names:
            what = f"{file.name} has no column {field!r}, it has {some_names(names)}"
            raise NoText(what, WHICH, f"tables without a column {field!r}")
        column = names.index(field)
        for number, row in enumerate(csv.reader(lines, delimiter=separator), 2):
            if row:
                name = f"{file.name}:{number}"
                yield Document(name, [field_text(row[column] if column < len(row) else "", name, file)])
    except csv.Error as error:
        raise UnreadableText(f"{file.name} is no table ({error})", "is a quotation mark left open?") from None


def _lines(file: OpenFile) -> Iterator[str]:
    held: list[str] = []
    for piece in decoded(file):
        head, end, rest = piece.rpartition("\n")
        held.append(head + end)
        if end:
            yield from "".join(held).splitlines(keepends=True)
            held = []
        held.append(rest)
        if sum(map(len, held)) > LONGEST_ROW:
            raise UnreadableText(f"{file.name} has a line of more than {as_size(LONGEST_ROW)}", "is it a table?")
    if last := "".join(held):
        yield last
