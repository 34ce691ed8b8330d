"""Text that is made, not read: the paper's copy task as a corpus, `copy:511:127`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reformer_cli.data.shards import TokenFiles
from reformer_cli.data.split import Span, ValidationSpan
from reformer_cli.tokenizers.base import ByteTokenizer
from reformer_cli.utils.errors import UserError

COPY = "copy:"
MARK = 0  # stands before each copy
UNSCORED = -100
VALIDATION_TOKENS, MOST_SEQUENCES = 16_384, 64  # tokens of w, and sequences, that validation scores at most
TRAINING, VALIDATION = 0, 1  # streams of random numbers

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CopyTask:
    """Sequences 0 w 0 w, w being `length` symbols out of 1 to `symbols`, drawn evenly (arXiv 2001.04451, section 5:
    length 511, symbols 127). Tokens are bytes. Only the second w can be predicted, and only it is scored."""

    length: int
    symbols: int

    @property
    def context(self) -> int:
        return 2 * (self.length + 1)

    def __str__(self) -> str:
        return f"{COPY}{self.length}:{self.symbols}"

    def sequence(self, *seed: int) -> Tokens:
        """0 w 0 w: int64 [context]."""
        w = np.random.default_rng(seed).integers(1, self.symbols + 1, self.length)
        return np.concatenate([[MARK], w, [MARK], w])

    def validation(self, n: int) -> Tokens:
        """The n-th sequence that no run trains on, but by chance."""
        return self.sequence(VALIDATION, n)

    def token_files(self) -> TokenFiles:
        """Sequences for validation as documents: 0 w 0 to read, w to score."""
        half, count = self.length + 2, max(1, min(MOST_SEQUENCES, VALIDATION_TOKENS // self.length))
        rows = np.stack([self.validation(n) for n in range(count)])
        spans = [ValidationSpan(f"sequence {n + 1}", self._span(n), n * half, (n + 1) * half) for n in range(count)]
        before, after = rows[:, :half].reshape(-1), rows[:, half:].reshape(-1)
        return TokenFiles(before, after, ByteTokenizer.end, spans, count, before.size)

    def _span(self, n: int) -> Span:
        return Span(n * self.length, (n + 1) * self.length, self.length, self.length, 1)


def find(specs: Sequence[str]) -> CopyTask | None:
    """The synthetic source that a corpus names, if it does. UserError for a misspelt one, or one among others."""
    if not any(spec.startswith(COPY) for spec in specs):
        return None
    if len(specs) > 1:
        raise UserError(f"{COPY} stands alone, not among {len(specs)} texts", "leave the others out")
    numbers = specs[0].removeprefix(COPY).split(":")
    if len(numbers) != 2 or not all(n.isascii() and n.isdigit() and len(n) < 9 for n in numbers):
        raise UserError(f"{specs[0]!r} is not {COPY}LENGTH:SYMBOLS", f"such as {COPY}511:127")
    length, symbols = map(int, numbers)
    if not 1 <= length <= 2**24 or not 2 <= symbols <= 255:
        raise UserError(f"{specs[0]} asks for {length:,} of {symbols:,} symbols", "use 1 to 2^24 of 2 to 255")
    return CopyTask(length, symbols)
