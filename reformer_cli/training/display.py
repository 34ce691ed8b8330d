"""What a run says about itself while it goes on: one live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from reformer_cli.utils.console import reported
from reformer_cli.utils.format import as_size, as_time

EVERY_SECONDS = 10.0  # between lines where stderr is no terminal
SMOOTHING = 0.95  # of the loss shown
WAITED = 0.05  # of a step's time, from which waiting for the text is told


def peak_memory(device: str) -> int:
    """Most bytes this process has held: of the device where it is a GPU, else of main memory."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    if device.startswith("mps"):
        import torch

        return int(torch.mps.driver_allocated_memory())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich would end the program when what reads our lines goes away; a run goes on without them."""
        self.quiet = True


class Display:
    """Shows records of steps; `with` it. unit: bits/byte or bits/dim; silent: shows nothing."""

    def __init__(self, device: str, unit: str, silent: bool = False) -> None:
        self.device, self.unit, self.silent = device, unit, silent
        self.console = _Console(stderr=True, quiet=silent)
        self.report = None if silent else reported()
        self.live = self.console.is_terminal and not silent and self.report is None
        self.progress = Progress(TextColumn("{task.description}"), BarColumn(20), console=self.console)
        self.task = self.progress.add_task("starting", total=1.0)
        self.smooth: dict[str, float] = {}
        self.last_line = time.monotonic()
        self.gone = False  # whatever showed our lines

    def __enter__(self) -> Display:
        if self.live:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            with suppress(OSError):
                self.progress.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.gone:
            return
        if self.report is not None:
            self.report(printable(text))
            return
        try:
            self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        except OSError:  # the terminal was closed, or what read us: no reason to lose a run
            self.gone = True

    def step(self, record: dict[str, Any], share: float, seconds: float) -> None:
        """A step was done: its record as in metrics.jsonl, the share of the run that is done, seconds so far."""
        for name in ("loss", "bits_per_byte", "tokens_per_second"):
            value = record[name]
            if value is not None:
                self.smooth[name] = SMOOTHING * self.smooth.get(name, value) + (1 - SMOOTHING) * value
        text = self.line(record["step"], record["gradient_norm"], share, seconds)
        if (used := record.get("product_share")) is not None:
            text += f"  {used:.0%} of the card's products"
        if (waited := record.get("data_seconds", 0) / max(1e-9, record.get("step_seconds", 1))) > WAITED:
            text += f"  waits {waited:.0%} for text"
        if self.live and not self.gone:
            try:
                self.progress.update(self.task, description=text, completed=share)
            except OSError:
                self.gone = True
        elif time.monotonic() - self.last_line >= EVERY_SECONDS:
            self.last_line = time.monotonic()
            self.say(text)

    def line(self, step: int, norm: float | None, share: float, seconds: float) -> str:
        left = seconds * (1 - share) / share if share > 0 else 0.0
        return (
            f"step {step:,}  loss {self.smooth.get('loss', float('nan')):.3f}  "
            f"{self.smooth.get('bits_per_byte', float('nan')):.3f} {self.unit}  "
            f"{self.smooth.get('tokens_per_second', 0):,.0f} tokens/s  "
            f"grad {norm if norm is not None else float('nan'):.2f}  "
            f"{as_size(peak_memory(self.device))}  ETA {as_time(left)}"
        )


def printable(text: str) -> str:
    """Without what could command a terminal: a young model writes any character."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
