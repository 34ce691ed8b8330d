"""What nobody named, `reformer train` chooses, and says why; and it warns of what was named and will not do."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from reformer.config import CHUNKED, Backend

from reformer_cli.config.load import resolve
from reformer_cli.config.schema import RunConfig, Settings
from reformer_cli.data.dataset import Dataset
from reformer_cli.tokenizers.line_widths import usual_line
from reformer_cli.training import throughput
from reformer_cli.training.auto_config import COLUMNS, choose, memory_hints, reduce_memory
from reformer_cli.training.display import peak_memory
from reformer_cli.training.distributed import World
from reformer_cli.training.memory import Step
from reformer_cli.training.mixed_precision import pick_precision
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import backend_reason, free_memory
from reformer_cli.utils.format import as_size
from reformer_cli.workflows.init_from import Start

SAMPLE = 1_000_000  # tokens whose lines are measured


def chosen(settings: Settings, dataset: Dataset, world: World, start: Start | None) -> Settings:
    """The plan's choices under what the user set; printed with their reasons."""
    minutes, steps = (settings["train"].get(name) for name in ("minutes", "steps"))
    memory = free_memory(world.device)
    speed = None
    if minutes and world.device == "cpu":
        say("measuring how fast this CPU trains")
        backend: Backend = "torch" if settings["model"].get("backend") == "torch" else "auto"  # others may be faults
        speed = throughput.tokens_per_minute(settings["train"]["precision"], world.size, backend)
    n_tokens, optimizer = len(dataset.tokens.train), settings["train"].get("optimizer", "adamw")
    model = start.config if start is not None else None
    choices = choose(n_tokens, world.device, memory, minutes, steps, world.size, speed, optimizer, model)
    for c in start.suited(choices, settings) if start is not None else choices:
        section, name = c.key.split(".")
        if name not in settings[section]:
            settings[section][name] = c.value
            say_choice(c.key, c.value, c.reason)
    return settings


def count_line_positions(model: dict[str, Any], dataset: Dataset) -> None:
    """`model.line_positions` where a recipe leaves it open, too: it is the text's. Of counts that no line reaches
    nothing is learnt: a line that once is too long would not end."""
    if model.get("line_positions") is None and not any(k in CHUNKED for k in model.get("attn_layers") or ()):
        most = usual_line(dataset.tokenizer, np.asarray(dataset.tokens.train[:SAMPLE], np.int32))
        model["line_positions"] = COLUMNS if most is None else min(COLUMNS, most)
        full = "a line ends where the next word does not fit: how full is it?"
        why = full if model["line_positions"] else "it has no lines"
        say_choice("model.line_positions", model["line_positions"], why)


def fitted(settings: Settings, config: RunConfig, world: World) -> RunConfig:
    """The configuration, with less at once where a step would not fit; a warning where that does not help."""
    step = dataclasses.replace(step_of(config, world.device), copied=False)  # if need be it saves without a copy
    step = dataclasses.replace(step, batch=-(-step.batch // world.size))
    memory = free_memory(world.device) + step.program  # what the program holds is no longer free
    if step.total <= memory:
        return config
    if choices := reduce_memory(step, memory, set(settings["model"])):
        for c in choices:
            settings["model"][c.key.removeprefix("model.")] = c.value
            say_choice(c.key, c.value, c.reason)
        return resolve(settings, config.model.vocab_size, config.corpus_digest)
    helps = " or ".join(f"--set {x}" for x in memory_hints(step, memory))
    say(
        f"warning: a step needs about {as_size(step.total - step.program)}, {as_size(memory - step.program)} are free; "
        + (helps or f"lower data.context {config.data.context:,} or model.d_model {config.model.d_model}")
        + " (`reformer plan` says what takes it)"
    )
    return config


def step_of(config: RunConfig, device: str) -> Step:
    """The step that a run's configuration leads to, on this machine."""
    precision = config.train.precision if config.train.precision != "auto" else pick_precision(device)[0]
    native = backend_reason(config.model, device)[0] == "native" and not config.model.chunked
    train = config.train
    return Step(
        config.model, train.batch_size, config.data.context, precision, peak_memory(device), native,
        optimizer=train.optimizer, copied=device.startswith("cpu"), accumulate=train.accumulation_steps,
    )  # fmt: skip


def copy_fits(config: RunConfig, device: str) -> bool:
    """Whether a checkpoint's tensors can be copied, to be written while training goes on."""
    if not device.startswith("cpu"):
        return True  # the copy is in main memory, which is the larger one
    step = step_of(config, device)
    return step.total <= free_memory(device) + step.program


def warn_of_reach(config: RunConfig) -> None:
    """Where a context is longer than what its hashed heads can look back over."""
    model, context = config.model, config.data.context
    hashed = {"mixed", "lsh"} & set(model.attn_layers)
    if hashed and context > model.look_back:
        near = math.prod(model.n_buckets)
        far = 2 * near * -(-context // (2 * near * model.lsh_window * model.shorten_factor))
        say(
            f"warning: hashed heads look back about {model.look_back:,} tokens (buckets x lsh_window) of a context of "
            f"{context:,}; --set far_buckets={far} reaches all of it"
        )


def say_choice(key: str, value: Any, reason: str) -> None:
    say(f"  {f'{key} = {value}':30} {reason}")
