"""Sums over blocks of consecutive tokens, and what they say about chance: bootstrap intervals that repeat."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

FIRST, MOST = 64, 2048  # tokens of a block at first; blocks above which neighbours are joined
LEAST = 8  # blocks, below which there is no interval: too few to show how much they differ
RESAMPLES, AT_ONCE, SEED = 1000, 100, 0  # texts drawn; so many at a time, for the memory's sake
CONFIDENCE = 0.95


class Blocks:
    """Sums of what is known of each token, over blocks of consecutive ones. Memory does not grow with the text: when
    there are MOST blocks, neighbours are joined and blocks get twice as long."""

    def __init__(self, columns: int) -> None:
        self.size = FIRST
        self._closed = np.zeros((0, columns))
        self._open, self._count = np.zeros(columns), 0

    def add(self, rows: Numbers) -> None:
        """rows: [tokens, columns], of the tokens that come next."""
        if len(rows) == 0:
            return
        block = (self._count + np.arange(len(rows))) // self.size
        sums = np.zeros((block[-1] + 1, rows.shape[1]))
        np.add.at(sums, block, rows)
        sums[0] += self._open
        self._count = (self._count + len(rows)) % self.size
        if self._count:
            self._open, sums = sums[-1], sums[:-1]
        else:
            self._open = np.zeros(rows.shape[1])
        self._closed = np.concatenate([self._closed, sums])
        while len(self._closed) >= MOST:
            self._join()

    def _join(self) -> None:
        if len(self._closed) % 2:
            self._open = self._open + self._closed[-1]
            self._count += self.size
            self._closed = self._closed[:-1]
        self._closed = self._closed[0::2] + self._closed[1::2]
        self.size *= 2

    @property
    def sums(self) -> Numbers:
        """[blocks, columns], oldest first; the last one may be shorter than the others."""
        return np.concatenate([self._closed, self._open[None]]) if self._count else self._closed

    @property
    def total(self) -> Numbers:
        """[columns]."""
        return self.sums.sum(0)


def resampled(blocks: Numbers) -> Numbers | None:
    """Sums [RESAMPLES, columns] of texts put together anew: of the blocks [n, columns], n are drawn with replacement.

    The draws depend on n alone: columns, and calls with as many blocks, are paired. None for fewer than LEAST.
    """
    n = len(blocks)
    return np.concatenate([part @ blocks for part in _drawn(n)]) if n >= LEAST else None


@lru_cache(maxsize=4)
def _drawn(n: int) -> list[npt.NDArray[np.uint16]]:
    """How often each of n blocks is drawn: [RESAMPLES, n], in parts."""
    random, share = np.random.default_rng(SEED), np.full(n, 1 / n)
    return [random.multinomial(n, share, AT_ONCE).astype(np.uint16) for _ in range(RESAMPLES // AT_ONCE)]


def interval(blocks: Numbers, figure: Callable[[Numbers], Numbers]) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of figure(sums [..., columns]) -> [...]; None where there are too few blocks.

    What it means: had other stretches been drawn from texts like these, each a block of consecutive tokens long, 95 of
    100 such figures would lie here (percentile bootstrap over blocks; neighbouring tokens are hard or easy together, so
    that single tokens drawn anew would make it too narrow). It tells nothing of texts of another kind, nor of how
    the figure would move had the model been trained with another seed. Seeded: the same text gives the same digits.
    """
    sums = resampled(blocks)
    if sums is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = figure(sums)
    if not np.isfinite(found).all():
        return None
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def finite(value: Any) -> Any:
    """What JSON can hold: None instead of infinity and NaN, at any depth."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
