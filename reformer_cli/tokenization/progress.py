"""How far reading and tokenising are: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from reformer_cli.files import as_size

EVERY_SECONDS = 30.0  # between lines where stderr is no terminal
Advance = Callable[[int], None]  # so many bytes more are done


@contextmanager
def shown(what: str, total: int, report: Callable[[str], None]) -> Iterator[Advance]:
    """Shows how many of `total` bytes are done while it is open."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total, report)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(30), TextColumn("{task.fields[done]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task, begun = bar.add_task(what, total=total, done=""), time.monotonic()
        count = 0

        def advance(size: int) -> None:
            nonlocal count
            count += size
            speed = count / max(1e-3, time.monotonic() - begun)
            bar.update(task, completed=count, done=f"{as_size(count)} of {as_size(total)}, {as_size(speed)}/s")

        yield advance


def _lines(what: str, total: int, report: Callable[[str], None]) -> Advance:
    begun = last = time.monotonic()
    count = 0

    def advance(size: int) -> None:
        nonlocal count, last
        count += size
        now = time.monotonic()
        if now - last >= EVERY_SECONDS:
            last = now
            share = f" ({100 * count / total:.0f} %)" if total else ""
            report(f"{what}: {as_size(count)} of {as_size(total)}{share}, {as_size(count / (now - begun))}/s")

    return advance
