"""`reformer serve`: a page to write on, and an API that other programs know."""

from __future__ import annotations

from typing import Annotated

import typer

from reformer_cli.commands.options import DeviceOption, RunOption

OriginOption = Annotated[
    list[str] | None,
    typer.Option(metavar="URL", help="Address under which a proxy offers it; then a token is required; repeatable."),
]


def serve(
    run: RunOption = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine's own, a token is required.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: one that is free.")] = 8017,
    max_batch: Annotated[int, typer.Option(min=1, max=64, help="Most texts that are written at once.")] = 16,
    max_queue: Annotated[int, typer.Option(min=0, max=10_000, help="Most texts that wait for a place.")] = 64,
    time_limit: Annotated[float, typer.Option(min=1, help="Most seconds that a text may take.")] = 600,
    origin: OriginOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Offer a page to write on, and OpenAI's API, until Ctrl-C.

    Prints the address. The model and what it has read stay warm; other runs under runs/ are loaded when asked for.
    """
    from reformer_cli.workflows.serve import Options
    from reformer_cli.workflows.serve import serve as workflow

    options = Options(host, port, max_batch, max_queue, time_limit, origin or (), device)
    workflow(run, options, typer.echo)
