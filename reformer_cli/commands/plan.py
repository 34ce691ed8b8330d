"""`reformer plan`: what a training will hold in memory, how fast it will be and what it comes to, before it begins."""

from __future__ import annotations

import json as json_
from typing import Annotated

import typer

from reformer_cli.commands.options import DeviceOption, SetOption
from reformer_cli.utils.errors import UserError

UNITS = {"": 1} | {f"{p}{end}": base**n for n, p in enumerate("kmgt", 1) for end, base in (("ib", 1024), ("b", 1000))}


def plan(
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[CORPUS]...", help="What would be read; sizes are chosen for it.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="A recipe (reformer config list) or YAML file.")
    ] = None,
    set_: SetOption = None,
    as_: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME|FILE", help="Another machine: h200, h100, a100, l4, t4, rtx4090, m3, ..."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Of training; default 10.")] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory to fit in, such as 16GiB; default: what is free.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Take one real step and compare its memory.")] = False,
    from_: Annotated[
        str, typer.Option("--from", metavar="auto|starter|none|RUN", help="What a training begins with, as in train.")
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Forecast a training: memory item by item, the largest context and depth, and, with a text, minutes or another
    machine, what would be chosen, tokens a second and roughly the bits/byte."""
    from reformer_cli.utils.devices import pick_device
    from reformer_cli.utils.format import as_size
    from reformer_cli.workflows.plan import measured
    from reformer_cli.workflows.plan import plan as workflow

    if measure and as_ is not None:
        raise UserError(f"--measure takes a step here, --as {as_} is elsewhere", "leave one of them out")
    limit = parse_size(memory) if memory is not None else None
    found = workflow(
        texts or (), config=config, sets=set_ or (), as_=as_, minutes=minutes, memory=limit, device=device, speed=json,
        init_from=from_,
    )  # fmt: skip
    about = found.as_dict() if json else {}
    if not json:
        typer.echo(str(found))
    if measure:
        about["measured_bytes"] = measured(found.config, pick_device(device), found.step)
        if not json:
            size = about["measured_bytes"]
            typer.echo(f"measured {as_size(size)}: {size / found.step.total:.2f} x the forecast")
    if json:
        typer.echo(json_.dumps(about))


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
