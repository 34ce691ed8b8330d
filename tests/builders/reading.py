"""Reading and tokenising as the program does, without a command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reformer_cli.data.file_index import Record
from reformer_cli.data.scan import Scan, reread, scanned
from reformer_cli.data.shards import TokenFiles, open_tokens, write_tokens
from reformer_cli.data.sources import Source
from reformer_cli.data.split import Share
from reformer_cli.data.text_decoding import Options
from reformer_cli.tokenizers.base import Tokenizer


def silent(_: str) -> None: ...


def read(*specs: object, encoding: str = "auto", text_field: str = "text") -> dict[str, str]:
    """Name -> text of each document. Raises UserError for the first that cannot be read."""
    options = Options(encoding, text_field)
    with scanned([str(s) for s in specs], options, 1, silent) as scan:
        scan.check("stop")
        return {name: text for source, record in _files(scan) for name, text in _texts(source, record, options)}


def faults(*specs: object, encoding: str = "auto", text_field: str = "text") -> list[str]:
    """All that cannot be read."""
    with scanned([str(s) for s in specs], Options(encoding, text_field), 1, silent) as scan:
        return scan.faults


def digest(*specs: object) -> str:
    with scanned([str(s) for s in specs], Options(), 1, silent) as scan:
        return scan.digest


def tokens_of(
    specs: Sequence[object], tokenizer: Tokenizer, folder: Path, held_out: float = 0.1, processes: int = 1
) -> TokenFiles:
    """A corpus tokenised into a folder."""
    with scanned([str(s) for s in specs], Options(), 1, silent) as scan:
        rule = Share(held_out, scan.documents, scan.characters)
        write_tokens([(scan, rule)], tokenizer, folder, "digest", silent, processes)
    tokens = open_tokens(folder, "digest", tokenizer)
    assert tokens is not None
    return tokens


def _files(scan: Scan) -> list[tuple[Source, Record]]:
    return [(source, record) for _, source, record in scan.files()]


def _texts(source: Source, record: Record, options: Options) -> list[tuple[str, str]]:
    return [(name, "".join(pieces)) for _, name, _, pieces in reread(source, record, options)]


def only(path: Path, **options: str) -> str:
    """The text of a file that is one document."""
    (text,) = read(path, **options).values()
    return text
