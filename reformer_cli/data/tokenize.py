"""From text to token files, by several processes. What is done is committed now and then, and gone on from."""

from __future__ import annotations

import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from reformer_cli.data.meter import count_words
from reformer_cli.data.scan import Scan, first_lengths, reread
from reformer_cli.data.split import Rule, split
from reformer_cli.data.text_decoding import Options
from reformer_cli.tokenizers.base import Tokenizer, safe_pieces
from reformer_cli.tokenizers.load import deserialise
from reformer_cli.utils.files import write_file
from reformer_cli.utils.workers import ordered

JOB, JOB_TEXTS = 2**20, 20_000  # characters and texts that a process tokenises at once
COMMIT = 2**26  # characters after which what is done is put on disk for good
PROGRESS = "progress.json"
TRAIN, VALIDATION, SPANS, NAMES = FILES = ("train.bin", "validation.bin", "validation.idx", "validation.names")
# Where a document's part for validation is (start, stop in VALIDATION), what it stands for, the part trained on before
# it (in TRAIN), where its name ends in NAMES, the file that it is of, and the bytes of its name that are that file's.
SPAN_ROW = np.dtype([(name, "<i8") for name in (
    "context_start", "context_stop", "start", "stop", "bytes", "characters", "words", "file", "file_name", "name_stop",
)])  # fmt: skip
Parts = Sequence[tuple[Scan, Rule]]
Place = tuple[int, int, int]  # file, document in it, pieces of it that are done


@dataclass(slots=True)
class Text:
    """A piece to tokenise; held: whether it is for validation; spanned: whether a part of its document is."""

    place: Place
    name: str
    file_name: int
    text: str
    first: bool
    held: bool
    spanned: bool
    words: int = 0  # these two are counted where it is held
    bytes: int = 0


@dataclass
class OpenSpan:
    """The part of a document that is for validation, while it grows; document: whose it is."""

    document: tuple[int, int]
    name: str
    file_name: int
    context_start: int
    context_stop: int
    start: int
    stop: int
    bytes: int = 0
    characters: int = 0
    words: int = 0

    @property
    def file(self) -> int:
        return self.document[0]


@dataclass
class State:
    """How far a tokenisation is: the place in the text and the bytes of each file that go with it."""

    place: Place = (0, 0, 0)
    sizes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FILES, 0))
    characters: int = 0
    validation_bytes: int = 0  # of the corpus
    open: OpenSpan | None = None

    @classmethod
    def read(cls, folder: Path) -> State:
        """What was committed last; the beginning if nothing was."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((folder / PROGRESS).read_text("utf-8"))
            span = found.pop("open")
            state = cls(**found | {"place": tuple(found["place"])})
            state.open = OpenSpan(**span | {"document": tuple(span["document"])}) if span else None
            if all((folder / name).stat().st_size >= state.sizes[name] for name in FILES):
                return state
        return cls()


def tokenise(
    parts: Sequence[tuple[Scan, Rule]],
    tokenizer: Tokenizer,
    folder: Path,
    processes: int,
    advance: Callable[[int], None],
) -> State:
    """Tokenise texts into FILES in a folder, or go on where that was stopped. advance: told of characters done."""
    dtype = token_type(tokenizer)
    state = State.read(folder)
    with _Writer(folder, state, dtype) as writer:
        advance(state.characters)
        waiting: deque[list[Text]] = deque()

        def jobs() -> Iterator[tuple[list[str], bytes]]:
            for job in _jobs(_texts(parts, state.place)):
                waiting.append(job)
                yield [text.text for text in job], bytes(text.first and not text.held for text in job)

        for ids, lengths in ordered(_encoder, (tokenizer.serialise(), dtype.str), jobs(), processes):
            job = waiting.popleft()
            writer.add(job, ids, lengths)
            advance(sum(len(text.text) for text in job))
        writer.finish()
    return state


def token_type(tokenizer: Tokenizer) -> np.dtype[Any]:
    """Of a token on disk."""
    return np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<i4")


Encode = Callable[[tuple[list[str], bytes]], tuple[bytes, npt.NDArray[np.int64]]]


def _encoder(model: bytes, dtype: str) -> Encode:
    """(texts, whether `end` comes before each) -> their tokens one after another, and how many each has."""
    tokenizer = deserialise(model)
    end = np.array([tokenizer.end], dtype).tobytes()
    size = np.dtype(dtype).itemsize

    def encode(job: tuple[list[str], bytes]) -> tuple[bytes, npt.NDArray[np.int64]]:
        texts, begins = job
        found = [
            (end if begin else b"") + tokenizer.encode(text).astype(dtype).tobytes()
            for text, begin in zip(texts, begins, strict=True)
        ]
        return b"".join(found), np.array([len(ids) // size for ids in found], np.int64)

    return encode


def _jobs(texts: Iterable[Text]) -> Iterator[list[Text]]:
    job: list[Text] = []
    size = 0
    for text in texts:
        job.append(text)
        size += len(text.text)
        if size >= JOB or len(job) >= JOB_TEXTS:
            yield job
            job, size = [], 0
    if job:
        yield job


def _texts(parts: Parts, start: Place) -> Iterator[Text]:
    """All that is to be tokenised from a place on, in order."""
    file = 0
    for scan, rule in parts:
        for _, source, record in (
            row for row in scan.files() if row[2].bytes
        ):  # as the digest, which finds tokens again
            if file < start[0]:
                rule.skip(record.lengths[record.lengths > 0])
            else:
                done = start[1:] if file == start[0] else (0, 0)
                rule.skip(first_lengths(record, done[0]))
                for number, name, length, pieces in reread(source, record, scan.options):
                    if number >= done[0]:
                        named = name, file_name_in(name, source.name)
                        found = _of_document((file, number), *named, length, rule.tail(length), pieces, scan.options)
                        yield from itertools.islice(found, done[1] if number == done[0] else 0, None)
            file += 1


def _of_document(
    document: tuple[int, int], name: str, file_name: int, length: int, tail: int, pieces: Iterator[str],
    options: Options,
) -> Iterator[Text]:  # fmt: skip
    count, inside = 0, False
    for held, group in itertools.groupby(split(pieces, length, tail), itemgetter(0)):
        for text in safe_pieces(map(itemgetter(1), group)):
            count += 1
            words = count_words(text) - (inside and not text[0].isspace()) if held else 0
            inside = held and not text[-1].isspace()
            n_bytes = len(options.bytes_of(text)) if held else 0
            yield Text((*document, count), name, file_name, text, count == 1, held, tail > 0, words, n_bytes)


def file_name_in(name: str, file: str) -> int:
    """Bytes at the beginning of a document's name that are the name of its file; none where it is called otherwise."""
    return len(file.encode("utf-8", "surrogateescape")) if name.startswith(file) else 0


class _Writer:
    """Appends to the token files what comes back, and commits. Opens them as long as the last commit left them."""

    def __init__(self, folder: Path, state: State, dtype: np.dtype[Any]) -> None:
        self.folder, self.state, self.size = folder, state, dtype.itemsize
        self.files: dict[str, BinaryIO] = {}
        self.committed = state.characters

    def __enter__(self) -> _Writer:
        for name in FILES:
            path = self.folder / name
            path.touch()
            self.files[name] = open(path, "r+b")
            self.files[name].truncate(self.state.sizes[name])
            self.files[name].seek(self.state.sizes[name])
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            with suppress(OSError):  # of a full disk: closing writes what is left, and an error is on its way already
                file.close()

    def add(self, job: list[Text], ids: bytes, lengths: npt.NDArray[np.int64]) -> None:
        """The tokens of a job's texts."""
        held = np.array([text.held for text in job])
        stops = np.cumsum(lengths) * self.size
        in_train, in_validation = np.cumsum(np.where(held, 0, lengths)), np.cumsum(np.where(held, lengths, 0))
        trained, validated = self._tokens(TRAIN), self._tokens(VALIDATION)
        for n in np.flatnonzero([text.spanned for text in job]):
            stop = validated + in_validation[n] if held[n] else trained + in_train[n]
            self._grow_span(job[n], int(stop - lengths[n]), int(stop))
        for is_held, runs in itertools.groupby(range(len(job)), key=lambda n: bool(held[n])):
            run = list(runs)
            begin = int(stops[run[0] - 1]) if run[0] else 0
            self._write(VALIDATION if is_held else TRAIN, ids[begin : int(stops[run[-1]])])
        self.state.place = job[-1].place
        self.state.characters += sum(len(text.text) for text in job)
        if self.state.characters - self.committed >= COMMIT:
            self.commit()

    def finish(self) -> None:
        """Everything is there."""
        self._close_span()
        self.commit()

    def commit(self) -> None:
        """Ask the disk to have what was written, then note how far that is."""
        for name, file in self.files.items():
            with self._named(name):
                file.flush()
                os.fsync(file.fileno())
        write_file(self.folder / PROGRESS, json.dumps(asdict(self.state)))
        self.committed = self.state.characters

    def _grow_span(self, text: Text, start: int, stop: int) -> None:
        """Note where a part of a document is of which one is for validation, or is that one."""
        document, span = text.place[:2], self.state.open
        if span is None or span.document != document:
            self._close_span()
            before = 0 if text.held else start
            span = self.state.open = OpenSpan(document, text.name, text.file_name, before, before, 0, 0)
        if not text.held:
            span.context_stop = stop
            return
        if span.start == span.stop:
            span.start = start
        span.stop = stop
        span.bytes, span.characters = span.bytes + text.bytes, span.characters + len(text.text)
        span.words += text.words
        self.state.validation_bytes += text.bytes

    def _close_span(self) -> None:
        span, self.state.open = self.state.open, None
        if span is None or span.start == span.stop:
            return
        self._write(NAMES, span.name.encode("utf-8", "surrogateescape"))
        row = (*(getattr(span, name) for name in SPAN_ROW.names[:-1]), self.state.sizes[NAMES])  # type: ignore[index]
        self._write(SPANS, np.array([row], SPAN_ROW).tobytes())

    def _write(self, name: str, data: bytes) -> None:
        with self._named(name):
            self.files[name].write(data)
        self.state.sizes[name] += len(data)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """An error in it says which file, which those of open files do not."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.folder / name)
            raise

    def _tokens(self, name: str) -> int:
        return self.state.sizes[name] // self.size
