"""What a corpus holds: every file read once, to know its documents, its faults and a digest of its text.

Reading many gigabytes again at every start would take minutes. So an index in the cache remembers each file of a large
corpus by size, times and inode, and only what differs is read; a small one is always read.
"""

from __future__ import annotations

import hashlib
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from reformer_cli.data import sources
from reformer_cli.data.duplicates import Duplicates, find_duplicates, remaining
from reformer_cli.data.file_index import Index, Listing, Record
from reformer_cli.data.formats.base import NoText
from reformer_cli.data.meter import Meter
from reformer_cli.data.sources import Source
from reformer_cli.data.text_decoding import Options, Replacements, UnreadableText
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import cache_folder
from reformer_cli.utils.format import as_size
from reformer_cli.utils.progress_bar import shown
from reformer_cli.utils.workers import cores, ordered

ALWAYS_READ = 2**26, 10_000  # bytes and files up to which a corpus is read at every start
ALONE = 2**25, 2_000  # bytes and files up to which further processes would take longer to start than they save
JOB = 2**23, 500  # bytes and files a process reads at once
RACY_SECONDS = 2.0  # a file may change so soon after a change without another time stamp
MOST_FAULTS = 100  # that are told of


@dataclass
class Scan:
    """A corpus that was read. digest: SHA-256 over its documents in order; lengths count characters."""

    specs: tuple[str, ...]
    options: Options
    listing: Listing
    digest: str = ""
    files_read: int = 0
    documents: int = 0
    characters: int = 0
    bytes: int = 0
    words: int = 0
    longest: int = 0
    empty: int = 0  # documents without text
    n_faults: int = 0
    faults: list[str] = field(default_factory=list)
    replaced: int = 0  # places where bytes were no text and became U+FFFD
    notes: list[str] = field(default_factory=list)
    cut: int = 0  # characters left out of files, such as a licence
    encodings: dict[str, tuple[int, float, str]] = field(default_factory=dict)  # files, least sure, which that is
    joined: int = 0  # lines joined with the next one, or that would be
    duplicates: Duplicates = field(default_factory=Duplicates)
    formats: Counter[str] = field(default_factory=Counter)  # files, and those in archives, by what has read them
    skipped: Counter[str] = field(default_factory=Counter)  # what folders and archives hold besides, by reason
    examples: dict[str, str] = field(default_factory=dict)  # a path for each reason

    @property
    def name(self) -> str:
        return ", ".join(self.specs)

    def files(self, start: int = 0) -> Iterator[tuple[int, Source, Record]]:
        """(number, file, what it holds), in order, from a number on."""
        return self.listing.rows(start)

    def check(self, errors: str) -> None:
        """Raises UserError if there is nothing to learn from, or (unless errors is skip) something cannot be read."""
        if self.n_faults and errors != "skip":
            more = f" (and {self.n_faults - 1:,} more: `reformer corpus` lists them)" if self.n_faults > 1 else ""
            raise UserError(f"{self.faults[0]}, or leave such texts out with --set data.errors=skip{more}")
        if not (self.words if self.options.image_size is None else self.documents):
            raise UserError(f"the corpus {self.name} is empty", "there is nothing to learn from")

    def _skip(self, path: str, why: str) -> None:
        self.skipped[why] += 1
        self.examples.setdefault(why, path)

    def _add(self, source: Source, record: Record) -> None:
        kept = record.lengths[record.lengths > 0]
        self.files_read += 1
        self.formats.update(record.formats or {source.ending + source.packed: 1})
        for why, (count, example) in record.skipped.items():
            self.skipped[why] += count
            self.examples.setdefault(why, example)
        self.documents += len(kept)
        self.characters += int(kept.sum())
        self.longest = max(self.longest, int(kept.max(initial=0)))
        self.empty += int((record.lengths == 0).sum()) - len(record.left_out)
        self.bytes, self.words = self.bytes + record.bytes, self.words + record.words
        self.n_faults += record.n_faults
        self.faults += record.faults[: MOST_FAULTS - len(self.faults)]
        self.replaced += record.replaced
        self.cut += record.cut
        self.joined += record.joined
        self.notes += record.notes[: MOST_FAULTS - len(self.notes)]
        for name, sure in record.encodings.items():
            files, least, which = self.encodings.get(name, (0, 2.0, ""))
            self.encodings[name] = (files + 1, *min((least, which), (sure, source.name)))


@contextmanager
def scanned(
    specs: Sequence[str], options: Options, processes: int | None, report: Callable[[str], None]
) -> Iterator[Scan]:
    """Read a corpus. While it is open, what came through pipes is there to be read again.

    Raises UserError for what is missing. What cannot be read is in `faults`: see `check`.
    """
    with Listing() as listing:
        found = Scan(tuple(specs), options, listing)
        with sources.sources(specs, found._skip, options) as opened:
            size, files = listing.fill(opened)
            large = size > ALWAYS_READ[0] or files > ALWAYS_READ[1]
            alone = size <= ALONE[0] and files <= ALONE[1]
            with Index(cache_folder() / "index-6.sqlite" if large else None) as index:
                processes = 1 if alone else processes or cores()
                _read(listing, index, options, processes, size, report)
            found.duplicates = find_duplicates(listing, options.duplicates == "drop")
            if options.duplicates == "drop":
                _read_again(listing, options, processes)
            total = hashlib.sha256()
            for _, source, record in listing.rows():
                found._add(source, record)
                if record.bytes:
                    total.update(record.digest)
            found.digest = total.hexdigest()
            yield found


def _read(
    listing: Listing, index: Index, options: Options, processes: int, size: int, report: Callable[[str], None]
) -> None:
    """Fill in what each listed file holds, from the index or by reading it."""
    waiting: list[list[tuple[int, Source]]] = []
    with shown("reading", size, report, as_size) as advance:

        def known(n: int, source: Source) -> bool:
            record = index.find(source, options)
            if record is None:
                return False
            listing.put(n, record)
            advance(source.size)
            return True

        def jobs() -> Iterator[list[Source]]:
            for job in _jobs((n, source) for n, source in listing.sources() if not known(n, source)):
                waiting.append(job)
                yield [source for _, source in job]

        begun = time.time()
        for records in ordered(reader, (options,), jobs(), processes):
            job = waiting.pop(0)
            for (n, source), record in zip(job, records, strict=True):
                listing.put(n, record)
                if source.changed < begun - RACY_SECONDS:
                    index.put(source, options, record)
            index.commit()
            advance(sum(source.size for _, source in job))


def _read_again(listing: Listing, options: Options, processes: int) -> None:
    """The files of which a part is left out, to know what they hold without it."""
    waiting: list[tuple[int, Record]] = []

    def jobs() -> Iterator[list[tuple[Source, Record]]]:
        n = -1
        while (row := next(listing.rows(n + 1), None)) is not None:
            n, source, record = row
            if len(record.left_out) or len(record.passages):
                waiting.append((n, record))
                yield [(source, record)]

    for (again,) in ordered(_rereader, (options,), jobs(), processes):
        n, old = waiting.pop(0)
        listing.put(n, replace(again, left_out=old.left_out, passages=old.passages))


def _rereader(options: Options) -> Callable[[list[tuple[Source, Record]]], list[Record]]:
    return lambda job: [read_file(source, options, record) for source, record in job]


def _jobs(files: Iterable[tuple[int, Source]]) -> Iterator[list[tuple[int, Source]]]:
    job: list[tuple[int, Source]] = []
    size = 0
    for n, source in files:
        job.append((n, source))
        size += source.size
        if size >= JOB[0] or len(job) >= JOB[1]:
            yield job
            job, size = [], 0
    if job:
        yield job


def reader(options: Options) -> Callable[[list[Source]], list[Record]]:
    """What a process does with the files that it is given."""
    return lambda job: [*map(partial(read_file, options=options), job)]


def read_file(source: Source, options: Options, known: Record | None = None) -> Record:
    """Read a file whole, document by document; known: what of it is left out."""
    lengths, counts, shingles = array("q"), array("i"), array("I")  # there may be a hundred million
    faults: list[str] = []
    n_faults, replaced = 0, Replacements()
    total, n_bytes, words = hashlib.sha256(), 0, 0
    try:
        for number, document in enumerate(sources.documents(source, options, replaced)):
            meter = Meter(document.name, options)
            try:
                for piece in document.pieces if known is None else remaining(document.pieces, known, number):
                    meter.add(piece)
            except UnreadableText as fault:
                lengths.append(-1)
                counts.append(0)
                n_faults += 1
                if len(faults) < MOST_FAULTS:
                    faults.append(str(fault))
                continue
            lengths.append(meter.characters)
            kept = meter.shingles() if meter.characters else np.zeros(0, np.uint32)
            counts.append(len(kept))
            shingles.frombytes(kept.tobytes())
            if meter.characters:
                total.update(meter.digest())
                n_bytes, words = n_bytes + meter.bytes, words + meter.words
    except UnreadableText as fault:
        if isinstance(fault, NoText) and not source.named:
            replaced.skip(source.name, fault.why)
        else:
            n_faults += 1
            faults.append(str(fault))
    found = np.frombuffer(lengths, np.int64)
    told = replaced.notes, replaced.places, replaced.cut, replaced.joined, replaced.encodings
    about = dict(replaced.formats), replaced.skipped, replaced.heads
    sums = np.frombuffer(counts, np.int32), np.frombuffer(shingles, np.uint32)
    return Record(total.digest(), n_bytes, words, found, faults, n_faults, *told, *about, *sums)


def reread(source: Source, record: Record, options: Options) -> Iterator[tuple[int, str, int, Iterator[str]]]:
    """(number, name, characters, pieces) of each document with text, as the scan has found them.

    Raises UserError at the end of a file that is not what was scanned.
    """
    total, faulty = hashlib.sha256(), False
    try:
        for number, document in enumerate(sources.documents(source, options)):
            length = int(record.lengths[number]) if number < len(record.lengths) else 0
            if length > 0:
                meter = Meter(document.name, options, count_words=False)
                pieces = _metered(remaining(document.pieces, record, number), meter, source)
                yield number, document.name, length, pieces
                for _ in pieces:  # what was not asked for belongs to the digest too
                    pass
                total.update(meter.digest())
    except UnreadableText as fault:
        faulty = not isinstance(fault, NoText)  # and the scan has met the same, or the digest will tell
    if total.digest() != record.digest or (faulty and not record.n_faults):
        raise Changed(source)


class Changed(UserError):
    """A file that is not any more what was scanned."""

    def __init__(self, source: Source) -> None:
        super().__init__(f"{source.name} changed while it was read", "run the same command when nothing writes to it")


def _metered(pieces: Iterable[str], meter: Meter, source: Source) -> Iterator[str]:
    try:
        for piece in pieces:
            meter.add(piece)
            yield piece
    except UnreadableText:
        raise Changed(source) from None


def first_lengths(record: Record, count: int) -> npt.NDArray[np.int64]:
    """Lengths of the documents with text among a file's first `count` ones."""
    lengths = record.lengths[:count]
    return lengths[lengths > 0]
