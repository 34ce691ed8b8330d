"""How well a model predicts a text: each token scored once, given all that precedes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
import torch
from reformer import ReformerLM
from torch import Tensor

from reformer_cli.evaluation.bootstrap import Blocks, Numbers, interval
from reformer_cli.evaluation.scorers import ContextRule, Scorer
from reformer_cli.evaluation.token_facts import Facts, facts_of
from reformer_cli.tokenizers.base import Ids, Tokenizer

TOKENS, BYTES, CHARACTERS, WORDS, NATS = range(5)  # columns of sums
COLUMNS = 5
BINS, BIN_FACTOR = 16, 4  # positions: 0-15, 16-63, 64-255, ...


def _per(column: int, units: float = 1.0) -> Callable[[Numbers], Numbers]:
    return lambda sums: sums[..., NATS] / units / np.where(sums[..., column] > 0, sums[..., column], np.nan)


def _exp_of(figure: Callable[[Numbers], Numbers]) -> Callable[[Numbers], Numbers]:
    def raised(sums: Numbers) -> Numbers:
        with np.errstate(over="ignore"):
            return np.exp(figure(sums))

    return raised


# name in --json -> figure of sums [..., 5]
FIGURES: dict[str, Callable[[Numbers], Numbers]] = {
    "nats_per_token": _per(TOKENS),
    "perplexity": _exp_of(_per(TOKENS)),
    "bits_per_byte": _per(BYTES, math.log(2)),
    "bits_per_character": _per(CHARACTERS, math.log(2)),
    "word_perplexity": _exp_of(_per(WORDS)),
}


@dataclass(frozen=True)
class Score:
    """Sums over what was scored; scores of several texts add up."""

    tokens: int
    bytes: float
    characters: int
    words: int
    nats: float

    @classmethod
    def of(cls, sums: Numbers) -> Score:
        return cls(int(sums[TOKENS]), float(sums[BYTES]), int(sums[CHARACTERS]), int(sums[WORDS]), float(sums[NATS]))

    def __add__(self, other: Score) -> Score:
        return Score(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def figure(self, name: str) -> float:
        return float(FIGURES[name](np.array(astuple(self), np.float64)))

    @property
    def perplexity(self) -> float:
        return self.figure("perplexity")

    @property
    def bits_per_byte(self) -> float:
        return self.figure("bits_per_byte")

    def as_dict(self) -> dict[str, float]:
        """The figures by the names that `--json` prints."""
        counts = {"tokens": self.tokens, "bytes": round(self.bytes), "characters": self.characters, "words": self.words}
        return counts | {name: self.figure(name) for name in FIGURES}


def nats(
    model: ReformerLM, prefix: Tensor, scored: Tensor, rule: ContextRule, progress: Callable[[int], None] | None = None
) -> float:
    """Total nats of tokens scored [n], given prefix [m >= 1] and each other; in bounded memory."""
    scorer, total = rule.scorer(model, prefix), 0.0
    for part in scored.split(scorer.at_once):
        if len(part):
            total += float(scorer.score(part).sum())
            if progress is not None:
                progress(len(part))
    return total


class ScoreSums:
    """What is known of a text as it is scored: sums over blocks, in all and by position. first: the position of the
    first token, which is how many the model has read before it. images: whether it is of images, which have no words.
    """

    def __init__(self, first: int = 0, images: bool = False) -> None:
        self.images = images
        self.blocks = Blocks(COLUMNS)
        self.bins: list[Blocks] = []
        self._position = first

    def add(self, facts: Facts, nats: Numbers) -> None:
        """Of the next tokens: facts [n, 3] as `facts_of` gives, nats [n]."""
        rows = np.concatenate([np.ones((len(nats), 1)), facts, nats[:, None]], 1)
        self.blocks.add(rows)
        place = bin_of(self._position + np.arange(len(rows)))
        self._position += len(rows)
        while len(self.bins) <= place[-1]:
            self.bins.append(Blocks(COLUMNS))
        for n in range(place[0], place[-1] + 1):
            self.bins[n].add(rows[place == n])

    def another(self) -> None:
        """The next tokens begin another text, or image."""
        self._position = 0

    @property
    def score(self) -> Score:
        return Score.of(self.blocks.total)


def bin_of(position: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number of the bin that a position is in: 0 for 0-15, 1 for 16-63, 2 for 64-255, ..."""
    edges = BINS * BIN_FACTOR ** np.arange(30, dtype=np.int64)
    return np.searchsorted(edges, position, side="right")


def bin_range(n: int) -> tuple[int, int]:
    """The first and last position of bin n."""
    return 0 if n == 0 else BINS * BIN_FACTOR ** (n - 1), BINS * BIN_FACTOR**n - 1


def score_pieces(
    scorer: Scorer, pieces: Iterable[tuple[Ids, Facts]], first: int = 0, progress: Callable[[int], None] | None = None
) -> ScoreSums:
    """Score a text that comes in pieces, each with its tokens' facts. The figures do not depend on where it is cut;
    progress: is told of the bytes done."""
    found = ScoreSums(first)
    for ids, facts in regrouped(pieces, scorer.at_once):
        found.add(facts, scorer.score(torch.from_numpy(ids.astype(np.int64))).numpy())
        if progress is not None:
            progress(round(facts[:, 0].sum()))
    return found


def encoded(tokenizer: Tokenizer, texts: Iterable[str]) -> Iterator[tuple[Ids, Facts]]:
    """Tokens of pieces of text, and their facts."""
    lengths = tokenizer.byte_lengths()
    for text in texts:
        ids = tokenizer.encode(text)
        yield ids, facts_of(text, ids, lengths)


def regrouped(pieces: Iterable[tuple[Ids, Facts]], size: int) -> Iterator[tuple[Ids, Facts]]:
    """The same tokens, `size` at a time."""
    held: list[tuple[Ids, Facts]] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece[0])
        if count < size:
            continue
        ids, facts = (np.concatenate(parts) for parts in zip(*held, strict=True))
        full = count // size * size
        for start in range(0, full, size):
            yield ids[start : start + size], facts[start : start + size]
        held, count = [(ids[full:], facts[full:])], count - full
    if count:
        ids, facts = (np.concatenate(parts) for parts in zip(*held, strict=True))
        yield ids, facts


def pooled(texts: Sequence[Blocks]) -> tuple[Score, dict[str, tuple[float, float] | None]]:
    """The score of texts together, and the bootstrap interval of every figure by its name; see `blocks.interval`."""
    sums = np.concatenate([blocks.sums for blocks in texts])
    return Score.of(sums.sum(0)), {name: interval(sums, figure) for name, figure in FIGURES.items()}
