"""Which tokens a step reads: a pure function of seed and step, so that a resumed run goes on at the very next one."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reformer_cli.data.copy_task import TRAINING, UNSCORED, CopyTask
from reformer_cli.data.shards import TokenFiles
from reformer_cli.data.split import Span
from reformer_cli.utils.errors import UserError

ROUNDS = 6  # of the shuffle
WORD = 2**64 - 1
Rows = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
LEAST_SCORED = 512  # tokens of each window that is scored at all, while a run goes on


@dataclass(frozen=True)
class Batch:
    """tokens, targets: int64 [batch, context]; documents: int64 [batch, context], None where each row is in one."""

    tokens: Tensor
    targets: Tensor
    documents: Tensor | None


@dataclass(frozen=True)
class ValidationWindow:
    """Tokens for validation to score, the tokens before them, and the text they stand for."""

    name: str
    prefix: Tensor
    scored: Tensor
    text: Span


def check_length(n_tokens: int, context: int) -> None:
    """Raises UserError for a text in which not one context has room."""
    if n_tokens < context + 1:
        raise UserError(
            f"the corpus has {n_tokens:,} training tokens, shorter than one context of {context:,}",
            f"give more text, or --set context={max(2, n_tokens // 2)}",
        )


class Batches:
    """Contexts of the training tokens. An epoch cuts the stream, a ring, at a random offset and shuffles it.

    So documents longer than a context are cut elsewhere in each epoch, and shorter ones share contexts, told apart by
    `documents`. Whatever the size of the corpus, a batch takes the memory of its own tokens.

    whole: every document is `end` and a context of tokens, as images are; each is one context, and nothing is cut.
    """

    def __init__(self, tokens: TokenFiles, end: int, context: int, batch: int, seed: int, whole: bool = False) -> None:
        self.tokens, self.end, self.context, self.batch, self.seed = tokens, end, context, batch, seed
        n_tokens = len(tokens.train)
        self.stride = context + 1 if whole else context
        if whole and n_tokens < self.stride:
            raise UserError("all images are held out", "give more, or --set val_fraction=0")
        check_length(n_tokens, context)
        self.per_epoch = n_tokens // self.stride
        self.turns = not whole  # whether an epoch begins at a random offset

    def epoch_of(self, step: int) -> float:
        """How often the text has been read before this step."""
        return step * self.batch / self.per_epoch

    def batch_at(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        rows = np.stack([self._context(n) for n in range(step * self.batch, (step + 1) * self.batch)])
        tokens = torch.from_numpy(rows)
        inputs = tokens[:, :-1].contiguous()
        documents = (inputs == self.end).cumsum(1)
        documents -= documents[:, :1].clone()
        return Batch(inputs, tokens[:, 1:].contiguous(), documents if bool(documents.any()) else None)

    def _context(self, n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        epoch, place = divmod(n, self.per_epoch)
        keys = _keys(self.seed, epoch)
        train = self.tokens.train
        start = shuffled(place, self.per_epoch, keys[1:]) * self.stride
        if self.turns:
            start = (start + keys[0]) % len(train)
        found = train[start : start + self.context + 1].astype(np.int64)
        missing = self.context + 1 - len(found)
        return np.concatenate([found, train[:missing].astype(np.int64)]) if missing else found


class CopyTaskBatches:
    """As `Batches`: a pure function of seed and step; every sequence is new."""

    def __init__(self, source: CopyTask, context: int, batch: int, seed: int) -> None:
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


def _keys(seed: int, epoch: int) -> list[int]:
    """Random numbers of an epoch; of our own making, for numpy's may change with its version and a run must not."""
    data = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=64).digest()
    return [int.from_bytes(data[n : n + 8], "little") for n in range(0, 8 * (ROUNDS + 1), 8)]


def shuffled(place: int, size: int, keys: Sequence[int]) -> int:
    """Where a place of 0 .. size - 1 goes in the shuffle of the keys: a Feistel network, which needs no list of all."""
    half = ((size - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        place = left << half | right
        if place < size:  # else once more: it comes back into the range
            return place


def _mixed(x: int) -> int:
    """The finaliser of splitmix64."""
    x = (x & WORD ^ (x & WORD) >> 30) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & WORD
    return x ^ x >> 31


class ValidationWindows(Sequence[ValidationWindow]):
    """The part of each document that is for validation, with up to `context` tokens of what comes before it; read as it
    is asked for, since there may be many. places: of the spans, those that are in it; None: all."""

    def __init__(self, tokens: TokenFiles, context: int, places: range | None = None) -> None:
        self._tokens, self._context = tokens, context
        self._places = range(len(tokens.spans)) if places is None else places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, n: Any) -> Any:
        if isinstance(n, slice):
            return ValidationWindows(self._tokens, self._context, self._places[n])
        held = self._tokens.spans[self._places[n]]
        span, stop = held.span, held.context_stop
        prefix = self._tokens.train[max(held.context_start, stop - self._context) : stop].astype(np.int64)
        if not len(prefix):  # a document that is held out whole
            prefix = np.array([self._tokens.end], np.int64)
        scored = self._tokens.validation[span.start : span.stop].astype(np.int64)
        return ValidationWindow(held.name, torch.from_numpy(prefix), torch.from_numpy(scored), span)

    @property
    def total(self) -> int:
        """Tokens of all documents that are for validation."""
        return len(self._tokens.validation)

    def stretch(self, position: int, length: int) -> ValidationWindow:
        """So many tokens around a place of the validation tokens, with up to `context` before them."""
        spans = self._tokens.spans
        n = max(0, bisect.bisect_right(range(len(spans)), position, key=lambda k: spans[k].span.start) - 1)
        window = ValidationWindows(self._tokens, self._context)[n]
        start = max(0, min(position - spans[n].span.start, len(window.scored) - length))
        prefix = torch.cat([window.prefix, window.scored[:start]])[-self._context :]
        return ValidationWindow(window.name, prefix, window.scored[start : start + length], window.text)

    def some(self, tokens: int, least: int = LEAST_SCORED) -> ValidationWindows:
        """As many as so many tokens score decently, `least` of each, spread evenly; all where they suffice for that."""
        wanted = max(1, tokens // least)
        stride = -(-len(self) // wanted)
        return self[stride // 2 :: stride] if stride > 1 else self
