"""A run's model in a folder that other programs read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import write_folder

if TYPE_CHECKING:
    from reformer import ReformerLM

    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.base import Tokenizer

CARD = "README.md"
WRITTEN = {
    CARD, "config.yaml", "config.json", "model.safetensors", "state_dict.pt", "tokenizer.model", "tokenizer.json",
    "tokenizer_config.json", "reformer_tokenizer.model", "spiece.model", "words.txt.gz",
}  # fmt: skip  # what any format writes
Format = Literal["transformers", "safetensors", "state-dict"]
Weights = Literal["float32", "int8"]


def export_run(
    run: Run, folder: Path, form: Format = "safetensors", *, weights: Weights = "float32",
    hash_seed: str | None = None, licence: str = "unknown", data_licence: str = "unknown", overwrite: bool = False,
) -> None:  # fmt: skip
    """Write best weights, config, tokenizer and model card, whole or not at all. Raises UserError for a folder that
    holds something (overwrite: anything but an older export), and for a model that transformers cannot compute, with
    all the reasons."""
    from reformer_cli.convert.model_card import Licences, model_card
    from reformer_cli.runs.run import WORDS

    licences = Licences(licence, data_licence)
    if faults := licences.faults():
        raise UserError("; ".join(faults), "such as mit, cc-by-4.0 or unknown")
    if hash_seed is not None and form != "transformers":
        raise UserError(f"--hash-seed {hash_seed} is for --format transformers, not {form}", "leave it out")
    if weights == "int8" and form != "safetensors":
        raise UserError(f"--weights int8 is for --format safetensors, not {form}", "leave it out")
    _check_free(folder, overwrite)
    tokenizer, model = run.tokenizer(), run.load_model()
    write, notes = _writer(run, model, tokenizer, form, hash_seed, weights)
    parameters = sum(p.numel() for p in model.parameters())

    def fill(aside: Path) -> None:
        write(aside)
        card = model_card(run, tokenizer, parameters, form, licences, notes)
        (aside / CARD).write_text(card, "utf-8")
        if form == "safetensors" and (run.path / WORDS).is_file():
            (aside / WORDS).write_bytes((run.path / WORDS).read_bytes())

    write_folder(folder, fill)
    for note in notes:
        say(f"note: {note}")
    say(f"{folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")


def _check_free(folder: Path, overwrite: bool) -> None:
    """Raises UserError where writing would lose what somebody else has put there."""
    from reformer_cli.convert.model_card import is_exports

    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not overwrite:
        raise UserError(
            f"{folder} exists and is not empty", "name another folder, or add --overwrite for an old export"
        )
    strange = sorted(p.name for p in folder.iterdir() if p.name not in WRITTEN or not p.is_file())
    if strange or not is_exports(folder / CARD):
        what = f"it holds {strange[0]}" if strange else f"its {CARD} is another's"
        raise UserError(
            f"--overwrite replaces older exports alone, and {folder} is none: {what}", "name another folder"
        )


def _writer(
    run: Run, model: ReformerLM, tokenizer: Tokenizer, form: Format, hash_seed: str | None, weights: Weights
) -> tuple[Callable[[Path], None], list[str]]:
    """What fills a folder, and what the user should know of it."""
    from reformer_cli.convert import plain_formats, to_transformers

    if form == "transformers":
        tensors = {name: t.detach() for name, t in model.state_dict().items()}
        made = to_transformers.to_transformers(model.config, tensors, tokenizer, run.config.data.context, hash_seed)
        return made.write, made.notes
    if form == "state-dict":
        return lambda aside: plain_formats.write_state_dict(model, tokenizer, aside), []
    notes = ["Matrices are in int8 with a scale a row; they are read as float32."] if weights == "int8" else []
    return lambda aside: plain_formats.write_safetensors(model, tokenizer, aside, weights == "int8"), notes
