"""`reformer export`: a run's model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reformer_cli.workflows.export import Format, Weights


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to make.")],
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="safetensors: for ReformerLM.from_pretrained; transformers: for AutoModelForCausalLM and "
            "AutoTokenizer; state-dict: for torch.load.",
        ),
    ] = "safetensors",
    weights: Annotated[
        Weights, typer.Option(help="safetensors: int8 is a quarter of the size, for a loss that hardly measures.")
    ] = "float32",
    hash_seed: Annotated[
        str | None,
        typer.Option(
            metavar="N|none",
            help="transformers: hash rotations drawn from this seed in place of the run's; none: anew at every call.",
        ),
    ] = None,
    license_: Annotated[str, typer.Option("--license", help="Licence of the weights, for the model card.")] = "unknown",
    data_license: Annotated[str, typer.Option(help="Licence of the training data, for the model card.")] = "unknown",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older export.")] = False,
) -> None:
    """Write a run's best weights with config, tokenizer and model card, in a format others read.

    transformers: the same logits there; a model that it cannot compute is refused with all the reasons.
    """
    from reformer_cli.runs.run import Run
    from reformer_cli.workflows.export import export_run

    export_run(
        Run.open(run), folder, format_, weights=weights, hash_seed=hash_seed, licence=license_,
        data_licence=data_license, overwrite=overwrite,
    )  # fmt: skip
