"""What the hash lets a model see on a text, layer by layer."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reformer.rehash import check_hashed

from reformer_cli.evaluation.hash_view import LayerSummary, LayerView, Reach, Seen, look
from reformer_cli.tokenizers.base import Ids, Tokenizer
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import aligned
from reformer_cli.workflows.evaluate import held_out
from reformer_cli.workflows.open_model import OpenModel, refused
from reformer_cli.workflows.result import VIEWED, Result

LISTED, AROUND = 5, 6  # tokens listed of each head, and how many are shown before each
CHARACTER = 8  # tokens of one, at most: the halves of its bytes


@dataclass(frozen=True)
class AttentionResult(Result):
    """Of a text of so many tokens: what every layer's LSH heads reach, and what the token at a position (`token`) does,
    each with the text around it (`around`); window: tokens that local heads see."""

    tokens: int
    token: int
    around: str
    window: int
    layers: list[LayerSummary]
    reached: list[tuple[Seen, str]]

    drawn_by_us = False

    @property
    def reach(self) -> list[Reach]:
        """Layer by layer, round by round, then all rounds together."""
        return [reach for layer in self.layers for reach in layer.reach]

    def as_dict(self) -> dict[str, Any]:
        listed = [dataclasses.asdict(seen) | {"text": text} for seen, text in self.reached]
        return {"tokens": self.tokens, "token": self.token, "layers": self.rows(), "reached": listed}

    def rows(self) -> list[dict[str, Any]]:
        """One row a layer and round."""
        rows = []
        for r in self.reach:
            row = dataclasses.asdict(r)
            row["median_distance"], row["furthest"] = row.pop("distance")
            rows.append(row | {"round": "all" if r.round is None else r.round})
        return rows

    def __str__(self) -> str:
        rows = [["layer", "round", "effective buckets", "fullest", "sees", "half within", "furthest", "top keys seen"]]
        rows[0].append(f"attention beyond {self.window:,}")
        for r in self.reach:
            buckets = f"{r.effective_buckets:.1f}" if r.effective_buckets is not None else ""
            fullest = f"{r.largest_bucket:.1%}" if r.largest_bucket is not None else ""
            far = [f"{r.distance[0]:,.0f}", f"{r.distance[1]:,.0f}", f"{r.top_found:.1%}", f"{r.far_weight:.1%}"]
            number = "all" if r.round is None else str(r.round)
            rows.append([r.layer, number, buckets, fullest, f"{r.reached:.1f}", *far])
        return (
            f"LSH heads on {self.tokens:,} tokens (means over a layer's heads; top keys: the 16 earlier tokens of "
            f"highest score)\n{aligned(rows, 2)}\n\nwhat token {self.token:,} reaches: {self.around}\n{self._listing()}"
        )

    def _listing(self) -> str:
        """What one token reaches: where, in which rounds, and the text there, the token in brackets."""
        if not self.reached:
            return "nothing"
        rows = [["layer", "head", "tokens back", "rounds", "attention", ""]]
        for s, text in self.reached:
            back, rounds = f"{self.token - s.position:,}", " ".join(map(str, s.rounds)) or "-"
            rows.append([s.layer, str(s.head), back, rounds, f"{s.weight:.0%}", text])
        return aligned(rows, 6)

    def _draw(self, path: Path) -> None:
        from reformer_cli.evaluation.plots import plot_attention

        plot_attention(self.layers, self.tokens, path)


def evaluate_attention(
    opened: OpenModel, text: str | None = None, *, tokens: int = VIEWED, token: int | None = None
) -> AttentionResult:
    """Look at the first tokens of a file, or the last of what the run held out. token: the one whose view is listed,
    from the end if negative; None: the last.

    Raises UserError for a model without LSH heads, and a text or token that is not there.
    """
    with refused("evaluate attention", "there is nothing to look at"):
        check_hashed(opened.model.config)
    model, tokenizer = opened.model, opened.tokenizer
    ids = _text(opened, text, min(tokens, model.config.max_length or tokens))
    position = len(ids) - 1 if token is None else token if token >= 0 else len(ids) + token
    if not 0 <= position < len(ids):
        raise UserError(f"--token {token} is not among the {len(ids):,} tokens looked at", f"0 to {len(ids) - 1}")
    layers: list[LayerSummary] = []
    reached: list[tuple[Seen, str]] = []

    def show(view: LayerView) -> None:
        layers.append(view.summary())
        reached.extend((s, around(tokenizer, ids, s.position)) for s in view.reached_from(position, LISTED))

    look(model, torch.from_numpy(ids).long().to(model.embedding.device), show)
    here = around(tokenizer, ids, position)
    return AttentionResult(len(ids), position, here, model.config.local_window, layers, reached)


def _text(opened: OpenModel, name: str | None, tokens: int) -> Ids:
    """The first tokens of a text, the end-of-text token ahead of them."""
    if name is None:
        window = max(held_out(opened, opened.run.config.data.context), key=lambda w: len(w.scored))
        return np.concatenate([window.prefix.numpy(), window.scored.numpy()])[-tokens:].astype(np.int32)
    piece = next(opened.pieces(name), "")
    ids = np.concatenate([[opened.tokenizer.end], opened.tokenizer.encode(piece)])[:tokens].astype(np.int32)
    if len(ids) < 2:
        raise UserError(f"{name} is empty", "there is nothing to look at")
    return ids


def around(tokenizer: Tokenizer, ids: Ids, position: int) -> str:
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
