"""Errors that the core raises beyond ValueError."""

from __future__ import annotations


class NumericalError(RuntimeError):
    """A stream left its range or met a value that is not finite; the message names the layer."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.what = where, what


def out_of_range(where: str, stream_bits: int, what: str = "values") -> NumericalError:
    """Of what was added to a stream that counts in units of 2^-stream_bits."""
    return NumericalError(
        where,
        f"{what} leave the range +-{2.0 ** (30 - stream_bits):g} of the residual streams; "
        "lower the learning rate or stream_bits",
    )
