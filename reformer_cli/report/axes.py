"""Round numbers along an axis, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from reformer_cli.utils.format import as_size, as_time

Format = Callable[[float], str]


def extent(values: Sequence[float]) -> tuple[float, float]:
    """Least and largest; something wider than nothing."""
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(abs(high), abs(low)):
        room = abs(high) * 0.1 or 1.0
        return low - room, high + room
    return low, high


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 x a power of ten, at most so many."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10, 20) if m * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def time_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Seconds, minutes and hours that people count in."""
    rough = (high - low) / most
    units = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
    step = next((u for u in units if u >= rough), 0)
    if rough < 1 or not step:
        return ticks(low, high, most)
    return [float(n * step) for n in range(math.ceil(low / step), int(high / step) + 1)]


def byte_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round in the unit that they are written in."""
    unit = 1024.0 ** min(3, max(0, int(math.log2(max(1.0, high / 4))) // 10))
    return [n * unit for n in ticks(low / unit, high / unit, most)]


def count(x: float) -> str:
    """1500000 -> 1.5 M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:.3g} {unit}"
    return f"{x:.4g}"


def plain(x: float) -> str:
    return f"{x:.4g}"


FORMATS: dict[str, Format] = {"count": count, "plain": plain, "bytes": as_size, "time": as_time}
