"""`reformer plan`: what a training step will hold in memory, before it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reformer_cli.commands.options import DeviceOption, SetOption
from reformer_cli.utils.console import say
from reformer_cli.utils.devices import free_memory, keep_freed_memory, pick_device
from reformer_cli.utils.errors import UserError

if TYPE_CHECKING:
    from reformer_cli.config.schema import RunConfig
    from reformer_cli.training.memory import Step

VOCAB_SIZE = 4096  # assumed where data.vocab_size is left to the corpus
UNITS = {
    "": 1,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}


def plan(
    config: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="A recipe (reformer config list) or YAML file.")
    ] = None,
    set_: SetOption = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory to fit in, such as 16GiB; default: what is free.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Take one real step and compare.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Forecast a training step's memory, item by item, and the largest context and depth that fit."""
    from reformer_cli.config.load import load_config, resolve
    from reformer_cli.tokenizers.base import ByteTokenizer, PixelTokenizer
    from reformer_cli.training.auto_config import memory_hints
    from reformer_cli.training.memory import forecast, kept_on_gpu, largest_context, largest_depth
    from reformer_cli.utils.format import as_size
    from reformer_cli.workflows.choose_settings import step_of

    limit = parse_size(memory) if memory is not None else None
    settings = load_config(config, set_ or ())
    known = PixelTokenizer.vocab_size if settings["data"].get("image_size") is not None else None
    if settings["data"].get("tokenizer") == "bytes":
        known = ByteTokenizer.vocab_size
    known = known or settings["data"].get("vocab_size")
    resolved = resolve(settings, known or VOCAB_SIZE)
    where = pick_device(device)
    limit = free_memory(where) if limit is None else limit
    step = step_of(resolved, where)
    if known is None:
        say(f"data.vocab_size follows the corpus; {VOCAB_SIZE:,} assumed")
    among = len(step.model.group_layers)
    layers = f"{step.model.n_layers} layers" + (
        f", {among} on groups of {step.model.shorten_factor} tokens" if among else ""
    )
    typer.echo(f"context {step.context:,} x batch {step.batch}, {layers}, products in {step.precision}")
    for item in forecast(step):
        typer.echo(f"  {item.name:<16} {as_size(item.size):>12}  {item.what}")
    verdict = "fits" if step.total <= limit else "does not fit"
    typer.echo(f"  {'total':<16} {as_size(step.total):>12}  {verdict} in {as_size(limit)}")
    typer.echo(f"a GPU with {as_size(kept_on_gpu(step))} more to spare keeps what backward would otherwise make again")
    typer.echo(
        f"largest context {largest_context(step, limit):,} tokens, largest depth {largest_depth(step, limit):,} layers"
    )
    if step.total > limit:
        for what in memory_hints(step, limit):
            typer.echo(f"fits with --set {what}")
    if measure:
        found = measured(resolved, where, step)
        typer.echo(f"measured {as_size(found)}: {found / step.total:.2f} x the forecast")


def measured(config: RunConfig, device: str, step: Step) -> int:
    """Peak bytes of one real step on random tokens, the optimiser's moments being there as from the second step on."""
    import torch
    from reformer import ReformerLM

    from reformer_cli.training.display import peak_memory
    from reformer_cli.training.mixed_precision import products_in
    from reformer_cli.training.optimizers import make_optimizers, optimizer_tensors, prime

    keep_freed_memory()
    if step.total > free_memory(device):
        raise UserError(
            f"one step needs about {step.total:,} bytes, {free_memory(device):,} are free", "lower data.context"
        )
    model = ReformerLM(config.model).to(device)
    optimizers = make_optimizers(model, config.train)
    prime(optimizers)
    held = dict(model.state_dict())
    held |= optimizer_tensors(model, optimizers)
    copy = [t.clone() for t in held.values()] if step.copied else []  # as while a checkpoint is written
    text = torch.randint(config.model.vocab_size, (step.rows, step.context + 1), device=device)
    with products_in(step.precision, device):
        loss = model.loss(text[:, :-1], text[:, 1:], dropout_seed=0)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    del copy
    return peak_memory(device)


def parse_size(text: str) -> int:
    """'16GiB' -> bytes. Raises UserError."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = UNITS.get(text[len(number) :].strip().lower())
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if unit is None or not 0 < value * unit < 2**60:
        raise UserError(f"--memory {text!r} is not a size", "give one such as 16GiB or 500MB")
    return int(value * unit)
