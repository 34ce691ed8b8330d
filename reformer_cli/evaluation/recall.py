"""What a model can still find: three tests made from a seed, for any vocabulary. All questions are greedy and
teacher-forced: a token is right if it is the likeliest one, the tokens before it being given.

- copy: 0 w 0 w with random w (paper, section 5): how much of the second w is right.
- associative: a stream of random keys with values; a key comes again, how often is its value right, by distance.
- needle: a sentence of random words planted in a text; its beginning comes again at the end, how much of the rest is
  right, by depth and length, and how much without the planted sentence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from reformer import DecodingState, ReformerLM
from reformer.backends.dtypes import widest
from torch import Tensor

from reformer_cli.data.copy_task import MARK, CopyTask
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.utils.errors import UserError

TESTS = ("copy", "associative", "needle")
SHORTEST, FACTOR = 64, 4  # distances and lengths grow by fours
COPY_TOKENS, MOST_SEQUENCES = 32_768, 64  # read at most for each length
ROWS, QUESTIONS = 8, 8  # streams of pairs or texts, and questions on each at each distance
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of planted sentences: 0 is the beginning, 1 the end of the text
CUE, ANSWER = 6, 6  # words of a planted sentence that are given, and that are asked for
NEEDLE_SHORTEST = 1024
LONGEST_FORWARD = 8_192  # tokens of a pass that is not streamed
PLAIN_WORD = re.compile(r"(?<![^\W_])[^\W\d_]{4,12}(?![^\W_])")

Tokens = npt.NDArray[np.int64]
Progress = Callable[[int], None]  # is told of tokens read


@dataclass(frozen=True)
class Alphabet:
    """Tokens that tests are made of: symbols, int64 [n], a mark between them, and what a text begins with."""

    symbols: Tokens
    mark: int
    first: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """Of one test in one setting. distance, length: in tokens; depth: 0 to 1, of needles alone; asked, right: tokens;
    nats: mean of those asked; without: the same in the needle's absence."""

    test: str
    length: int
    distance: int
    depth: float | None
    asked: int
    right: int
    nats: float
    right_without: int | None = None
    nats_without: float | None = None

    @property
    def share(self) -> float:
        return self.right / self.asked

    def as_dict(self) -> dict[str, float | int | str | None]:
        return asdict(self) | {"share": self.share}


def alphabet_of(tokenizer: Tokenizer, source: CopyTask | None) -> Alphabet:
    """All tokens that are visible text, with a newline as the mark; of a synthetic corpus, its own symbols."""
    if source is not None:
        return Alphabet(np.arange(1, source.symbols + 1), MARK, ())
    lengths = tokenizer.byte_lengths()
    texts = [tokenizer.decode(np.array([n], np.int32)) if lengths[n] >= 1 else "" for n in range(len(lengths))]
    symbols = [n for n, text in enumerate(texts) if text.strip() and text.isprintable() and "\ufffd" not in text]
    if len(symbols) < 8:
        raise UserError(f"the vocabulary has {len(symbols)} tokens of visible text, too few to make tests of")
    return Alphabet(np.array(symbols), int(tokenizer.encode("\n")[0]), (tokenizer.end,))


def steps_to(longest: int, shortest: int = SHORTEST) -> list[int]:
    """shortest, and so on by fours, up to longest."""
    found = [shortest]
    while found[-1] * FACTOR <= longest:
        found.append(found[-1] * FACTOR)
    return found


@torch.inference_mode()
def answers(model: ReformerLM, tokens: Tensor, count: int, streamed: bool) -> tuple[Tensor, Tensor]:
    """Whether each of the last `count` tokens of the rows [rows, n] is the likeliest (bool), and its nats (float64).

    streamed: through `extend`, in bounded memory; else in one pass, which full attention in the hash's place needs.
    """
    if not streamed:
        return _judged(model(tokens[:, :-1])[:, -count:], tokens[:, -count:])
    state: DecodingState | None = None
    for part in tokens[:, : -count - 1].split(model.tokens_at_once(len(tokens)), 1):
        if part.shape[1]:
            _, state = model.extend(part, state, last_only=True)
    found, at_once = [], max(1, 4096 // len(tokens))  # tokens whose logits exist at a time
    for start in range(tokens.shape[1] - count - 1, tokens.shape[1] - 1, at_once):
        stop = min(start + at_once, tokens.shape[1] - 1)
        logits, state = model.extend(tokens[:, start:stop], state)
        found.append(_judged(logits, tokens[:, start + 1 : stop + 1]))
    return torch.cat([right for right, _ in found], 1), torch.cat([nats for _, nats in found], 1)


def _judged(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    nats = F.cross_entropy(logits.to(widest(logits.device)).transpose(1, 2), targets, reduction="none")
    return logits.argmax(-1) == targets, nats


def copy(
    model: ReformerLM, alphabet: Alphabet, length: int, seed: int, streamed: bool = True,
    progress: Progress | None = None,
) -> Outcome:  # fmt: skip
    """0 w 0 w with w of `length` symbols; see the module's docstring."""
    row = len(alphabet.first) + 2 * (length + 1)
    count = max(1, min(MOST_SEQUENCES, COPY_TOKENS // row))
    task, tokens = CopyTask(length, len(alphabet.symbols)), np.concatenate([[alphabet.mark], alphabet.symbols])
    first = np.array(alphabet.first, np.int64)
    rows = [np.concatenate([first, tokens[task.sequence(seed, 0, length, n)]]) for n in range(count)]
    right, nats = 0, 0.0
    for part in _on(model, np.stack(rows)).split(max(1, LONGEST_FORWARD // row)):
        a, b = answers(model, part, length, streamed)
        right, nats = right + int(a.sum()), nats + float(b.sum())
        if progress is not None:
            progress(part.numel())
    asked = count * length
    return Outcome("copy", row, length + 1, None, asked, right, nats / asked)


def copy_tokens(length: int) -> int:
    """What `copy` reads."""
    return max(1, min(MOST_SEQUENCES, COPY_TOKENS // (2 * length + 2))) * (2 * length + 2)


@torch.inference_mode()
def associative(
    model: ReformerLM, alphabet: Alphabet, distances: Sequence[int], seed: int, progress: Progress | None = None
) -> list[Outcome]:
    """Keys of several symbols, each with a value of one, then a mark; every key occurs once before it is asked for.

    A distance is from where the key began to where it begins again, to within a few pairs.
    """
    n_symbols, key = len(alphabet.symbols), 1
    while n_symbols**key < 8 * (max(distances) // (key + 2) + QUESTIONS):
        key += 1
    unit = key + 2
    count = max(distances) // unit + QUESTIONS
    keys, values = np.empty((ROWS, count, key), np.int64), np.empty((ROWS, count), np.int64)
    for row in range(ROWS):
        random = np.random.default_rng([seed, 1, row])
        drawn = random.choice(n_symbols**key, count, replace=False)
        digits = drawn[:, None] // n_symbols ** np.arange(key) % n_symbols
        keys[row], values[row] = alphabet.symbols[digits], alphabet.symbols[random.integers(0, n_symbols, count)]
    marks = np.full((ROWS, count, 1), alphabet.mark)
    stream = np.concatenate([keys, values[:, :, None], marks], 2).reshape(ROWS, -1)
    first = np.tile(np.array(alphabet.first, np.int64), (ROWS, 1))
    state = _read(model, _on(model, np.concatenate([first, stream], 1)), progress)
    found = []
    for distance in distances:
        middle = count - round(distance / unit)
        asked = sorted(range(count), key=lambda p: abs(p - middle))[:QUESTIONS]
        right, nats = 0, 0.0
        for p in asked:
            logits, _ = model.extend(_on(model, keys[:, p]), state.clone(), last_only=True)
            a, b = _judged(logits, _on(model, values[:, p : p + 1]))
            right, nats = right + int(a.sum()), nats + float(b.sum())
        total = ROWS * len(asked)
        found.append(Outcome("associative", count * unit, distance, None, total, right, nats / total))
    return found


@dataclass(frozen=True)
class Needle:
    """A planted sentence: its tokens, and what is asked: cue and answer."""

    planted: Tokens
    cue: Tokens
    answer: Tokens


def make_needle(tokenizer: Tokenizer, words: Sequence[str], random: np.random.Generator) -> Needle:
    """Random words as a line of text."""
    drawn = [words[n] for n in random.choice(len(words), CUE + ANSWER, replace=False)]
    # No token crosses a space, so that cue and answer are the planted tokens wherever they stand.
    cue, answer = "\n" + " ".join(drawn[:CUE]).capitalize(), " " + " ".join(drawn[CUE:])
    return Needle(*(tokenizer.encode(text).astype(np.int64) for text in (f"{cue}{answer}.\n", cue, answer)))


def common_words(text: str) -> list[str]:
    """Words of 4 to 12 letters that occur twice in a text, to make sentences of. Raises UserError for too few."""
    counts = Counter(word for word in PLAIN_WORD.findall(text) if word.islower())
    found = sorted(word for word, n in counts.items() if n >= 2)
    if len(found) < 4 * (CUE + ANSWER):
        raise UserError(f"the text has {len(found)} common words, too few to make sentences of", "give a longer --text")
    return found


@torch.inference_mode()
def needle(
    model: ReformerLM, tokenizer: Tokenizer, text: Tokens, words: Sequence[str], length: int, seed: int,
    progress: Progress | None = None,
) -> list[Outcome]:  # fmt: skip
    """A sentence at every depth of `length` tokens of a text, which has as many at least; ROWS times with others."""
    rows, needles = [], []
    for row in range(ROWS):
        random = np.random.default_rng([seed, 2, length, row])
        needles.append([make_needle(tokenizer, words, random) for _ in DEPTHS])
        rows.append(_planted(text, needles[-1], length, tokenizer.end))
    state = _read(model, _on(model, np.stack(rows)), progress)
    plain = np.concatenate([[tokenizer.end], text[: length - 1]])
    without = _read(model, _on(model, plain[None]), progress)
    found = []
    for n, depth in enumerate(DEPTHS):
        here = [of_row[n] for of_row in needles]
        asked, right, nats = _asked(model, state, here)
        alone = [_asked(model, without, [each]) for each in here]
        found.append(
            Outcome(
                "needle", length, round((1 - depth) * length), depth, asked, right, nats / asked,
                sum(a[1] for a in alone), sum(a[2] for a in alone) / asked,
            )
        )  # fmt: skip
    return found


def _planted(text: Tokens, needles: Sequence[Needle], length: int, end: int) -> Tokens:
    """`length` tokens: the end-of-text token, the text, and the needles at their depths."""
    room = length - 1 - sum(len(n.planted) for n in needles)
    if room < len(DEPTHS):
        raise UserError(f"{length:,} tokens are too few for {len(needles)} planted sentences", "raise --max-distance")
    parts, place = [np.array([end])], 0
    for depth, each in zip(DEPTHS, needles, strict=True):
        at = round(depth * room)
        parts += [text[place:at], each.planted]
        place = at
    return np.concatenate(parts)


def _asked(model: ReformerLM, state: DecodingState, needles: Sequence[Needle]) -> tuple[int, int, float]:
    """(tokens asked for, right ones, their nats) after a state, one needle a row; rows are filled up at their ends."""
    width = max(len(n.cue) + len(n.answer) for n in needles)
    tokens = np.zeros((len(needles), width), np.int64)
    asked = np.zeros((len(needles), width), np.bool_)
    for row, n in enumerate(needles):
        stop = len(n.cue) + len(n.answer)
        tokens[row, :stop] = np.concatenate([n.cue, n.answer])
        asked[row, len(n.cue) : stop] = True
    ids, where = _on(model, tokens), torch.from_numpy(asked[:, 1:]).to(model.embedding.device)
    logits, _ = model.extend(ids[:, :-1], state.clone())
    right, nats = _judged(logits, ids[:, 1:])
    return int(where.sum()), int((right & where).sum()), float(nats[where].sum())


def _read(model: ReformerLM, tokens: Tensor, progress: Progress | None) -> DecodingState:
    """The state after rows of tokens."""
    state: DecodingState | None = None
    for part in tokens.split(model.tokens_at_once(len(tokens)), 1):
        _, state = model.extend(part, state, last_only=True)
        if progress is not None:
            progress(part.numel())
    assert state is not None
    return state


def _on(model: ReformerLM, tokens: Tokens) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(tokens)).long().to(model.embedding.device)
