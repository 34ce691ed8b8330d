"""Errors that the core raises beyond ValueError."""

from __future__ import annotations


class NumericalError(RuntimeError):
    """A stream left its range or met a value that is not finite; the message names the layer."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.what = where, what
