"""`reformer train`: from a text to a model, or on from where a run stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.commands.config import SetOption
from reformer_cli.commands.shared import (
    DeviceOption,
    RunOption,
    backend_reason,
    free_memory,
    keep_freed_memory,
    pick_device,
    say,
)
from reformer_cli.errors import UserError

if TYPE_CHECKING:
    from reformer_cli.config import RunConfig, Settings
    from reformer_cli.runs import Run
    from reformer_cli.tokenization.shards import Prepared
    from reformer_cli.training.loop import Hooks

MINUTES = 10.0  # of a run where nothing says how long
STATISTICS_TOKENS, STATISTICS_NEAREST = 4096, 16  # of the hash, at each validation


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
    set_: SetOption = None,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help=f"Stop after so many minutes; default {MINUTES:g}.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --run, or with the newest run.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the weights, the order of the text and dropout.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of the corpus files; default utf-8.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Train a model on a text. Ctrl-C finishes the step, saves, and says how to go on."""
    from reformer_cli.runs import check_new

    keep_freed_memory()
    if steps is not None and minutes is not None:
        raise UserError(f"--steps {steps} and --minutes {minutes:g} exclude each other", "give one of them")
    given: dict[str, Any] = {"train.steps": steps, "train.minutes": minutes, "train.seed": seed, "model.seed": seed}
    given |= {"data.encoding": encoding, "data.corpus": corpus or None}
    sets = [*(set_ or ()), *(f"{key}={_as_yaml(value)}" for key, value in given.items() if value is not None)]
    if not resume:  # the option wins over what a recipe says of the other
        sets += ["train.minutes=null"] if steps is not None else ["train.steps=null"] if minutes is not None else []
    where = pick_device(device)
    if resume:
        others = [name for name, value in (("--config", config), ("CORPUS", corpus)) if value]
        if others or seed is not None:
            raise UserError(f"--resume goes on with what the run has; it takes no {' or '.join(others or ['--seed'])}")
        _resume(run, sets, where)
        return
    if run is not None:
        check_new(run)
    _begin(run, config, sets, where)


def _as_yaml(value: Any) -> str:
    import json

    return json.dumps(list(value) if isinstance(value, (list, tuple)) else value)


def _begin(path: Path | None, source: str | None, sets: list[str], device: str) -> None:
    """A new run: everything that can be wrong is found before anything is written."""
    from reformer import ReformerLM

    from reformer_cli.config import load_config, resolve
    from reformer_cli.runs import Run
    from reformer_cli.tokenization.corpus import absolute
    from reformer_cli.tokenization.shards import load_or_prepare
    from reformer_cli.training.precision import pick_precision

    settings = load_config(source, sets)
    train = settings["train"]
    if not train.get("steps") and not train.get("minutes"):
        train["minutes"] = MINUTES
    settings["data"]["corpus"] = absolute(settings["data"].get("corpus", ()))
    prepared = load_or_prepare(resolve(settings, 320).data, say)
    if source is None:
        settings = _chosen(settings, prepared, device)
    if train.get("precision", "auto") == "auto":
        train["precision"], reason = pick_precision(device)
        say_choice("train.precision", train["precision"], reason)
    config = resolve(settings, prepared.tokenizer.vocab_size, prepared.digest)
    backend, reason = backend_reason(config.model, device)
    say_choice("backend", backend, reason)
    config = _fitted(settings, config, device)
    hooks = _Session(config, prepared, device)
    model = ReformerLM(config.model).to(device)
    run = Run.create(path, config, prepared.tokenizer)
    n = sum(p.numel() for p in model.parameters())
    say(
        f"{run.path}: {n / 1e6:.2f} M parameters, {prepared.tokenizer.vocab_size:,} tokens of vocabulary, "
        f"{len(prepared.tokens.train):,} training tokens ({prepared.tokens.bytes_per_token:.2f} bytes each), "
        f"{len(prepared.tokens.held_out):,} held out"
    )
    hooks.train(run, model)


def _chosen(settings: Settings, prepared: Prepared, device: str) -> Settings:
    """The plan's choices under what the user set; printed with their reasons."""
    from reformer_cli.training.plan import choose

    train = settings["train"]
    choices = choose(len(prepared.tokens.train), device, free_memory(device), train.get("minutes"), train.get("steps"))
    for c in choices:
        section, name = c.key.split(".")
        if name not in settings[section]:
            settings[section][name] = c.value
            say_choice(c.key, c.value, c.reason)
    return settings


def _fitted(settings: Settings, config: RunConfig, device: str) -> RunConfig:
    """The configuration, with less at once where a step would not fit; a warning where that does not help."""
    from reformer_cli.commands.plan import step_of
    from reformer_cli.config import resolve
    from reformer_cli.files import as_size
    from reformer_cli.training.plan import remedies, thrift

    step = step_of(config, device)
    memory = free_memory(device) + step.program  # what the program holds is no longer free
    if step.total <= memory:
        return config
    if choices := thrift(step, memory, set(settings["model"])):
        for c in choices:
            settings["model"][c.key.removeprefix("model.")] = c.value
            say_choice(c.key, c.value, c.reason)
        return resolve(settings, config.model.vocab_size, config.corpus_digest)
    helps = " or ".join(f"--set {x}" for x in remedies(step, memory))
    say(
        f"warning: a step needs about {as_size(step.total - step.program)}, {as_size(memory - step.program)} are free; "
        + (helps or f"lower data.context {config.data.context:,} or model.d_model {config.model.d_model}")
        + " (`reformer plan` says what takes it)"
    )
    return config


def say_choice(key: str, value: Any, reason: str) -> None:
    say(f"  {f'{key} = {value}':30} {reason}")


def _resume(path: Path | None, sets: list[str], device: str) -> None:
    """Go on from the newest whole checkpoint; only how long to train may change."""
    from reformer import ReformerLM

    from reformer_cli.config import load_config, resolve, to_yaml
    from reformer_cli.files import write_file
    from reformer_cli.runs import CONFIG, Run
    from reformer_cli.tokenization.shards import load_or_prepare

    run = Run.open(path)
    changed = load_config(None, sets)
    fixed = [f"{section}.{name}" for section in ("model", "data") for name in changed[section]]
    if fixed:
        raise UserError(
            f"--resume cannot change {', '.join(fixed)}", "only train.* settings; start a new run for others"
        )
    tokenizer = run.tokenizer()
    prepared = load_or_prepare(run.config.data, say, tokenizer, run.config.corpus_digest)
    if prepared.digest != run.config.corpus_digest:
        raise UserError(
            f"the corpus {', '.join(run.config.data.corpus)} has changed since {run.path} began",
            "put the old text back, or start a new run",
        )
    step, tensors, meta = run.load_checkpoint()
    if changed["train"]:
        settings = {name: dataclasses.asdict(getattr(run.config, name)) for name in ("model", "data", "train")}
        for one, other in (("steps", "minutes"), ("minutes", "steps")):
            if changed["train"].get(one):
                settings["train"][other] = None
        settings["train"] |= changed["train"]
        run.config = resolve(settings, tokenizer.vocab_size, run.config.corpus_digest)
        write_file(run.path / CONFIG, to_yaml(run.config))
    backend_reason(run.config.model, device)
    session = _Session(run.config, prepared, device)
    run.forget_after(step)
    say(f"{run.path}: going on after step {step:,}")
    session.train(run, ReformerLM(run.config.model).to(device), (tensors, meta))


class _Session:
    """What ties the parts together for one call of the command."""

    def __init__(self, config: RunConfig, prepared: Prepared, device: str) -> None:
        from reformer_cli.tokenization.batches import Batches, held_out_windows

        data, train = config.data, config.train
        self.config, self.prepared, self.device = config, prepared, device
        self.batches = Batches(prepared.tokens, prepared.tokenizer.end, data.context, train.batch, train.seed)
        self.windows = list(held_out_windows(prepared.tokens, data.context))

    def train(self, run: Run, model: Any, checkpoint: tuple[dict[str, Any], dict[str, Any]] | None = None) -> None:
        from reformer_cli.training.loop import Trainer
        from reformer_cli.training.metrics import Display, as_time

        with Display(self.device) as display:
            trainer = Trainer(model, self.config.train, self._hooks(run, model, display))
            self.trainer = trainer
            if checkpoint is not None:
                trainer.restore(*checkpoint)
            finished = trainer.run()
            progress = trainer.progress
            epochs = self.batches.epoch_of(progress.step)
            done = f"{progress.step:,} steps, {as_time(progress.seconds)}, {epochs:.1f} epochs"
            if not finished:
                if progress.best is None:
                    run.save_model(model)
                display.say(f"stopped after {done}; saved. Go on with: reformer train --resume --run {run.path}")
                return
            display.say(f"finished: {done}")
            if self.windows:
                score = self._score(run.load_model(self.device), None)
                display.say(
                    f"held out: {score.bits_per_byte:.3f} bits/byte, perplexity {score.perplexity:.1f} a token "
                    f"({score.tokens:,} tokens, {round(score.bytes):,} bytes, never trained on)"
                )
            display.say(f"next: reformer generate --run {run.path} --prompt 'Once upon a time'")

    def _score(self, model: Any, limit: int | None) -> Any:
        """Held-out parts after as much of their documents as a training step reads; at most `limit` tokens."""
        from reformer_cli.evaluation.likelihood import Score, nats

        total = Score(0, 0.0, 0, 0, 0.0)
        lengths = self.prepared.tokenizer.byte_lengths()
        each = None if limit is None else max(1, limit // len(self.windows))
        for window in self.windows:
            scored = window.scored[:each]
            n_bytes = float(lengths[scored.numpy()].sum())
            total += Score(len(scored), n_bytes, 0, 0, nats(model, window.prefix, scored, model.config.max_length))
            if limit is not None and total.tokens >= limit:
                break
        return total

    def _hooks(self, run: Run, model: Any, display: Any) -> Hooks:
        import torch

        from reformer_cli.training.loop import Hooks
        from reformer_cli.training.metrics import peak_memory

        def validate() -> float | None:
            step = self.trainer.progress.step
            if not self.windows:
                return None
            score = self._score(model, self.config.train.eval_tokens)
            record = {"step": step, "held_out_bits_per_byte": score.bits_per_byte, "held_out_tokens": score.tokens}
            record |= {"effective_buckets": self._effective_buckets(model), "peak_bytes": peak_memory(self.device)}
            run.log(record)
            display.say(f"step {step:,}  held out {score.bits_per_byte:.3f} bits/byte")
            if self.config.train.sample_tokens:
                display.say(self._sample(model))
            return float(score.bits_per_byte)

        def log(record: dict[str, Any], seconds: float) -> None:
            run.log(record)
            display.step(record, self.trainer.share, self.trainer.progress.seconds)

        return Hooks(
            batch_at=self.batches.batch_at,
            validate=validate,
            save_best=lambda: run.save_model(model),
            save=lambda tensors, meta: _ignore(run.save_checkpoint(int(meta["step"]), tensors, meta)),
            log=log,
            byte_lengths=torch.from_numpy(self.prepared.tokenizer.byte_lengths()),
        )

    def _effective_buckets(self, model: Any) -> list[float]:
        """Of each LSH layer, on held-out text: rounds and heads averaged. A collapse to few shows here first."""
        import torch
        from reformer.statistics import hash_statistics

        window = self.windows[0]
        text = torch.cat([window.prefix, window.scored])[-min(STATISTICS_TOKENS, self.config.data.context) :]
        if len(text) <= STATISTICS_NEAREST:
            return []
        found = hash_statistics(model, text[None].to(self.device), nearest=STATISTICS_NEAREST, queries=1)
        return [round(float(s.effective_buckets.mean()), 1) for s in found]

    def _sample(self, model: Any) -> str:
        from reformer_cli.sampling.config import SamplingConfig
        from reformer_cli.sampling.engine import generate

        tokenizer = self.prepared.tokenizer
        settings = SamplingConfig(max_tokens=self.config.train.sample_tokens)
        drawn = [t[0] for t in generate(model, [tokenizer.end], settings, end=tokenizer.end) if t[0] is not None]
        import numpy as np

        return tokenizer.decode(np.array(drawn, np.int32))


def _ignore(_: object) -> None:
    return
