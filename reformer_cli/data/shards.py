"""Tokens of a corpus as memory-mapped files beside a manifest, so that a second run starts at once."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer_cli.data.changes import CHANGED, write_files
from reformer_cli.data.scan import Changed
from reformer_cli.data.split import Span, ValidationSpan
from reformer_cli.data.tokenize import FILES, PROGRESS, SPAN_ROW, TRAIN, VALIDATION, Parts, token_type, tokenise
from reformer_cli.tokenizers.base import ByteTokenizer, PixelTokenizer, Tokenizer, digest
from reformer_cli.utils.files import cache_folder, key, put_in_place
from reformer_cli.utils.progress_bar import shown
from reformer_cli.utils.workers import cores

VERSION = 4  # of the files and of how text is cut and tokenised: a change makes older ones be made again
ALONE = 2**24  # bytes of text up to which further processes would take longer to start than they save


class ValidationSpans(Sequence[ValidationSpan]):
    """What of a corpus is for validation, read from disk as it is asked for; files: the names that its files have now,
    for the same text may have been tokenised by others."""

    def __init__(self, rows: npt.NDArray[Any], names: npt.NDArray[np.uint8], files: Iterable[str] = ()) -> None:
        wanted = {int(n) for n in rows["file"]}
        self._rows, self._names = rows, names
        self._files = {n: name for n, name in enumerate(files) if n in wanted}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, n: Any) -> Any:
        if isinstance(n, slice):
            return [self[k] for k in range(*n.indices(len(self)))]
        n = range(len(self))[n]
        row = {name: int(self._rows[n][name]) for name in SPAN_ROW.names or ()}
        begin = int(self._rows[n - 1]["name_stop"]) if n else 0
        length, file = row.pop("file_name"), self._files.get(row.pop("file"))
        now = file if file is not None and length else ""
        name = self._names[begin + (length if now else 0) : row.pop("name_stop")].tobytes()
        named = now + name.decode("utf-8", "surrogateescape")
        start, stop = row.pop("context_start"), row.pop("context_stop")
        return ValidationSpan(named, Span(**row), start, stop)


@dataclass(frozen=True)
class TokenFiles:
    """Tokens of a corpus. train, validation: memory-mapped [tokens]; in train, `end` begins every document."""

    train: npt.NDArray[Any]
    validation: npt.NDArray[Any]
    end: int
    spans: Sequence[ValidationSpan]
    documents: int
    train_bytes: int

    @property
    def bytes_per_token(self) -> float:
        return self.train_bytes / max(1, len(self.train))


Report = Callable[[str], None]


def token_folder(corpus_digest: str, tokenizer: Tokenizer, share: float) -> Path:
    """Where the tokens of a corpus are kept; share: of it that is for validation."""
    return cache_folder() / "tokens" / key(VERSION, corpus_digest, digest(tokenizer), share)


def characters(n: float) -> str:
    """1,234 characters."""
    return f"{n:,.0f} characters"


def values(n: float) -> str:
    """1,234 values, of images."""
    return f"{n:,.0f} values"


def write_tokens(
    parts: Parts, tokenizer: Tokenizer, folder: Path, found: str, report: Report, processes: int | None = None
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
            "train_bytes": size - state.validation_bytes,
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


def open_tokens(folder: Path, corpus_digest: str, tokenizer: Tokenizer, files: Iterable[str] = ()) -> TokenFiles | None:
    """What `write_tokens` wrote for this corpus and tokenizer; None where it is missing, other or damaged. files: as
    ValidationSpans takes them."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        wanted = {"version": VERSION, "corpus": corpus_digest, "tokenizer": digest(tokenizer)}
        if any(manifest[name] != value for name, value in wanted.items()):
            return None
        dtype = np.dtype({"<u2": "<u2", "<i4": "<i4"}[manifest["dtype"]])
        kinds = (dtype, dtype, SPAN_ROW, np.dtype(np.uint8))
        arrays = []
        for name, kind in zip(FILES, kinds, strict=True):
            size = (folder / name).stat().st_size
            if size != manifest["sizes"][name]:
                return None
            arrays.append(np.memmap(folder / name, kind, "r") if size else np.zeros(0, kind))
        spans = ValidationSpans(arrays[2], arrays[3], files)
        numbers = (int(manifest["documents"]), int(manifest["train_bytes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return TokenFiles(arrays[0], arrays[1], tokenizer.end, spans, *numbers)


def tokenised_before(corpus_digest: str) -> list[dict[str, Any]]:
    """The manifests of all tokens in the cache of a corpus, with the number of its `tokens`."""
    found = []
    for path in sorted((cache_folder() / "tokens").glob("*/manifest.json")):
        try:
            manifest = json.loads(path.read_text("utf-8"))
            if manifest["corpus"] == corpus_digest and manifest["version"] == VERSION:
                n_bytes = manifest["sizes"][TRAIN] + manifest["sizes"][VALIDATION]
                found.append(manifest | {"tokens": n_bytes // np.dtype(manifest["dtype"]).itemsize})
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found
