"""Being asked to stop: Ctrl-C, SIGTERM from a scheduler, SIGHUP when the terminal goes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """The first of SIGNALS sets the event, so that a step is finished and saved; the second stops at once.

    A signal that is ignored when the program starts stays so: that is how nohup and shells' background jobs ask for it.
    """
    asked = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {n: signal.signal(n, handle) for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
