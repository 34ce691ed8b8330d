"""Pictures of what was measured: by matplotlib where it is installed, else as .svg by our own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reformer_cli.evaluation.context_curve import Curve, named
from reformer_cli.evaluation.recall import Outcome
from reformer_cli.report.panels import Panel, panels_svg
from reformer_cli.utils.files import write_file
from reformer_cli.workflows.result import has_matplotlib


def plot_positions(texts: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Nats per token by position; texts: name -> the records of `--json`'s by_position."""
    if has_matplotlib():
        from reformer_cli.evaluation import plots

        plots.plot_positions(texts, path)
        return
    lines = {
        Path(name).name: [((max(1, p["from"]) * p["to"]) ** 0.5, p["nats_per_token"]) for p in parts]
        for name, parts in texts.items()
    }
    _write(path, "by position", [Panel("", "tokens before the scored one", "nats per token", lines)])


def plot_curve(curve: Curve, title: str, path: Path) -> None:
    """Bits/byte against context of all tokens; what context saves by how far back a word last occurred."""
    if has_matplotlib():
        from reformer_cli.evaluation import plots

        plots.plot_curve(curve, title, path)
        return
    places = [float(c) for c in curve.contexts if c is not None]
    places.append(max(float(curve.seen[1]), places[-1] * 3 if places else 1))
    labels = dict(zip(places, map(named, curve.contexts), strict=True))
    bits = [(x, curve.bits(n)[0]) for n, x in enumerate(places)]
    panels = [Panel("all tokens", "tokens of context", "bits per byte", {"all": bits}, labels)]
    for names in (False, True) if curve.recurrence is not None else ():
        lines = {
            str(band): [(x, curve.saved(0, n, where)[0]) for n, x in enumerate(places)]
            for band in curve.bands()
            if (where := curve.in_band(band, names)).any()
        }
        kind = "rare names" if names else "words"
        panels.append(Panel(f"{kind}, by when last seen", "tokens of context", "bits per byte saved", lines, labels))
    _write(path, title, panels)


def plot_recall(outcomes: Mapping[str, Sequence[Outcome]], chance: float, path: Path) -> None:
    """Shares found by distance, of planted sentences by length of the text; outcomes: rounds -> of all tests."""
    if has_matplotlib():
        from reformer_cli.evaluation import plots

        plots.plot_recall(outcomes, chance, path)
        return
    titles = {"copy": "copy of random symbols", "associative": "values of keys", "needle": "planted sentences"}
    panels = []
    for test, title in titles.items():
        lines: dict[str, list[tuple[float, float]]] = {}
        for name, each in outcomes.items():
            for o in (o for o in each if o.test == test):
                of = f"{name}, depth {o.depth:.0%}" if o.depth is not None else name
                lines.setdefault(of, []).append((float(o.distance if o.depth is None else o.length), o.share))
        x = "tokens of text" if test == "needle" else "tokens back"
        panels.append(Panel(title, x, "share right", lines))
    _write(path, f"by chance {chance:.1%}", panels)


def plot_shares(lines: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Shares of words in copies of at least 1, 2, ... words; lines: name -> of each length."""
    points = {name: [(float(n), share) for n, share in enumerate(each, 1)] for name, each in lines.items()}
    x, y = "words of the copy, at least", "share of words"
    if has_matplotlib():
        from reformer_cli.evaluation import plots

        plots.plot_lines(points, title, x, y, path)
        return
    labels = {float(n): str(n) if n in (1, 2, 3, 5, 8, 13, 20, 50) else " " for n in range(1, 51)}
    _write(path, title, [Panel("", x, y, points, labels)])


def _write(path: Path, title: str, panels: Sequence[Panel]) -> None:
    write_file(path, panels_svg(title, panels))
