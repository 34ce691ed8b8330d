"""`reformer evaluate harness`: a run under the public evaluation harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reformer_cli.commands.evaluate.output import CsvOption, JsonOption, check, show
from reformer_cli.commands.options import DeviceOption, RunOption


def harness(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK", help="Tasks by name, such as lambada_openai.")],
    run: RunOption = None,
    include_path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of task files of your own (they may hold code: use what you trust)."),
    ] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples before each question.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each task, at most.")] = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Score a run on tasks of the public evaluation harness, lm-eval (pip install 'reformer-cli[lm-eval]').

    Most of its tasks download their questions; those of --include-path need not.
    """
    from reformer_cli.workflows.evaluate_harness import evaluate_harness

    check(json, csv)
    result = evaluate_harness(
        run, tasks, include_path=include_path, num_fewshot=num_fewshot, limit=limit, device=device
    )  # fmt: skip
    show(result, json, csv)
