"""`reformer evaluate recall`: what a model can still find."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.commands.scoring import (
    Bar,
    CsvOption,
    JsonOption,
    PlotOption,
    SeedOption,
    aligned,
    begin,
    open_run,
    prepared_text,
    write_csv,
)
from reformer_cli.commands.shared import DeviceOption, RunOption, say
from reformer_cli.errors import UserError

if TYPE_CHECKING:
    from reformer import ReformerLM

    from reformer_cli.evaluation.recall import Alphabet, Outcome, Tokens
    from reformer_cli.evaluation.rounds import Rounds
    from reformer_cli.runs import Run
    from reformer_cli.tokenization.tokenizer import Tokenizer

LONGEST = 16_384  # tokens back, where --longest is not given
AS_TRAINED = "as trained"


def recall(
    run: RunOption = None,
    test: Annotated[
        list[str] | None, typer.Option(help="duplicate, pairs or needle; may be repeated; default: all that can be.")
    ] = None,
    longest: Annotated[int, typer.Option(min=64, help="How far back to test, in tokens.")] = LONGEST,
    text: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Where to plant sentences; default: the end of the run's own text."),
    ] = None,
    rounds: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Hash rounds to compare, such as 1,2,4,8,full; full: attention to everything (duplicate alone).",
        ),
    ] = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    csv: CsvOption = False,
    plot: PlotOption = None,
    device: DeviceOption = "auto",
) -> None:
    """What the model can still find: copies of random symbols, values of keys, sentences planted in a text.

    The tests are made from --seed of the run's own vocabulary; nothing is learnt for them. All are scored greedily: a
    token is right if it is the likeliest one.
    """
    from reformer_cli.evaluation.recall import TESTS, alphabet_of
    from reformer_cli.evaluation.rounds import parse_rounds
    from reformer_cli.tokenization.synthetic import find

    begin(json, csv, plot)
    wanted = list(dict.fromkeys(test or TESTS))
    if wrong := [name for name in wanted if name not in TESTS]:
        raise UserError(f"--test {wrong[0]} is not known", f"use {', '.join(TESTS)}")
    variants = parse_rounds(rounds) if rounds is not None else [None]
    opened, tokenizer, model = open_run(run, device)
    source = find(opened.config.data.corpus)
    if source is not None and text is None and "needle" in wanted:
        if test:
            raise UserError(f"a run trained on {source} has no text to plant sentences in", "name one with --text")
        wanted.remove("needle")
    alphabet = alphabet_of(tokenizer, source)
    haystack = _haystack(opened, tokenizer, text, longest) if "needle" in wanted else None
    lengths = _lengths(wanted, longest, source.length if source else None, model.config.max_length, haystack)
    found = {
        AS_TRAINED if n is None else n if isinstance(n, str) else f"{n} round{'s' if n > 1 else ''}": list(
            _outcomes(model, n, tokenizer, alphabet, haystack, lengths, seed)
        )
        for n in variants
    }
    chance = 1 / len(alphabet.symbols)
    if json:
        each = {name: [o.as_dict() for o in outcomes] for name, outcomes in found.items()}
        typer.echo(json_.dumps({"seed": seed, "symbols": len(alphabet.symbols), "chance": chance, "rounds": each}))
    elif csv:
        write_csv([{"rounds": name} | o.as_dict() for name, outcomes in found.items() for o in outcomes])
    else:
        typer.echo(_report(found, chance))
    if plot is not None:
        from reformer_cli.evaluation.plots import plot_recall

        plot_recall(found, chance, plot)


def _haystack(run: Run, tokenizer: Tokenizer, text: str | None, longest: int) -> tuple[Tokens, list[str]]:
    """Tokens to plant sentences in, at most `longest` of them, and words to make sentences of."""
    import numpy as np

    from reformer_cli.evaluation.recall import common_words
    from reformer_cli.tokenization.pieces import read_pieces

    if text is not None:
        held: list[Any] = [np.zeros(0, np.int32)]
        for piece in read_pieces(text):
            held.append(tokenizer.encode(piece))
            if sum(map(len, held)) >= longest:
                break
        ids = np.concatenate(held)[:longest]
    else:
        tokens = prepared_text(run, tokenizer, "name a text with --text").tokens
        entry = max(tokens.documents, key=lambda d: d.held_out.stop - d.train.start)
        before = tokens.train[entry.train.start + 1 : entry.train.stop]  # without the end-of-text token
        rest = tokens.held_out[entry.held_out.start : entry.held_out.stop]
        ids = np.concatenate([before[-longest:], rest])[-longest:]
    return ids.astype(np.int64), common_words(tokenizer.decode(ids.astype(np.int32)))


def _lengths(
    wanted: list[str], longest: int, trained: int | None, limit: int | None, haystack: tuple[Tokens, list[str]] | None
) -> dict[str, list[int]]:
    """How far each test goes: w of copies, distances of pairs, lengths of texts; what does not fit is said."""
    from reformer_cli.evaluation.recall import NEEDLE_SHORTEST, steps_to

    room = limit if limit is not None else 2**60
    found = {}
    if "duplicate" in wanted:
        lengths = sorted({n for n in [*steps_to(longest), trained or 64] if n <= max(longest, trained or 0)})
        found["duplicate"] = [n for n in lengths if 2 * n + 3 <= room]
    if "pairs" in wanted:
        found["pairs"] = [n for n in steps_to(longest) if 2 * n + 64 <= room]
    if "needle" in wanted and haystack is not None:
        most = min(longest, len(haystack[0]) + 1, room - 256)
        found["needle"] = steps_to(most, NEEDLE_SHORTEST) if most >= NEEDLE_SHORTEST else []
        if not found["needle"]:
            say(f"needle left out: it needs {NEEDLE_SHORTEST:,} tokens of text, there are {max(0, most):,}")
    if limit is not None:
        say(f"this model has {limit:,} positions: longer tests are left out")
    return found


def _outcomes(
    model: ReformerLM, rounds: Rounds | None, tokenizer: Tokenizer, alphabet: Alphabet,
    haystack: tuple[Tokens, list[str]] | None, lengths: dict[str, list[int]], seed: int,
) -> Iterator[Outcome]:  # fmt: skip
    """All tests with so many rounds. Full attention is of passes that are not streamed, so of copies alone."""
    from reformer_cli.evaluation import recall as tests
    from reformer_cli.evaluation.rounds import FULL, with_rounds

    streamed = rounds != FULL
    copies = [n for n in lengths.get("duplicate", []) if streamed or 2 * n + 3 <= tests.LONGEST_FORWARD]
    distances, texts = (lengths.get(name, []) if streamed else [] for name in ("pairs", "needle"))
    work = sum(map(tests.duplicate_tokens, copies)) + sum(9 * n for n in texts)
    work += tests.ROWS * max(distances, default=0)
    if rounds is not None and streamed:
        model = with_rounds(model, rounds)
    with Bar("reading" if rounds is None else f"reading, rounds {rounds}", work) as bar:
        for length in copies:
            used = model if streamed else with_rounds(model, FULL, 2 * length + 3)
            yield tests.duplicate(used, alphabet, length, seed, streamed, bar.advance)
        if distances:
            yield from tests.pairs(model, alphabet, distances, seed, bar.advance)
        for length in texts:
            assert haystack is not None
            yield from tests.needle(model, tokenizer, *haystack, length, seed, bar.advance)


def _report(found: dict[str, list[Outcome]], chance: float) -> str:
    """Tables for people: one a test, rounds side by side; needles as a map of depth and length."""
    parts = []
    titles = {
        "duplicate": "copies of random symbols (0 w 0 w): share of the second w that is right",
        "pairs": "values of keys that come again: share right",
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
