"""TensorBoard, where `train.tensorboard` asks for it. Comes with the extra `tensorboard`."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from reformer_cli.utils.console import warn
from reformer_cli.utils.errors import UserError

FOLDER = "tensorboard"
LEFT_OUT = ("step", "tokens", "seconds")  # of a record: what others are drawn against


class Board:
    """Does nothing with what it is given; `with` it."""

    def log(self, record: dict[str, Any]) -> None:
        """A record as in metrics.jsonl."""

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish what is being written."""


class TensorBoard(Board):
    """Event files: numbers as scalars, samples as text."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self._make = run / FOLDER, SummaryWriter
        self._writer: Any = None

    def log(self, record: dict[str, Any]) -> None:
        step = int(record["step"])
        try:
            if self._writer is None:  # what a killed process wrote of later steps is marked as void
                self._writer = self._make(str(self.folder), purge_step=step)
            for name, value in record.items():
                if isinstance(value, str):
                    self._writer.add_text(name, f"    {value}".replace("\n", "\n    "), step)
                elif isinstance(value, list):
                    for n, each in enumerate(value):
                        self._writer.add_scalar(f"{name}/{n}", each, step)
                elif isinstance(value, (int, float)) and name not in LEFT_OUT:
                    self._writer.add_scalar(name, value, step)
        except OSError as error:
            warn(f"{error.strerror}: a record for TensorBoard was lost")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def check_board(wanted: bool) -> None:
    """Raises UserError where it is wanted and not installed."""
    if wanted:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise UserError(
                "train.tensorboard needs a package that is not here", "pip install 'reformer-cli[tensorboard]'"
            ) from None


def board_of(run: Path, wanted: bool) -> Board:
    """For a run; one that does nothing where it is not wanted."""
    return TensorBoard(run) if wanted else Board()
