"""A plot of characters, for those without a browser."""

from __future__ import annotations

from collections.abc import Sequence

from reformer_cli.report.axes import count, extent, plain
from reformer_cli.report.records import Records, Series

BRAILLE = 0x2800
BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a dot by its row and column in a character
MARK = "●"
GUTTER = 9  # characters of the axis


def plot(records: Records, width: int, height: int = 16) -> str:
    """Bits/byte against tokens: training as a line, held out as marks."""
    smooth = records.of("bits_per_byte").smooth()
    training = Series("training", smooth.tokens, smooth.seconds, smooth.y)
    held_out = records.of("val_bits_per_byte")
    if not training.y:
        return "no step was logged yet\n"
    columns = max(10, width - GUTTER - 1)
    (x0, x1), (y0, y1) = extent(training.tokens), extent([*training.y, *held_out.y])
    cells = [[0] * columns for _ in range(height)]
    before = None
    for column, y in enumerate(_between(training.tokens, training.y, x0, x1, 2 * columns)):
        now = round((y1 - y) / (y1 - y0) * (4 * height - 1))
        start = now if before is None else before + (now > before) - (now < before)
        for dot in range(min(start, now), max(start, now) + 1):  # without gaps where the line is steep
            cells[dot // 4][column // 2] |= BITS[dot % 4][column % 2]
        before = now
    rows = [[chr(BRAILLE + cell) if cell else " " for cell in row] for row in cells]
    for x, y in zip(held_out.tokens, held_out.y, strict=True):
        if x0 <= x <= x1:
            rows[round((y1 - y) / (y1 - y0) * (height - 1))][round((x - x0) / (x1 - x0) * (columns - 1))] = MARK
    labels = {0: y1, height // 2: y1 - (y1 - y0) * (height // 2) / (height - 1), height - 1: y0}
    lines = []
    for n, row in enumerate(rows):
        label = plain(labels[n]) if n in labels else ""
        lines.append(f"{label:>{GUTTER - 2}} ┤{''.join(row).rstrip()}")
    ends = count(x0), f"{count(x1)} tokens"
    lines.append(" " * (GUTTER - 1) + "└" + "─" * columns)
    lines.append(" " * GUTTER + ends[0] + ends[1].rjust(columns - len(ends[0])))
    found = f", {MARK} held out {held_out.y[-1]:.3f}, best {min(held_out.y):.3f}" if held_out.y else ""
    lines.append(f"bits/byte: ⠤ training {training.y[-1]:.3f}{found}")
    return "\n".join(lines) + "\n"


def _between(xs: Sequence[float], ys: Sequence[float], x0: float, x1: float, n: int) -> list[float]:
    """The line at n places, evenly from left to right."""
    found: list[float] = []
    k = 0
    for m in range(n):
        x = x0 + (x1 - x0) * m / (n - 1)
        while k < len(xs) - 2 and xs[k + 1] < x:
            k += 1
        if len(xs) == 1 or x <= xs[k]:
            found.append(ys[k])
            continue
        share = min(1.0, (x - xs[k]) / max(1e-12, xs[k + 1] - xs[k]))
        found.append(ys[k] + share * (ys[k + 1] - ys[k]))
    return found
