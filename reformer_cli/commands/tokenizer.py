"""`reformer tokenize`: text to tokens and back; tokenizers trained, inspected and imported."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reformer_cli.commands.options import RunOption
from reformer_cli.config.schema import SubwordKind
from reformer_cli.data.text_chunks import read_text
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import write_file

if TYPE_CHECKING:
    from reformer_cli.tokenizers.base import Ids, Tokenizer

app = typer.Typer(help="Text to tokens and back; train, inspect and import tokenizers.", rich_markup_mode=None)

TokenizerOption = Annotated[
    Path | None,
    typer.Option("--tokenizer", metavar="FILE", help="A tokenizer.model or sentencepiece model instead of a run's."),
]
TextArgument = Annotated[str | None, typer.Argument(metavar="[FILE|-]", help="UTF-8 text; -: standard input.")]
TextOption = Annotated[str | None, typer.Option("--text", help="The text itself, instead of a file.")]
OutputOption = Annotated[Path, typer.Option("--output", metavar="FILE", help="File to write; not one that is there.")]


@app.callback()
def tokenize() -> None:
    """Text to tokens and back; train, inspect and import tokenizers."""


@app.command("encode")
def encode(
    file: TextArgument = None,
    text: TextOption = None,
    run: RunOption = None,
    tokenizer: TokenizerOption = None,
    pieces: Annotated[
        bool, typer.Option("--pieces", help="A token a line: its id and what it stands for, as JSON.")
    ] = False,
) -> None:
    """Print the ids of a text's tokens, separated by spaces."""
    found = _open(run, tokenizer)
    given = _text(file, text)
    ids = found.encode(given)
    if pieces:
        for n in ids.tolist():
            typer.echo(f"{n}\t{json_.dumps(_piece(found, n), ensure_ascii=False)}")
    else:
        typer.echo(" ".join(map(str, ids.tolist())))
    _warn_of_losses(found, given)


@app.command("decode")
def decode(
    file: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="Ids, separated by white space; -: standard input.")
    ] = "-",
    run: RunOption = None,
    tokenizer: TokenizerOption = None,
) -> None:
    """Print the text that ids stand for, and nothing else: no line break at its end that is not in it."""
    found = _open(run, tokenizer)
    sys.stdout.write(found.decode(_ids(read_text(file), found.vocab_size)))
    sys.stdout.flush()


@app.command("train")
def train(
    corpus: Annotated[list[str], typer.Argument(metavar="CORPUS", help="As for reformer train.")],
    output: OutputOption,
    vocab_size: Annotated[
        int | None, typer.Option(min=64, max=2**18, help="Tokens; default: chosen from the length of the text.")
    ] = None,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share at the end of each document that is not looked at.")
    ] = 0.05,
    encoding: Annotated[str, typer.Option(help="Encoding of the corpus files.")] = "utf-8",
    kind: Annotated[
        SubwordKind, typer.Option(help="bpe merges pairs; unigram keeps the pieces that make the text likeliest.")
    ] = "bpe",
    case_markers: Annotated[
        bool,
        typer.Option(
            help="Capitals, and what stands before words, as tokens of their own, unless that makes the text longer."
        ),
    ] = True,
) -> None:
    """Train a tokenizer that loses nothing of any text; use it with reformer train --tokenizer FILE."""
    from reformer_cli.config.load import resolve
    from reformer_cli.data.dataset import options_of
    from reformer_cli.data.make_tokenizer import tokenizer_for
    from reformer_cli.data.scan import scanned
    from reformer_cli.data.sources import absolute

    _check_new(output)
    data = {"corpus": absolute(corpus), "tokenizer": kind, "vocab_size": vocab_size}
    config = resolve({"data": data | {"encoding": encoding, "val_fraction": val_fraction}}, 320).data
    with scanned(config.corpus, options_of(config), config.num_workers, say) as scan:
        scan.check(config.errors)
        made = tokenizer_for(config, scan, say, case_markers)
    write_file(output, made.serialise())
    smaller = " (the text has no more)" if vocab_size and made.vocab_size < vocab_size else ""
    say(f"{output}: {made.vocab_size:,} tokens{smaller}")


@app.command("inspect")
def inspect(
    file: TextArgument = None,
    text: TextOption = None,
    run: RunOption = None,
    tokenizer: TokenizerOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a tokenizer is, and what it makes of a text if one is given."""
    from reformer_cli.tokenizers.base import digest

    found = _open(run, tokenizer)
    lengths = found.byte_lengths()
    longest = [_piece(found, int(n)) for n in (-lengths).argsort(kind="stable")[:10]]
    facts: dict[str, object] = {"kind": found.kind, "tokens": found.vocab_size, "lossless": found.lossless}
    facts |= {"end": found.end, "longest": longest, "sha256": digest(found)}
    if file is not None or text is not None:
        facts |= _of_text(found, _text(file, text))
    if json:
        typer.echo(json_.dumps(facts, ensure_ascii=False))
        return
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):16} {_shown(value)}")


def _shown(value: object) -> str:
    """A figure for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    return json_.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


@app.command("import")
def import_(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A sentencepiece model, such as spiece.model.")],
    output: OutputOption,
    end: Annotated[
        int | None, typer.Option(help="Token that separates documents; default: the model's end, padding or beginning.")
    ] = None,
) -> None:
    """Make a tokenizer file of another program's sentencepiece model; ids stay what they are there."""
    from reformer_cli.tokenizers.load import open_tokenizer
    from reformer_cli.tokenizers.sentencepiece import SentencePieceTokenizer

    _check_new(output)
    found = open_tokenizer(model)
    if not isinstance(found, SentencePieceTokenizer):
        raise UserError(f"{model} is a tokenizer of this program already ({found.kind})", "use it as it is")
    found = SentencePieceTokenizer(found.model, str(model), end)
    write_file(output, found.serialise())
    say(f"{output}: {found.vocab_size:,} tokens, {found.facts.kind}, token {found.end} separates documents")
    _warn_of_losses(found, "One line,  two spaces,\na tab\tand «é中»")


def _open(run: Path | None, file: Path | None) -> Tokenizer:
    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.load import open_tokenizer

    if run is not None and file is not None:
        raise UserError(f"--run {run} and --tokenizer {file} exclude each other", "give one of them")
    return open_tokenizer(file) if file is not None else Run.open(run).tokenizer()


def _text(file: str | None, text: str | None) -> str:
    if (file is None) == (text is None):
        raise UserError("a text is needed, and one only", "name a file, - for standard input, or --text TEXT")
    if text is None:
        return read_text(file or "-")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("the text is not UTF-8", "put it into a file") from None
    return text


def _ids(text: str, vocab_size: int) -> Ids:
    """Ids from text. Raises UserError for what is none, saying which."""
    import numpy as np

    found = []
    for place, word in enumerate(text.split(), 1):
        n = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else -1
        if not 0 <= n < vocab_size:
            raise UserError(f"word {place:,}, {word[:20]!r}, is no token", f"they go from 0 to {vocab_size - 1}")
        found.append(n)
    return np.array(found, np.int32)


def _piece(tokenizer: Tokenizer, n: int) -> str:
    """What a token stands for; a part of a character shows as U+FFFD, half of a byte as nothing, a sign by its name."""
    from reformer_cli.tokenizers.case_markers import name_of

    stream = tokenizer.stream()
    if n in stream.markers:
        return name_of(stream.markers[n])
    return stream.push(n) + stream.finish()


def _of_text(tokenizer: Tokenizer, text: str) -> dict[str, object]:
    """Figures of a text."""
    from collections import Counter

    from reformer_cli.tokenizers.sentencepiece import losses

    ids = tokenizer.encode(text)
    n_bytes, counts = len(text.encode()), Counter(ids.tolist())
    return {
        "text_characters": len(text),
        "text_bytes": n_bytes,
        "text_tokens": len(ids),
        "bytes_per_token": n_bytes / max(1, len(ids)),
        "tokens_used": len(counts),
        "most_frequent": [_piece(tokenizer, n) for n, _ in counts.most_common(10)],
        "lost": losses(tokenizer, text) or "nothing",
    }


def _warn_of_losses(tokenizer: Tokenizer, text: str) -> None:
    from reformer_cli.tokenizers.sentencepiece import losses

    if not tokenizer.lossless and (lost := losses(tokenizer, text)):
        say(f"note: lost from the text: {lost}")


def _check_new(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} exists", "name another file")
    if not path.parent.is_dir():
        raise UserError(f"no folder {str(path.parent)!r} to write {path.name} into")
