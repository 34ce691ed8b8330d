"""What the evaluate commands share: their options, the checks of these, and how a result is shown."""

from __future__ import annotations

import csv as csv_
import json as json_
import sys
from pathlib import Path
from typing import Annotated

import typer

from reformer_cli.utils.devices import keep_freed_memory
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import check_free
from reformer_cli.workflows.result import Result, check_picture

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
    typer.Option("--plot", metavar="FILE", help="Write a picture too: .svg; with the extra plots .png or .pdf too."),
]
RoundsOption = Annotated[
    int | None, typer.Option(min=1, max=64, help="Hash rounds instead of those that the model was trained with.")
]


def check(json: bool, csv: bool, plot: Path | None = None, overwrite: bool = False, drawn_by_us: bool = True) -> None:
    """What is wrong with the options, found before anything is computed. drawn_by_us: see `check_picture`."""
    keep_freed_memory()
    if json and csv:
        raise UserError("--json and --csv exclude each other", "give one of them")
    if plot is not None:
        check_free(plot, overwrite, "--plot")
        check_picture(plot, drawn_by_us)


def numbers(option: str, text: str, low: int, high: int, word: str | None = None) -> list[int | str]:
    """'1,2,full' -> [1, 2, 'full']: numbers from low to high, and a word. Raises UserError."""
    found: list[int | str] = []
    for part in (part.strip().replace("_", "") for part in text.split(",")):
        if part != word and not (part.isascii() and part.isdigit() and low <= int(part) <= high):
            also = f" or {word!r}" if word else ""
            raise UserError(f"{option} {part!r} is not a number from {low:,} to {high:,}{also}", "such as 256,1024")
        found.append(part if part == word else int(part))
    return found


def show(result: Result, json: bool, csv: bool, plot: Path | None = None, text: str | None = None) -> None:
    """Print a result as it was asked for, and draw it. text: for people, in place of all that it says of itself."""
    if json:
        from reformer_cli.evaluation.bootstrap import finite

        typer.echo(json_.dumps(finite(result.as_dict()), allow_nan=False))
    elif csv:
        rows = result.rows()
        table = csv_.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    else:
        typer.echo(str(result) if text is None else text)
    if plot is not None:
        result.plot(plot)
