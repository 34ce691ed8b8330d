"""`reformer novelty`: what of a text stands in what the run was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reformer_cli.commands.evaluate.output import CsvOption, JsonOption, PlotOption, check, show
from reformer_cli.commands.options import OverwriteOption, RunOption

AgainstOption = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Compare with this text or folder in place of the run's; repeatable."),
]


def novelty(
    file: Annotated[str, typer.Argument(metavar="[FILE|-]", help="The text; - or none: standard input.")] = "-",
    run: RunOption = None,
    against: AgainstOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    plot: PlotOption = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the text as a page too, copies marked, sources on hover.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Find what of a text was copied: stretches of words that stand in the training text too, and where.

    Case, punctuation, quotation marks and hyphens do not count. Beside them the same figures for text of the run's
    authors that it never saw. The index of the training text is made once, in the run's folder.
    """
    from reformer_cli.data.text_chunks import read_text
    from reformer_cli.report.novelty_page import novelty_page
    from reformer_cli.runs.run import Run
    from reformer_cli.utils.files import check_free, write_file
    from reformer_cli.workflows import novelty as workflow

    check(json, csv, plot, overwrite)
    if html is not None:
        check_free(html, overwrite, "--html")
    opened, name = Run.open(run), "standard input" if file == "-" else file
    found = workflow.novelty(opened, read_text(file), name, against or ())
    show(found, json, csv, plot)
    if html is not None:
        write_file(html, novelty_page(Path(name).name, found.text, found.copies, str(found)))
