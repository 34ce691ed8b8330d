"""`reformer evaluate context`: how far back a model looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.commands.evaluate.output import (
    CsvOption,
    FilesArgument,
    JsonOption,
    PlotOption,
    begin,
    print_json,
    write_csv,
)
from reformer_cli.commands.options import BucketsOption, DeviceOption, OverwriteOption, RunOption
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import aligned, span
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.evaluate import held_out
from reformer_cli.workflows.open_model import open_model, open_run

if TYPE_CHECKING:
    from reformer_cli.evaluation.context_curve import Band, Curve, Passage
    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.base import Ids, Tokenizer

TOKENS = 32_768  # scored where --tokens is not given


def context(
    files: FilesArgument = None,
    run: RunOption = None,
    contexts: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Contexts to compare, in tokens; default: 256, 1024, 4096, ..."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to score at each context, at most.")] = TOKENS,
    far_buckets: BucketsOption = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    plot: PlotOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Score the same tokens with 256, 1,024, ... tokens of context and with all that came before: what does it help?

    Of a file, the last half is scored (at most --tokens); of a run's own text, the beginning of what it held out, after
    all the rest. A table, a breakdown by how far back each word last occurred, and a sentence on what they say.
    """
    from reformer_cli.evaluation.context_curve import choose_contexts, context_curve, tokens_to_read

    begin(json, csv, plot, overwrite)
    asked = _parse(contexts) if contexts is not None else []
    opened = open_run(run)
    tokenizer, model = open_model(opened, device, far_buckets=far_buckets)
    names, passages = _passages(opened, tokenizer, files or [], tokens)
    longest = max(len(p.prefix) + len(p.scored) - 1 for p in passages)
    if (limit := model.config.max_length) is not None and longest >= limit:
        raise UserError(f"{longest + 1:,} tokens exceed the {limit:,} positions of this model", "give a shorter file")
    if model.config.chunked:
        say("attention in chunks: read by the rule of decoding, which generation follows, not by the forward pass")
    chosen = choose_contexts(longest, asked)
    if left_out := [c for c in asked if c > longest]:
        say(f"no more than {longest:,} tokens come before any: {', '.join(map(str, left_out))} left out")
    with shown("reading", tokens_to_read(passages, chosen), say) as advance:
        curve = context_curve(model, passages, chosen, advance)
    title = ", ".join(names)
    if json:
        print_json({"texts": names, **_record(curve)})
    elif csv:
        write_csv(_rows(curve))
    else:
        typer.echo(_report(curve, title))
    if plot is not None:
        from reformer_cli.workflows.plot import plot_curve

        plot_curve(curve, title, plot)


def _parse(text: str) -> list[int]:
    parts = [part.strip().replace("_", "") for part in text.split(",")]
    if wrong := [p for p in parts if not (p.isascii() and p.isdigit() and 2 <= int(p) <= 2**40)]:
        raise UserError(f"--contexts {wrong[0]!r} is not a number of tokens, at least 2", "such as 256,1024,4096")
    return sorted({int(p) for p in parts})


def _passages(run: Run, tokenizer: Tokenizer, files: list[str], tokens: int) -> tuple[list[str], list[Passage]]:
    """What to score, and its names; the tokens are shared evenly by the texts."""
    import numpy as np

    from reformer_cli.data.text_chunks import check_readable, read_pieces

    lengths, join = tokenizer.byte_lengths(), run.config.data.unwrap == "join"
    if not files:
        windows = held_out(run, tokenizer, None)
        each = max(1, tokens // len(windows))
        say(f"scoring the held-out last part of {len(windows)} {'text' if len(windows) == 1 else 'texts'}")
        return [f"{w.name} (held out)" for w in windows], [
            _passage(tokenizer, w.prefix.numpy().astype(np.int32), w.scored[:each].numpy().astype(np.int32), lengths)
            for w in windows
        ]
    for name in files:
        check_readable(name)
    found = []
    for name in files:
        ids = np.concatenate(
            [np.zeros(0, np.int32), *(tokenizer.encode(text) for text in read_pieces(name, join=join))]
        )
        if len(ids) < 2:
            raise UserError(f"{name} has {len(ids)} tokens", "there is nothing to compare")
        cut = max(len(ids) - max(1, tokens // len(files)), len(ids) // 2)
        found.append(_passage(tokenizer, np.concatenate([[tokenizer.end], ids[:cut]]), ids[cut:], lengths))
    return files, found


def _passage(tokenizer: Tokenizer, prefix: Ids, scored: Ids, lengths: Any) -> Passage:
    import numpy as np
    import torch

    from reformer_cli.evaluation.context_curve import Passage
    from reformer_cli.evaluation.word_recurrence import recurrence

    whole = np.concatenate([prefix, scored])
    found = recurrence(tokenizer.decode(whole), whole, lengths)[slice(len(prefix), None)]
    tokens = torch.from_numpy(whole.astype(np.int64))
    return Passage(tokens[: len(prefix)], tokens[len(prefix) :], lengths[scored], found)


def _report(curve: Curve, title: str) -> str:
    """Tables and verdict for people."""
    from reformer_cli.evaluation.context_curve import named, verdict

    rows = [["context", "a token sees", "bits/byte", "95 % interval", "saves over the row above", "95 % interval"]]
    for n, context in enumerate(curve.contexts):
        bits, found = curve.bits(n)
        low, high = curve.sees(context)
        saves, of_saving = curve.saved(n - 1, n) if n else (None, None)
        rows.append(
            [
                named(context), f"{low:,} to {high:,} tokens", f"{bits:.4f}", span(found),
                f"{saves:+.4f}" if saves is not None else "", span(of_saving),
            ]
        )  # fmt: skip
    parts = [f"{len(curve.bytes):,} tokens of {title}, each scored once at every context", aligned(rows)]
    for names in (False, True):
        kind = "rare names" if names else "words"
        parts.append(f"bits/byte of {kind}, by how many tokens ago they last occurred\n{_band_table(curve, names)}")
    return "\n\n".join([*parts, verdict(curve)])


def _band_table(curve: Curve, names: bool) -> str:
    from reformer_cli.evaluation.context_curve import named

    rows = [["last seen", "tokens", *(named(c) for c in curve.contexts), "all saves", "95 % interval"]]
    for band in curve.bands():
        where = curve.in_band(band, names)
        if where.any():
            saves, found = curve.saved(0, len(curve.contexts) - 1, where)
            bits = [f"{curve.bits(n, where)[0]:.3f}" for n in range(len(curve.contexts))]
            rows.append([str(band), f"{int(where.sum()):,}", *bits, f"{saves:+.3f}", span(found, 3)])
    return aligned(rows) if len(rows) > 1 else "(none)"


def _groups(curve: Curve) -> list[tuple[str, Band | None, Any]]:
    """(which tokens, band, where they are) of everything that is reported."""
    found: list[tuple[str, Band | None, Any]] = [("all", None, None)]
    for kind, names in (("words", False), ("rare_names", True)):
        found += [(kind, band, curve.in_band(band, names)) for band in curve.bands()]
    return found


def _rows(curve: Curve) -> list[dict[str, Any]]:
    """One row a group of tokens and context; `last_seen_from` 0: had not occurred; `context` empty: all before."""
    rows = []
    for kind, band, where in _groups(curve):
        n_tokens = len(curve.bytes) if where is None else int(where.sum())
        n_bytes = round(float(curve.bytes.sum() if where is None else curve.bytes[where].sum()))
        if not n_tokens:
            continue
        for n, context in enumerate(curve.contexts):
            bits, found = curve.bits(n, where)
            saved, of_saving = curve.saved(0, n, where)
            (low, high), (saved_low, saved_high) = found or (None, None), of_saving or (None, None)
            least, most = curve.sees(context)
            rows.append(
                {
                    "group": kind, "last_seen_from": band and band.low, "last_seen_to": band and band.high,
                    "context": context, "sees_least": least, "sees_most": most, "tokens": n_tokens, "bytes": n_bytes,
                    "bits_per_byte": bits, "low": low, "high": high,
                    "saved": saved, "saved_low": saved_low, "saved_high": saved_high,
                }
            )  # fmt: skip
    return rows


def _record(curve: Curve) -> dict[str, Any]:
    from reformer_cli.evaluation.context_curve import verdict

    return {"tokens": len(curve.bytes), "contexts": curve.contexts, "rows": _rows(curve), "verdict": verdict(curve)}
