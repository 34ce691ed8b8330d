"""Being asked to stop: Ctrl-C, SIGTERM from a scheduler, SIGHUP when the terminal goes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


_stopped_by: list[int] = []


def stopped_by() -> int | None:
    """The signal that the latest `interruptible` was asked to stop by, if it was."""
    return _stopped_by[-1] if _stopped_by else None


@contextmanager
def interruptible(numbers: Sequence[signal.Signals] = SIGNALS) -> Iterator[threading.Event]:
    """The first of the signals sets the event, so that a step is finished and saved; the second stops at once.

    A signal that is ignored when the program starts stays so: that is how nohup asks for it.
    """
    asked = threading.Event()
    _stopped_by.clear()

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        _stopped_by.append(number)
        asked.set()

    with _handled([n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN], handle):
        yield asked


def listen_to_interrupts() -> None:
    """SIGINT counts although it is ignored: a script's shell has it ignored by all that it starts in the background,
    where `kill -INT` is how to stop a training."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile leave Ctrl-C, which reaches every process of a terminal, to this one."""
    with _handled([signal.SIGINT], signal.SIG_IGN):
        yield


@contextmanager
def _handled(numbers: Sequence[signal.Signals], handler: Callable[..., Any] | signal.Handlers) -> Iterator[None]:
    """Off the main thread, where Python takes no handlers, nothing happens."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, handler) for n in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
