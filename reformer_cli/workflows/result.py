"""What an evaluation found, for programs, for people, and as a picture."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from reformer_cli.utils.errors import UserError

PICTURES = (".png", ".svg", ".pdf")
SCORED, DISTANCE, VIEWED = 32_768, 16_384, 2048  # tokens where nothing is said: of context, recall and attention


class Result(ABC):
    """`print` shows it as a table."""

    drawn_by_us = True  # as .svg, where matplotlib is missing

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Everything that is known, by the names that `--json` prints."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """The same as rows of one table, as `--csv` prints them: each has the same keys."""

    @abstractmethod
    def __str__(self) -> str: ...

    def plot(self, path: str | Path) -> None:
        """Draw it: .svg, or .png and .pdf with matplotlib. Raises UserError where it cannot be drawn."""
        check_picture(Path(path), self.drawn_by_us)
        self._draw(Path(path))

    def _draw(self, path: Path) -> None:
        raise UserError("there is no picture of this")


def has_matplotlib() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def check_picture(path: Path, drawn_by_us: bool = True) -> None:
    """Raises UserError for a picture that could not be drawn. drawn_by_us: whether .svg needs no matplotlib."""
    if path.suffix.lower() not in PICTURES:
        raise UserError(f"the picture {path} has no known ending", f"use one of {', '.join(PICTURES)}")
    if not has_matplotlib() and not (drawn_by_us and path.suffix.lower() == ".svg"):
        other = "one that ends in .svg" if drawn_by_us else "the table"
        raise UserError(
            f"the picture {path} needs matplotlib", f"pip install 'reformer-cli[plots]'; {other} works without it"
        )
