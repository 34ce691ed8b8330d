"""`reformer tokenizer`: train, use, inspect and import tokenizers."""

from __future__ import annotations

import json as json_
import sys
from pathlib import Path
from typing import Annotated

import typer

from reformer_cli.commands.options import RunOption
from reformer_cli.config.schema import SubwordKind
from reformer_cli.utils.errors import UserError

app = typer.Typer(rich_markup_mode=None)

TokenizerOption = Annotated[
    Path | None,
    typer.Option("--tokenizer", metavar="FILE", help="A tokenizer.model or sentencepiece model instead of a run's."),
]
TextArgument = Annotated[str | None, typer.Argument(metavar="[FILE|-]", help="UTF-8 text; -: standard input.")]
TextOption = Annotated[str | None, typer.Option("--text", help="The text itself, instead of a file.")]
OutputOption = Annotated[Path, typer.Option("--output", metavar="FILE", help="File to write; not one that is there.")]


@app.callback()
def tokenizer() -> None:
    """Train tokenizers; text to tokens and back; inspect and import tokenizers."""


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
    encoding: Annotated[str, typer.Option(help="Encoding of the corpus files.")] = "auto",
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
    from reformer_cli.workflows.tokenizer import train_tokenizer

    train_tokenizer(
        corpus, output, case_markers=case_markers,
        tokenizer=kind, vocab_size=vocab_size, encoding=encoding, val_fraction=val_fraction,
    )  # fmt: skip


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
    from reformer_cli.workflows.tokenizer import find_tokenizer, note_losses, piece_name

    found = find_tokenizer(run, tokenizer)
    given = _text(file, text)
    ids = found.encode(given).tolist()
    if pieces:
        for n in ids:
            typer.echo(f"{n}\t{json_.dumps(piece_name(found, n), ensure_ascii=False)}")
    else:
        typer.echo(" ".join(map(str, ids)))
    note_losses(found, given)


@app.command("decode")
def decode(
    file: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="Ids, separated by white space; -: standard input.")
    ] = "-",
    run: RunOption = None,
    tokenizer: TokenizerOption = None,
) -> None:
    """Print the text that ids stand for, and nothing else: no line break at its end that is not in it."""
    from reformer_cli.data.text_chunks import read_text
    from reformer_cli.workflows.tokenizer import find_tokenizer, parse_ids

    found = find_tokenizer(run, tokenizer)
    sys.stdout.write(found.decode(parse_ids(read_text(file), found.vocab_size)))
    sys.stdout.flush()


@app.command("inspect")
def inspect(
    file: TextArgument = None,
    text: TextOption = None,
    run: RunOption = None,
    tokenizer: TokenizerOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a tokenizer is, and what it makes of a text if one is given."""
    from reformer_cli.workflows.tokenizer import describe_tokenizer, find_tokenizer

    found = find_tokenizer(run, tokenizer)
    about = describe_tokenizer(found, None if file is None and text is None else _text(file, text))
    typer.echo(json_.dumps(about.as_dict(), ensure_ascii=False) if json else str(about))


@app.command("import")
def import_(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A sentencepiece model, such as spiece.model.")],
    output: OutputOption,
    end: Annotated[
        int | None, typer.Option(help="Token that separates documents; default: the model's end, padding or beginning.")
    ] = None,
) -> None:
    """Make a tokenizer file of another program's sentencepiece model; ids stay what they are there."""
    from reformer_cli.workflows.tokenizer import import_tokenizer

    import_tokenizer(model, output, end)


def _text(file: str | None, text: str | None) -> str:
    """The one that is given. Raises UserError for none, both, and what is not UTF-8."""
    from reformer_cli.data.text_chunks import read_text

    if (file is None) == (text is None):
        raise UserError("a text is needed, and one only", "name a file, - for standard input, or --text TEXT")
    if text is None:
        return read_text(file or "-")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("the text is not UTF-8", "put it into a file") from None
    return text
