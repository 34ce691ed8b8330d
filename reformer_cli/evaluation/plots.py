"""Pictures of what the evaluate commands measure. matplotlib comes with the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reformer_cli.evaluation.context_curve import Curve, named
from reformer_cli.evaluation.hash_view import LayerSummary
from reformer_cli.evaluation.recall import TESTS, Outcome

COUNT = FuncFormatter(lambda x, _: f"{x:,.0f}")


def save(figure: Figure, path: Path) -> None:
    """Write a picture; the ending says of which kind."""
    figure.savefig(path, dpi=120)


def plot_positions(texts: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Nats per token by position; texts: name -> the records of `--json`'s by_position."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, parts in texts.items():
        places = [(max(1, p["from"]) * p["to"]) ** 0.5 for p in parts]
        (line,) = axes.plot(places, [p["nats_per_token"] for p in parts], marker="o", label=Path(name).name)
        spans = [
            (x, *p["intervals"]["nats_per_token"])
            for x, p in zip(places, parts, strict=True)
            if p["intervals"]["nats_per_token"]
        ]
        if spans:
            x, low, high = zip(*spans, strict=True)
            axes.fill_between(x, low, high, alpha=0.2, color=line.get_color())
    _logarithmic(axes, [(max(1, p["from"]) * p["to"]) ** 0.5 for parts in texts.values() for p in parts])
    axes.set(xlabel="tokens before the scored one", ylabel="nats per token")
    if len(texts) <= 10:
        axes.legend(fontsize="small")
    save(figure, path)


def plot_lines(lines: Mapping[str, Sequence[tuple[float, float]]], title: str, x: str, y: str, path: Path) -> None:
    """Points (x, y) by name, against a logarithmic axis."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    _logarithmic(axes, [1, 2, 3, 5, 8, 13, 20, 50])
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.legend(fontsize="small")
    save(figure, path)


def plot_curve(curve: Curve, title: str, path: Path) -> None:
    """Bits/byte against context of all tokens; and what context saves by how far back a word last occurred, for all
    words and for rare names."""
    places = [float(c) for c in curve.contexts if c is not None]
    places.append(max(float(curve.seen[1]), places[-1] * 3 if places else 1))
    bands = curve.bands() if curve.recurrence is not None else []
    figure = Figure(figsize=(13 if bands else 5, 5.5 if bands else 4.8), layout="constrained")
    axes = figure.subplots(1, 3 if bands else 1, squeeze=False)[0]
    bits = [curve.bits(n)[0] for n in range(len(places))]
    axes[0].plot(places, bits, marker="o", color="black")
    differences = [curve.saved(0, n)[1] for n in range(len(places))]
    if all(d is not None for d in differences):
        low, high = zip(*((bits[0] - d[1], bits[0] - d[0]) for d in differences if d is not None), strict=True)
        label = f"95 % interval of what is saved over {named(curve.contexts[0])}"
        axes[0].fill_between(places, low, high, alpha=0.15, color="black", label=label)
        axes[0].legend(fontsize="small")
    axes[0].set(title="all tokens", ylabel="bits per byte")
    shown: dict[str, Any] = {}  # band -> its line
    for at, names in ((1, False), (2, True)) if bands else ():
        for n, band in enumerate(bands):
            where = curve.in_band(band, names)
            if where.any():
                saved = [curve.saved(0, k, where)[0] for k in range(len(places))]
                (shown[str(band)],) = axes[at].plot(places, saved, marker="o", color=f"C{n}")
        kind = "rare names" if names else "words"
        axes[at].set(title=f"{kind}: saved over {named(curve.contexts[0])}", ylabel="bits per byte saved")
        axes[at].axhline(0, color="grey", linestyle=":")
    if shown:
        title_of = "word last seen, in tokens"
        figure.legend(shown.values(), shown, title=title_of, loc="outside lower center", ncols=5, fontsize="small")
    for each in axes:
        each.set_xscale("log", base=4)
        each.set_xticks(places, [named(c) for c in curve.contexts], rotation=45, ha="right", rotation_mode="anchor")
        each.minorticks_off()
        each.set_xlabel("tokens of context")
        each.grid(alpha=0.3)
    figure.suptitle(title)
    save(figure, path)


def plot_recall(outcomes: Mapping[str, Sequence[Outcome]], chance: float, path: Path) -> None:
    """Shares found: copies and pairs by distance, needles by depth and length; outcomes: rounds -> of all tests."""
    tested = {o.test for each in outcomes.values() for o in each}
    kinds = [kind for kind in TESTS if kind in tested]
    figure = Figure(figsize=(4.8 * len(kinds), 4.3), layout="constrained")
    axes = dict(zip(kinds, figure.subplots(1, len(kinds), squeeze=False)[0], strict=True))
    for kind in kinds:
        if kind == "needle":
            _needles(figure, axes[kind], next(iter(outcomes.values())), next(iter(outcomes)))
            continue
        for rounds, each in outcomes.items():
            points = [(o.distance, o.share) for o in each if o.test == kind]
            if points:
                axes[kind].plot(*zip(*points, strict=True), marker="o", label=rounds)
        axes[kind].axhline(chance, color="grey", linestyle=":", label="chance")
        title = "copy of random symbols" if kind == "copy" else "values of keys"
        axes[kind].set(title=title, xlabel="tokens back", ylabel="share right", ylim=(-0.03, 1.03))
        _logarithmic(axes[kind], [o.distance for each in outcomes.values() for o in each if o.test == kind])
        axes[kind].legend(fontsize="small")
    save(figure, path)


def _needles(figure: Figure, axes: Axes, outcomes: Sequence[Outcome], rounds: str) -> None:
    found = [o for o in outcomes if o.test == "needle"]
    lengths, depths = sorted({o.length for o in found}), sorted({o.depth for o in found if o.depth is not None})
    grid = np.full((2, len(depths), len(lengths)), np.nan)
    for o in found:
        if o.depth is not None:
            grid[:, depths.index(o.depth), lengths.index(o.length)] = o.share, (o.right_without or 0) / o.asked
    image = axes.imshow(grid[0], vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for (y, x), share in np.ndenumerate(grid[0]):
        text = f"{share:.0%} ({grid[1, y, x]:.0%})"
        axes.text(x, y, text, ha="center", va="center", color="white" if share < 0.6 else "black")
    axes.set_xticks(range(len(lengths)), [f"{n:,}" for n in lengths])
    axes.set_yticks(range(len(depths)), [f"{d:.0%}" for d in depths])
    axes.set(
        title=f"planted sentence, {rounds} (not planted)", xlabel="tokens of text", ylabel="depth (0 %: its beginning)"
    )
    figure.colorbar(image, ax=axes, label="share of its end right")


def _logarithmic(axes: Axes, places: Sequence[float]) -> None:
    axes.set_xscale("log", base=4)
    axes.xaxis.set_major_formatter(COUNT)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    if len(set(places)) == 1:
        axes.set_xlim(places[0] / 4, places[0] * 4)


def plot_attention(layers: Sequence[LayerSummary], tokens: int, path: Path) -> None:
    """A row a layer: who sees whom, how full the buckets are, what share of the true top keys is found."""
    figure = Figure(figsize=(13, 3.6 * len(layers)), layout="constrained")
    for axes, layer in zip(figure.subplots(len(layers), 3, squeeze=False), layers, strict=True):
        shown = np.ma.masked_equal(layer.raster, 0)
        image = axes[0].imshow(shown, cmap="viridis", extent=(0, tokens, tokens, 0), interpolation="nearest")
        axes[0].set(title=f"{layer.layer}: who sees whom", xlabel="earlier token", ylabel="token")
        whole = MaxNLocator(integer=True)
        figure.colorbar(image, ax=axes[0], label="rounds and heads that see it", ticks=whole)
        for r, row in enumerate(layer.sizes):
            axes[1].plot(np.arange(1, len(row) + 1), row, label=f"round {r}")
        axes[1].axhline(tokens / layer.sizes.shape[1], color="grey", linestyle=":", label="all alike")
        axes[1].set(title="tokens in each bucket", xlabel="bucket, fullest first", yscale="symlog")
        axes[1].set_ylim(bottom=0)
        axes[1].legend(fontsize="small")
        names = [f"round {r.round}" if r.round is not None else "together" for r in layer.reach]
        axes[2].bar(names, [r.top_found for r in layer.reach], color=[*["C0"] * (len(names) - 1), "C1"])
        axes[2].set(title="share of the true top keys seen", ylim=(0, 1))
        axes[2].tick_params(axis="x", rotation=45 if len(names) > 5 else 0)
    save(figure, path)
