"""Tokens of a corpus as memory-mapped files beside a manifest, so that a second run starts at once."""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer_cli.config.schema import DataConfig
from reformer_cli.data.changes import CHANGED, describe_changes, write_files
from reformer_cli.data.make_tokenizer import key, tokenizer_for
from reformer_cli.data.scan import Changed, Scan, scanned
from reformer_cli.data.sources import gone
from reformer_cli.data.split import Everything, Share, share_of
from reformer_cli.data.text_decoding import Options
from reformer_cli.data.tokenize import FILES, PROGRESS, WINDOW, Parts, token_type, tokenise
from reformer_cli.tokenizers.base import ByteTokenizer, PixelTokenizer, Tokenizer, digest
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import cache_folder, put_in_place
from reformer_cli.utils.progress_bar import shown
from reformer_cli.utils.workers import cores

VERSION = 2  # of the files and of how text is cut and tokenised: a change makes older ones be made again
WORD = re.compile(r"\S+")
ALONE = 2**24  # bytes of text up to which further processes would take longer to start than they save


@dataclass(frozen=True)
class Part:
    """A stretch of a token file, and the text it stands for."""

    start: int
    stop: int
    bytes: int
    characters: int
    words: int


@dataclass(frozen=True)
class HeldOut:
    """The held-out part of a document; before, before_stop: where its other part is in the training tokens."""

    name: str
    part: Part
    before: int
    before_stop: int


class HeldOutParts(Sequence[HeldOut]):
    """The held-out parts of a corpus, read from disk as they are asked for."""

    def __init__(self, rows: npt.NDArray[Any], names: npt.NDArray[np.uint8]) -> None:
        self._rows, self._names = rows, names

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, n: Any) -> Any:
        if isinstance(n, slice):
            return [self[k] for k in range(*n.indices(len(self)))]
        n = range(len(self))[n]
        row = {name: int(self._rows[n][name]) for name in WINDOW.names or ()}
        begin = int(self._rows[n - 1]["name_stop"]) if n else 0
        name = self._names[begin : row.pop("name_stop")].tobytes().decode("utf-8", "surrogateescape")
        before, before_stop = row.pop("before_start"), row.pop("before_stop")
        return HeldOut(name, Part(**row), before, before_stop)


@dataclass(frozen=True)
class TokenSet:
    """Tokens of a corpus. train, held_out: memory-mapped [tokens]; in train, `end` begins every document."""

    train: npt.NDArray[Any]
    held_out: npt.NDArray[Any]
    end: int
    parts: Sequence[HeldOut]
    documents: int
    train_bytes: int

    @property
    def bytes_per_token(self) -> float:
        return self.train_bytes / max(1, len(self.train))


@dataclass(frozen=True)
class Prepared:
    """A corpus ready to train on."""

    tokenizer: Tokenizer
    tokens: TokenSet
    digest: str


Report = Callable[[str], None]


def load_or_prepare(
    data: DataConfig,
    report: Report,
    tokenizer: Tokenizer | None = None,
    expected: str = "",
    case_markers: bool = True,
) -> Prepared:
    """Read the corpus, and tokenise it unless that was done before; `tokenizer`: the one to use, else one is made, with
    case markers where the text gains by them, or without.

    expected: digest that the corpus had when the run began; one that is not there any more, such as what came through a
    pipe, is then taken from its tokens alone. Raises UserError for a corpus that cannot be read or is not the expected.
    """
    if tokenizer is not None and expected and (missing := gone([*data.corpus, *data.validation])):
        return _without_text(data, report, tokenizer, expected, missing)
    with ExitStack() as stack:
        scans = [stack.enter_context(s) for s in _scans(data, report)]
        found = _digest(scans)
        if expected and found != expected:
            old = None if tokenizer is None else _token_folder(expected, tokenizer, data)
            raise UserError(
                f"the corpus {scans[0].name} has changed since the run began{describe_changes(old, scans)}",
                "put the old text back, or start a new run",
            )
        for scan in scans:
            scan.check(data.errors)
            if scan.replaced:
                first = scan.notes[0] if scan.notes else ""
                what = "invalid bytes became U+FFFD" if data.image_size is None else "images were converted"
                report(f"warning: {scan.replaced:,} {what}; the first: {first}")
        parts = _rules(scans, share_of(data))
        if tokenizer is None:
            tokenizer = tokenizer_for(data, scans[0], report, case_markers)
        folder = _token_folder(found, tokenizer, data)
        tokens = open_tokens(folder, found, tokenizer)
        if tokens is None:
            prepare(parts, tokenizer, folder, found, report, data.num_workers)
            tokens = open_tokens(folder, found, tokenizer)
            assert tokens is not None
    return Prepared(tokenizer, tokens, found)


def prepared_before(data: DataConfig, tokenizer: Tokenizer, digest: str) -> Prepared:
    """What another process has tokenised just now."""
    tokens = open_tokens(_token_folder(digest, tokenizer, data), digest, tokenizer)
    if tokens is None:
        raise UserError(f"the tokens are not in the cache {cache_folder()}", "do all processes share it?")
    return Prepared(tokenizer, tokens, digest)


def _without_text(
    data: DataConfig, report: Report, tokenizer: Tokenizer, expected: str, missing: list[str]
) -> Prepared:
    tokens = open_tokens(_token_folder(expected, tokenizer, data), expected, tokenizer)
    what = "the text that came through standard input" if missing == ["-"] else f"the corpus {', '.join(missing)}"
    if tokens is None:
        raise UserError(
            f"{what} is gone, and its tokens are no longer in the cache {cache_folder()}",
            "put the text back, or start a new run",
        )
    if missing != ["-"]:
        report(f"warning: {what} is gone; going on with its tokens, which are in the cache {cache_folder()}")
    return Prepared(tokenizer, tokens, expected)


def options_of(data: DataConfig) -> Options:
    """How the files of a corpus are read."""
    return Options(data.encoding, data.text_field, data.errors, data.image_size)


def _scans(data: DataConfig, report: Report) -> list[Any]:
    """The corpus, and what it is validated on, to be read."""
    if "-" in data.corpus and "-" in data.validation:
        raise UserError("the corpus and the validation text cannot both be standard input", "put one in a file")
    options = options_of(data)
    named = [data.corpus, data.validation] if data.validation else [data.corpus]
    return [scanned(specs, options, data.num_workers, report) for specs in named]


def _digest(scans: Sequence[Scan]) -> str:
    if len(scans) == 1:
        return scans[0].digest
    return hashlib.sha256("".join(scan.digest for scan in scans).encode()).hexdigest()


def _rules(scans: Sequence[Scan], share: float) -> Parts:
    """What of each is held out."""
    corpus, *validation = scans
    whole = corpus.options.image_size is not None
    rule = Share(share, corpus.documents, corpus.characters, whole)
    return [(corpus, rule), *((scan, Everything()) for scan in validation)]


def _token_folder(corpus_digest: str, tokenizer: Tokenizer, data: DataConfig) -> Path:
    return cache_folder() / "tokens" / key(VERSION, corpus_digest, digest(tokenizer), share_of(data))


def characters(n: float) -> str:
    """1,234 characters."""
    return f"{n:,.0f} characters"


def values(n: float) -> str:
    """1,234 values, of images."""
    return f"{n:,.0f} values"


def prepare(
    parts: Parts,
    tokenizer: Tokenizer,
    folder: Path,
    found: str,
    report: Report,
    processes: int | None = None,
) -> None:
    """Tokenise into `folder`, which is there complete or not at all; goes on with what a stopped one left beside it."""
    aside = folder.with_name(f".{folder.name}.part")
    aside.mkdir(parents=True, exist_ok=True)
    size = sum(scan.bytes for scan, _ in parts)
    with _alone(folder, report):
        if open_tokens(folder, found, tokenizer) is not None:
            return
        again = " (going on where that was stopped)" if (aside / PROGRESS).exists() else ""
        n_characters = sum(scan.characters for scan, _ in parts)
        unit = values if isinstance(tokenizer, PixelTokenizer) else characters
        report(f"tokenising {unit(n_characters)}{again} ...")
        alone = size <= ALONE or isinstance(tokenizer, (ByteTokenizer, PixelTokenizer))
        try:
            with shown("tokenising", n_characters, report, unit) as advance:
                state = tokenise(parts, tokenizer, aside, 1 if alone else processes or cores(), advance)
        except Changed:
            shutil.rmtree(aside)  # what was tokenised is of no text that ever was
            raise
        manifest = {
            "version": VERSION,
            "corpus": found,
            "tokenizer": digest(tokenizer),
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "dtype": token_type(tokenizer).str,
            "end": tokenizer.end,
            "sizes": state.sizes,
            "documents": parts[0][0].documents,
            "train_bytes": size - state.held_out_bytes,
        }
        write_files(aside / CHANGED, [scan for scan, _ in parts])
        (aside / "manifest.json").write_text(json.dumps(manifest), "utf-8")
        (aside / PROGRESS).unlink()
        put_in_place(aside, folder)


@contextmanager
def _alone(folder: Path, report: Report) -> Iterator[None]:
    """No other process makes the same folder meanwhile."""
    lock = folder.with_name(f".{folder.name}.lock")
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another process tokenises the same text; waiting for it ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
        lock.unlink(missing_ok=True)


def open_tokens(folder: Path, corpus_digest: str, tokenizer: Tokenizer) -> TokenSet | None:
    """What `prepare` wrote for this corpus and tokenizer; None where it is missing, other or damaged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        wanted = {"version": VERSION, "corpus": corpus_digest, "tokenizer": digest(tokenizer)}
        if any(manifest[name] != value for name, value in wanted.items()):
            return None
        dtype = np.dtype({"<u2": "<u2", "<i4": "<i4"}[manifest["dtype"]])
        kinds = (dtype, dtype, WINDOW, np.dtype(np.uint8))
        arrays = []
        for name, kind in zip(FILES, kinds, strict=True):
            size = (folder / name).stat().st_size
            if size != manifest["sizes"][name]:
                return None
            arrays.append(np.memmap(folder / name, kind, "r") if size else np.zeros(0, kind))
        parts = HeldOutParts(arrays[2], arrays[3])
        numbers = (int(manifest["documents"]), int(manifest["train_bytes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return TokenSet(arrays[0], arrays[1], tokenizer.end, parts, *numbers)


def tokenised_before(corpus_digest: str) -> list[dict[str, Any]]:
    """The manifests of all tokens in the cache of a corpus, with the number of its `tokens`."""
    found = []
    for path in sorted((cache_folder() / "tokens").glob("*/manifest.json")):
        try:
            manifest = json.loads(path.read_text("utf-8"))
            if manifest["corpus"] == corpus_digest and manifest["version"] == VERSION:
                n_bytes = manifest["sizes"]["train.bin"] + manifest["sizes"]["held_out.bin"]
                found.append(manifest | {"tokens": n_bytes // np.dtype(manifest["dtype"]).itemsize})
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
