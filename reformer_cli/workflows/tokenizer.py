"""Tokenizers made, imported, opened and described; what a text loses by one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reformer_cli.config.load import resolve
from reformer_cli.data.dataset import absolute, options_of
from reformer_cli.data.make_tokenizer import tokenizer_for
from reformer_cli.data.scan import scanned
from reformer_cli.runs.run import Run
from reformer_cli.tokenizers.base import Ids, Tokenizer, digest
from reformer_cli.tokenizers.case_markers import name_of
from reformer_cli.tokenizers.load import open_tokenizer
from reformer_cli.tokenizers.sentencepiece import SentencePieceTokenizer, losses
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import write_file

TRIAL = "One line,  two spaces,\na tab\tand «é中»"  # which most tokenizers of other programs do not give back


@dataclass(frozen=True)
class TokenizerReport:
    """Figures of a tokenizer, and of a text if one was given, by name."""

    figures: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """All figures."""
        return self.figures

    def __str__(self) -> str:
        return "\n".join(f"{name.replace('_', ' '):16} {_shown(value)}" for name, value in self.figures.items())


def _shown(value: object) -> str:
    """A figure for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


def find_tokenizer(run: Path | None, file: Path | None) -> Tokenizer:
    """That of a file, or of a run; of the newest run where neither is named. Raises UserError where both are."""
    if run is not None and file is not None:
        raise UserError(f"--run {run} and --tokenizer {file} exclude each other", "give one of them")
    return open_tokenizer(file) if file is not None else Run.open(run).tokenizer()


def describe_tokenizer(tokenizer: Tokenizer, text: str | None = None) -> TokenizerReport:
    """What a tokenizer is, and what it makes of a text."""
    longest = [piece_name(tokenizer, int(n)) for n in (-tokenizer.byte_lengths()).argsort(kind="stable")[:10]]
    figures: dict[str, Any] = {"kind": tokenizer.kind, "tokens": tokenizer.vocab_size, "lossless": tokenizer.lossless}
    figures |= {"end": tokenizer.end, "longest": longest, "sha256": digest(tokenizer)}
    if text is not None:
        ids = tokenizer.encode(text)
        n_bytes, counts = len(text.encode()), Counter(ids.tolist())
        figures |= {
            "text_characters": len(text),
            "text_bytes": n_bytes,
            "text_tokens": len(ids),
            "bytes_per_token": n_bytes / max(1, len(ids)),
            "tokens_used": len(counts),
            "most_frequent": [piece_name(tokenizer, n) for n, _ in counts.most_common(10)],
            "lost": losses(tokenizer, text) or "nothing",
        }
    return TokenizerReport(figures)


def train_tokenizer(
    corpus: Sequence[str], output: Path, *, case_markers: bool = True, report: Callable[[str], None] = say, **data: Any
) -> Tokenizer:
    """Make a tokenizer of a corpus and write it to a file. data: settings of DataConfig.

    Raises UserError for a file that is there already, and for a corpus that cannot be read.
    """
    _check_new(output)
    config = resolve({"data": data | {"corpus": absolute(corpus)}}, 320).data
    with scanned(config.corpus, options_of(config), config.num_workers, report) as scan:
        scan.check(config.errors)
        made = tokenizer_for(config, scan, report, case_markers)
    write_file(output, made.serialise())
    smaller = " (the text has no more)" if config.vocab_size and made.vocab_size < config.vocab_size else ""
    report(f"{output}: {made.vocab_size:,} tokens{smaller}")
    return made


def import_tokenizer(
    model: Path, output: Path, end: int | None = None, report: Callable[[str], None] = say
) -> SentencePieceTokenizer:
    """Write another program's sentencepiece model as a tokenizer file. end: the token that separates documents.

    Raises UserError for a model that is none, or ours already, and for a file that is there already.
    """
    _check_new(output)
    found = open_tokenizer(model)
    if not isinstance(found, SentencePieceTokenizer):
        raise UserError(f"{model} is a tokenizer of this program already ({found.kind})", "use it as it is")
    found = SentencePieceTokenizer(found.model, str(model), end)
    write_file(output, found.serialise())
    report(f"{output}: {found.vocab_size:,} tokens, {found.facts.kind}, token {found.end} separates documents")
    note_losses(found, TRIAL, report)
    return found


def parse_ids(text: str, vocab_size: int) -> Ids:
    """Ids separated by white space. Raises UserError for what is none, saying which."""
    found = []
    for place, word in enumerate(text.split(), 1):
        n = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else -1
        if not 0 <= n < vocab_size:
            raise UserError(f"word {place:,}, {word[:20]!r}, is no token", f"they go from 0 to {vocab_size - 1}")
        found.append(n)
    return np.array(found, np.int32)


def piece_name(tokenizer: Tokenizer, n: int) -> str:
    """What a token stands for; a part of a character is U+FFFD, half of a byte nothing, a case marker has a name."""
    stream = tokenizer.stream()
    if n in stream.markers:
        return name_of(stream.markers[n])
    return stream.push(n) + stream.finish()


def note_losses(tokenizer: Tokenizer, text: str, report: Callable[[str], None] = say) -> None:
    """Say what of a text its tokens do not give back."""
    if not tokenizer.lossless and (lost := losses(tokenizer, text)):
        report(f"note: lost from the text: {lost}")


def _check_new(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} exists", "name another file")
    if not path.parent.is_dir():
        raise UserError(f"no folder {str(path.parent)!r} to write {path.name} into")
