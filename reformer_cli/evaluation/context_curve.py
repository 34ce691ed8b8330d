"""How far back a model looks: the same tokens scored with more and more context, and where the difference lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from reformer import ReformerLM
from torch import Tensor

from reformer_cli.evaluation.bootstrap import Blocks, Numbers, interval
from reformer_cli.evaluation.scorers import FullContextScorer, WindowScorer
from reformer_cli.evaluation.word_recurrence import NEW, NO_WORD, Recurrence

SHORTEST, FACTOR = 256, 4  # contexts: 256, 1,024, 4,096, ...
Context = int | None  # the tokens a token may see; None: all that came before
Figure = tuple[float, tuple[float, float] | None]  # bits/byte and its interval


@dataclass(frozen=True)
class Passage:
    """A stretch of a text to score, int64 [n], and all that comes before it, int64 [m >= 1]; bytes, float64 [n], and
    recurrence are of the scored tokens."""

    prefix: Tensor
    scored: Tensor
    bytes: Numbers
    recurrence: Recurrence | None = None


@dataclass(frozen=True)
class Band:
    """Tokens whose word last occurred from `low` to `high` tokens ago (None: or more); NEW: had never occurred."""

    low: int
    high: int | None

    def holds(self, distance: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        if self.low == NEW:
            return distance == NEW
        return (distance >= self.low) & ((distance <= self.high) if self.high is not None else True)

    def __str__(self) -> str:
        if self.low == NEW:
            return "never before"
        return f"{self.low:,} - {self.high:,}" if self.high is not None else f"{self.low:,} or more"


class Curve:
    """contexts: from short to long, the last one None; nats: [contexts, tokens]; bytes: [tokens]; seen: the least and
    the most tokens that came before a scored one."""

    def __init__(
        self, contexts: Sequence[Context], nats: Numbers, bytes_: Numbers, recurrence: Recurrence | None,
        seen: tuple[int, int],
    ) -> None:  # fmt: skip
        self.contexts, self.nats, self.bytes, self.recurrence, self.seen = contexts, nats, bytes_, recurrence, seen

    def _blocks(self, where: npt.NDArray[np.bool_] | None) -> Numbers:
        """[blocks, 1 + contexts]: bytes, then nats at each context, of the tokens that count."""
        rows = np.concatenate([self.bytes[:, None], self.nats.T], 1)
        blocks = Blocks(rows.shape[1])
        blocks.add(rows if where is None else rows * where[:, None])
        return blocks.sums

    def bits(self, at: int, where: npt.NDArray[np.bool_] | None = None) -> Figure:
        """Bits/byte at contexts[at], of all tokens or those that count."""
        return _figure(self._blocks(where), lambda s: s[..., 1 + at])

    def saved(self, short: int, long: int, where: npt.NDArray[np.bool_] | None = None) -> Figure:
        """Bits/byte that contexts[long] saves over contexts[short]. The interval is of the difference: both score the
        same tokens, so that it is far narrower than either's own."""
        return _figure(self._blocks(where), lambda s: s[..., 1 + short] - s[..., 1 + long])

    def bands(self) -> list[Band]:
        """Distances between one context and the next, and words that had not occurred."""
        edges = [1, *(c for c in self.contexts if c is not None)]
        spans = [Band(low, high - 1) for low, high in pairwise(edges)]
        return [*spans, Band(edges[-1], None), Band(NEW, NEW)]

    def in_band(self, band: Band, names: bool) -> npt.NDArray[np.bool_]:
        """bool [tokens]: of words in a band; names: of rare names only."""
        assert self.recurrence is not None
        found = band.holds(self.recurrence.distance) & (self.recurrence.distance != NO_WORD)
        return found & self.recurrence.rare_name if names else found

    def sees(self, context: Context) -> tuple[int, int]:
        """The fewest and the most tokens that a scored token sees at a context."""
        if context is None:
            return self.seen
        return min(context - max(1, context // 2), self.seen[0]), min(context - 1, self.seen[1])


def _figure(blocks: Numbers, nats: Callable[[Numbers], Numbers]) -> Figure:
    def figure(sums: Numbers) -> Numbers:
        return nats(sums) / math.log(2) / sums[..., 0]

    total = blocks.sum(0)
    return (float(figure(total)) if total[0] else math.nan), interval(blocks, figure)


def choose_contexts(longest: int, asked: Sequence[int] = ()) -> list[Context]:
    """The contexts to compare, where at most `longest` tokens come before one: those asked for, or 256 and so on by
    fours (fewer where the text is short), and all that came before."""
    first = SHORTEST
    while first > 4 and first * FACTOR > longest:
        first //= FACTOR
    wanted = sorted(set(asked)) or [first * FACTOR**n for n in range(20)]
    return [*(c for c in wanted if c <= longest), None]


def context_curve(
    model: ReformerLM, passages: Sequence[Passage], contexts: Sequence[Context],
    progress: Callable[[int], None] | None = None,
) -> Curve:  # fmt: skip
    """Score all passages at every context. progress: is told of tokens read, see `tokens_to_read`."""
    tell = progress or (lambda n: None)
    found = np.empty((len(contexts), sum(len(p.scored) for p in passages)))
    for row, context in enumerate(contexts):
        place = 0
        for p in passages:
            if context is None:
                scorer: WindowScorer | FullContextScorer = FullContextScorer(model, p.prefix, tell)
            else:
                scorer = WindowScorer(model, p.prefix, context)
            for part in p.scored.split(scorer.at_once):
                found[row, place : place + len(part)] = scorer.score(part).numpy()
                place += len(part)
                tell(len(part) * (1 if context is None else 2))
    told = [p.recurrence for p in passages if p.recurrence is not None]
    whole = None
    if told and len(told) == len(passages):
        whole = Recurrence(*(np.concatenate(x) for x in zip(*((r.distance, r.rare_name) for r in told), strict=True)))
    seen = min(len(p.prefix) for p in passages), max(len(p.prefix) + len(p.scored) - 1 for p in passages)
    return Curve(contexts, found, np.concatenate([p.bytes for p in passages]), whole, seen)


def tokens_to_read(passages: Sequence[Passage], contexts: Sequence[Context]) -> int:
    """What `context_curve` will read, some of it twice."""
    return sum(len(p.prefix) + len(p.scored) if c is None else 2 * len(p.scored) for c in contexts for p in passages)


def named(context: Context) -> str:
    return "all before" if context is None else f"{context:,}"


def verdict(curve: Curve) -> str:
    """What the curve says, in one line: the shortest context that saves over the first one, and over which no longer
    one is shown to save."""
    contexts, last = curve.contexts, len(curve.contexts) - 1
    if last == 0:
        return "The text is too short to compare contexts."
    if curve.saved(0, 1)[1] is None:
        return f"Too few tokens to tell use from chance ({len(curve.bytes):,} scored): score a longer text."
    helpful = [k for k in range(1, last + 1) if _shown(curve, 0, k)]
    if not helpful:
        return f"No use of more than {contexts[0]:,} tokens of context is shown: {_change(curve, 0, last)}."
    enough = (k for k in helpful if not any(_shown(curve, k, longer) for longer in range(k + 1, last + 1)))
    reach = next(enough, helpful[-1])
    so_far = (
        f"{named(contexts[reach])} tokens of context are" if contexts[reach] is not None else "All that came before is"
    )
    text = f"{so_far} used: {_change(curve, 0, reach)}"
    if reach < last:
        text += f"; beyond that no gain is shown: {_change(curve, reach, last)}"
    return f"{text}{_names(curve)}."


def _shown(curve: Curve, short: int, long: int) -> bool:
    """Whether the longer context's saving is beyond chance."""
    _, found = curve.saved(short, long)
    return found is not None and found[0] > 0


def _change(curve: Curve, short: int, long: int) -> str:
    amount, found = curve.saved(short, long)
    assert found is not None
    verb = "saves" if amount >= 0 else "costs"
    low, high = found if amount >= 0 else (-found[1], -found[0])
    share = abs(amount) / curve.bits(short)[0]
    text = f"{named(curve.contexts[long])} instead of {named(curve.contexts[short])} {verb} {abs(amount):.4f} bits/byte"
    return f"{text}, {share:.1%} (95 %: {low:.4f} to {high:.4f})"


def _names(curve: Curve) -> str:
    """What context does for rare names that last occurred beyond the shortest one."""
    if curve.recurrence is None:
        return ""
    last, best = len(curve.contexts) - 1, ""
    most = 0.0
    for band in curve.bands()[1:-1]:
        where = curve.in_band(band, names=True)
        amount, found = curve.saved(0, last, where) if where.any() else (0.0, None)
        if found is not None and found[0] > 0 and amount > most:
            most = amount
            best = (
                f"; a rare name last seen {band} tokens ago costs {curve.bits(last, where)[0]:.2f} bits/byte "
                f"instead of {curve.bits(0, where)[0]:.2f}"
            )
    return best or "; rare names from beyond the shortest context are not shown to gain"
