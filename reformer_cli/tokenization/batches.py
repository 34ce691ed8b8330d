"""Which tokens a step reads: a pure function of seed and step, so that a resumed run goes on at the very next one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reformer_cli.errors import UserError
from reformer_cli.tokenization.shards import Part, TokenSet


@dataclass(frozen=True)
class Batch:
    """tokens, targets: int64 [batch, context]; documents: int64 [batch, context], None where each row is in one."""

    tokens: Tensor
    targets: Tensor
    documents: Tensor | None


@dataclass(frozen=True)
class Window:
    """Held-out tokens to score, the tokens before them, and the text they stand for."""

    name: str
    prefix: Tensor
    scored: Tensor
    text: Part


class Batches:
    """Contexts of the training tokens. An epoch cuts the stream, a ring, at a random offset and shuffles it."""

    def __init__(self, tokens: TokenSet, end: int, context: int, batch: int, seed: int) -> None:
        self.tokens, self.end, self.context, self.batch, self.seed = tokens, end, context, batch, seed
        n_tokens = len(tokens.train)
        if n_tokens < context + 1:
            raise UserError(
                f"the corpus has {n_tokens:,} training tokens, shorter than one context of {context:,}",
                f"give more text, or --set context={max(2, n_tokens // 2)}",
            )
        self.per_epoch = n_tokens // context

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
        offset, order = self._epoch(epoch)
        start = offset + int(order[place]) * self.context
        train = self.tokens.train
        return np.take(train, np.arange(start, start + self.context + 1), mode="wrap").astype(np.int64)

    def _epoch(self, epoch: int) -> tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        random = np.random.default_rng([self.seed, epoch])
        return int(random.integers(len(self.tokens.train))), random.permutation(self.per_epoch)


def held_out_windows(tokens: TokenSet, context: int) -> Iterator[Window]:
    """The held-out part of each document with up to `context` tokens of what comes before it."""
    for document in tokens.documents:
        part, before = document.held_out, document.train
        if part.stop > part.start:
            prefix = tokens.train[max(before.start, before.stop - context) : before.stop]
            scored = tokens.held_out[part.start : part.stop]
            yield Window(
                document.name,
                torch.from_numpy(prefix.astype(np.int64)),
                torch.from_numpy(scored.astype(np.int64)),
                part,
            )
