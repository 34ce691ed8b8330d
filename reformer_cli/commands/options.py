"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.utils.devices import backend_reason
from reformer_cli.utils.errors import UserError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from reformer import ReformerLM

    from reformer_cli.runs.run import Run

RunOption = Annotated[
    Path | None, typer.Option("--run", metavar="DIR", help="Run directory; default: the newest under runs/.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, such as data.context=4096; repeatable."),
]
BucketsOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        max=65_536,
        help="Buckets of the hash round that looks far back (about buckets x window tokens), also for a model without "
        "one: an even multiple of the other rounds'; as many as those: none.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.")
]


def load_model(run: Run, device: str) -> ReformerLM:
    """A run's best weights, once it is known that something there can compute them."""
    backend_reason(run.config.model, device)
    return run.load_model(device)


def option_faults(error: ValidationError) -> UserError:
    """What is wrong with command line options, all in one line."""
    faults: list[str] = []
    for item in error.errors(include_url=False):
        name: Any = item["loc"][0] if item["loc"] else "?"
        faults.append(
            f"--{str(name).replace('_', '-')} {item['input']}: {item['msg'].replace('Input should', 'should')}"
        )
    return UserError("; ".join(faults))
