"""Tokens of a corpus as memory-mapped files beside a manifest, so that a second run starts at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer_cli.config import DataConfig
from reformer_cli.errors import UserError
from reformer_cli.files import cache_folder, write_file, write_folder
from reformer_cli.tokenization import corpus
from reformer_cli.tokenization.bpe import choose_vocab_size, train_bpe
from reformer_cli.tokenization.tokenizer import ByteTokenizer, Tokenizer, digest, load_tokenizer

VERSION = 1  # of the files and of how text is cut and tokenised: a change makes older ones be made again
TINY = 50_000  # characters below which `tokenizer: auto` means bytes
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Part:
    """A stretch of a token file, and the text it stands for."""

    start: int
    stop: int
    bytes: int
    characters: int
    words: int


@dataclass(frozen=True)
class Entry:
    """A document: its training part, which begins with `end`, and its held-out part, which follows on."""

    name: str
    train: Part
    held_out: Part


@dataclass(frozen=True)
class TokenSet:
    """Tokens of a corpus. train, held_out: memory-mapped [tokens]; documents: where each is in them."""

    train: npt.NDArray[Any]
    held_out: npt.NDArray[Any]
    documents: tuple[Entry, ...]

    @property
    def bytes_per_token(self) -> float:
        return sum(d.train.bytes for d in self.documents) / max(1, len(self.train))


@dataclass(frozen=True)
class Prepared:
    """A corpus ready to train on."""

    tokenizer: Tokenizer
    tokens: TokenSet
    digest: str


def split(text: str, held_out: float) -> tuple[str, str]:
    """(training part, held-out part): cut after the line that the share falls into, or at the very share."""
    at = round(len(text) * (1 - held_out))
    line = text.find("\n", at) + 1
    cut = line if 0 < line < len(text) and line - at < 2000 else at
    return text[:cut], text[cut:]


def load_or_prepare(
    data: DataConfig, report: Callable[[str], None], tokenizer: Tokenizer | None = None, expected: str = ""
) -> Prepared:
    """Read the corpus, and tokenise it unless that was done before; `tokenizer`: the one to use, else one is made.

    expected: digest that the corpus had when the run began; a corpus that came through a pipe is then taken from the
    tokens alone. Raises UserError for a corpus that cannot be read.
    """
    cache = cache_folder()
    if tokenizer is not None and expected and "-" in data.corpus:
        tokens = open_tokens(_token_folder(cache, expected, tokenizer, data), expected, tokenizer)
        if tokens is None:
            raise UserError("the text that came through standard input is no longer in the cache", f"looked in {cache}")
        return Prepared(tokenizer, tokens, expected)
    documents = corpus.read_corpus(data.corpus, data.encoding)
    found = corpus.digest(documents)
    if tokenizer is None:
        tokenizer = _tokenizer(data, documents, found, cache, report)
    folder = _token_folder(cache, found, tokenizer, data)
    tokens = open_tokens(folder, found, tokenizer)
    if tokens is None:
        report(f"tokenising {sum(len(d.text) for d in documents):,} characters ...")
        prepare(documents, tokenizer, folder, data.held_out, found)
        tokens = open_tokens(folder, found, tokenizer)
        assert tokens is not None
    return Prepared(tokenizer, tokens, found)


def prepared_before(data: DataConfig, tokenizer: Tokenizer, digest: str) -> Prepared:
    """What another process has tokenised just now."""
    tokens = open_tokens(_token_folder(cache_folder(), digest, tokenizer, data), digest, tokenizer)
    if tokens is None:
        raise UserError(f"the tokens are not in the cache {cache_folder()}", "do all processes share it?")
    return Prepared(tokenizer, tokens, digest)


def _token_folder(cache: Path, corpus_digest: str, tokenizer: Tokenizer, data: DataConfig) -> Path:
    return cache / "tokens" / _key(corpus_digest, digest(tokenizer), data.held_out)


def _tokenizer(
    data: DataConfig, documents: Sequence[corpus.Document], found: str, cache: Path, report: Callable[[str], None]
) -> Tokenizer:
    """The tokenizer the config asks for, trained on the training part alone, or the same one from an earlier run."""
    n_characters = sum(len(d.text) for d in documents)
    if data.tokenizer == "bytes" or (data.tokenizer == "auto" and not data.vocab_size and n_characters < TINY):
        if data.vocab_size not in (None, ByteTokenizer.vocab_size):
            raise UserError(
                f"data.vocab_size {data.vocab_size} does not go with bytes: {ByteTokenizer.vocab_size} tokens",
                "leave it out, or choose tokenizer bpe",
            )
        return ByteTokenizer()
    size = data.vocab_size or choose_vocab_size(n_characters)
    path = cache / "tokenizers" / f"{_key(found, size, data.held_out)}.model"
    if path.exists():
        try:
            return load_tokenizer(path)
        except UserError:
            report(f"{path} is damaged and made again")
    report(f"training a tokenizer of {size:,} tokens on {n_characters:,} characters ...")
    tokenizer = train_bpe((split(d.text, data.held_out)[0] for d in documents), size)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, tokenizer.serialise())
    return tokenizer


def _key(*parts: object) -> str:
    return hashlib.sha256(repr((VERSION, *parts)).encode()).hexdigest()[:32]


def prepare(
    documents: Sequence[corpus.Document], tokenizer: Tokenizer, folder: Path, held_out: float, corpus_digest: str
) -> None:
    """Tokenise into `folder`: train.bin, held_out.bin and manifest.json, all of them or none."""
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<i4")

    def fill(aside: Path) -> None:
        entries, lengths = [], {"train": 0, "held_out": 0}
        with open(aside / "train.bin", "wb") as train, open(aside / "held_out.bin", "wb") as rest:
            for document in documents:
                parts = {}
                for file, name, text in zip((train, rest), lengths, split(document.text, held_out), strict=True):
                    ids = tokenizer.encode(text)
                    if name == "train":
                        ids = np.concatenate([np.array([tokenizer.end], np.int32), ids])
                    file.write(ids.astype(dtype).tobytes())
                    start = lengths[name]
                    lengths[name] += len(ids)
                    words = sum(1 for _ in WORD.finditer(text))
                    parts[name] = Part(start, lengths[name], len(text.encode()), len(text), words)
                entries.append(Entry(document.name, **parts))
        manifest = {
            "version": VERSION,
            "corpus": corpus_digest,
            "tokenizer": digest(tokenizer),
            "dtype": dtype.str,
            "lengths": lengths,
            "documents": [asdict(e) for e in entries],
        }
        (aside / "manifest.json").write_text(json.dumps(manifest), "utf-8")

    write_folder(folder, fill)


def open_tokens(folder: Path, corpus_digest: str, tokenizer: Tokenizer) -> TokenSet | None:
    """What `prepare` wrote for this corpus and tokenizer; None where it is missing, other or damaged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        wanted = {"version": VERSION, "corpus": corpus_digest, "tokenizer": digest(tokenizer)}
        if any(manifest[name] != value for name, value in wanted.items()):
            return None
        dtype = np.dtype({"<u2": "<u2", "<i4": "<i4"}[manifest["dtype"]])
        arrays = []
        for name, length in manifest["lengths"].items():
            path = folder / f"{name}.bin"
            if path.stat().st_size != length * dtype.itemsize:
                return None
            arrays.append(np.memmap(path, dtype, "r") if length else np.zeros(0, dtype))
        entries = [Entry(d["name"], Part(**d["train"]), Part(**d["held_out"])) for d in manifest["documents"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return TokenSet(arrays[0], arrays[1], tuple(entries))
