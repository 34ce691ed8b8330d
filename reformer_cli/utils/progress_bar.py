"""How far a long piece of work is: a bar on a terminal, a line now and then elsewhere. Never on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from reformer_cli.utils.console import reported
from reformer_cli.utils.format import as_time

EVERY_SECONDS = 30.0  # between lines where stderr is no terminal
Advance = Callable[[int], None]  # so many more are done
Unit = Callable[[float], str]  # a number of them for people


def tokens(n: float) -> str:
    """1,234 tokens."""
    return f"{n:,.0f} tokens"


@contextmanager
def shown(what: str, total: int | None, report: Callable[[str], None], unit: Unit = tokens) -> Iterator[Advance]:
    """Shows how many of `total` are done, how many a second and how long the rest takes, while it is open.

    total: None where it is not known. report writes a line, where there is no terminal for a bar.
    """
    console = Console(stderr=True)
    if not console.is_terminal or reported() is not None:
        yield _lines(what, total, report, unit)
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
            bar.update(task, completed=count, done=f"{unit(count)}{_of(total, unit)}, {unit(speed)}/s")

        yield advance


def _lines(what: str, total: int | None, report: Callable[[str], None], unit: Unit) -> Advance:
    begun = last = time.monotonic()
    count = 0

    def advance(size: int) -> None:
        nonlocal count, last
        count += size
        now = time.monotonic()
        if now - last >= EVERY_SECONDS:
            last, speed = now, count / (now - begun)
            left = f", {as_time((total - count) / speed)} left" if total and speed else ""
            share = f" ({100 * count / total:.0f} %)" if total else ""
            report(f"{what}: {unit(count)}{_of(total, unit)}{share}, {unit(speed)}/s{left}")

    return advance


def _of(total: int | None, unit: Unit) -> str:
    return f" of {unit(total)}" if total is not None else ""
