"""Line charts side by side in one SVG file that stands alone: what `--plot FILE.svg` writes without matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from reformer_cli.report.axes import count, extent, plain, ticks

WIDTH, HEIGHT = 420, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 46  # margins
LEGEND = 18  # height of a line of it
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")


@dataclass(frozen=True)
class Panel:
    """lines: name -> points (x > 0, y), against a logarithmic axis. labels: what to write at an x instead of it."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    labels: Mapping[float, str] | None = None


def panels_svg(title: str, panels: Sequence[Panel]) -> str:
    """The panels under a title, each with its legend."""
    drawn = [panel for panel in panels if any(panel.lines.values())]
    height = 24 + HEIGHT + LEGEND * max((len(panel.lines) for panel in drawn), default=0)
    width = WIDTH * max(1, len(drawn))
    parts = [_text(width / 2, 16, title, "middle", 14)]
    parts += [f'<g transform="translate({WIDTH * n} 24)">{_panel(panel)}</g>' for n, panel in enumerate(drawn)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    return f'{head}<rect width="{width}" height="{height}" fill="white"/>{"".join(parts)}</svg>\n'


def _panel(panel: Panel) -> str:
    points = [point for line in panel.lines.values() for point in line]
    x0, x1 = extent([math.log(x) for x, _ in points])
    y0, y1 = extent([y for _, y in points])

    def px(x: float) -> float:
        return LEFT + (math.log(x) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def py(y: float) -> float:
        return TOP + (y1 - y) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    parts = [_text(WIDTH / 2, 20, panel.title, "middle", 12), _text(LEFT - 44, TOP - 6, panel.y, "start")]
    for y in ticks(y0, y1, 5):
        parts.append(f'<path stroke="#ddd" d="M{LEFT} {py(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, py(y) + 4, plain(y), "end"))
    for x in sorted({x for x, _ in points}):
        parts.append(_text(px(x), HEIGHT - BOTTOM + 16, (panel.labels or {}).get(x) or count(x), "middle", 9))
    parts.append(_text(WIDTH / 2, HEIGHT - 10, panel.x, "middle"))
    for n, (name, line) in enumerate(panel.lines.items()):
        colour = COLOURS[n % len(COLOURS)]
        places = [f"{px(x):.1f} {py(y):.1f}" for x, y in line]
        if places:
            parts.append(f'<path fill="none" stroke="{colour}" stroke-width="2" d="M{"L".join(places)}"/>')
        parts += [f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="3" fill="{colour}"/>' for x, y in line]
        at = HEIGHT + LEGEND * n
        parts.append(f'<rect x="{LEFT}" y="{at}" width="12" height="4" fill="{colour}"/>')
        parts.append(_text(LEFT + 18, at + 7, name, "start"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str, size: int = 10) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
