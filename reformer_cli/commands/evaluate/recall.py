"""`reformer evaluate recall`: what a model can still find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.commands.evaluate.output import (
    CsvOption,
    JsonOption,
    PlotOption,
    SeedOption,
    begin,
    print_json,
    write_csv,
)
from reformer_cli.commands.options import BucketsOption, DeviceOption, OverwriteOption, RunOption
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import aligned
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.evaluate import prepared_text
from reformer_cli.workflows.open_model import open_model, open_run, refused

if TYPE_CHECKING:
    from reformer_cli.evaluation.recall import Outcome
    from reformer_cli.evaluation.recall_suite import Haystack
    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.base import Tokenizer

MAX_DISTANCE = 16_384  # tokens back, where --max-distance is not given
AS_TRAINED = "as trained"


def recall(
    run: RunOption = None,
    test: Annotated[
        list[str] | None, typer.Option(help="copy, associative or needle; may be repeated; default: all that can be.")
    ] = None,
    max_distance: Annotated[int, typer.Option(min=64, help="How far back to test, in tokens.")] = MAX_DISTANCE,
    text: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Where to plant sentences; default: the end of the run's own text."),
    ] = None,
    n_hashes: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Hash rounds to compare, such as 1,2,4,8,full; full: attention to everything (copy alone).",
        ),
    ] = None,
    far_buckets: BucketsOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    csv: CsvOption = False,
    plot: PlotOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
) -> None:
    """What the model can still find: copies of random symbols, values of keys, sentences planted in a text.

    The tests are made from --seed of the run's own vocabulary; nothing is learnt for them. All are scored greedily: a
    token is right if it is the likeliest one.
    """
    from reformer.rehash import check_hashed

    from reformer_cli.data.copy_task import find
    from reformer_cli.evaluation.recall import TESTS, alphabet_of
    from reformer_cli.evaluation.recall_suite import lengths_of, outcomes, parse_rounds, tokens_to_read

    begin(json, csv, plot, overwrite)
    wanted = list(dict.fromkeys(test or TESTS))
    if wrong := [name for name in wanted if name not in TESTS]:
        raise UserError(f"--test {wrong[0]} is not known", f"use {', '.join(TESTS)}")
    variants = parse_rounds(n_hashes) if n_hashes is not None else [None]
    opened = open_run(run)
    if n_hashes is not None:
        with refused("--n-hashes"):
            check_hashed(opened.config.model)
    tokenizer, model = open_model(opened, device, far_buckets=far_buckets)
    source = find(opened.config.data.corpus)
    if source is not None and text is None and "needle" in wanted:
        if test:
            raise UserError(f"a run trained on {source} has no text to plant sentences in", "name one with --text")
        wanted.remove("needle")
    alphabet = alphabet_of(tokenizer, source)
    haystack = _haystack(opened, tokenizer, text, max_distance) if "needle" in wanted else None
    trained = source.length if source is not None else None
    lengths = lengths_of(wanted, max_distance, trained, model.config.max_length, haystack, say)
    if model.config.chunked:
        say("attention in chunks: copies are read in one pass, as it was trained; all else by the rule of decoding")
    found: dict[str, list[Outcome]] = {}
    for n in variants:
        with shown("reading" if n is None else f"reading, rounds {n}", tokens_to_read(lengths), say) as advance:
            name = AS_TRAINED if n is None else n if isinstance(n, str) else f"{n} round{'s' if n > 1 else ''}"
            found[name] = list(outcomes(model, n, tokenizer, alphabet, haystack, lengths, seed, advance))
    chance = 1 / len(alphabet.symbols)
    if json:
        each = {name: [o.as_dict() for o in outcomes] for name, outcomes in found.items()}
        print_json({"seed": seed, "symbols": len(alphabet.symbols), "chance": chance, "n_hashes": each})
    elif csv:
        write_csv([{"n_hashes": name} | o.as_dict() for name, outcomes in found.items() for o in outcomes])
    else:
        typer.echo(_report(found, chance))
    if plot is not None:
        from reformer_cli.workflows.plot import plot_recall

        plot_recall(found, chance, plot)


def _haystack(run: Run, tokenizer: Tokenizer, text: str | None, longest: int) -> Haystack:
    """Of a file, or of the run's own text."""
    import numpy as np

    from reformer_cli.data.text_chunks import read_pieces
    from reformer_cli.evaluation.recall_suite import end_of_corpus, haystack_of

    if text is None:
        tokens = prepared_text(run, tokenizer).tokens
        return haystack_of(end_of_corpus(tokens, longest), tokenizer)
    held: list[Any] = [np.zeros(0, np.int32)]
    for piece in read_pieces(text, join=run.config.data.unwrap == "join"):
        held.append(tokenizer.encode(piece))
        if sum(map(len, held)) >= longest:
            break
    return haystack_of(np.concatenate(held)[:longest], tokenizer)


def _report(found: dict[str, list[Outcome]], chance: float) -> str:
    """Tables for people: one a test, rounds side by side; needles as a map of depth and length."""
    parts = []
    titles = {
        "copy": "copies of random symbols (0 w 0 w): share of the second w that is right",
        "associative": "values of keys that come again: share right",
    }
    for test, title in titles.items():
        distances = sorted({o.distance for each in found.values() for o in each if o.test == test})
        if distances:
            parts.append(f"{title}; by chance {chance:.1%}\n{_by_distance(found, test, distances)}")
    for name, outcomes in found.items():
        if any(o.test == "needle" for o in outcomes):
            which = "" if name == AS_TRAINED else f", {name}"
            parts.append(
                f"sentences planted in a text{which}: share of their last words' tokens right, after their first words "
                f"(in brackets: where they had not been planted)\n{_needle_map(outcomes)}"
            )
    return "\n\n".join(parts) if parts else "no test fits"


def _by_distance(found: dict[str, list[Outcome]], test: str, distances: list[int]) -> str:
    head = ["tokens back", "asked"]
    for name in found:
        head += [name, "nats"]
    rows = [head]
    for distance in distances:
        row = [f"{distance:,}", ""]
        for outcomes in found.values():
            o = next((o for o in outcomes if (o.test, o.distance) == (test, distance)), None)
            row += [f"{o.share:.1%}", f"{o.nats:.2f}"] if o is not None else ["-", "-"]
            row[1] = f"{o.asked:,}" if o is not None else row[1]
        rows.append(row)
    return aligned(rows)


def _needle_map(outcomes: list[Outcome]) -> str:
    needles = [o for o in outcomes if o.test == "needle"]
    lengths = sorted({o.length for o in needles})
    rows = [["depth", *(f"{n:,} tokens" for n in lengths)]]
    for depth in sorted({o.depth or 0.0 for o in needles}):
        cells = []
        for length in lengths:
            o = next(o for o in needles if (o.length, o.depth) == (length, depth))
            cells.append(f"{o.share:.0%} ({(o.right_without or 0) / o.asked:.0%})")
        rows.append([f"{depth:.0%}", *cells])
    return aligned(rows)
