"""`reformer corpus`: what a corpus holds, before anything is trained on it."""

from __future__ import annotations

import dataclasses
import json as json_
import sys
from typing import Annotated

import typer

from reformer_cli.commands.options import SetOption
from reformer_cli.utils.errors import ConfigError


def corpus(
    texts: Annotated[
        list[str],
        typer.Argument(metavar="CORPUS...", help="Files, folders, - (standard input), gutenberg:ID, python-reference."),
    ],
    set_: SetOption = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of the files; default: found file by file.")] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Tokenise it too, as `train` would, which then need not do it.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the text itself, as `train` would read it.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read a corpus as `train` would: what it holds, what is left out, and all that cannot be read (then status 2)."""
    from reformer_cli.config.load import load_config, resolve
    from reformer_cli.workflows.corpus import inspect_corpus, read_corpus

    data = resolve(load_config(None, set_ or ()), 320).data
    data = dataclasses.replace(data, encoding=encoding or data.encoding)
    if show:
        faults = read_corpus(texts, data, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        if faults and data.errors != "skip":
            raise ConfigError("texts that cannot be read", faults)
        return
    found = inspect_corpus(texts, data, tokens)
    typer.echo(json_.dumps(found.as_dict()) if json else str(found))
    if found.faults and data.errors != "skip":
        raise ConfigError("texts that cannot be read", found.faults)
