"""Lines for the user's eyes, on stderr: stdout is for text and figures alone."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def say(text: str) -> None:
    """A line. A terminal that is gone, or a closed pipe, does not end what is going on."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        # What could not be written stays in the buffer: written once more at exit, it would make the status 120.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def warn(text: str) -> None:
    """A warning."""
    say(f"warning: {text}")
