"""`reformer report`: what became of a run, to look at."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from reformer_cli.commands.options import OverwriteOption, RunOption
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError

PAGE = "report.html"


def report(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Run directory; default: the newest.")] = None,
    run_option: RunOption = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="FILE", help=f"Where to; default {PAGE} in the run; - is stdout.")
    ] = None,
    overwrite: OverwriteOption = False,
    plot: Annotated[bool, typer.Option("--plot", help="Plot bits/byte here, in characters; write no page.")] = False,
) -> None:
    """Make one HTML page of a run, also of one that is still training: charts, samples, evaluations, configuration."""
    from importlib.metadata import version

    from reformer_cli.report.page import page
    from reformer_cli.report.records import read_records
    from reformer_cli.report.terminal import plot as plotted
    from reformer_cli.runs.run import METRICS, Run
    from reformer_cli.utils.files import check_free, write_file

    if run is not None and run_option is not None:
        raise UserError(f"two runs, {run} and --run {run_option}", "give one of them")
    if plot and output is not None:
        raise UserError(f"--plot writes no page, so there is no --output {output}", "leave out one of them")
    opened = Run.open(run or run_option)
    if output is not None and output != "-":
        check_free(Path(output), overwrite)
    records = read_records(opened.path / METRICS)
    if plot:
        sys.stdout.write(plotted(records, min(140, shutil.get_terminal_size().columns)))
        return
    made = f"Written {time.strftime('%Y-%m-%d %H:%M')} by reformer {version('reformer-cli')}."
    text = page(opened.path.resolve().name, opened.config, records, made)
    if output == "-":
        sys.stdout.write(text)
        return
    target = Path(output) if output else opened.path / PAGE
    try:
        write_file(target, text)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}", "say where with --output FILE") from None
    say(str(target))
