"""A corpus ready to train on: read, tokenised unless that was done before, its tokenizer made where none is given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reformer_cli.config.schema import DataConfig
from reformer_cli.data import copy_task, sources
from reformer_cli.data.changes import describe_changes
from reformer_cli.data.duplicates import held_out_share, share_in, training_sketch
from reformer_cli.data.make_tokenizer import tokenizer_for
from reformer_cli.data.scan import Scan, reread, scanned
from reformer_cli.data.shards import TokenFiles, open_tokens, token_folder, write_tokens
from reformer_cli.data.shingles import Hashes
from reformer_cli.data.split import Everything, Share, share_of, split
from reformer_cli.data.text_decoding import Options
from reformer_cli.data.tokenize import Parts
from reformer_cli.tokenizers.base import ByteTokenizer, Tokenizer
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import cache_folder, write_file

Report = Callable[[str], None]
Documents = Iterator[tuple[str, Iterator[tuple[bool, str]]]]
SKETCH = "shingles"  # beside the tokens: by what a text is found in the training text
TOLD = 0.01  # share of the validation text that is trained on, from which that is said


@dataclass(frozen=True)
class Dataset:
    """A corpus ready to train on; digest: of its text."""

    tokenizer: Tokenizer
    tokens: TokenFiles
    digest: str


def open_dataset(
    data: DataConfig, report: Report, tokenizer: Tokenizer | None = None, expected: str = "", case_markers: bool = True,
    choose: Callable[[Scan], Tokenizer | int | None] | None = None,
) -> Dataset:  # fmt: skip
    """Read the corpus, and tokenise it unless that was done before; `tokenizer`: the one to use, else that which
    `choose` names for the text, else one is made, of as many tokens as that says, with case markers where the text
    gains by them, or without.

    expected: digest that the corpus had when the run began; one that is not there any more, such as what came through a
    pipe, is then taken from its tokens alone. Raises UserError for a corpus that cannot be read or is not the expected.
    """
    if (source := copy_task.find(data.corpus)) is not None:
        return Dataset(ByteTokenizer(), source.token_files(), str(source))
    if tokenizer is not None and expected and (missing := sources.gone([*data.corpus, *data.validation])):
        return _without_text(data, report, tokenizer, expected, missing)
    with ExitStack() as stack:
        scans = [stack.enter_context(s) for s in _scans(data, report)]
        found = _digest(scans)
        if expected and found != expected:
            old = None if tokenizer is None else _folder(data, tokenizer, expected)
            raise UserError(
                f"the corpus {scans[0].name} has changed since the run began{describe_changes(old, scans)}",
                "put the old text back, or start a new run",
            )
        for scan in scans:
            scan.check(data.errors)
            for name, (files, sure, which) in scan.encodings.items():
                report(
                    f"note: {which}{f' and {files - 1:,} more' if files > 1 else ''} read as {name}, {sure:.0%} sure"
                )
            if scan.replaced:
                first = scan.notes[0] if scan.notes else ""
                what = "invalid bytes became U+FFFD" if data.image_size is None else "images were converted"
                report(f"warning: {scan.replaced:,} {what}; the first: {first}")
        _tell_of_duplicates(scans, data, report, new=not expected)
        parts = _rules(scans, share_of(data))
        named = choose(scans[0]) if tokenizer is None and choose is not None else tokenizer
        if named is None or isinstance(named, int):
            tokenizer = tokenizer_for(data, scans[0], report, case_markers, named)
        else:
            tokenizer = named
        folder = _folder(data, tokenizer, found)
        names = (source.name for scan in scans for _, source, record in scan.files() if record.bytes)
        tokens = open_tokens(folder, found, tokenizer, names)
        if tokens is None:
            write_tokens(parts, tokenizer, folder, found, report, data.num_workers)
            rules = _rules(scans, share_of(data))
            write_file(folder / SKETCH, training_sketch((scan.listing, rule) for scan, rule in rules).tobytes())
            tokens = open_tokens(folder, found, tokenizer)
            assert tokens is not None
    return Dataset(tokenizer, tokens, found)


@contextmanager
def opened_text(data: DataConfig, expected: str, report: Report) -> Iterator[tuple[str, Documents]]:
    """The digest of a corpus, and each document's name and pieces, each of these with whether it is held out. expected:
    the digest that it must have, if any.

    Raises UserError for images, for what is made and not read, and for a text that is gone or another.
    """
    hint = "put it back, or compare with other texts: --against FILE"
    if data.image_size is not None or not data.corpus or copy_task.find(data.corpus) is not None:
        raise UserError("the run comes without a text that it was trained on", "name texts: --against FILE")
    if missing := sources.gone([*data.corpus, *data.validation]):
        raise UserError(f"the text that the run was trained on is gone: {', '.join(missing)}", hint)
    with ExitStack() as stack:
        scans = [stack.enter_context(s) for s in _scans(data, report)]
        found = _digest(scans)
        if expected and found != expected:
            raise UserError(f"the text {scans[0].name} has changed since the run was trained on it", hint)
        yield found, _documents(_rules(scans, share_of(data)))


def _documents(parts: Parts) -> Documents:
    for scan, rule in parts:
        for _, source, record in scan.files():
            for _, name, length, pieces in reread(source, record, scan.options):
                yield name, split(pieces, length, rule.tail(length))


def reopen_dataset(data: DataConfig, tokenizer: Tokenizer, digest: str) -> Dataset:
    """What another process has tokenised just now."""
    if (source := copy_task.find(data.corpus)) is not None:
        return Dataset(ByteTokenizer(), source.token_files(), str(source))
    tokens = open_tokens(_folder(data, tokenizer, digest), digest, tokenizer)
    if tokens is None:
        raise UserError(f"the tokens are not in the cache {cache_folder()}", "do all processes share it?")
    return Dataset(tokenizer, tokens, digest)


def _without_text(data: DataConfig, report: Report, tokenizer: Tokenizer, expected: str, missing: list[str]) -> Dataset:
    tokens = open_tokens(_folder(data, tokenizer, expected), expected, tokenizer)
    what = "the text that came through standard input" if missing == ["-"] else f"the corpus {', '.join(missing)}"
    if tokens is None:
        raise UserError(
            f"{what} is gone, and its tokens are no longer in the cache {cache_folder()}",
            "put the text back, or start a new run",
        )
    if missing != ["-"]:
        report(f"warning: {what} is gone; going on with its tokens, which are in the cache {cache_folder()}")
    return Dataset(tokenizer, tokens, expected)


def share_trained_on(data: DataConfig, tokenizer: Tokenizer, digest: str, shingles: Hashes) -> float:
    """How much of a text, of 1, stands in what a run was trained on; 0 where its tokens are not in the cache."""
    try:
        sketch = np.fromfile(_folder(data, tokenizer, digest) / SKETCH, "<u4")
    except OSError:
        return 0.0
    return share_in(shingles, sketch.astype(np.uint32))


def options_of(data: DataConfig) -> Options:
    """How the files of a corpus are read."""
    unwrap: Literal["join", "keep"] = "join" if data.unwrap == "join" else "keep"
    return Options(data.encoding, data.text_field, data.errors, data.ruby, data.image_size, unwrap, data.duplicates)


def absolute(specs: Sequence[str]) -> tuple[str, ...]:
    """The same corpus from any working directory: paths made absolute."""
    return tuple(specs) if copy_task.find(specs) is not None else sources.absolute(specs)


def amount(data: DataConfig, dataset: Dataset) -> str:
    """How much text there is, for people."""
    tokens = dataset.tokens
    validation = f"{len(tokens.validation):,} for validation"
    if (source := copy_task.find(data.corpus)) is not None:
        return f"every sequence new ({source.context:,} tokens), {validation}"
    return f"{len(tokens.train):,} training tokens ({tokens.bytes_per_token:.2f} bytes each), {validation}"


def _scans(data: DataConfig, report: Report) -> list[Any]:
    """The corpus, and what it is validated on, to be read."""
    if "-" in data.corpus and "-" in data.validation:
        raise UserError("the corpus and the validation text cannot both be standard input", "put one in a file")
    options = options_of(data)
    scans = [scanned(data.corpus, options, data.num_workers, report)]
    if data.validation:
        if options.duplicates == "drop":  # what is validated on stays whole, but for its running heads
            options = replace(options, duplicates="heads")
        scans.append(scanned(data.validation, options, data.num_workers, report))
    return scans


def _tell_of_duplicates(scans: Sequence[Scan], data: DataConfig, report: Report, new: bool) -> None:
    """What stands in the corpus more than once, for a new run; and what of the validation text is trained on."""
    if new and (duplicates := str(scans[0].duplicates)):
        drop = data.duplicates == "drop"
        report(f"duplicates: {duplicates}; {'left out' if drop else 'data.duplicates=drop leaves the later ones out'}")
    share = held_out_share(lambda: [(scan.listing, rule) for scan, rule in _rules(scans, share_of(data))])
    if share >= TOLD:
        report(
            f"warning: {share:.0%} of the validation text stands in the training text too: its figures say little "
            "of unseen text"
        )


def _digest(scans: Sequence[Scan]) -> str:
    if len(scans) == 1:
        return scans[0].digest
    return hashlib.sha256("".join(scan.digest for scan in scans).encode()).hexdigest()


def _rules(scans: Sequence[Scan], share: float) -> Parts:
    """What of each is for validation."""
    corpus, *validation = scans
    whole = corpus.options.image_size is not None
    rule = Share(share, corpus.documents, corpus.characters, whole)
    return [(corpus, rule), *((scan, Everything()) for scan in validation)]


def _folder(data: DataConfig, tokenizer: Tokenizer, digest: str) -> Path:
    return token_folder(digest, tokenizer, share_of(data))
