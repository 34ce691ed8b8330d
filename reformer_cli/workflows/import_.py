"""A model of transformers becomes a run."""

from __future__ import annotations

from pathlib import Path

from reformer_cli.utils.console import say
from reformer_cli.utils.devices import free_memory
from reformer_cli.utils.errors import UserError


def import_run(
    source: str, run: Path | None = None, *, tokenizer: str | None = None, seed: int = 0, revision: str | None = None
) -> Path:
    """Make a run (None: runs/NAME-DATE) of a folder or a hub id; its directory. tokenizer: a file or coding in place of
    the folder's own; seed: of the hash rotations where the folder sets none; revision: of the hub.

    Raises UserError for what cannot be had, and for what cannot be computed here, field by field.
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
    c = found.config
    say(
        f"{path}: {found.parameters / 1e6:.2f} M parameters, {c.n_layers} layers ({', '.join(c.attn_layers)}), "
        f"up to {found.context:,} tokens; tokenizer {found.tokenizer.kind}, {found.tokenizer.vocab_size:,} tokens"
    )
    say(f"next: reformer generate --run {path} --prompt 'Once upon a time', or reformer train TEXT --from {path}")
    return path


def _folder(source: str, revision: str | None) -> Path:
    """A folder that is there, else that of a hub id."""
    from reformer_cli.convert.hub import ID, fetch

    path = Path(source)
    if path.exists():
        if revision is not None:
            what = f"--revision {revision} is for models on the hub, {source} is a folder here"
            raise UserError(what, "leave it out")
        return path
    if not ID.fullmatch(source):
        raise UserError(f"no folder {source!r}", "name a folder with a config.json, or a hub id such as owner/name")
    return fetch(source, revision)
