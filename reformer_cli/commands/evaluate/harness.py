"""`reformer evaluate harness`: a run under the public evaluation harness."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from reformer_cli.commands.evaluate.output import CsvOption, JsonOption, begin, print_json, write_csv
from reformer_cli.commands.options import DeviceOption, RunOption
from reformer_cli.utils.devices import pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import aligned


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
    from importlib.util import find_spec

    begin(json, csv)
    if find_spec("lm_eval") is None:
        raise UserError("evaluate harness needs lm-eval", "pip install 'reformer-cli[lm-eval]'")
    if include_path is not None and not include_path.is_dir():
        raise UserError(f"no folder {str(include_path)!r}")
    # The harness prints and logs on stdout, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        results = _evaluated(run, tasks, include_path, num_fewshot, limit, pick_device(device))
    rows = [
        {"task": task, "metric": metric.removesuffix(",none"), "value": value, "stderr": figures.get(_stderr(metric))}
        for task, figures in results.items()
        for metric, value in figures.items()
        if isinstance(value, float) and "_stderr" not in metric
    ]
    if json:
        print_json({"tasks": rows})
    elif csv:
        write_csv(rows or [{"task": None, "metric": None, "value": None, "stderr": None}])
    else:
        table = [["task", "metric", "value", "standard error"]]
        for row in rows:
            error = f"{row['stderr']:.4f}" if isinstance(row["stderr"], float) else ""
            table.append([str(row["task"]), str(row["metric"]), f"{row['value']:.4f}", error])
        typer.echo(aligned(table, 2))


def _stderr(metric: str) -> str:
    name, _, filter_ = metric.partition(",")
    return f"{name}_stderr,{filter_}"


def _evaluated(
    run: Path | None, tasks: list[str], folder: Path | None, few_shot: int | None, limit: int | None, device: str
) -> dict[str, dict[str, Any]]:
    """Figures by task. Raises UserError for tasks that are not known or cannot be had."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from reformer_cli.workflows.harness import ReformerHarness

    model = ReformerHarness(run, device)
    manager = TaskManager(include_path=str(folder), include_defaults=False) if folder is not None else None
    if manager is None or not set(tasks) <= set(manager.all_tasks):
        manager = TaskManager(include_path=str(folder) if folder is not None else None)
    if unknown := [name for name in tasks if name not in manager.all_tasks]:
        raise UserError(
            f"the harness knows no task {unknown[0]!r}", "`lm-eval ls tasks` lists them; own ones: --include-path"
        )
    try:
        found = simple_evaluate(
            model=model, tasks=list(tasks), num_fewshot=few_shot, limit=limit, task_manager=manager,
            bootstrap_iters=1000, log_samples=False,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"the harness could not run {', '.join(tasks)}: {error}") from error
    assert found is not None
    return dict(found["results"])
