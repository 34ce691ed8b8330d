"""How well a model predicts a text: each token scored once, given all that precedes it (design section 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from reformer import DecodingState, ReformerConfig, ReformerLM
from torch import Tensor

from reformer_cli.evaluation.bootstrap import Blocks, Numbers, interval
from reformer_cli.evaluation.token_facts import Facts, facts_of
from reformer_cli.tokenizers.base import Ids, Tokenizer

AT_ONCE = 4096  # tokens scored at a time

DECODING, FORWARD = "decoding", "forward"
FIRST_OF_TEXT = "a file's first one, given the end-of-text token"

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


class Scorer(Protocol):
    """Scores tokens that come in order; at_once: how many at a time are best."""

    at_once: int

    def score(self, ids: Tensor) -> Tensor:
        """Nats of the next tokens, int64 [n] -> float64 [n], on the CPU."""


class FullContextScorer:
    """Every token sees everything before it: through `extend`, in bounded memory."""

    def __init__(self, model: ReformerLM, prefix: Tensor, progress: Callable[[int], None] | None = None) -> None:
        self.model, self.at_once = model, AT_ONCE
        self.state: DecodingState | None = None
        device = model.embedding.device
        with torch.inference_mode():
            for part in prefix[:-1].to(device).split(AT_ONCE):
                if len(part):
                    _, self.state = model.extend(part[None], self.state, last_only=True)
                    if progress is not None:
                        progress(len(part))
        self.last = prefix[-1:].to(device)

    def score(self, ids: Tensor) -> Tensor:
        ids = ids.to(self.last.device)
        inputs = torch.cat([self.last, ids[:-1]])
        self.last = ids[-1:]
        with torch.inference_mode():
            found, self.state = self.model.score(inputs[None], ids[None], self.state)
        return found[0].double().cpu()


class WindowScorer:
    """Every token sees the half of a context before it, and less than the whole: the text is taken in stretches of half
    a context, each read anew after the half before it; at the beginning of a text, there is less to see.

    forward: each is read by one pass, as in training; else as decoding reads, which is the same but for pattern
    `published`."""

    def __init__(self, model: ReformerLM, prefix: Tensor, context: int, forward: bool = False) -> None:
        self.model, self.forward = model, forward
        self.half = max(1, context // 2)
        self.before = context - self.half
        self.at_once = self.half * max(1, AT_ONCE // context)
        self.tail = prefix[-self.before :].to(model.embedding.device)

    def score(self, ids: Tensor) -> Tensor:
        whole, first = torch.cat([self.tail, ids.to(self.tail.device)]), len(self.tail)
        self.tail = whole[-self.before :]
        found = torch.empty(len(ids), dtype=torch.float64)
        alike: dict[tuple[int, int], list[int]] = {}  # (tokens before, tokens scored) -> where stretches begin
        for start in range(first, len(whole), self.half):
            shape = min(start, self.before), min(self.half, len(whole) - start)
            alike.setdefault(shape, []).append(start)
        for (seen, scored), starts in alike.items():
            rows = max(1, AT_ONCE // (seen + scored))
            for begin in torch.tensor(starts).split(rows):
                found[begin[:, None] - first + torch.arange(scored)] = self._stretches(whole, begin, seen, scored)
        return found

    def _stretches(self, whole: Tensor, begin: Tensor, seen: int, scored: int) -> Tensor:
        """Nats float64 [rows, scored] of the tokens from each `begin` [rows] on, given the `seen` before."""
        tokens = whole[begin[:, None].to(whole.device) + torch.arange(-seen, scored, device=whole.device)]
        targets = tokens[:, 1:].clone()
        targets[:, : seen - 1] = -100
        with torch.inference_mode():
            inputs = tokens[:, :-1]
            nats = self.model.score_forward(inputs, targets) if self.forward else self.model.score(inputs, targets)[0]
        return nats[:, seen - 1 :].double().cpu()


@dataclass(frozen=True)
class ContextRule:
    """How texts are read. context: a token sees at least half of it and less than the whole, see `WindowScorer`; None:
    everything before it. forward: by passes as in training, of which only contexts can be taken."""

    context: int | None = None
    forward: bool = False

    def reader(self, model: ReformerLM, prefix: Tensor) -> Scorer:
        """What scores tokens after a prefix [m >= 1]."""
        if self.context is None:
            return FullContextScorer(model, prefix)
        return WindowScorer(model, prefix, self.context, self.forward)

    def rule(self, config: ReformerConfig, images: bool = False) -> str:
        """What is scored given what, in words."""
        sees = "everything before it"
        if self.context is not None:
            half = max(1, self.context // 2)
            sees = f"{self.context - half:,} to {self.context - 1:,} tokens before it (fewer where a text begins)"
        first = "an image's first one, given the token that begins it" if images else FIRST_OF_TEXT
        text = f"Each token is scored once, given {sees}; {first} alone."
        if config.pattern == "published":
            text += "\nPattern published has two likelihoods: this is that of "
            text += (
                "the forward pass, as trained and released" if self.forward else "decoding, which generation follows"
            )
            text += f" (--likelihood {DECODING if self.forward else FORWARD} gives the other)."
        return text


def reading_of(config: ReformerConfig, trained: int, context: int | None, likelihood: str | None) -> ContextRule:
    """What is meant by a context and a likelihood (DECODING, FORWARD) that may be left out. trained: tokens that a
    training step reads in one piece.

    Loss, decoding and perplexity are one function but for pattern `published`, where training's is preferred.
    """
    forward = (likelihood or (FORWARD if config.pattern == "published" else DECODING)) == FORWARD
    return ContextRule(trained if forward and context is None else context, forward)


def reading_of_images(config: ReformerConfig, values: int, likelihood: str | None = None) -> ContextRule:
    """Images of so many values: each value sees all before it, also where an image is read by one pass."""
    forward = reading_of(config, values, None, likelihood).forward
    return ContextRule(2 * values, True) if forward else ContextRule()


def nats(
    model: ReformerLM,
    prefix: Tensor,
    scored: Tensor,
    reading: ContextRule,
    progress: Callable[[int], None] | None = None,
) -> float:
    """Total nats of tokens scored [n], given prefix [m >= 1] and each other; in bounded memory."""
    reader, total = reading.reader(model, prefix), 0.0
    for part in scored.split(reader.at_once):
        if len(part):
            total += float(reader.score(part).sum())
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
    reader: Scorer,
    pieces: Iterable[tuple[Ids, Facts]],
    first: int = 0,
    progress: Callable[[int], None] | None = None,
) -> ScoreSums:
    """Score a text that comes in pieces, each with its tokens' facts. The figures do not depend on where it is cut;
    progress: is told of the bytes done."""
    found = ScoreSums(first)
    for ids, facts in regrouped(pieces, reader.at_once):
        found.add(facts, reader.score(torch.from_numpy(ids.astype(np.int64))).numpy())
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
