"""`reformer evaluate attention`: what the hash lets a model see on a text."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reformer_cli.commands.evaluate.output import (
    CsvOption,
    JsonOption,
    PlotOption,
    begin,
    print_json,
    write_csv,
)
from reformer_cli.commands.options import DeviceOption, OverwriteOption, RunOption
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import aligned
from reformer_cli.workflows.evaluate import held_out
from reformer_cli.workflows.open_model import open_model, open_run, refused

if TYPE_CHECKING:
    from reformer_cli.evaluation.hash_view import LayerView, Reach, Seen
    from reformer_cli.runs.run import Run
    from reformer_cli.tokenizers.base import Ids, Tokenizer

TOKENS, MOST = 2048, 8192  # of the text that are looked at: everything is dense
SHOWN, AROUND = 5, 6  # tokens listed of each head, and how many are shown before each
CHARACTER = 8  # tokens of one, at most: the halves of its bytes


def attention(
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="A UTF-8 file, - for standard input; none: what the run held out."),
    ] = None,
    run: RunOption = None,
    tokens: Annotated[int, typer.Option(min=32, max=MOST, help="Look at so many, the text's first.")] = TOKENS,
    token: Annotated[
        int | None, typer.Option(help="List what this one reaches; -1 is the last; default: the last.")
    ] = None,
    n_hashes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Hash rounds instead of those that the model was trained with.")
    ] = None,
    json: JsonOption = False,
    csv: CsvOption = False,
    plot: PlotOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Which earlier tokens each layer's hash rounds reach, how full buckets are, and what share of the true top keys
    is found."""
    import torch
    from reformer.rehash import check_hashed

    from reformer_cli.evaluation.hash_view import look

    begin(json, csv, plot, overwrite, matplotlib=True)
    opened = open_run(run)
    with refused("evaluate attention", "there is nothing to look at"):
        check_hashed(opened.config.model)
    tokenizer, model = open_model(opened, device, n_hashes=n_hashes)
    ids = _text(opened, tokenizer, text, min(tokens, model.config.max_length or tokens))
    position = len(ids) - 1 if token is None else token if token >= 0 else len(ids) + token
    if not 0 <= position < len(ids):
        raise UserError(f"--token {token} is not among the {len(ids):,} tokens looked at", f"0 to {len(ids) - 1}")
    picture = None
    if plot is not None:
        from reformer_cli.evaluation.plots import AttentionPicture

        picture = AttentionPicture()
    reach: list[Reach] = []
    seen: list[Seen] = []

    def show(view: LayerView) -> None:
        reach.extend(view.reach())
        seen.extend(view.reached_from(position, SHOWN))
        if picture is not None:
            picture.add(view)

    look(model, torch.from_numpy(ids).long().to(model.embedding.device), show)
    records = [_record(r) for r in reach]
    if json:
        listed = [dataclasses.asdict(s) | {"text": _around(tokenizer, ids, s.position)} for s in seen]
        print_json({"tokens": len(ids), "token": position, "layers": records, "reached": listed})
    elif csv:
        write_csv(records)
    else:
        typer.echo(_table(reach, len(ids), model.config.local_window))
        typer.echo("\n" + _listing(tokenizer, ids, position, seen))
    if picture is not None and plot is not None:
        picture.save(plot, len(ids))


def _text(run: Run, tokenizer: Tokenizer, name: str | None, tokens: int) -> Ids:
    """The first tokens of a text, the end-of-text token ahead of them."""
    import numpy as np

    from reformer_cli.data.text_chunks import read_pieces

    if name is None:
        window = max(held_out(run, tokenizer, run.config.data.context), key=lambda w: len(w.scored))
        return np.concatenate([window.prefix.numpy(), window.scored.numpy()])[-tokens:].astype(np.int32)
    piece = next(read_pieces(name, join=run.config.data.unwrap == "join"), "")
    ids = np.concatenate([[tokenizer.end], tokenizer.encode(piece)])[:tokens].astype(np.int32)
    if len(ids) < 2:
        raise UserError(f"{name} is empty", "there is nothing to look at")
    return ids


def _record(r: Reach) -> dict[str, Any]:
    row = dataclasses.asdict(r)
    row["median_distance"], row["furthest"] = row.pop("distance")
    return row | {"round": "all" if r.round is None else r.round}


def _table(reach: list[Reach], n: int, window: int) -> str:
    rows = [
        [
            "layer", "round", "effective buckets", "fullest", "sees", "half within", "furthest", "top keys seen",
            f"attention beyond {window:,}",
        ]
    ]  # fmt: skip
    for r in reach:
        buckets = f"{r.effective_buckets:.1f}" if r.effective_buckets is not None else ""
        fullest = f"{r.largest_bucket:.1%}" if r.largest_bucket is not None else ""
        rows.append(
            [
                r.layer, "all" if r.round is None else str(r.round), buckets, fullest, f"{r.reached:.1f}",
                f"{r.distance[0]:,.0f}", f"{r.distance[1]:,.0f}", f"{r.top_found:.1%}", f"{r.far_weight:.1%}",
            ]
        )  # fmt: skip
    head = f"LSH heads on {n:,} tokens (means over a layer's heads; top keys: the 16 earlier tokens of highest score)"
    return f"{head}\n{aligned(rows, 2)}"


def _listing(tokenizer: Tokenizer, ids: Ids, position: int, seen: list[Seen]) -> str:
    """What one token reaches: where, in which rounds, and the text there, the token in brackets."""
    rows = [["layer", "head", "tokens back", "rounds", "attention", ""]]
    for s in seen:
        back, rounds = f"{position - s.position:,}", " ".join(map(str, s.rounds)) or "-"
        rows.append([s.layer, str(s.head), back, rounds, f"{s.weight:.0%}", _around(tokenizer, ids, s.position)])
    widths = [max(len(row[n]) for row in rows) for n in range(5)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[5]]).rstrip() for row in rows
    ]
    head = f"what token {position:,} reaches: {_around(tokenizer, ids, position)}"
    return "\n".join([head, *(lines if seen else ["nothing"])])


def _around(tokenizer: Tokenizer, ids: Ids, position: int) -> str:
    """A token in brackets, or the character that it is a part of, with some of the text around it, on one line."""
    start, stop = position, position + 1
    while start > max(0, position - CHARACTER) and tokenizer.decode(ids[start:stop]).startswith("\ufffd"):
        start -= 1
    while stop < min(len(ids), position + CHARACTER) and tokenizer.decode(ids[start:stop]).endswith("\ufffd"):
        stop += 1
    cuts = ids[max(0, start - AROUND) : start], ids[start:stop], ids[stop : stop + 2]
    parts = [tokenizer.decode(part).strip("\ufffd") for part in cuts]
    text = f"{parts[0]}[{parts[1]}]{parts[2]}".replace("\n", "\\n").replace("\t", "\\t")
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
