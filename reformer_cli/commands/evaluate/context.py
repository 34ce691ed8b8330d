"""`reformer evaluate context`: how far back a model looks."""

from __future__ import annotations

from typing import Annotated

import typer

from reformer_cli.commands.evaluate.output import CsvOption, FilesArgument, JsonOption, PlotOption, check, numbers, show
from reformer_cli.commands.options import BucketsOption, DeviceOption, OverwriteOption, RunOption
from reformer_cli.workflows.open_model import open_model
from reformer_cli.workflows.result import SCORED


def context(
    files: FilesArgument = None,
    run: RunOption = None,
    contexts: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Contexts to compare, in tokens; default: 256, 1024, 4096, ..."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to score at each context, at most.")] = SCORED,
    far_buckets: BucketsOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    plot: PlotOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Score the same tokens with 256, 1,024, ... tokens of context and with all that came before: what does it help?

    Of a file, the last half is scored (at most --tokens); of a run's own text, the beginning of what it held out, after
    all the rest. A table, a breakdown by how far back each word last occurred, and a sentence on what they say.
    """
    from reformer_cli.workflows.evaluate_context import evaluate_context

    check(json, csv, plot, overwrite)
    asked = sorted({int(n) for n in numbers("--contexts", contexts, 2, 2**40)}) if contexts is not None else []
    opened = open_model(run, device, far_buckets=far_buckets)
    show(evaluate_context(opened, files or [], contexts=asked, tokens=tokens), json, csv, plot)
