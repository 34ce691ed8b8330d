"""What the evaluate commands share: an open run, its held-out text, a progress bar, tables as CSV, pictures."""

from __future__ import annotations

import csv
import json as json_
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.utils.console import say
from reformer_cli.utils.devices import keep_freed_memory
from reformer_cli.utils.errors import UserError

if TYPE_CHECKING:
    from reformer_cli.data.batches import ValidationWindows
    from reformer_cli.data.dataset import Dataset
    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.base import Tokenizer

PICTURES = (".png", ".svg", ".pdf")

FilesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE",
        help="UTF-8 texts (.gz too), - for standard input; of a run of images, images or folders of them; none: what "
        "the run held out.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print comma-separated values, a header first.")]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Write a picture too: .png, .svg or .pdf (needs the extra plots)."),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")]


def begin(json: bool, csv: bool, plot: Path | None) -> None:
    """What is wrong with the options, found before anything is computed."""
    keep_freed_memory()
    if json and csv:
        raise UserError("--json and --csv exclude each other", "give one of them")
    if plot is None:
        return
    if plot.suffix.lower() not in PICTURES:
        raise UserError(f"--plot {plot} has no known ending", f"use one of {', '.join(PICTURES)}")
    if not plot.parent.is_dir():
        raise UserError(f"--plot {plot}: there is no folder {plot.parent}")
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib", "pip install 'reformer-cli[plots]'; the table works without it")


def prepared_text(run: Run, tokenizer: Tokenizer) -> Dataset:
    """The text that a run was trained on. Raises UserError where it has changed."""
    from reformer_cli.data.dataset import open_dataset

    return open_dataset(run.config.data, say, tokenizer, run.config.corpus_digest)


def held_out(run: Run, tokenizer: Tokenizer, context: int | None) -> ValidationWindows:
    """What a run never trained on, each part after up to `context` tokens of its document (None: all of them)."""
    from reformer_cli.data.batches import ValidationWindows

    dataset = prepared_text(run, tokenizer)
    windows = ValidationWindows(dataset.tokens, len(dataset.tokens.train) if context is None else context)
    if not windows:
        raise UserError("the run held nothing out (data.val_fraction is 0)", "name the files to score")
    return windows


def write_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same keys, to stdout; None becomes an empty field."""
    table = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)


def print_json(record: Mapping[str, Any]) -> None:
    """One object to stdout."""
    from reformer_cli.evaluation.bootstrap import finite

    typer.echo(json_.dumps(finite(record), allow_nan=False))


def span(found: tuple[float, float] | None, digits: int = 4) -> str:
    """An interval for people; empty where there is none."""
    return f"{found[0]:,.{digits}f} to {found[1]:,.{digits}f}" if found is not None else ""


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table for people: the first `left` columns are flush left, the others right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n < left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
