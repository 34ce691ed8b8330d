"""Text that is made, not read: the paper's duplication task as a corpus, `duplicate:511:127`.

What other corpora go through (`load_or_prepare` and so on) is here too, and passes on what is not synthetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from reformer_cli.config.schema import DataConfig
from reformer_cli.data import shards, sources
from reformer_cli.data.batches import Batch
from reformer_cli.data.shards import HeldOut, Part, Prepared, TokenSet
from reformer_cli.tokenizers.base import ByteTokenizer, Tokenizer
from reformer_cli.utils.errors import UserError

DUPLICATE = "duplicate:"
MARK = 0  # stands before each copy
UNSCORED = -100
HELD_OUT_TOKENS, MOST_HELD_OUT = 16_384, 64  # tokens of w, and sequences, that validation scores at most
TRAINING, VALIDATION = 0, 1  # streams of random numbers

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Duplicate:
    """Sequences 0 w 0 w, w being `length` symbols out of 1 to `symbols`, drawn evenly (arXiv 2001.04451, section 5:
    length 511, symbols 127). Tokens are bytes. Only the second w can be predicted, and only it is scored."""

    length: int
    symbols: int

    @property
    def context(self) -> int:
        return 2 * (self.length + 1)

    def __str__(self) -> str:
        return f"{DUPLICATE}{self.length}:{self.symbols}"

    def sequence(self, *seed: int) -> Tokens:
        """0 w 0 w: int64 [context]."""
        w = np.random.default_rng(seed).integers(1, self.symbols + 1, self.length)
        return np.concatenate([[MARK], w, [MARK], w])

    def held_out(self, n: int) -> Tokens:
        """The n-th sequence that no run trains on, but by chance."""
        return self.sequence(VALIDATION, n)

    def prepared(self) -> Prepared:
        """Held-out sequences as documents: 0 w 0 to read, w to score."""
        half, count = self.length + 2, max(1, min(MOST_HELD_OUT, HELD_OUT_TOKENS // self.length))
        rows = np.stack([self.held_out(n) for n in range(count)])
        tokenizer = ByteTokenizer()
        parts = [HeldOut(f"sequence {n + 1}", _part(n, self.length), n * half, (n + 1) * half) for n in range(count)]
        before, after = rows[:, :half].reshape(-1), rows[:, half:].reshape(-1)
        return Prepared(tokenizer, TokenSet(before, after, tokenizer.end, parts, count, before.size), str(self))


def _part(n: int, length: int) -> Part:
    return Part(n * length, (n + 1) * length, length, length, 1)


class DuplicateBatches:
    """As `Batches`: a pure function of seed and step; every sequence is new."""

    def __init__(self, source: Duplicate, context: int, batch: int, seed: int) -> None:
        if context != source.context:
            raise UserError(
                f"{source} makes sequences of {source.context:,} tokens, data.context is {context:,}",
                f"use --set context={source.context}",
            )
        self.source, self.batch, self.seed = source, batch, seed

    def epoch_of(self, step: int) -> float:
        """How often the text has been read: never twice."""
        return 0.0

    def batch_at(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        rows = range(step * self.batch, (step + 1) * self.batch)
        tokens = torch.from_numpy(np.stack([self.source.sequence(TRAINING, self.seed, n) for n in rows]))
        targets = torch.full_like(tokens, UNSCORED)
        targets[:, self.source.length + 1 : -1] = tokens[:, self.source.length + 2 :]
        return Batch(tokens, targets, None)


def find(specs: Sequence[str]) -> Duplicate | None:
    """The synthetic source that a corpus names, if it does. UserError for a misspelt one, or one among others."""
    if not any(spec.startswith(DUPLICATE) for spec in specs):
        return None
    if len(specs) > 1:
        raise UserError(f"{DUPLICATE} stands alone, not among {len(specs)} texts", "leave the others out")
    numbers = specs[0].removeprefix(DUPLICATE).split(":")
    if len(numbers) != 2 or not all(n.isascii() and n.isdigit() and len(n) < 9 for n in numbers):
        raise UserError(f"{specs[0]!r} is not {DUPLICATE}LENGTH:SYMBOLS", f"such as {DUPLICATE}511:127")
    length, symbols = map(int, numbers)
    if not 1 <= length <= 2**24 or not 2 <= symbols <= 255:
        raise UserError(f"{specs[0]} asks for {length:,} of {symbols:,} symbols", "use 1 to 2^24 of 2 to 255")
    return Duplicate(length, symbols)


def absolute(specs: Sequence[str]) -> tuple[str, ...]:
    """As `sources.absolute`."""
    return tuple(specs) if find(specs) is not None else sources.absolute(specs)


def load_or_prepare(
    data: DataConfig,
    report: Callable[[str], None],
    tokenizer: Tokenizer | None = None,
    expected: str = "",
    case_markers: bool = True,
) -> Prepared:
    """As `shards.load_or_prepare`."""
    source = find(data.corpus)
    if source is not None:
        return source.prepared()
    return shards.load_or_prepare(data, report, tokenizer, expected, case_markers)


def prepared_before(data: DataConfig, tokenizer: Tokenizer, digest: str) -> Prepared:
    """As `shards.prepared_before`."""
    source = find(data.corpus)
    return source.prepared() if source is not None else shards.prepared_before(data, tokenizer, digest)


def amount(data: DataConfig, prepared: Prepared) -> str:
    """How much text there is, for people."""
    held_out = f"{len(prepared.tokens.held_out):,} held out"
    if (source := find(data.corpus)) is not None:
        return f"every sequence new ({source.context:,} tokens), {held_out}"
    return (
        f"{len(prepared.tokens.train):,} training tokens ({prepared.tokens.bytes_per_token:.2f} bytes each), {held_out}"
    )
