"""`reformer train`: from a text to a model, or on from where a run stopped."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from reformer_cli.commands.options import DeviceOption, RunOption, SetOption


def train(
    corpus: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CORPUS", help="Files, folders, - (standard input), gutenberg:ID, or python-reference (built in)."
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="A recipe (reformer config list) or YAML file; none: sizes are chosen."),
    ] = None,
    run: RunOption = None,
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="auto|starter|none|RUN",
            help="Begin with a run's weights, tokenizer and model settings; starter: the model of English prose that "
            "comes with the program; none: with new ones; auto: with the starter where that predicts the text better.",
        ),
    ] = "auto",
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A tokenizer file (reformer tokenizer train, import) instead of a new one."),
    ] = None,
    set_: SetOption = None,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes; default 10.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --run or the newest run (of CORPUS); none there: begin one.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the weights, the order of the text and dropout.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of the corpus files; default: found file by file.")
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Validate on this text, not on a held-out share of the corpus; repeatable."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a model on a text. Ctrl-C finishes the step, saves, and says how to go on; SIGTERM: the same, status 143.

    On several processes: torchrun --nproc-per-node N -m -- reformer_cli train ...
    """
    from reformer_cli.config.load import as_yaml
    from reformer_cli.utils.signals import listen_to_interrupts, stopped_by
    from reformer_cli.workflows import train as workflow

    listen_to_interrupts()
    given = {"model.seed": seed, "data.encoding": encoding, "data.validation": validation or None}
    sets = [*(set_ or ()), *(f"{key}={as_yaml(value)}" for key, value in given.items() if value is not None)]
    workflow.train(
        corpus, config=config, run=run, init_from=None if from_ == "auto" else from_, tokenizer=tokenizer,
        minutes=minutes, steps=steps, resume=resume, device=device, settings=sets,
    )  # fmt: skip
    if stopped_by() == signal.SIGTERM:
        raise typer.Exit(128 + signal.SIGTERM)  # a scheduler's: not done, to be started again
