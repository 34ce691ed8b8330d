"""`reformer config`: what the recipes and the settings are."""

from __future__ import annotations

from typing import Annotated

import typer

from reformer_cli.commands.options import SetOption

app = typer.Typer(help="List, print and check configurations.", no_args_is_help=False, rich_markup_mode=None)


@app.command("list")
def list_() -> None:
    """Print the recipes, each with its first line."""
    from reformer_cli.config.load import config_names

    for name, path in config_names().items():
        typer.echo(f"{name:22} {path.read_text('utf-8').splitlines()[0].lstrip('# ')}")


@app.command("show")
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", help="A recipe or file; none: the defaults.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Print every setting that a config leads to, with what it means, as YAML."""
    from reformer_cli.config.load import describe, load_config
    from reformer_cli.config.schema import SECTIONS

    settings = load_config(name, set_ or ())
    for section in SECTIONS:
        typer.echo(f"{section}:")
        for key, default, description in describe(section):
            value = settings[section].get(key, default)
            typer.echo(f"  {f'{key}: {_yaml(value)}':40}  # {description}")


@app.command("validate")
def validate(
    files: Annotated[list[str], typer.Argument(metavar="NAME|FILE...", help="Recipes or YAML files.")],
    set_: SetOption = None,
) -> None:
    """Check configurations; every fault is listed, and the exit status is 2 if there is one."""
    from reformer_cli.config.load import load_config
    from reformer_cli.utils.errors import UserError

    faults = []
    for file in files:
        try:
            load_config(file, set_ or ())
        except UserError as error:
            faults.append(str(error))
        else:
            typer.echo(f"{file}: good")
    if faults:
        for fault in faults:
            typer.echo(f"error: {fault}", err=True)
        raise typer.Exit(2)


def _yaml(value: object) -> str:
    import yaml

    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).replace("\n...", "").strip()
