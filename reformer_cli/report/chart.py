"""A line chart as SVG that takes its colours from the page, light or dark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from reformer_cli.report.axes import FORMATS, byte_ticks, extent, ticks, time_ticks
from reformer_cli.report.records import Series

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 30  # margins


@dataclass(frozen=True)
class Line:
    """series as drawn: colour 1 to 8; faint: what a smooth line is a mean of; dots: few points, each a measurement."""

    series: Series
    colour: int
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """title: what, in which unit; from_zero: whether the axis of values begins there; value: how they are written."""

    title: str
    lines: Sequence[Line]
    value: str = "plain"
    from_zero: bool = False
    note: str = ""


def figure(chart: Chart) -> str:
    """The chart twice, against tokens and against time, of which the page shows one; with legend and table of ends."""
    lines = [line for line in chart.lines if line.series.y]
    if not lines:
        return ""
    shown = [line for line in lines if not line.faint]
    keys = "".join(
        f'<span class="key"><i class="c{line.colour}"></i>{escape(line.series.name)} '
        f"<b>{FORMATS[chart.value](line.series.y[-1])}</b></span>"
        for line in shown
    )
    note = f"<p>{escape(chart.note)}</p>" if chart.note else ""
    drawn = "".join(_svg(chart, lines, against) for against in ("tokens", "seconds"))
    return f"<figure><figcaption>{escape(chart.title)}</figcaption><div class=keys>{keys}</div>{drawn}{note}</figure>"


def _svg(chart: Chart, lines: Sequence[Line], against: str) -> str:
    xs = [x for line in lines for x in getattr(line.series, against)]
    ys = [y for line in lines for y in line.series.y]
    (x0, x1), (y0, y1) = extent(xs), extent([*ys, 0.0] if chart.from_zero else ys)
    if not chart.from_zero:
        y0, y1 = y0 - 0.04 * (y1 - y0), y1 + 0.04 * (y1 - y0)

    def px(x: float) -> float:
        return LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        return TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    of_time = against == "seconds"
    parts = []
    for y in (byte_ticks if chart.value == "bytes" else ticks)(y0, y1, 5):
        parts.append(f'<path class=grid d="M{LEFT} {py(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f"<text x={LEFT - 6} y={py(y) + 4:.1f} text-anchor=end>{FORMATS[chart.value](y)}</text>")
    for x in (time_ticks if of_time else ticks)(x0, x1):
        label = FORMATS["time" if of_time else "count"](x)
        parts.append(f"<text x={px(x):.1f} y={HEIGHT - 10} text-anchor=middle>{label}</text>")
    parts.append(f'<path class=axis d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    for line in sorted(lines, key=lambda each: not each.faint):
        points = [(px(x), py(y)) for x, y in zip(getattr(line.series, against), line.series.y, strict=True)]
        d = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        kind = f"c{line.colour}{' faint' if line.faint else ''}"
        parts.append(f'<path class="line {kind}" d="{d}"/>')
        if line.dots:
            parts += [f'<circle class="{kind}" cx={x:.1f} cy={y:.1f} r=3 />' for x, y in points]
    named = [line for line in lines if not line.faint]
    data = json.dumps(
        {
            "x": [x0, x1], "left": LEFT, "right": WIDTH - RIGHT, "unit": "time" if of_time else "count",
            "value": chart.value,
            "lines": [
                {
                    "name": line.series.name, "colour": line.colour,
                    "x": [round(x, 3) for x in getattr(line.series, against)],
                    "y": [float(f"{y:.5g}") for y in line.series.y],
                }
                for line in named
            ],
        }
    )  # fmt: skip
    label = f"{chart.title} against {'time' if of_time else 'tokens'}"
    return (
        f'<svg class="{against}" viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{escape(label)}" '
        f'data-lines="{escape(data)}">{"".join(parts)}<path class=cursor d=""/></svg>'
    )
