"""`reformer import`: a model of transformers becomes a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    source: Annotated[
        str, typer.Argument(metavar="FOLDER|HUB-ID", help="A folder of transformers, or an id such as google/NAME.")
    ],
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Run directory to make; default: runs/NAME-DATE.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="FILE|bytes|bytes+2", help="Instead of the folder's own: a model file, or bytes."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the hash rotations where the folder sets no hash_seed.")
    ] = 0,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")] = None,
) -> None:
    """Bring over a Reformer of transformers: config, weights (safetensors, pytorch_model.bin) and tokenizer.

    What cannot be computed here is refused field by field; no code that comes with a model is run.
    """
    from reformer_cli.workflows.import_ import import_run

    import_run(source, run, tokenizer=tokenizer, seed=seed, revision=revision)
