"""A run on tasks of the public evaluation harness, lm-eval."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reformer_cli.utils.devices import pick_device
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import aligned
from reformer_cli.workflows.result import Result


@dataclass(frozen=True)
class HarnessResult(Result):
    """The harness's figures, by task and by its own names of metrics."""

    figures: dict[str, dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return {"tasks": [row for row in self.rows() if row["task"] is not None]}

    def rows(self) -> list[dict[str, Any]]:
        """One row a task and metric."""
        rows = []
        for task, figures in self.figures.items():
            for metric, value in figures.items():
                if isinstance(value, float) and "_stderr" not in metric:
                    error = figures.get("_stderr,".join(metric.partition(",")[::2]))
                    named = {"task": task, "metric": metric.removesuffix(",none")}
                    rows.append(named | {"value": value, "stderr": error})
        return rows or [{"task": None, "metric": None, "value": None, "stderr": None}]

    def __str__(self) -> str:
        table = [["task", "metric", "value", "standard error"]]
        for row in self.as_dict()["tasks"]:
            error = f"{row['stderr']:.4f}" if isinstance(row["stderr"], float) else ""
            table.append([str(row["task"]), str(row["metric"]), f"{row['value']:.4f}", error])
        return aligned(table, 2)


def evaluate_harness(
    run: Path | None, tasks: Sequence[str], *, include_path: Path | None = None, num_fewshot: int | None = None,
    limit: int | None = None, device: str = "auto",
) -> HarnessResult:  # fmt: skip
    """Score a run on tasks by name. include_path: a folder of further tasks; limit: questions of each.

    Raises UserError without lm-eval, and for tasks that are not known or cannot be had.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("evaluate harness needs lm-eval", "pip install 'reformer-cli[lm-eval]'")
    if include_path is not None and not include_path.is_dir():
        raise UserError(f"no folder {str(include_path)!r}")
    # The harness prints and logs on stdout, which is for results.
    with contextlib.redirect_stdout(sys.stderr):
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.tasks import TaskManager

        from reformer_cli.workflows.harness import ReformerHarness

        model = ReformerHarness(run, pick_device(device))
        folder = str(include_path) if include_path is not None else None
        manager = TaskManager(include_path=folder, include_defaults=False) if folder is not None else None
        if manager is None or not set(tasks) <= set(manager.all_tasks):
            manager = TaskManager(include_path=folder)
        if unknown := [name for name in tasks if name not in manager.all_tasks]:
            hint = "`lm-eval ls tasks` lists them; own ones: --include-path"
            raise UserError(f"the harness knows no task {unknown[0]!r}", hint)
        try:
            found = simple_evaluate(
                model=model, tasks=list(tasks), num_fewshot=num_fewshot, limit=limit, task_manager=manager,
                bootstrap_iters=1000, log_samples=False,
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"the harness could not run {', '.join(tasks)}: {error}") from error
    assert found is not None
    return HarnessResult(dict(found["results"]))
