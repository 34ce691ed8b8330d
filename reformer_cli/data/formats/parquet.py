"""Tables in Parquet files, by pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reformer_cli.data.formats.base import WHICH, Document, field_text, some_names
from reformer_cli.data.text_decoding import OpenFile, UnreadableText
from reformer_cli.utils.extras import missing_package
from reformer_cli.utils.format import as_size

LARGEST_GROUP = 2**32  # bytes that a part of a file may unpack to


def read_parquet(file: OpenFile) -> Iterator[Document]:
    """A row of a table each: its column `field`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_package("pyarrow", file.name) from None
    field, number = file.options.text_field, 0
    try:
        table = pyarrow.parquet.ParquetFile(file.stream, pre_buffer=False)
        names = table.schema_arrow.names
        if field not in names:
            raise UnreadableText(f"{file.name} has no column {field!r}, it has {some_names(names)}", WHICH)
        for n in range(table.num_row_groups):
            size = table.metadata.row_group(n).total_byte_size
            if size > LARGEST_GROUP:
                raise UnreadableText(
                    f"{file.name}: row group {n} has {as_size(size)}, {as_size(LARGEST_GROUP)} are read"
                )
        for batch in table.iter_batches(64, columns=[field], use_threads=False):
            for value in batch.column(0):
                number += 1
                name = f"{file.name}:{number}"
                yield Document(name, _cell(value, name, file))
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UnreadableText(
            f"{file.name} is not a whole parquet file ({str(error)[:200]})", "download it again"
        ) from None


def _cell(value: Any, name: str, file: OpenFile) -> Iterator[str]:
    try:
        found = value.as_py()
    except UnicodeDecodeError:  # a column of strings may hold any bytes
        found = value.as_buffer().to_pybytes()
    yield field_text(found, name, file)
