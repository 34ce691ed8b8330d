"""`reformer train`: from a text to a model, or on from where a run stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.commands.options import DeviceOption, RunOption, SetOption
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import backend_reason, keep_freed_memory, pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.workflows.choose import chosen, count_columns, fitted, say_choice, warn_of_reach

if TYPE_CHECKING:
    from reformer_cli.config.schema import RunConfig, Settings
    from reformer_cli.data.dataset import Dataset
    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.base import Tokenizer
    from reformer_cli.training.distributed import World
    from reformer_cli.workflows.init_from import Start

MINUTES = 10.0  # of a run where nothing says how long
GPU_WORKSPACE = 2**16  # tokens of a slice there; estimated, not measured: LOG.md


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
        Path | None,
        typer.Option(
            "--from", metavar="RUN", help="Begin with a run's weights, tokenizer and model settings, imported ones too."
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A tokenizer file (reformer tokenizer train, import) instead of a new one."),
    ] = None,
    set_: SetOption = None,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help=f"Stop after so many minutes; default {MINUTES:g}.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --run, or with the newest run.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the weights, the order of the text and dropout.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of the corpus files; default utf-8.")] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Validate on this text, not on a held-out share of the corpus; repeatable."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a model on a text. Ctrl-C finishes the step, saves, and says how to go on.

    On several processes: torchrun --nproc-per-node N -m -- reformer_cli train ...
    """
    from reformer_cli.runs.run import check_new
    from reformer_cli.training.distributed import world_of

    keep_freed_memory()
    if steps is not None and minutes is not None:
        raise UserError(f"--steps {steps} and --minutes {minutes:g} exclude each other", "give one of them")
    given: dict[str, Any] = {"train.steps": steps, "train.minutes": minutes, "model.seed": seed}
    given |= {"data.encoding": encoding, "data.corpus": corpus or None, "data.validation": validation or None}
    sets = [*(set_ or ()), *(f"{key}={as_yaml(value)}" for key, value in given.items() if value is not None)]
    if not resume:  # the option wins over what a recipe says of the other
        sets += ["train.minutes=null"] if steps is not None else ["train.steps=null"] if minutes is not None else []
    where = pick_device(device)
    if resume:
        named = (("--config", config), ("CORPUS", corpus), ("--validation", validation), ("--from", from_))
        others = [name for name, value in (*named, ("--tokenizer", tokenizer)) if value]
        if others or seed is not None:
            raise UserError(f"--resume goes on with what the run has; it takes no {' or '.join(others or ['--seed'])}")
    elif run is not None and int(os.environ.get("RANK", "0")) == 0:
        check_new(run)
    if from_ is not None and tokenizer is not None:
        raise UserError(f"--from {from_} brings its own tokenizer", "leave out --tokenizer")
    with world_of(where) as world:

        def ready() -> Ready:
            from reformer_cli.workflows.resume import resumed

            return resumed(run, sets, world) if resume else _begun(run, config, sets, world, from_, tokenizer)

        _train(world, ready)


def as_yaml(value: Any) -> str:
    """As `--set key=value` reads it back."""
    text = json.dumps(list(value) if isinstance(value, (list, tuple)) else value, ensure_ascii=False)
    # In YAML, unlike JSON, two escapes never make one character; and names of files can hold halves of characters.
    return "".join(c if " " <= c <= "~" else f"\\U{ord(c):08x}" for c in text)


# A run that is ready to train, its text, and the folder of the checkpoint it goes on from.
Ready = tuple["Run", "Dataset", "Path | None"]


def _train(world: World, make_ready: Callable[[], Ready]) -> None:
    """The chief makes ready, the others open what it made."""
    from reformer_cli.data.dataset import reopen_dataset
    from reformer_cli.runs.origin import Origin
    from reformer_cli.runs.run import Run
    from reformer_cli.workflows.training_run import Session

    ready: list[Ready] = []

    def decide() -> str:
        ready.append(make_ready())
        run, _, checkpoint = ready[0]
        # A run that began with another's weights has them still, until its first checkpoint.
        given = checkpoint is None and Origin.read(run.path) is not None
        return json.dumps([str(run.path), str(checkpoint or ""), given])

    try:
        path, checkpoint, given = json.loads(world.told(decide))
        if not world.chief:
            run = Run.open(Path(path))
            dataset = reopen_dataset(run.config.data, run.tokenizer(), run.config.corpus_digest)
            ready.append((run, dataset, Path(checkpoint) if checkpoint else None))
        session = Session(world, *ready[0])
        if given:
            session.model.load_state_dict(session.run.load_model(world.device).state_dict())
        session.train()
    finally:
        for run, _, _ in ready:
            run.unlock()


def _begun(
    path: Path | None, source: str | None, sets: list[str], world: World, from_: Path | None, file: Path | None
) -> Ready:
    """A new run: everything that can be wrong is found before anything is written. from_: the run whose weights it
    begins with; file: a tokenizer's."""
    import torch

    from reformer_cli.config.load import resolve
    from reformer_cli.data.copy_task import find
    from reformer_cli.data.dataset import absolute, amount, open_dataset
    from reformer_cli.data.make_tokenizer import check_kind
    from reformer_cli.runs.run import Run
    from reformer_cli.training.batching import reading_for
    from reformer_cli.training.memory import count_parameters
    from reformer_cli.training.mixed_precision import pick_precision
    from reformer_cli.training.tensorboard import check_board
    from reformer_cli.workflows.init_from import SAMPLE

    settings, tokenizer, start = _asked(source, sets, from_, file)
    train = settings["train"]
    if not train.get("steps") and not train.get("minutes"):
        train["minutes"] = MINUTES
    for texts in ("corpus", "validation"):
        settings["data"][texts] = absolute(settings["data"].get(texts, ()))
    # With --from, the context is chosen once the text is known: until then the model's settings cannot be checked.
    known = settings if start is None else {"data": settings["data"]}
    data = resolve(known, 320).data
    if data.image_size is not None:  # the context follows from it and is nobody's to choose
        settings["data"]["context"] = data.context
    if tokenizer is not None:
        check_kind(data, tokenizer)
    # transformers, which models of this pattern can be exported to, could not undo the markers.
    case_markers = settings["model"].get("pattern") != "published"
    dataset = open_dataset(data, say, tokenizer, case_markers=case_markers)
    if (made := find(settings["data"]["corpus"])) is not None:
        settings["data"].setdefault("context", made.context)
    if train.get("precision", "auto") == "auto":
        train["precision"], reason = pick_precision(world.device)
        say_choice("train.precision", train["precision"], reason)
    if source is None:
        settings = chosen(settings, dataset, world, start)
    if made is None and data.image_size is None:
        count_columns(settings["model"], dataset)
    if world.device != "cpu" and "workspace_tokens" not in settings["model"]:
        settings["model"]["workspace_tokens"] = GPU_WORKSPACE
        say_choice("model.workspace_tokens", GPU_WORKSPACE, "a GPU is started less often for larger slices")
    config = resolve(settings, dataset.tokenizer.vocab_size, dataset.digest)
    backend, reason = backend_reason(config.model, world.device)
    say_choice("backend", backend, reason)
    config = fitted(settings, config, world)
    warn_of_reach(config)
    check_world(config, world)
    reading_for(config, dataset).check()
    check_board(config.train.tensorboard)
    n = count_parameters(config.model)
    run = Run.create(path, config, dataset.tokenizer)
    if start is not None:
        start.begin(run, torch.from_numpy(dataset.tokens.train[:SAMPLE].astype("int64")))
    say(
        f"{run.path}: {n / 1e6:.2f} M parameters, {dataset.tokenizer.vocab_size:,} tokens of vocabulary, "
        + amount(config.data, dataset)
    )
    return run, dataset, None


def _asked(
    source: str | None, sets: list[str], from_: Path | None, file: Path | None
) -> tuple[Settings, Tokenizer | None, Start | None]:
    """The settings, the tokenizer if it is given, and the run that this one begins with."""
    from reformer_cli.config.load import load_config
    from reformer_cli.tokenizers.load import open_tokenizer
    from reformer_cli.workflows.init_from import Start

    if from_ is not None:
        start = Start(from_)
        return start.settings(lambda base: load_config(source, sets, base)), start.tokenizer, start
    settings = load_config(source, sets)
    if file is None:
        return settings, None, None
    if named := [f"data.{name}" for name in ("tokenizer", "vocab_size") if settings["data"].get(name) is not None]:
        raise UserError(f"--tokenizer {file} and {' and '.join(named)} exclude each other", "give one of them")
    return settings, open_tokenizer(file), None


def check_world(config: RunConfig, world: World) -> None:
    """Whether so many processes can share the work."""
    parts = world.size * config.train.accumulation_steps
    if config.train.batch_size % parts:
        size, steps = config.train.batch_size, config.train.accumulation_steps
        each = f" in {steps} parts each" if steps > 1 else ""
        raise UserError(
            f"train.batch_size {size} contexts a step cannot be shared by {world.size} processes{each}",
            f"set it to a multiple of {parts}",
        )
    if config.train.fsdp and world.size > 1 and config.train.optimizer != "adamw":
        raise UserError(
            f"train.fsdp does not go with train.optimizer {config.train.optimizer}", "use adamw, or no train.fsdp"
        )
    if world.size == 1 and config.train.fsdp:
        say("warning: train.fsdp has no effect on one process; start it with torchrun")
