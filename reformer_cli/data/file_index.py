"""Files of a corpus and what each holds, in SQLite: millions of them in bounded memory, and remembered safely."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer_cli.data.sources import Source
from reformer_cli.data.text_decoding import Options
from reformer_cli.utils.errors import UserError

VERSION = 6  # of the readers: a change makes files be read again
COLUMNS = (
    "digest, bytes, words, lengths, counts, shingles, left_out, passages, faults, n_faults, notes, replaced, cut, "
)
COLUMNS += "joined, encodings, formats, skipped, heads"
FIELDS = COLUMNS.count(",") + 1
PATIENCE = 60.0  # seconds to wait for another process that writes


@dataclass(frozen=True)
class Record:
    """What a file holds. lengths: int64, characters of each document, -1 where it cannot be read.

    replaced: places where bytes were no text and became U+FFFD; notes: where that was. cut: characters left out, such
    as a licence; joined: lines, with the next one. encodings: other than UTF-8, and how surely. formats: files by what
    has read them, those in archives too; skipped: (how many files in it were left out, one of them) by reason.
    heads: how many running heads, by one of them. shingles: of all documents in order, counts: of each; left_out:
    documents that are duplicates, passages: of others, as document << 32 | shingle, where such are to be left out.
    """

    digest: bytes
    bytes: int
    words: int
    lengths: npt.NDArray[np.int64]
    faults: list[str]
    n_faults: int
    notes: list[str]
    replaced: int
    cut: int = 0
    joined: int = 0
    encodings: dict[str, float] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, tuple[int, str]] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=dict)
    counts: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    shingles: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    left_out: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    passages: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def row(self) -> tuple[Any, ...]:
        told = json.dumps(self.faults), self.n_faults, json.dumps(self.notes), self.replaced, self.cut, self.joined
        about = map(json.dumps, (self.encodings, self.formats, self.skipped, self.heads))
        arrays = self.lengths, self.counts, self.shingles, self.left_out, self.passages
        return self.digest, self.bytes, self.words, *(array.tobytes() for array in arrays), *told, *about

    @classmethod
    def of_row(cls, row: tuple[Any, ...]) -> Record:
        kinds = np.int64, np.int32, np.uint32, np.int64, np.int64
        lengths, *more = (np.frombuffer(data, kind) for data, kind in zip(row[3:8], kinds, strict=True))
        digest, n_bytes, words = row[:3]
        faults, n_faults, notes, replaced, cut, joined, *about = row[8:]
        told = json.loads(faults), n_faults, json.loads(notes), replaced, cut, joined, *map(json.loads, about)
        return cls(digest, n_bytes, words, lengths, *told, *more)


class Damaged(UserError):
    """A file that is no database any more."""


class Table:
    """An SQLite file; `with` it. Its troubles are told as those of any file."""

    def __init__(self, path: str, layout: str) -> None:
        self.path = path
        with self._telling():
            self.database = sqlite3.connect(path, timeout=PATIENCE)
            self.database.executescript(layout)

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()

    def run(self, statement: str, values: Iterable[Any] = ()) -> list[Any]:
        with self._telling():
            return self.database.execute(statement, tuple(values)).fetchall()

    def commit(self) -> None:
        with self._telling():
            self.database.commit()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            where = self.path or "temporary files"
            if not isinstance(error, sqlite3.OperationalError):
                raise Damaged(f"{where} is damaged ({error})", "remove it: it only saves time") from None
            if any(sign in str(error) for sign in ("full", "disk I/O")):
                raise OSError(errno.ENOSPC, "no space left", where) from None
            raise UserError(f"cannot use {where}: {error}", "is the cache folder yours to write?") from None


class Listing(Table):
    """The files of one corpus in order, and what they hold, for as long as the program needs it."""

    LAYOUT = (
        f"CREATE TABLE files (n INTEGER PRIMARY KEY, source); CREATE TABLE records (n INTEGER PRIMARY KEY, {COLUMNS})"
    )

    def __init__(self) -> None:
        super().__init__("", self.LAYOUT)  # a database without a name is on disk where it grows, and goes when closed

    def fill(self, sources: Iterator[Source]) -> tuple[int, int]:
        """List all files; their bytes and their number."""
        size = n = 0
        for n, source in enumerate(sources, 1):
            size += source.size
            self.run("INSERT INTO files VALUES (?, ?)", (n - 1, json.dumps(astuple(source))))
        return size, n

    def put(self, n: int, record: Record) -> None:
        self.run(f"INSERT OR REPLACE INTO records VALUES (?, {', '.join('?' * FIELDS)})", (n, *record.row()))

    def sources(self) -> Iterator[tuple[int, Source]]:
        with self._telling():
            for n, source in self.database.execute("SELECT n, source FROM files ORDER BY n"):
                yield n, Source(*json.loads(source))

    def rows(self, start: int = 0) -> Iterator[tuple[int, Source, Record]]:
        """Files with what they hold, from a number on."""
        select = f"SELECT n, source, {COLUMNS} FROM files JOIN records USING (n) WHERE n >= ? ORDER BY n"
        with self._telling():
            for n, source, *record in self.database.execute(select, (start,)):
                yield n, Source(*json.loads(source)), Record.of_row(tuple(record))


class Index(Table):
    """What files held when they were last read, by path and options; None: remembers nothing."""

    LAYOUT = f"CREATE TABLE IF NOT EXISTS files (path, options, signature, {COLUMNS}, PRIMARY KEY (path, options))"

    def __init__(self, path: Path | None) -> None:
        self.used = path is not None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            super().__init__(str(path) if path else "", self.LAYOUT)
            self.run("SELECT path, encodings FROM files LIMIT 1")
        except Damaged:
            if path is None:
                raise
            path.unlink()
            super().__init__(str(path), self.LAYOUT)

    def find(self, source: Source, options: Options) -> Record | None:
        """What the file holds if it is the one that was read."""
        if not self.used or not source.path:
            return None
        select = f"SELECT {COLUMNS} FROM files WHERE path = ? AND options = ? AND signature = ?"
        rows = self.run(select, (*_key(source, options), source.signature))
        return Record.of_row(rows[0]) if rows else None

    def put(self, source: Source, options: Options, record: Record) -> None:
        if self.used and source.path:
            values = (*_key(source, options), source.signature, *record.row())
            self.run(f"INSERT OR REPLACE INTO files VALUES ({', '.join('?' * (3 + FIELDS))})", values)


def _key(source: Source, options: Options) -> tuple[str, str]:
    # JSON, for a path may hold bytes that are no text
    how = [VERSION, source.ending, source.packed, source.named, options.encoding, options.text_field]
    how += [options.replacing, options.ruby, options.unwrap, options.duplicates != "keep"]
    how += [*options.image_size] if options.image_size else []
    return json.dumps(source.path), json.dumps(how)
