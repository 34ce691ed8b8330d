"""Train, open and use text models from Python: `import reformer_cli as rc`. Importing it does not import torch.

model = rc.train("novel.txt", minutes=10)      # or rc.load("runs/novel"), rc.load() for the newest
print(model.generate("She opened the door", max_tokens=200, seed=7))
for piece in model.stream("She opened the door"): print(piece, end="", flush=True)
print(model.evaluate("other.txt").bits_per_byte)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reformer_cli.sampling.config import SamplingConfig
    from reformer_cli.sampling.generate import Sample
    from reformer_cli.utils.errors import UserError
    from reformer_cli.workflows.result import Result
    from reformer_cli.workflows.text_model import TextModel

__all__ = ["Result", "Sample", "SamplingConfig", "TextModel", "UserError", "import_model", "load", "train"]

LAZY = {
    "Result": "workflows.result", "Sample": "sampling.generate", "SamplingConfig": "sampling.config",
    "TextModel": "workflows.text_model", "UserError": "utils.errors",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(f"reformer_cli.{LAZY[name]}"), name)
    raise AttributeError(f"module 'reformer_cli' has no attribute {name!r}")


def load(run: str | Path | None = None, device: str = "auto") -> TextModel:
    """The model of a run directory; None: of the newest under runs/. Raises UserError where there is none."""
    from reformer_cli.workflows.open_model import open_model
    from reformer_cli.workflows.text_model import TextModel

    return TextModel(**vars(open_model(run, device)))


def train(
    corpus: str | Path | Sequence[str | Path] | None = None, *, config: str | None = None,
    run: str | Path | None = None, init_from: str | Path | None = None, minutes: float | None = None,
    steps: int | None = None, resume: bool = False, device: str = "auto", settings: Mapping[str, Any] | None = None,
    report: Callable[[str], object] = print,
) -> TextModel:  # fmt: skip
    """What `reformer train` does, by its options' names; settings is `--set`, such as {"model.n_layers": 4}; report is
    told what the command says on stderr, line by line.

    Raises UserError for a user's mistakes. An interrupt saves, and returns what there is; so it is off the main thread.
    """
    from reformer_cli.utils.console import reporting_to
    from reformer_cli.workflows.train import train as workflow

    with reporting_to(report):
        path = workflow(
            corpus, config=config, run=Path(run) if run is not None else None,
            init_from=init_from, minutes=minutes, steps=steps, resume=resume, device=device, settings=settings or (),
        )  # fmt: skip
    return load(path, device)


def import_model(
    source: str | Path, *, run: str | Path | None = None, tokenizer: str | None = None, seed: int = 0,
    revision: str | None = None, device: str = "auto", report: Callable[[str], object] = print,
) -> TextModel:  # fmt: skip
    """What `reformer import` does, by its options' names: a Reformer of transformers, a folder or a hub id, becomes a
    run."""
    from reformer_cli.utils.console import reporting_to
    from reformer_cli.workflows.import_ import import_run

    where = Path(run) if run is not None else None
    with reporting_to(report):
        path = import_run(str(source), where, tokenizer=tokenizer, seed=seed, revision=revision)
    return load(path, device)
