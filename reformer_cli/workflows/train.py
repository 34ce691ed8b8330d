"""From a text to a model, or on from where a run stopped: what `reformer train` does, for Python too."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reformer.config import CHUNKED

from reformer_cli.config.load import as_yaml, load_config, resolve
from reformer_cli.config.schema import Settings
from reformer_cli.data.batches import check_length
from reformer_cli.data.copy_task import find
from reformer_cli.data.dataset import Dataset, absolute, amount, open_dataset, reopen_dataset
from reformer_cli.data.make_tokenizer import check_kind
from reformer_cli.data.scan import Scan
from reformer_cli.runs.origin import Origin
from reformer_cli.runs.run import Run, check_new
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.tokenizers.load import open_tokenizer
from reformer_cli.training.auto_config import LEAST_CONTEXT
from reformer_cli.training.cost import rounded
from reformer_cli.training.dataloader import data_loader
from reformer_cli.training.distributed import World, check_world, world_of
from reformer_cli.training.memory import count_parameters
from reformer_cli.training.mixed_precision import pick_precision
from reformer_cli.training.tensorboard import check_board
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import backend_reason, keep_freed_memory, pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.workflows.choose_settings import (
    GPU_WORKSPACE,
    Chooser,
    count_line_positions,
    fitted,
    say_choice,
    text_of,
    warn_of_reach,
)
from reformer_cli.workflows.choose_start import AUTO, NONE, sample, starter_or_new
from reformer_cli.workflows.init_from import Start
from reformer_cli.workflows.resume import Asked, resumed, run_to_resume
from reformer_cli.workflows.training_run import TrainingRun

MINUTES = 10.0  # of a run where nothing says how long


def train(
    corpus: str | Path | Sequence[str | Path] | None = None, *, config: str | None = None, run: Path | None = None,
    init_from: str | Path | None = None, tokenizer: Path | None = None, minutes: float | None = None,
    steps: int | None = None, resume: bool = False, device: str = "auto",
    settings: Mapping[str, Any] | Sequence[str] = (),
) -> Path:  # fmt: skip
    """Train a model on a text, and return its run's folder. What it does is said by `utils.console.say`.

    init_from: a run, `starter`, `none`, or `auto` (None): the starter where it pays. settings: as `--set` takes them,
    or by name. resume: go on with the run that the same arguments began, or begin it. An interrupt ends the step,
    saves and returns. Raises UserError, which names every fault, before
    anything is written.
    """
    keep_freed_memory()
    if steps is not None and minutes is not None:
        raise UserError(f"--steps {steps} and --minutes {minutes:g} exclude each other", "give one of them")
    texts = [str(c) for c in ([corpus] if isinstance(corpus, (str, Path)) else corpus or ())]
    given = {"train.steps": steps, "train.minutes": minutes, "data.corpus": texts or None}
    pairs = dict(settings) if isinstance(settings, Mapping) else {}
    sets = [] if pairs else list(settings)
    sets += [f"{key}={as_yaml(value)}" for key, value in (pairs | given).items() if value is not None]
    # The option wins over what a recipe says of the other.
    sets += ["train.minutes=null"] if steps is not None else ["train.steps=null"] if minutes is not None else []
    where = pick_device(device)
    if not resume and run is not None and int(os.environ.get("RANK", "0")) == 0:
        check_new(run)
    source = str(init_from or AUTO)
    if source not in (AUTO, NONE) and tokenizer is not None:
        raise UserError(f"--from {init_from} brings its own tokenizer", "leave out --tokenizer")
    asked = Asked(config, run, source, tokenizer, sets)
    with world_of(where) as world:

        def ready() -> Ready:
            there = run_to_resume(asked) if resume else None
            return resumed(there, asked, world) if there is not None else _begun(asked, world)

        return _train(world, ready)


# A run that is ready to train, its text, the folder of the checkpoint it goes on from, and a forecast of tokens/s.
Ready = tuple["Run", "Dataset", "Path | None", "float | None"]


def _train(world: World, make_ready: Callable[[], Ready]) -> Path:
    """The main process makes ready, the others open what it made."""
    ready: list[Ready] = []

    def decide() -> str:
        ready.append(make_ready())
        run, _, checkpoint, _ = ready[0]
        # A run that began with another's weights has them still, until its first checkpoint.
        given = checkpoint is None and Origin.read(run.path) is not None
        return json.dumps([str(run.path), str(checkpoint or ""), given])

    try:
        path, checkpoint, given = json.loads(world.broadcast_text(decide))
        if not world.is_main:
            run = Run.open(Path(path))
            dataset = reopen_dataset(run.config.data, run.tokenizer(), run.config.corpus_digest)
            ready.append((run, dataset, Path(checkpoint) if checkpoint else None, None))
        session = TrainingRun(world, *ready[0])
        if given:
            session.model.load_state_dict(session.run.load_model(world.device).state_dict())
        session.train()
        return session.run.path
    finally:
        for run, *_ in ready:
            run.unlock()


def _begun(asked: Asked, world: World) -> Ready:
    """A new run: everything that can be wrong is found before anything is written."""
    settings, tokenizer, start = _asked(asked)
    train = settings["train"]
    if not train.get("steps") and not train.get("minutes"):
        train["minutes"] = MINUTES
    if train.get("precision", "auto") == "auto":
        train["precision"], reason = pick_precision(world.device)
        say_choice("train.precision", train["precision"], reason)
    chooser = Chooser(settings, world)
    decision = starter_or_new(asked.init_from, settings, asked.config, tokenizer, chooser)

    def choose(scan: Scan) -> Tokenizer | int | None:
        if asked.config is not None or scan.options.image_size is not None:
            return None
        parts = sample(scan)
        text = text_of(scan, parts)
        chooser.entropy = text.entropy
        known = decision.tokenizer(text, parts) if decision is not None else None
        if known is not None or (found := chooser.vocabulary(text)) is None:
            return known
        say_choice(found.key, found.value, found.reason)
        return int(found.value)

    dataset, made = _opened(settings, tokenizer, start, choose)
    if decision is not None and (start := decision.start) is not None:
        its = start.settings(lambda base: load_config(asked.config, asked.sets, base))
        texts = {name: settings["data"][name] for name in ("corpus", "validation")}
        settings |= its | {"data": its["data"] | texts, "train": settings["train"]}
    if not made:  # before anything is chosen, which takes a dozen lines
        check_length(len(dataset.tokens.train), settings["data"].get("context") or LEAST_CONTEXT)
    forecast = chooser.fill(dataset, start) if asked.config is None else None
    _choose(settings, dataset, world, of_lines=not made)
    config = resolve(settings, dataset.tokenizer.vocab_size, dataset.digest)
    backend, reason = backend_reason(config.model, world.device)
    say_choice("backend", backend, reason)
    config = fitted(settings, config, world)
    warn_of_reach(config)
    check_world(config, world)
    data_loader(config, dataset).check()
    check_board(config.train.tensorboard)
    n = count_parameters(config.model)
    run = Run.create(asked.run, config, dataset.tokenizer)
    if start is not None:
        start.begin(run)
    say(
        f"{run.path}: {n / 1e6:.2f} M parameters, {dataset.tokenizer.vocab_size:,} tokens of vocabulary, "
        + amount(config.data, dataset)
    )
    if forecast is not None:
        say(f"forecast: about {rounded(forecast):,} tokens a second")
    return run, dataset, None, forecast


def _opened(
    settings: Settings,
    tokenizer: Tokenizer | None,
    start: Start | None,
    choose: Callable[[Scan], Tokenizer | int | None],
) -> tuple[Dataset, bool]:
    """The text, tokenised, and whether it is anything else than lines of text; fills in what follows from it."""
    for texts in ("corpus", "validation"):
        settings["data"][texts] = absolute(settings["data"].get(texts, ()))
    # With --from, the context is chosen once the text is known: until then the model's settings cannot be checked.
    known = settings if start is None else {"data": settings["data"]}
    data = resolve(known, 320).data
    if data.image_size is not None:  # the context follows from it and is nobody's to choose
        settings["data"]["context"] = data.context
    if tokenizer is not None:
        check_kind(data, tokenizer)
    # transformers, which models of these kinds can be exported to, could not undo the markers.
    case_markers = not any(kind in CHUNKED for kind in settings["model"].get("attn_layers") or ())
    dataset = open_dataset(data, say, tokenizer, case_markers=case_markers, choose=choose)
    if (task := find(settings["data"]["corpus"])) is not None:
        settings["data"].setdefault("context", task.context)
    return dataset, task is not None or data.image_size is not None


def _choose(settings: Settings, dataset: Dataset, world: World, of_lines: bool) -> None:
    """Fill in what is the text's or the device's, and say why."""
    if of_lines:
        count_line_positions(settings["model"], dataset)
    if world.device != "cpu" and "chunk_tokens" not in settings["model"]:
        settings["model"]["chunk_tokens"] = GPU_WORKSPACE
        say_choice("model.chunk_tokens", GPU_WORKSPACE, "a GPU is started less often for larger slices")


def _asked(asked: Asked) -> tuple[Settings, Tokenizer | None, Start | None]:
    """The settings, the tokenizer if it is given, and the run that this one begins with."""
    if asked.init_from not in (AUTO, NONE):
        start = Start(Path(asked.init_from))
        return start.settings(lambda base: load_config(asked.config, asked.sets, base)), start.tokenizer, start
    settings = load_config(asked.config, asked.sets)
    if (file := asked.tokenizer) is None:
        return settings, None, None
    if named := [f"data.{name}" for name in ("tokenizer", "vocab_size") if settings["data"].get(name) is not None]:
        raise UserError(f"--tokenizer {file} and {' and '.join(named)} exclude each other", "give one of them")
    return settings, open_tokenizer(file), None
