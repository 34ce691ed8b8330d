"""`reformer import`: a model of transformers becomes a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reformer_cli.utils.console import say
from reformer_cli.utils.devices import free_memory
from reformer_cli.utils.errors import UserError

if TYPE_CHECKING:
    from reformer_cli.convert.from_transformers import Incoming


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
    from reformer_cli.convert import from_transformers
    from reformer_cli.runs.origin import Origin
    from reformer_cli.runs.run import check_new, new_path

    folder = _folder(source, revision)
    path = run or new_path((Path(source).resolve().name if folder == Path(source) else source.split("/")[-1],))
    check_new(path)
    found = from_transformers.read_folder(folder, seed, free_memory("cpu"), tokenizer)
    for note in found.notes:
        say(f"note: {note}")
    from_transformers.write_run(path, found, Origin("transformers", source))
    say(_summary(path, found))
    say(f"next: reformer generate --run {path} --prompt 'Once upon a time', or reformer train TEXT --from {path}")


def _folder(source: str, revision: str | None) -> Path:
    """A folder that is there, else that of a hub id."""
    from reformer_cli.convert.hub import ID, fetch

    path = Path(source)
    if path.exists():
        if revision is not None:
            raise UserError(
                f"--revision {revision} is for models on the hub, {source} is a folder here", "leave it out"
            )
        return path
    if not ID.fullmatch(source):
        raise UserError(f"no folder {source!r}", "name a folder with a config.json, or a hub id such as owner/name")
    return fetch(source, revision)


def _summary(path: Path, found: Incoming) -> str:
    c = found.config
    return (
        f"{path}: {found.parameters / 1e6:.2f} M parameters, {c.n_layers} layers ({', '.join(c.attn_layers)}), "
        f"up to {found.context:,} tokens; tokenizer {found.tokenizer.kind}, "
        f"{found.tokenizer.vocab_size:,} tokens"
    )
