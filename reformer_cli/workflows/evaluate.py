"""How well a model predicts texts or images: each scored as it is read, then a result that prints itself."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from reformer import ReformerConfig

from reformer_cli.data.batches import ValidationWindow, ValidationWindows
from reformer_cli.data.dataset import Dataset, open_dataset, share_trained_on
from reformer_cli.data.shingles import Shingles
from reformer_cli.data.text_chunks import check_readable, size_of
from reformer_cli.evaluation.likelihood import ScoreSums, bin_range, encoded, pooled, score_pieces
from reformer_cli.evaluation.scorers import DECODING, FORWARD, ContextRule
from reformer_cli.evaluation.token_facts import Facts, facts_of
from reformer_cli.tokenizers.base import Ids, is_foreign
from reformer_cli.tokenizers.sentencepiece import losses
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.format import aligned, as_size, span
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.evaluate_images import scored_images
from reformer_cli.workflows.open_model import OpenModel, check_length
from reformer_cli.workflows.plot import plot_positions
from reformer_cli.workflows.result import Result

MOST_TABLES = 3  # texts with a table each; more have a line each
TRAINED_ON = 0.02  # share of a text that stands in the training text, from which that is said
LABELS = {
    "nats_per_token": ("nats/token", 4),
    "perplexity": ("perplexity", 2),
    "bits_per_byte": ("bits/byte", 4),
    "bits_per_character": ("bits/character", 4),
    "word_perplexity": ("word perplexity", 1),
}  # figure -> its name for people, and digits
JOINED = "\nThe model was given the text with its lines joined into paragraphs (data.unwrap), and bytes are of that."
OF_IMAGES = {"nats_per_token": ("nats/value", 4), "perplexity": ("perplexity", 2), "bits_per_byte": ("bits/dim", 4)}


@dataclass
class PerplexityResult(Result):
    """The sums of each text that was scored, by its name; settings: how, for `--json`; rule: the same in words."""

    settings: dict[str, Any]
    rule: str
    by_position: bool = False
    texts: dict[str, ScoreSums] = field(default_factory=dict)

    @property
    def bits_per_byte(self) -> float:
        """Of all texts together."""
        return pooled([t.blocks for t in self._all])[0].bits_per_byte

    def as_dict(self) -> dict[str, Any]:
        each = {name: _record([sums], self.by_position) for name, sums in self.texts.items()}
        return _record(self._all, self.by_position) | self.settings | {"rule": self.rule, "files": each}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each text and range of positions, and for all together."""
        rows = [row for name, sums in self.texts.items() for row in _rows(name, [sums], self.by_position)]
        return rows + (_rows("total", self._all, self.by_position) if len(self.texts) > 1 else [])

    def __str__(self) -> str:
        return "\n".join([*(table(name, [sums]) for name, sums in self.texts.items()), self.summary()])

    def summary(self) -> str:
        """What is said after the texts one by one: all together, by position, and the rule."""
        parts = [table("total", self._all)] if len(self.texts) > 1 else []
        parts += ["\n" + _position_table(self._all)] if self.by_position else []
        return "\n".join([*parts, "\n" + self.rule])

    def _draw(self, path: Path) -> None:
        """Nats a token by position."""
        plot_positions({name: _record([sums], True)["by_position"] for name, sums in self.texts.items()}, path)

    @property
    def _all(self) -> list[ScoreSums]:
        return list(self.texts.values())


def evaluate_perplexity(
    opened: OpenModel, files: Sequence[str], *, context: int | None = None, likelihood: str | None = None,
    by_position: bool = False, settings: dict[str, Any] | None = None,
    on_text: Callable[[str], None] = lambda line: None,
) -> tuple[PerplexityResult, BaseException | None]:  # fmt: skip
    """Score files, or what the run held out. What goes wrong at a later file does not cost the figures of those before
    it: it comes beside them.

    context, likelihood: see `ContextRule`; settings: of the model, for `as_dict`; on_text: is told of each text's
    figures as soon as they are known. Raises UserError where nothing could be scored.
    """
    run, model = opened.run, opened.model
    trained, images = run.config.data.context, run.config.data.image_size is not None
    if likelihood not in (None, DECODING, FORWARD):
        raise UserError(f"--likelihood {likelihood!r} is not known", f"use {DECODING} or {FORWARD}")
    rule = ContextRule.for_model(model.config, trained, context, likelihood)
    if images and context is None:
        rule = ContextRule.for_images(model.config, trained, likelihood)
    windows: Sequence[ValidationWindow] = [] if files else held_out(opened, rule.context or trained)
    if windows and not images:
        say(f"scoring the held-out last part of {len(windows)} {'text' if len(windows) == 1 else 'texts'}")
    how = {"context": rule.context, "likelihood": FORWARD if rule.forward else DECODING} | (settings or {})
    words = rule.rule(model.config, images) + (JOINED if opened.joins else "")
    result = PerplexityResult(how, words, by_position)
    told = table if images or len(files or windows) <= MOST_TABLES else line
    try:
        for name, sums in (scored_images if images else scored_texts)(opened, files, windows, rule):
            result.texts[name := _unlike(name, result.texts)] = sums
            on_text(told(name, [sums]))
    except (UserError, OSError, KeyboardInterrupt) as error:
        if not result.texts:
            raise
        return result, error
    return result, None


def prepared_text(opened: OpenModel) -> Dataset:
    """The text that a run was trained on. Raises UserError where it has changed."""
    config = opened.run.config
    return open_dataset(config.data, say, opened.tokenizer, config.corpus_digest)


def held_out(opened: OpenModel, context: int | None) -> ValidationWindows:
    """What a run never trained on, each part after up to `context` tokens of its document (None: all of them)."""
    tokens = prepared_text(opened).tokens
    windows = ValidationWindows(tokens, len(tokens.train) if context is None else context)
    if not windows:
        raise UserError("the run held nothing out (data.val_fraction is 0)", "name the files to score")
    return windows


def _unlike(name: str, others: Container[str]) -> str:
    """The name, or with a number where it is taken: a file may be named twice."""
    n = 2
    while (numbered := f"{name} ({n})") in others:
        n += 1
    return numbered if name in others else name


def line(name: str, texts: list[ScoreSums]) -> str:
    """The main figures of one text among many."""
    record = _record(texts, False)
    interval = span(record["intervals"]["bits_per_byte"])
    bits = f"{record['bits_per_byte']:.4f} {_labels(texts)['bits_per_byte'][0]}{f' ({interval})' if interval else ''}"
    return f"{name}: {record['tokens']:,} tokens, {bits}, perplexity {record['perplexity']:,.2f}"


def table(name: str, texts: list[ScoreSums]) -> str:
    """The figures of one text, or of several together, for people."""
    record = _record(texts, False)
    rows = [["  tokens", f"{record['tokens']:,}", ""], ["  bytes", f"{record['bytes']:,}", ""]]
    for figure, (label, digits) in _labels(texts).items():
        rows.append([f"  {label}", f"{record[figure]:,.{digits}f}", span(record["intervals"][figure], digits)])
    head = f"{name} (95 % interval over blocks of {record['block_tokens']:,} tokens)"
    return f"{head}\n{aligned(rows)}"


def _labels(texts: list[ScoreSums]) -> dict[str, tuple[str, int]]:
    return OF_IMAGES if texts[0].images else LABELS


def _record(texts: list[ScoreSums], by_position: bool) -> dict[str, Any]:
    """Figures of texts together by the names that `--json` prints."""
    score, intervals = pooled([t.blocks for t in texts])
    record: dict[str, Any] = score.as_dict()
    if texts[0].images:  # of which a dimension is a byte
        record["bits_per_dim"] = record["bits_per_byte"]
    record |= {"intervals": intervals, "block_tokens": max(t.blocks.size for t in texts)}
    if by_position:
        record["by_position"] = []
        for n in range(max(len(t.bins) for t in texts)):
            part, part_intervals = pooled([t.bins[n] for t in texts if len(t.bins) > n])
            if part.tokens:
                low, high = bin_range(n)
                record["by_position"].append({"from": low, "to": high} | part.as_dict() | {"intervals": part_intervals})
    return record


def _rows(name: str, texts: list[ScoreSums], by_position: bool) -> list[dict[str, Any]]:
    """As `_record`, for CSV: one row in all, one for each range of positions."""
    record = _record(texts, by_position)
    rows = []
    for part in [record, *record.get("by_position", [])]:
        row = {"text": name, "from": part.get("from"), "to": part.get("to")}
        row |= {key: part[key] for key in ("tokens", "bytes", "characters", "words")}
        for figure in LABELS:
            low, high = part["intervals"][figure] or (None, None)
            row |= {figure: part[figure], f"{figure}_low": low, f"{figure}_high": high}
        rows.append(row)
    return rows


def _position_table(texts: list[ScoreSums]) -> str:
    rows = [["tokens before it", "tokens", "nats/token", "95 % interval", "bits/byte"]]
    for part in _record(texts, True)["by_position"]:
        interval = span(part["intervals"]["nats_per_token"])
        numbers = [f"{part['tokens']:,}", f"{part['nats_per_token']:.4f}", interval, f"{part['bits_per_byte']:.4f}"]
        rows.append([f"{part['from']:,} - {part['to']:,}", *numbers])
    return aligned(rows)


def scored_texts(
    opened: OpenModel, files: Sequence[str], windows: Sequence[ValidationWindow], rule: ContextRule
) -> Iterator[tuple[str, ScoreSums]]:
    """Each text with its sums."""
    tokenizer, model = opened.tokenizer, opened.model
    use = f"use --context {model.config.max_length}"
    check_length(model.config, rule.context or 0, "--context", use)
    for name in files:
        check_readable(name)
    for name in files:
        pieces: Iterable[tuple[Ids, Facts]] = encoded(tokenizer, _noted(opened, name))
        if model.config.max_length is not None and rule.context is None:
            pieces = _fitting(pieces, name, model.config)
        scorer = rule.scorer(model, torch.tensor([tokenizer.end]))
        with shown(f"scoring {name}", size_of(name), say, as_size) as advance:
            sums = score_pieces(scorer, pieces, 0, advance)
        if not sums.score.tokens:
            raise UserError(f"{name} is empty", "there is nothing to score")
        yield name, sums
    for w in windows:
        if rule.context is None:
            check_length(model.config, len(w.prefix) + len(w.scored), w.name, use)
        ids = w.scored.numpy().astype("int32")
        facts = facts_of(tokenizer.decode(ids), ids, tokenizer.byte_lengths())
        with shown(f"scoring {w.name}", w.text.bytes, say, as_size) as advance:
            sums = score_pieces(rule.scorer(model, w.prefix), [(ids, facts)], len(w.prefix), advance)
        yield f"{w.name} (held out)", sums


def _noted(opened: OpenModel, name: str) -> Iterator[str]:
    """The pieces of a text; says what a tokenizer from elsewhere loses of the first, or that it does not know it; and
    at the end, if the run was trained on it."""
    tokenizer, config, shingles = opened.tokenizer, opened.run.config, Shingles()
    for n, piece in enumerate(opened.pieces(name)):
        shingles.add(piece.encode())
        if n == 0 and not tokenizer.lossless and (lost := losses(tokenizer, piece)):
            say(f"note: the tokenizer loses of {name} {lost}; what is lost is not predicted, and counts as bytes")
        if n == 0 and is_foreign(tokenizer, piece):
            say(f"note: the vocabulary does not know the script of {name}, and spells its characters out")
        yield piece
    share = share_trained_on(config.data, tokenizer, config.corpus_digest, shingles.finish(bytes(8)))
    if share >= TRAINED_ON:
        say(f"warning: {share:.0%} of {name} stands in what {opened.run.path} was trained on: no figure of unseen text")


def _fitting(pieces: Iterable[tuple[Ids, Facts]], name: str, config: ReformerConfig) -> list[tuple[Ids, Facts]]:
    """All pieces of a text that a model with numbered positions can read at once. Raises UserError for more."""
    found, count = [], 1
    for piece in pieces:
        found.append(piece)
        count += len(piece[0])
        check_length(config, count, f"{name} is too long", f"use --context {config.max_length}")
    return found
