"""`reformer export`: a run's model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import write_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from reformer import ReformerLM

    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.base import Tokenizer

Format = Literal["transformers", "safetensors", "state-dict"]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to make.")],
    format_: Annotated[
        Format,
        typer.Option(
            "--format",
            help="transformers: for AutoModelForCausalLM and AutoTokenizer; safetensors: for "
            "ReformerLM.from_pretrained; state-dict: for torch.load.",
        ),
    ],
    hash_seed: Annotated[
        str | None,
        typer.Option(
            metavar="N|none",
            help="transformers: hash rotations drawn from this seed in place of the run's; none: anew at every call.",
        ),
    ] = None,
    license_: Annotated[str, typer.Option("--license", help="Licence of the weights, for the model card.")] = "unknown",
    data_license: Annotated[str, typer.Option(help="Licence of the training data, for the model card.")] = "unknown",
) -> None:
    """Write a run's best weights with config, tokenizer and model card, in a format others read.

    transformers: the same logits there; a model that it cannot compute is refused with all the reasons.
    """
    from reformer_cli.convert.model_card import Licences, model_card
    from reformer_cli.runs.run import Run

    licences = Licences(license_, data_license)
    if faults := licences.faults():
        raise UserError("; ".join(faults), "such as mit, cc-by-4.0 or unknown")
    if hash_seed is not None and format_ != "transformers":
        raise UserError(f"--hash-seed {hash_seed} is for --format transformers, not {format_}", "leave it out")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty", "name another folder")
    opened = Run.open(run)
    tokenizer, model = opened.tokenizer(), opened.load_model()
    write, notes = _writer(opened, model, tokenizer, format_, hash_seed)
    parameters = sum(p.numel() for p in model.parameters())

    def fill(aside: Path) -> None:
        write(aside)
        card = model_card(opened, tokenizer, parameters, format_, licences, notes)
        (aside / "README.md").write_text(card, "utf-8")

    write_folder(folder, fill)
    for note in notes:
        say(f"note: {note}")
    say(f"{folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")


def _writer(
    run: Run, model: ReformerLM, tokenizer: Tokenizer, form: Format, hash_seed: str | None
) -> tuple[Callable[[Path], None], list[str]]:
    """What fills a folder, and what the user should know of it."""
    from reformer_cli.convert import plain_formats, to_transformers

    if form == "transformers":
        tensors = {name: t.detach() for name, t in model.state_dict().items()}
        made = to_transformers.to_transformers(model.config, tensors, tokenizer, run.config.data.context, hash_seed)
        return made.write, made.notes
    write = plain_formats.write_safetensors if form == "safetensors" else plain_formats.write_state_dict
    return lambda aside: write(model, tokenizer, aside), []
