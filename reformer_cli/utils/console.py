"""Lines for the user's eyes, on stderr: stdout is for text and figures alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

Report = Callable[[str], object]
_report: ContextVar[Report | None] = ContextVar("report", default=None)
reported = _report.get  # () -> what lines are told to in place of stderr, if anything


@contextmanager
def reporting_to(report: Report) -> Iterator[None]:
    """What is said meanwhile, by this thread, is told to `report` in place of stderr."""
    before = _report.set(report)
    try:
        yield
    finally:
        _report.reset(before)


def say(text: str) -> None:
    """A line. A terminal that is gone, or a closed pipe, does not end what is going on."""
    if (report := reported()) is not None:
        report(text)
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        # What could not be written stays in the buffer: written once more at exit, it would make the status 120.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def warn(text: str) -> None:
    """A warning."""
    say(f"warning: {text}")
