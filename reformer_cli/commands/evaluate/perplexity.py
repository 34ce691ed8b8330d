"""`reformer evaluate`: how well a trained model predicts text, and by which commands else it is measured."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.commands.evaluate import attention, context, harness, recall
from reformer_cli.commands.evaluate.output import (
    CsvOption,
    FilesArgument,
    JsonOption,
    PlotOption,
    aligned,
    begin,
    held_out,
    print_json,
    span,
    write_csv,
)
from reformer_cli.commands.options import BucketsOption, DeviceOption, RunOption
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import as_size
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.evaluate_images import scored_images
from reformer_cli.workflows.open_model import open_model, open_run

if TYPE_CHECKING:
    from reformer import ReformerLM

    from reformer_cli.data.batches import ValidationWindow
    from reformer_cli.evaluation.likelihood import ContextRule, ScoreSums
    from reformer_cli.evaluation.token_facts import Facts
    from reformer_cli.tokenizers.base import Ids, Tokenizer

MOST_TABLES = 3  # texts with a table each; more have a line each
app = typer.Typer(help="Measure a trained model.", rich_markup_mode=None)
LABELS = {
    "nats_per_token": ("nats/token", 4),
    "perplexity": ("perplexity", 2),
    "bits_per_byte": ("bits/byte", 4),
    "bits_per_character": ("bits/character", 4),
    "word_perplexity": ("word perplexity", 1),
}  # figure -> its name for people, and digits
OF_IMAGES = {"nats_per_token": ("nats/value", 4), "perplexity": ("perplexity", 2), "bits_per_byte": ("bits/dim", 4)}


@app.callback()
def evaluate() -> None:
    """Measure a trained model: how well it predicts, how far back it looks, what it can still find."""


@app.command("perplexity")
def perplexity(
    files: FilesArgument = None,
    run: RunOption = None,
    context: Annotated[
        int | None,
        typer.Option(min=2, help="Let each token see fewer than so many before it, at least half; default: all."),
    ] = None,
    by_position: Annotated[bool, typer.Option("--by-position", help="Also the figures by place in the text.")] = False,
    n_hashes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Hash rounds instead of those that the model was trained with.")
    ] = None,
    far_buckets: BucketsOption = None,
    likelihood: Annotated[
        str | None,
        typer.Option(
            metavar="decoding|forward",
            help="As generation computes it, or by passes as in training, of --context tokens (default: the trained "
            "context). They differ for pattern published alone, of which forward is the default.",
        ),
    ] = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    plot: PlotOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Score texts or images: each token once, given everything before it, the first one given the end-of-text token.

    Files are scored whole, as they are, however long; each figure comes with its 95 % bootstrap interval.
    """
    from reformer_cli.evaluation.likelihood import DECODING, FORWARD, reading_of, reading_of_images

    begin(json, csv, plot)
    if plot is not None and not by_position:
        raise UserError("--plot draws the figures by position", "add --by-position")
    if likelihood not in (None, DECODING, FORWARD):
        raise UserError(f"--likelihood {likelihood!r} is not known", f"use {DECODING} or {FORWARD}")
    opened = open_run(run, images=True)
    tokenizer, model = open_model(opened, device, n_hashes=n_hashes, far_buckets=far_buckets)
    reading = reading_of(model.config, opened.config.data.context, context, likelihood)
    images = opened.config.data.image_size is not None
    if images and context is None:
        reading = reading_of_images(model.config, opened.config.data.context, likelihood)
    windows: Sequence[ValidationWindow] = (
        [] if files else held_out(opened, tokenizer, reading.context or opened.config.data.context)
    )
    if windows and not images:
        say(f"scoring the held-out last part of {len(windows)} {'text' if len(windows) == 1 else 'texts'}")
    show = table if images or len(files or windows) <= MOST_TABLES else line
    found: dict[str, ScoreSums] = {}
    rule = reading.rule(model.config, images)
    settings = {"context": reading.context, "likelihood": FORWARD if reading.forward else DECODING}
    settings |= {"n_hashes": n_hashes, "far_buckets": far_buckets}
    try:
        given = (model, tokenizer, files or [], windows, reading)
        for name, tally in scored_images(opened, *given) if images else _scored(*given):
            found[name := _unlike(name, found)] = tally
            if not (json or csv):
                typer.echo(show(name, [tally]))
    finally:  # what is wrong with a later file does not cost the figures of those before it
        if found:
            _print(found, settings | {"rule": rule}, by_position, json, csv)
    if plot is not None:
        from reformer_cli.evaluation.plots import plot_positions

        plot_positions({name: _record([tally], True)["by_position"] for name, tally in found.items()}, plot)


def _unlike(name: str, others: Container[str]) -> str:
    """The name, or with a number where it is taken: a file may be named twice."""
    n = 2
    while (numbered := f"{name} ({n})") in others:
        n += 1
    return numbered if name in others else name


def _print(found: dict[str, ScoreSums], settings: dict[str, Any], by_position: bool, json: bool, csv: bool) -> None:
    """All texts together, and what is printed after all of them."""
    everything = list(found.values())
    if json:
        each = {name: _record([tally], by_position) for name, tally in found.items()}
        print_json(_record(everything, by_position) | settings | {"files": each})
    elif csv:
        rows = [row for name, tally in found.items() for row in _rows(name, [tally], by_position)]
        write_csv(rows + (_rows("total", everything, by_position) if len(found) > 1 else []))
        say(settings["rule"])
    else:
        if len(found) > 1:
            typer.echo(table("total", everything))
        if by_position:
            typer.echo("\n" + _position_table(everything))
        typer.echo("\n" + settings["rule"])


def line(name: str, tallies: list[ScoreSums]) -> str:
    """The chief figures of one text among many."""
    record = _record(tallies, False)
    interval = span(record["intervals"]["bits_per_byte"])
    bits = f"{record['bits_per_byte']:.4f} {_labels(tallies)['bits_per_byte'][0]}{f' ({interval})' if interval else ''}"
    return f"{name}: {record['tokens']:,} tokens, {bits}, perplexity {record['perplexity']:,.2f}"


def table(name: str, tallies: list[ScoreSums]) -> str:
    """The figures of one text, or of several together, for people."""
    record = _record(tallies, False)
    rows = [["  tokens", f"{record['tokens']:,}", ""], ["  bytes", f"{record['bytes']:,}", ""]]
    for figure, (label, digits) in _labels(tallies).items():
        rows.append([f"  {label}", f"{record[figure]:,.{digits}f}", span(record["intervals"][figure], digits)])
    head = f"{name} (95 % interval over blocks of {record['block_tokens']:,} tokens)"
    return f"{head}\n{aligned(rows)}"


def _labels(tallies: list[ScoreSums]) -> dict[str, tuple[str, int]]:
    return OF_IMAGES if tallies[0].images else LABELS


def _record(tallies: list[ScoreSums], by_position: bool) -> dict[str, Any]:
    """Figures of texts together by the names that `--json` prints."""
    from reformer_cli.evaluation.likelihood import bin_range, pooled

    score, intervals = pooled([t.blocks for t in tallies])
    record: dict[str, Any] = score.as_dict()
    if tallies[0].images:  # of which a dimension is a byte
        record["bits_per_dim"] = record["bits_per_byte"]
    record |= {"intervals": intervals, "block_tokens": max(t.blocks.size for t in tallies)}
    if by_position:
        record["by_position"] = []
        for n in range(max(len(t.bins) for t in tallies)):
            part, part_intervals = pooled([t.bins[n] for t in tallies if len(t.bins) > n])
            if part.tokens:
                low, high = bin_range(n)
                record["by_position"].append({"from": low, "to": high} | part.as_dict() | {"intervals": part_intervals})
    return record


def _rows(name: str, tallies: list[ScoreSums], by_position: bool) -> list[dict[str, Any]]:
    """As `_record`, for CSV: one row in all, one for each range of positions."""
    record = _record(tallies, by_position)
    rows = []
    for part in [record, *record.get("by_position", [])]:
        row = {"text": name, "from": part.get("from"), "to": part.get("to")}
        row |= {key: part[key] for key in ("tokens", "bytes", "characters", "words")}
        for figure in LABELS:
            low, high = part["intervals"][figure] or (None, None)
            row |= {figure: part[figure], f"{figure}_low": low, f"{figure}_high": high}
        rows.append(row)
    return rows


def _position_table(tallies: list[ScoreSums]) -> str:
    rows = [["tokens before it", "tokens", "nats/token", "95 % interval", "bits/byte"]]
    for part in _record(tallies, True)["by_position"]:
        interval = span(part["intervals"]["nats_per_token"])
        numbers = [f"{part['tokens']:,}", f"{part['nats_per_token']:.4f}", interval, f"{part['bits_per_byte']:.4f}"]
        rows.append([f"{part['from']:,} - {part['to']:,}", *numbers])
    return aligned(rows)


def _scored(
    model: ReformerLM, tokenizer: Tokenizer, files: list[str], windows: Sequence[ValidationWindow], reading: ContextRule
) -> Iterator[tuple[str, ScoreSums]]:
    """Each text with its sums."""
    import torch

    from reformer_cli.data.text_chunks import check_readable, read_pieces, size_of
    from reformer_cli.evaluation.likelihood import encoded, score_pieces
    from reformer_cli.evaluation.token_facts import facts_of

    limit, context = model.config.max_length, reading.context
    if limit is not None and (context or 0) > limit:
        raise UserError(f"--context {context:,} exceeds the {limit:,} positions of this model")
    for name in files:
        check_readable(name)
    for name in files:
        pieces: Iterable[tuple[Ids, Facts]] = encoded(tokenizer, _noted(tokenizer, name, read_pieces(name)))
        if limit is not None and context is None:
            pieces = _fitting(pieces, name, limit)
        reader = reading.reader(model, torch.tensor([tokenizer.end]))
        with shown(f"scoring {name}", size_of(name), say, as_size) as advance:
            tally = score_pieces(reader, pieces, 0, advance)
        if not tally.score.tokens:
            raise UserError(f"{name} is empty", "there is nothing to score")
        yield name, tally
    for w in windows:
        if limit is not None and context is None and len(w.prefix) + len(w.scored) > limit:
            raise UserError(
                f"{len(w.prefix) + len(w.scored):,} tokens exceed the {limit:,} positions of this model",
                f"use --context {limit}",
            )
        ids = w.scored.numpy().astype("int32")
        facts = facts_of(tokenizer.decode(ids), ids, tokenizer.byte_lengths())
        with shown(f"scoring {w.name}", w.text.bytes, say, as_size) as advance:
            tally = score_pieces(reading.reader(model, w.prefix), [(ids, facts)], len(w.prefix), advance)
        yield f"{w.name} (held out)", tally


def _noted(tokenizer: Tokenizer, name: str, pieces: Iterable[str]) -> Iterator[str]:
    """The pieces of a text; says what a tokenizer from elsewhere loses of the first."""
    from reformer_cli.tokenizers.sentencepiece import losses

    for n, piece in enumerate(pieces):
        if n == 0 and not tokenizer.lossless and (lost := losses(tokenizer, piece)):
            say(f"note: the tokenizer loses of {name} {lost}; what is lost is not predicted, and counts as bytes")
        yield piece


def _fitting(pieces: Iterable[tuple[Ids, Facts]], name: str, limit: int) -> list[tuple[Ids, Facts]]:
    """All pieces of a text that a model with numbered positions can read at once. Raises UserError for more."""
    found, count = [], 1
    for piece in pieces:
        found.append(piece)
        count += len(piece[0])
        if count > limit:
            raise UserError(
                f"{name} has more tokens than the {limit:,} positions of this model", f"use --context {limit}"
            )
    return found


app.command("context")(context.context)
app.command("recall")(recall.recall)
app.command("attention")(attention.attention)
app.command("harness")(harness.harness)
