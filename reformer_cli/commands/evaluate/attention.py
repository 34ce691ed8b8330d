"""`reformer evaluate attention`: what the hash lets a model see on a text."""

from __future__ import annotations

from typing import Annotated

import typer

from reformer_cli.commands.evaluate.output import CsvOption, JsonOption, PlotOption, RoundsOption, check, show
from reformer_cli.commands.options import DeviceOption, OverwriteOption, RunOption
from reformer_cli.workflows.open_model import open_model
from reformer_cli.workflows.result import VIEWED

MOST = 8192  # tokens: everything is dense


def attention(
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="A UTF-8 file, - for standard input; none: what the run held out."),
    ] = None,
    run: RunOption = None,
    tokens: Annotated[int, typer.Option(min=32, max=MOST, help="Look at so many, the text's first.")] = VIEWED,
    token: Annotated[
        int | None, typer.Option(help="List what this one reaches; -1 is the last; default: the last.")
    ] = None,
    n_hashes: RoundsOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    plot: PlotOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Which earlier tokens each layer's hash rounds reach, how full buckets are, and what share of the true top keys
    is found."""
    from reformer_cli.workflows.evaluate_attention import evaluate_attention

    check(json, csv, plot, overwrite, drawn_by_us=False)
    opened = open_model(run, device, n_hashes=n_hashes)
    show(evaluate_attention(opened, text, tokens=tokens, token=token), json, csv, plot)
