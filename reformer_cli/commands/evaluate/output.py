"""What the evaluate commands share: an open run, its held-out text, a progress bar, tables as CSV, pictures."""

from __future__ import annotations

import csv
import importlib.util
import json as json_
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from reformer_cli.utils.devices import keep_freed_memory
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import check_free

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
    typer.Option("--plot", metavar="FILE", help="Write a picture too: .svg; with the extra plots .png or .pdf too."),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")]


class Result(Protocol):
    """What was measured, for programs and for people."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""

    def rows(self) -> list[dict[str, Any]]:
        """For `--csv`."""


def begin(json: bool, csv: bool, plot: Path | None = None, overwrite: bool = False, matplotlib: bool = False) -> None:
    """What is wrong with the options, found before anything is computed. matplotlib: whether no picture can be drawn
    without it."""
    keep_freed_memory()
    if json and csv:
        raise UserError("--json and --csv exclude each other", "give one of them")
    if plot is None:
        return
    if plot.suffix.lower() not in PICTURES:
        raise UserError(f"--plot {plot} has no known ending", f"use one of {', '.join(PICTURES)}")
    check_free(plot, overwrite, "--plot")
    if importlib.util.find_spec("matplotlib") is None and (matplotlib or plot.suffix.lower() != ".svg"):
        other = "the table works without it" if matplotlib else "a picture that ends in .svg works without it"
        raise UserError(f"--plot {plot} needs matplotlib", f"pip install 'reformer-cli[plots]'; {other}")


def show(result: Result, json: bool, csv: bool, text: str | None = None) -> None:
    """Print a result as it was asked for. text: for people, in place of all that it says of itself."""
    if json:
        print_json(result.as_dict())
    elif csv:
        write_csv(result.rows())
    else:
        typer.echo(str(result) if text is None else text)


def write_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same keys, to stdout; None becomes an empty field."""
    table = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)


def print_json(record: Mapping[str, Any]) -> None:
    """One object to stdout."""
    from reformer_cli.evaluation.bootstrap import finite

    typer.echo(json_.dumps(finite(record), allow_nan=False))
