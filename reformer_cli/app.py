"""The commands in the order of `reformer --help`. A new one is a file in commands/ and a line here."""

from __future__ import annotations

from typing import Annotated

import typer

from reformer_cli.commands import (
    config,
    corpus,
    export,
    generate,
    import_,
    novelty,
    plan,
    report,
    serve,
    tokenizer,
    train,
)
from reformer_cli.commands.evaluate import perplexity

app = typer.Typer(
    help="Train, sample and score long-document language models: a whole novel in one context.",
    epilog="First steps: reformer generate --prompt 'She opened the door', then reformer train novel.txt.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("generate")(generate.generate)
app.add_typer(perplexity.app, name="evaluate")
app.command("serve")(serve.serve)
app.command("novelty")(novelty.novelty)
app.command("report")(report.report)
app.command("plan")(plan.plan)
app.command("corpus")(corpus.corpus)
app.add_typer(config.app, name="config")
app.add_typer(tokenizer.app, name="tokenizer")
app.command("import")(import_.import_)
app.command("export")(export.export)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"reformer {version('reformer-cli')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
