"""`reformer train --resume`: what a run may go on with, and from where."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from reformer_cli.config.load import as_yaml, load_config, resolve, to_yaml
from reformer_cli.config.schema import SECTIONS, Settings
from reformer_cli.data.dataset import Dataset, absolute, open_dataset
from reformer_cli.runs.checkpoints import read_meta
from reformer_cli.runs.origin import Origin
from reformer_cli.runs.run import CONFIG, Run, all_runs
from reformer_cli.tokenizers.load import open_tokenizer
from reformer_cli.training.distributed import World, check_world
from reformer_cli.training.state import train_state_of
from reformer_cli.training.tensorboard import check_board
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import backend_reason
from reformer_cli.utils.errors import ConfigError, UserError
from reformer_cli.utils.files import write_file
from reformer_cli.workflows.choose_start import AUTO, NONE


@dataclass(frozen=True)
class Asked:
    """What a user wants of a new run, or of one that goes on. config: a recipe or a file; run: its folder; init_from:
    the run whose weights, tokenizer and settings it begins with, AUTO or NONE; tokenizer: a file; sets:
    `section.name=value`."""

    config: str | None
    run: Path | None
    init_from: str
    tokenizer: Path | None
    sets: list[str]


def run_to_resume(asked: Asked) -> Run | None:
    """The run that is meant: the one named, or the newest, of that text where one is given; None: it is yet to begin.

    Raises UserError where there is none and no text to begin one with."""
    corpus = _corpus(load_config(asked.config, asked.sets))
    if asked.run is not None:
        return None if corpus and not (asked.run / CONFIG).is_file() else Run.open(asked.run, trained=True)
    if not corpus:
        return Run.open(None, trained=True)
    return next((run for run in all_runs() if run.config.data.corpus == corpus), None)


def resumed(run: Run, asked: Asked, world: World) -> tuple[Run, Dataset, Path | None, None]:
    """Go on from the newest whole checkpoint; only how to train may change, not what."""
    if not run.config.data.corpus:
        raise UserError(
            f"{run.path} was not trained here", f"begin with its weights: reformer train TEXT --from {run.path}"
        )
    run.lock()
    try:
        return _gone_on(run, asked, world)
    except BaseException:
        run.unlock()
        raise


def _gone_on(run: Run, asked: Asked, world: World) -> tuple[Run, Dataset, Path | None, None]:
    changes = _changes(run, asked)
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
    return run, dataset, checkpoint, None


# Settings of training that a run keeps: others would read other text, or have another state.
KEPT = {
    "batch_size": "; train.accumulation_steps takes less memory with the same batch",
    "context_schedule": "",
    "optimizer": "",
}


def _corpus(settings: Settings) -> tuple[str, ...]:
    """As a run's config has it; the text may be named by a recipe."""
    return absolute(settings["data"].get("corpus") or ())


def _changes(run: Run, asked: Asked) -> Settings:
    """How to train from now on, where that is said. Raises ConfigError that names all that is asked for and is not what
    the run was begun with: what was typed when it began may be typed again, and nothing else."""
    wanted = load_config(asked.config, asked.sets)
    for name in ("corpus", "validation"):
        if wanted["data"].get(name):
            wanted["data"][name] = absolute(wanted["data"][name])
    before = {name: dataclasses.asdict(getattr(run.config, name)) for name in SECTIONS}
    named = {section: {n: v for n, v in values.items() if v is not None} for section, values in wanted.items()}
    after: Settings = {}
    for section, kind in SECTIONS.items():  # each as its setting would have it, whatever it was typed as
        known = {"vocab_size": run.config.model.vocab_size} if section == "model" else {}
        after[section] = dataclasses.asdict(kind(**(known | named[section])))
    faults = [
        f"{section}.{name} is {as_yaml(before[section][name])}, not {as_yaml(after[section][name])}"
        + (KEPT[name] if section == "train" else "")
        for section in ("model", "data", "train")
        for name in named[section]
        if (section != "train" or name in KEPT) and before[section][name] != after[section][name]
    ]
    origin = Origin.read(run.path)
    began = origin.name if origin is not None else NONE
    if asked.init_from not in (AUTO, began) and Path(asked.init_from).absolute() != Path(began).absolute():
        faults.append(f"--from is {began}, not {asked.init_from}")
    if asked.tokenizer is not None and open_tokenizer(asked.tokenizer).serialise() != run.tokenizer().serialise():
        faults.append(f"--tokenizer {asked.tokenizer} is another than the run's")
    if faults:
        raise ConfigError(f"--resume cannot change what {run.path} was begun with (train.* and eval.* it can)", faults)
    if named["train"].get("precision") == "auto":
        del named["train"]["precision"]  # what was measured first stays
    return named


def _change(run: Run, changes: Settings, vocab_size: int) -> None:
    settings = {name: dataclasses.asdict(getattr(run.config, name)) for name in SECTIONS}
    for one, other in (("steps", "minutes"), ("minutes", "steps")):
        if changes["train"].get(one):
            settings["train"][other] = None
    settings["train"] |= changes["train"]
    settings["eval"] |= changes["eval"]
    run.config = resolve(settings, vocab_size, run.config.corpus_digest)
    write_file(run.path / CONFIG, to_yaml(run.config))
