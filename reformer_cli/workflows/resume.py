"""`reformer train --resume`: what a run may go on with, and from where."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from reformer_cli.config.load import as_yaml, load_config, resolve, to_yaml
from reformer_cli.config.schema import SECTIONS, Settings
from reformer_cli.data.dataset import Dataset, open_dataset
from reformer_cli.runs.checkpoints import read_meta
from reformer_cli.runs.run import CONFIG, Run
from reformer_cli.training.distributed import World, check_world
from reformer_cli.training.state import train_state_of
from reformer_cli.training.tensorboard import check_board
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import backend_reason
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import write_file


def resumed(path: Path | None, sets: list[str], world: World) -> tuple[Run, Dataset, Path | None]:
    """Go on from the newest whole checkpoint; only how to train may change, not what."""
    run = Run.open(path, trained=True)
    if not run.config.data.corpus:
        raise UserError(
            f"{run.path} was not trained here", f"begin with its weights: reformer train TEXT --from {run.path}"
        )
    run.lock()
    try:
        return _gone_on(run, sets, world)
    except BaseException:
        run.unlock()
        raise


def _gone_on(run: Run, sets: list[str], world: World) -> tuple[Run, Dataset, Path | None]:
    changes = _changes(run, sets)
    tokenizer = run.tokenizer()
    dataset = open_dataset(run.config.data, say, tokenizer, run.config.corpus_digest)
    if dataset.digest != run.config.corpus_digest:
        raise UserError(
            f"the corpus {', '.join(run.config.data.corpus)} has changed since {run.path} began",
            "put the old text back, or start a new run",
        )
    checkpoint = run.checkpoints.newest_whole(train_state_of)
    if changes["train"] or changes["eval"]:
        _change(run, changes, tokenizer.vocab_size)
    backend_reason(run.config.model, world.device)
    check_world(run.config, world)
    check_board(run.config.train.tensorboard)
    run.clean()
    if checkpoint is None:
        run.forget_after(0)
        say(f"{run.path}: stopped before its first checkpoint; starting at its beginning")
    else:
        meta = read_meta(checkpoint)
        run.forget_after(int(meta["metrics"]))
        say(f"{run.path}: going on after step {int(meta['progress']['step']):,}")
    return run, dataset, checkpoint


# Settings of training that a run keeps: others would read other text, or have another state.
KEPT = {
    "batch_size": "train.accumulation_steps takes less memory with the same batch",
    "context_schedule": "start a new run",
    "optimizer": "start a new run",
}


def _changes(run: Run, sets: list[str]) -> Settings:
    """The settings that are to be others from now on. Raises UserError for what cannot change."""
    changed = load_config(None, sets)
    if fixed := [f"{section}.{name}" for section in ("model", "data") for name in changed[section]]:
        raise UserError(
            f"--resume cannot change {', '.join(fixed)}", "only train.* and eval.*; start a new run for others"
        )
    train = changed["train"]
    before = dataclasses.asdict(run.config.train)
    for name in KEPT.keys() & train.keys():
        if as_yaml(train[name]) != as_yaml(before[name]):
            raise UserError(f"--resume cannot change train.{name} {as_yaml(before[name])}", KEPT[name])
    return changed


def _change(run: Run, changes: Settings, vocab_size: int) -> None:
    settings = {name: dataclasses.asdict(getattr(run.config, name)) for name in SECTIONS}
    for one, other in (("steps", "minutes"), ("minutes", "steps")):
        if changes["train"].get(one):
            settings["train"][other] = None
    settings["train"] |= changes["train"]
    settings["eval"] |= changes["eval"]
    run.config = resolve(settings, vocab_size, run.config.corpus_digest)
    write_file(run.path / CONFIG, to_yaml(run.config))
