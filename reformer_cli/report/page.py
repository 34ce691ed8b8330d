"""A run as one HTML page: nothing is fetched, and nothing that the run says is taken for HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from reformer_cli.config.load import describe
from reformer_cli.config.schema import GRADIENT_CLIP, SECTIONS, RunConfig
from reformer_cli.report.axes import count, plain
from reformer_cli.report.chart import Chart, Line, figure
from reformer_cli.report.records import Records, Series, number
from reformer_cli.utils.format import as_size, as_time

COLOURS = 8
MOST_SAMPLES = 30
KNOWN = ("step", "tokens", "seconds", "val_bits_per_byte", "val_tokens", "effective_buckets", "peak_bytes")
# Only what is in the page itself, whatever text got into it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(name: str, config: RunConfig, records: Records, made: str) -> str:
    """The whole page; made: when and by what."""
    here = Path(__file__).parent
    style, script = (here / "style.css").read_text("utf-8"), (here / "cursor.js").read_text("utf-8")
    figures = "".join(figure(chart) for chart in charts(config, records))
    parts = [
        f"<h1>{escape(name)}</h1><p>{escape(', '.join(config.data.corpus))}</p>",
        _tiles(records),
        "<h2>Training</h2><div class=against>drawn against "
        "<label><input type=radio name=x id=tokens checked> tokens</label>"
        "<label><input type=radio name=x id=seconds> time</label></div>"
        f"<div class=charts>{figures}</div>"
        if figures
        else "<p>No step was logged yet.</p>",
        _events(records),
        _validations(records),
        _samples(records.samples),
        f"<h2>Configuration</h2><p>Bold: other than the default.</p>{_configuration(config)}",
        f"<p>{escape(made)}</p>",
    ]
    return f"{head(name, style)}<body>{''.join(parts)}<div id=tip></div><script>{script}</script></body></html>\n"


def head(name: str, style: str) -> str:
    """The beginning of a page that uses nothing but what is in it."""
    return (
        f'<!doctype html><html lang=en><head><meta charset=utf-8><meta http-equiv="Content-Security-Policy" '
        f'content="{POLICY}"><meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{style}</style></head>"
    )


def charts(config: RunConfig, records: Records) -> Iterable[Chart]:
    """In the order of the page; one whose lines have no points is left out there."""
    held_out = records.of("val_bits_per_byte")
    of_loss = _with_mean(records.of("loss"), "training")
    yield Chart("Loss, nats per token", of_loss)
    bits = _with_mean(records.of("bits_per_byte"), "training")
    yield Chart("Bits per byte of text", [*bits, Line(held_out, 2, dots=True)])
    rate = records.of("learning_rate")
    yield Chart("Learning rate", [Line(_named(rate.thin(), "learning rate"), 1)], from_zero=True)
    yield Chart("Speed, tokens per second", _with_mean(records.of("tokens_per_second"), "tokens/s"), "count", True)
    peak = _named(records.of("peak_bytes").thin(), "peak so far")
    yield Chart("Memory", [Line(peak, 1)], "bytes", True)
    norm = _with_mean(records.of("gradient_norm"), "gradient norm")
    yield Chart("Gradient norm", norm, from_zero=True, note=f"Before clipping; steps are cut to {GRADIENT_CLIP:g}.")
    layers = [Line(s, 1 + n, dots=True) for n, s in enumerate(_few(records.layers))]
    buckets = config.model.hash_rounds
    most = sum(buckets) // len(buckets)
    note = f"1 / sum of squared shares, mean of rounds and heads, on held-out text; at most {most:,}."
    yield Chart("Bucket balance, effective buckets", layers, from_zero=True, note=note)
    context = records.of("context")
    if len(set(context.y)) > 1:
        yield Chart("Context, tokens", [Line(_named(context.thin(), "context"), 1)], "count", True)


def _with_mean(series: Series, name: str) -> list[Line]:
    mean = _named(series.smooth().thin(), name)
    return [Line(series.thin(), 1, faint=True), Line(mean, 1)]


def _named(series: Series, name: str) -> Series:
    return Series(name, series.tokens, series.seconds, series.y)


def _few(layers: Sequence[Series]) -> list[Series]:
    """As many as there are colours, evenly from the first to the last."""
    if len(layers) <= COLOURS:
        return list(layers)
    return [layers[round(n * (len(layers) - 1) / (COLOURS - 1))] for n in range(COLOURS)]


def _tiles(records: Records) -> str:
    speed, peak, held = (records.of(n).y for n in ("tokens_per_second", "peak_bytes", "val_bits_per_byte"))
    tiles = [
        (f"{records.steps:,}", "steps"),
        (count(records.tokens), "tokens"),
        (as_time(records.seconds), "time"),
        (f"{min(held):.3f}" if held else "-", "best held-out bits/byte"),
        (f"{held[-1]:.3f}" if held else "-", "last held-out bits/byte"),
        (count(records.tokens / seconds) if (seconds := step_seconds(records)) else "-", "tokens/s in steps"),
        (as_size(max(peak)) if peak else "-", "peak memory"),
    ]
    if speed and (seconds := step_seconds(records)):
        outside = max(0.0, seconds - records.total("step_seconds"))
        tiles.append((f"{100 * outside / seconds:.2f} %", "of a step outside the model"))
        tiles.append((f"{100 * records.total('data_seconds') / seconds:.2f} %", "of a step waiting for data"))
    return "<div class=tiles>" + "".join(_tile(*tile) for tile in tiles) + "</div>"


def _tile(value: str, what: str) -> str:
    return f"<div class=tile><b>{escape(value)}</b><span>{escape(what)}</span></div>"


def step_seconds(records: Records) -> float:
    """Of all steps, what lies between them left out."""
    speed = records.of("tokens_per_second")
    sizes = [b - a for a, b in zip([0.0, *speed.tokens], speed.tokens, strict=False)]
    return math.fsum(size / rate for size, rate in zip(sizes, speed.y, strict=True) if rate > 0)


def _events(records: Records) -> str:
    rows = [(step, f"left out: {what}") for step, what in records.skipped]
    rows += [(step, f"spike: {what}") for step, what in records.spikes]
    if not rows:
        return "<p>No step was left out, and no loss spike was seen.</p>" if records.steps else ""
    cells = [(f"{step:,}", what) for step, what in sorted(rows)[:200]]
    return f"<h2>Steps left out and loss spikes: {len(rows):,}</h2>{_table(('step', 'what'), cells)}"


def _validations(records: Records) -> str:
    """One row each; what other evaluations log beside it, in columns of its own."""
    if not records.validations:
        return ""
    extra: list[str] = []
    flat: list[dict[str, str]] = []
    for record in records.validations[-200:]:
        row = dict(_flat(record))
        extra += [name for name in row if name not in extra]
        flat.append(row)
    head = ("step", "tokens", "time", "held-out bits/byte", "tokens scored", *extra[:24])
    rows = [
        (
            f"{record['step']:,}", count(record["tokens"]), as_time(record["seconds"]),
            _written(record.get("val_bits_per_byte")), _written(record.get("val_tokens")),
            *(row.get(name, "") for name in extra[:24]),
        )
        for record, row in zip(records.validations[-200:], flat, strict=True)
    ]  # fmt: skip
    return f"<h2>Evaluations</h2>{_table(head, rows)}"


def _flat(record: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in record.items():
        if not prefix and name in KNOWN:
            continue
        if isinstance(value, dict) and not prefix:
            yield from _flat(value, f"{name}: ")
        elif (x := number(value)) is not None:
            yield f"{prefix}{name}"[:80], plain(x)


def _written(value: Any) -> str:
    x = number(value)
    return "" if x is None else f"{x:,.0f}" if x == round(x) and abs(x) >= 100 else f"{x:.4f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(h)}</th>" for h in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"


def _samples(samples: Sequence[tuple[int, str]]) -> str:
    if not samples:
        return ""
    shown = samples[-MOST_SAMPLES:][::-1]
    parts = [
        f"<details{' open' if n == 0 else ''}><summary>step {step:,}</summary><pre>{escape(text)}</pre></details>"
        for n, (step, text) in enumerate(shown)
    ]
    return f"<h2>Samples</h2><p>Drawn at each validation from nothing, newest first.</p>{''.join(parts)}"


def _configuration(config: RunConfig) -> str:
    parts = []
    for section in SECTIONS:
        rows = ""
        for name, default, description in describe(section):
            value = getattr(getattr(config, section), name)
            marked = "" if value == default else " class=set"
            title = escape(description)
            rows += f'<tr title="{title}"{marked}><td>{escape(name)}</td><td>{escape(_setting(value))}</td></tr>'
        parts.append(f"<div class=wide><table><tr><th>{section}</th><th></th></tr>{rows}</table></div>")
    return f"<div class=configuration>{''.join(parts)}</div>"


def _setting(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_setting(v) for v in value) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
