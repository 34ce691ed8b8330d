"""Which words a run may write: those of its training text, kept as a list in its folder; and no long copies of it."""

from __future__ import annotations

import gzip
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from reformer_cli.data.dataset import opened_text
from reformer_cli.novelty.index import whole_words
from reformer_cli.novelty.words import WORD, spelling
from reformer_cli.runs.origin import Origin
from reformer_cli.runs.run import WORDS, Run
from reformer_cli.runs.starter import NAME, starter
from reformer_cli.sampling.config import SamplingConfig
from reformer_cli.sampling.word_rules import KnownWords, NoLongCopies, WordRule
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import write_file
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.novelty import index_of

LARGEST = 2**26  # bytes of such a list
MANY = 50_000  # words from which on those are left out that occur once: many of them are misprints


def rules_of(run: Run, config: SamplingConfig, against: Sequence[str] = ()) -> list[WordRule]:
    """What a text's words must keep to. Raises UserError where the training text is needed and not there."""
    rules: list[WordRule] = [KnownWords(known_words(run))] if config.lexicon == "known" else []
    if config.max_copy is not None:
        rules.append(NoLongCopies(index_of(run, against), config.max_copy))
    return rules


def known_words(run: Run) -> list[str]:
    """The words of a run's training text, and of the run's whose weights it began with; a list is made where there is
    none. Raises UserError where the text is gone, or a list damaged."""
    path = run.path / WORDS
    if path.is_file():
        words = _read(path)
    else:
        words = _collect(run)
        if os.access(run.path, os.W_OK):
            write_words(path, words)
    return [*words, *_of_origin(run)]


def _of_origin(run: Run) -> list[str]:
    """Of the run that it began with, where that keeps a list."""
    origin = Origin.read(run.path)
    if origin is None or origin.kind != "run":
        return []
    path = ((starter() if origin.name == NAME else None) or Path(origin.name)) / WORDS
    return _read(path) if path.is_file() else []


def write_words(path: Path, words: Iterable[str]) -> None:
    """Keep a list, whole or not at all."""
    text = "".join(f"{word}\n" for word in sorted(set(words)))
    write_file(path, gzip.compress(text.encode(), 9, mtime=0))


def _read(path: Path) -> list[str]:
    unpack = zlib.decompressobj(31)
    try:
        text = unpack.decompress(path.read_bytes(), LARGEST)
        if not unpack.eof:
            raise ValueError("it is too long, or cut off")
        return text.decode("utf-8").split()
    except (OSError, ValueError, zlib.error) as error:
        raise UserError(f"the list of words {path} is damaged ({error})", "remove it: it is made again") from None


def _collect(run: Run) -> list[str]:
    """The words of the training text, what was held out left out."""
    found, counts = Counter[str](), Counter[str]()
    bar = shown("collecting words", None, say, lambda n: f"{n:,.0f} characters")
    with opened_text(run.config.data, run.config.corpus_digest, say) as (_, documents), bar as advance:
        for _, pieces in documents:
            for text in whole_words(piece for held, piece in pieces if not held):
                found.update(WORD.findall(text))
                advance(len(text))
    for word, count in found.items():
        counts[spelling(word)] += count
    least = 2 if len(counts) > MANY else 1
    return [word for word, count in counts.items() if count >= least]
