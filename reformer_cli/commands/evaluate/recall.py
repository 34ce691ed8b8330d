"""`reformer evaluate recall`: what a model can still find."""

from __future__ import annotations

from typing import Annotated

import typer

from reformer_cli.commands.evaluate.output import CsvOption, JsonOption, PlotOption, check, numbers, show
from reformer_cli.commands.options import BucketsOption, DeviceOption, OverwriteOption, RunOption
from reformer_cli.workflows.open_model import open_model
from reformer_cli.workflows.result import DISTANCE


def recall(
    run: RunOption = None,
    test: Annotated[
        list[str] | None, typer.Option(help="copy, associative or needle; may be repeated; default: all that can be.")
    ] = None,
    max_distance: Annotated[int, typer.Option(min=64, help="How far back to test, in tokens.")] = DISTANCE,
    text: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Where to plant sentences; default: the end of the run's own text."),
    ] = None,
    n_hashes: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Hash rounds to compare, such as 1,2,4,8,full; full: attention to everything (copy alone).",
        ),
    ] = None,
    far_buckets: BucketsOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn.")] = 0,
    json: JsonOption = False,
    csv: CsvOption = False,
    plot: PlotOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
) -> None:
    """What the model can still find: copies of random symbols, values of keys, sentences planted in a text.

    The tests are made from --seed of the run's own vocabulary; nothing is learnt for them. All are scored greedily: a
    token is right if it is the likeliest one. What a text is too short for is left out.
    """
    from reformer_cli.workflows.evaluate_recall import evaluate_recall

    check(json, csv, plot, overwrite)
    rounds = numbers("--n-hashes", n_hashes, 1, 64, "full") if n_hashes is not None else []
    opened = open_model(run, device, far_buckets=far_buckets)
    found = evaluate_recall(opened, text, tests=test or (), max_distance=max_distance, n_hashes=rounds, seed=seed)
    show(found, json, csv, plot)
