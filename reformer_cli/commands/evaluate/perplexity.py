"""`reformer evaluate`: how well a trained model predicts text, and by which commands else it is measured."""

from __future__ import annotations

from typing import Annotated

import typer

from reformer_cli.commands.evaluate import attention, context, harness, recall
from reformer_cli.commands.evaluate.output import (
    CsvOption,
    FilesArgument,
    JsonOption,
    PlotOption,
    RoundsOption,
    check,
    show,
)
from reformer_cli.commands.options import BucketsOption, DeviceOption, OverwriteOption, RunOption
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.workflows.open_model import open_model

app = typer.Typer(help="Measure a trained model.", rich_markup_mode=None)


@app.callback()
def evaluate() -> None:
    """Measure a trained model: how well it predicts, how far back it looks, what it can still find."""


@app.command("perplexity")
def perplexity(
    files: FilesArgument = None,
    run: RunOption = None,
    context: Annotated[
        int | None,
        typer.Option(min=2, help="Let each token see fewer than so many before it, at least half; default: all."),
    ] = None,
    by_position: Annotated[bool, typer.Option("--by-position", help="Also the figures by place in the text.")] = False,
    n_hashes: RoundsOption = None,
    far_buckets: BucketsOption = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            metavar="decoding|forward",
            help="As generation computes it, or by passes as in training, of --context tokens (default: the trained "
            "context). They differ for attention in chunks alone, of which forward is the default.",
        ),
    ] = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    plot: PlotOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Score texts or images: each token once, given everything before it, the first one given the end-of-text token.

    Files are scored whole, however long, with hard line ends as the run's data.unwrap has them; bytes are those of the
    text as the model is given it. Each figure comes with its 95 % bootstrap interval.
    """
    from reformer_cli.workflows.evaluate import evaluate_perplexity

    check(json, csv, plot, overwrite)
    if plot is not None and not by_position:
        raise UserError("--plot draws the figures by position", "add --by-position")
    opened = open_model(run, device, n_hashes=n_hashes, far_buckets=far_buckets, images=True)
    result, fault = evaluate_perplexity(
        opened, files or [], context=context, likelihood=likelihood, by_position=by_position,
        settings={"n_hashes": n_hashes, "far_buckets": far_buckets},
        on_text=(lambda line: None) if json or csv else typer.echo,
    )  # fmt: skip
    show(result, json, csv, plot if fault is None else None, text=result.summary())
    if csv:
        say(result.rule)
    if fault is not None:
        raise fault


app.command("context")(context.context)
app.command("recall")(recall.recall)
app.command("attention")(attention.attention)
app.command("harness")(harness.harness)
