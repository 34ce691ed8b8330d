"""How far back a model looks: the same tokens of a text at more and more context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reformer_cli.data.text_chunks import check_readable
from reformer_cli.evaluation.context_curve import (
    Band,
    Curve,
    Passage,
    choose_contexts,
    context_curve,
    named,
    tokens_to_read,
    verdict,
)
from reformer_cli.evaluation.word_recurrence import recurrence
from reformer_cli.tokenizers.base import Ids, Tokenizer
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import aligned, span
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.evaluate import held_out
from reformer_cli.workflows.open_model import OpenModel, check_length
from reformer_cli.workflows.plot import plot_curve
from reformer_cli.workflows.result import SCORED, Result


@dataclass(frozen=True)
class ContextResult(Result):
    """Bits/byte of the same tokens at every context; texts: their names."""

    texts: list[str]
    curve: Curve

    @property
    def verdict(self) -> str:
        """What the figures say, in one line."""
        return verdict(self.curve)

    def as_dict(self) -> dict[str, Any]:
        found = {"texts": self.texts, "tokens": len(self.curve.bytes), "contexts": self.curve.contexts}
        return found | {"rows": self.rows(), "verdict": self.verdict}

    def rows(self) -> list[dict[str, Any]]:
        """One row a group of tokens and context; `last_seen_from` 0: had not occurred; `context` None: all before."""
        curve, rows = self.curve, []
        for kind, band, where in self._groups():
            n_bytes = round(float(curve.bytes[where].sum()))
            for n, context in enumerate(curve.contexts if where.any() else []):
                bits, found = curve.bits(n, where)
                saved, of_saving = curve.saved(0, n, where)
                (low, high), (saved_low, saved_high) = found or (None, None), of_saving or (None, None)
                least, most = curve.sees(context)
                rows.append(
                    {
                        "group": kind, "last_seen_from": band and band.low, "last_seen_to": band and band.high,
                        "context": context, "sees_least": least, "sees_most": most, "tokens": int(where.sum()),
                        "bytes": n_bytes, "bits_per_byte": bits, "low": low, "high": high,
                        "saved": saved, "saved_low": saved_low, "saved_high": saved_high,
                    }
                )  # fmt: skip
        return rows

    def _groups(self) -> Iterator[tuple[str, Band | None, Any]]:
        """(which tokens, band, where they are) of everything that is reported."""
        yield "all", None, np.ones(len(self.curve.bytes), np.bool_)
        for kind, names in (("words", False), ("rare_names", True)):
            for band in self.curve.bands():
                yield kind, band, self.curve.in_band(band, names)

    def __str__(self) -> str:
        curve = self.curve
        rows = [["context", "a token sees", "bits/byte", "95 % interval", "saves over the row above", "95 % interval"]]
        for n, context in enumerate(curve.contexts):
            bits, found = curve.bits(n)
            low, high = curve.sees(context)
            saves, of_saving = curve.saved(n - 1, n) if n else (None, None)
            more = [f"{saves:+.4f}" if saves is not None else "", span(of_saving)]
            rows.append([named(context), f"{low:,} to {high:,} tokens", f"{bits:.4f}", span(found), *more])
        title = f"{len(curve.bytes):,} tokens of {', '.join(self.texts)}, each scored once at every context"
        parts = [
            f"bits/byte of {kind}, by how many tokens ago they last occurred\n{self._band_table(names)}"
            for kind, names in (("words", False), ("rare names", True))
        ]
        return "\n\n".join([title, aligned(rows), *parts, self.verdict])

    def _band_table(self, names: bool) -> str:
        curve = self.curve
        rows = [["last seen", "tokens", *map(named, curve.contexts), "all saves", "95 % interval"]]
        for band in curve.bands():
            where = curve.in_band(band, names)
            if where.any():
                saves, found = curve.saved(0, len(curve.contexts) - 1, where)
                bits = [f"{curve.bits(n, where)[0]:.3f}" for n in range(len(curve.contexts))]
                rows.append([str(band), f"{int(where.sum()):,}", *bits, f"{saves:+.3f}", span(found, 3)])
        return aligned(rows) if len(rows) > 1 else "(none)"

    def _draw(self, path: Path) -> None:
        plot_curve(self.curve, ", ".join(self.texts), path)


def evaluate_context(
    opened: OpenModel, files: Sequence[str], *, contexts: Sequence[int] = (), tokens: int = SCORED
) -> ContextResult:
    """Score the last half of each file, `tokens` in all at most, at every context; of no files, the beginning of what
    the run held out, after all the rest. contexts: () for 256, 1,024, ...

    Raises UserError for a text that cannot be read, has nothing to compare, or exceeds the model's positions.
    """
    names, passages = _passages(opened, files, tokens)
    model = opened.model
    longest = max(len(p.prefix) + len(p.scored) - 1 for p in passages)
    check_length(model.config, longest + 1, ", ".join(names), "give a shorter file")
    if model.config.chunked:
        say("attention in chunks: read by the rule of decoding, which generation follows, not by the forward pass")
    chosen = choose_contexts(longest, contexts)
    if left_out := [c for c in contexts if c > longest]:
        say(f"no more than {longest:,} tokens come before any: {', '.join(map(str, left_out))} left out")
    with shown("reading", tokens_to_read(passages, chosen), say) as advance:
        return ContextResult(names, context_curve(model, passages, chosen, advance))


def _passages(opened: OpenModel, files: Sequence[str], tokens: int) -> tuple[list[str], list[Passage]]:
    """What to score, and its names; the tokens are shared evenly by the texts."""
    tokenizer = opened.tokenizer
    if not files:
        windows = held_out(opened, None)
        each = max(1, tokens // len(windows))
        say(f"scoring the held-out last part of {len(windows)} {'text' if len(windows) == 1 else 'texts'}")
        return [f"{w.name} (held out)" for w in windows], [
            _passage(tokenizer, w.prefix.numpy(), w.scored[:each].numpy()) for w in windows
        ]
    for name in files:
        check_readable(name)
    found = []
    for name in files:
        ids = np.concatenate([np.zeros(0, np.int32), *(tokenizer.encode(text) for text in opened.pieces(name))])
        if len(ids) < 2:
            raise UserError(f"{name} has {len(ids)} tokens", "there is nothing to compare")
        cut = max(len(ids) - max(1, tokens // len(files)), len(ids) // 2)
        found.append(_passage(tokenizer, np.concatenate([[tokenizer.end], ids[:cut]]), ids[cut:]))
    return list(files), found


def _passage(tokenizer: Tokenizer, prefix: Any, scored: Any) -> Passage:
    whole: Ids = np.concatenate([prefix, scored]).astype(np.int32)
    lengths = tokenizer.byte_lengths()
    found = recurrence(tokenizer.decode(whole), whole, lengths)[slice(len(prefix), None)]
    tokens = torch.from_numpy(whole.astype(np.int64))
    return Passage(tokens[: len(prefix)], tokens[len(prefix) :], lengths[scored], found)
