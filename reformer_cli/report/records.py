"""metrics.jsonl as series to draw. The file may come from anyone: what is no number is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

SMOOTHING = 0.02  # share of a series that its running mean remembers, at most
MOST_POINTS = 400  # of a line
LONGEST_LINE = 2**20  # bytes of a record


@dataclass
class Series:
    """Points in the order of steps; x by what they are drawn against."""

    name: str
    tokens: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)

    def add(self, tokens: float, seconds: float, y: float) -> None:
        self.tokens.append(tokens)
        self.seconds.append(seconds)
        self.y.append(y)

    def smooth(self) -> Series:
        """A running mean; of few points, the points themselves."""
        rate = 1 / max(1.0, SMOOTHING * len(self.y))
        mean, found, weight = 0.0, [], 0.0
        for y in self.y:
            mean, weight = mean + rate * (y - mean), weight + rate * (1 - weight)
            found.append(mean / weight)
        return Series(self.name, self.tokens, self.seconds, found)

    def thin(self) -> Series:
        """At most MOST_POINTS, each the mean of what it stands for."""
        n = len(self.y)
        if n <= MOST_POINTS:
            return self
        edges = [round(k * n / MOST_POINTS) for k in range(MOST_POINTS + 1)]

        def means(values: Sequence[float]) -> list[float]:
            return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]

        return Series(self.name, means(self.tokens), means(self.seconds), means(self.y))


@dataclass
class Records:
    """What a run logged. series: of steps and validations, by the record's key; layers: effective buckets of each LSH
    layer; samples: (step, text); validations: the records of them; skipped, spikes: (step, what)."""

    series: dict[str, Series] = field(default_factory=dict)
    layers: list[Series] = field(default_factory=list)
    samples: list[tuple[int, str]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)
    spikes: list[tuple[int, str]] = field(default_factory=list)
    steps: int = 0
    tokens: float = 0.0
    seconds: float = 0.0

    def of(self, name: str) -> Series:
        return self.series.get(name, Series(name))

    def total(self, name: str) -> float:
        return math.fsum(self.of(name).y)


OF_STEPS = (
    "loss", "bits_per_byte", "learning_rate", "gradient_norm", "tokens_per_second", "step_seconds", "data_seconds",
    "peak_bytes", "context",
)  # fmt: skip


def read_records(path: Path) -> Records:
    """Of a run that may still be going on. A file that is missing has none."""
    found = Records()
    for record in _lines(path):
        step = record.get("step")
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            continue
        if isinstance(sample := record.get("sample"), str):
            found.samples.append((step, sample))
        elif "tokens_per_second" in record:
            _add_step(found, step, record)
        else:
            _add_validation(found, step, record)
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with open(path, "rb") as file:
        while line := file.readline(LONGEST_LINE):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record


def _add_step(found: Records, step: int, record: dict[str, Any]) -> None:
    found.steps = step
    found.tokens = number(record.get("tokens")) or found.tokens
    found.seconds = number(record.get("seconds")) or found.seconds
    for name in OF_STEPS:
        if (y := number(record.get(name))) is not None:
            found.series.setdefault(name, Series(name)).add(found.tokens, found.seconds, y)
    if isinstance(what := record.get("skipped"), str):
        found.skipped.append((step, what))
    if record.get("spike") is True:
        found.spikes.append((step, f"loss {number(record.get('loss')) or math.nan:.3f}"))


def _add_validation(found: Records, step: int, record: dict[str, Any]) -> None:
    record = record | {"step": step, "tokens": found.tokens, "seconds": found.seconds}
    found.validations.append(record)
    if (y := number(record.get("val_bits_per_byte"))) is not None:
        name = "val_bits_per_byte"
        found.series.setdefault(name, Series("held out")).add(found.tokens, found.seconds, y)
    layers = record.get("effective_buckets")
    for n, value in enumerate(layers[:64] if isinstance(layers, list) else ()):
        if (y := number(value)) is not None:
            while len(found.layers) <= n:
                found.layers.append(Series(f"LSH layer {len(found.layers) + 1}"))
            found.layers[n].add(found.tokens, found.seconds, y)


def number(value: Any) -> float | None:
    """A finite number; None for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
