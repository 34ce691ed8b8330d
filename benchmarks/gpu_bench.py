"""How benchmarks/gpu_parts.py times: on the GPU's clock, within a time that is given."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

Row = tuple[str, str, str, float, str]  # system, case, measure, value, unit
MIB = 2**20


@dataclass
class Bench:
    """Where and how long. ends: the time by which a part should be done; systems: which of those compared, all if
    empty; taken: seconds of the last measurement of a system, compiling apart, from which it is judged whether a longer
    one still fits; compiling: of all first calls."""

    device: str
    lengths: list[int]
    windows: list[int]
    ends: float
    least: float = 0.5  # seconds of a measurement
    systems: list[str] = field(default_factory=list)
    taken: dict[str, tuple[int, float]] = field(default_factory=dict)
    compiling: float = 0.0

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"

    def seconds(self, work: Callable[[], Any]) -> float:
        """Median of one call, warmed up, over `least` seconds; of a single one where that takes longer."""
        times: list[float] = []
        began = time.perf_counter()
        work()  # compiles too
        self._wait()
        self.compiling += time.perf_counter() - began
        began = time.perf_counter()
        while len(times) < 50 and (not times or time.perf_counter() - began < max(self.least, times[0])):
            start = time.perf_counter()
            if self.gpu:
                marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                marks[0].record()
                work()
                marks[1].record()
                self._wait()
                times.append(marks[0].elapsed_time(marks[1]) / 1e3)
            else:
                work()
                times.append(time.perf_counter() - start)
            if len(times) == 1:
                began = time.perf_counter()
        return statistics.median(times)

    def _wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()

    def peak(self, work: Callable[[], Any]) -> float:
        """MiB that a call holds at most, beside nothing else than what it was given."""
        if not self.gpu:
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        work()
        self._wait()
        return float(torch.cuda.max_memory_allocated()) / MIB

    def fits(self, system: str, length: int, power: float) -> bool:
        """Whether a measurement is likely to end in time, where its cost grows with a power of the length."""
        before = self.taken.get(system)
        likely = 0.0 if before is None else before[1] * (length / before[0]) ** power
        return time.perf_counter() + likely < self.ends

    def tried(self, system: str, case: str, length: int, power: float, work: Callable[[], list[Row]]) -> list[Row]:
        """What a measurement found; nothing, with the reason on the screen, where it does not fit or fails."""
        if self.systems and system not in self.systems:
            return []
        if not self.fits(system, length, power):
            print(f"  {system}, {case}: left out, no time for it", flush=True)
            return []
        began, compiling = time.perf_counter(), self.compiling
        try:
            rows = work()
        except torch.OutOfMemoryError:
            print(f"  {system}, {case}: out of memory", flush=True)
            rows = []
        except Exception as error:  # a peer that fails is a result too
            print(f"  {system}, {case}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}", flush=True)
            rows = []
        self.taken[system] = (length, time.perf_counter() - began - (self.compiling - compiling))
        if self.gpu:
            torch.cuda.empty_cache()
        return rows


def timed(bench: Bench, system: str, case: str, length: int, work: Callable[[], Any]) -> list[Row]:
    seconds = bench.seconds(work)
    rows = [(system, case, "step", seconds, "s"), (system, case, "speed", length / seconds, "tokens/s")]
    return rows + ([(system, case, "peak memory", bench.peak(work), "MiB")] if bench.gpu else [])


def autocast_of(bench: Bench) -> AbstractContextManager[object]:
    """Products in bfloat16, for everyone."""
    return torch.autocast(bench.device.split(":")[0], torch.bfloat16)
