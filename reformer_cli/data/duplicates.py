"""Texts and passages of a corpus that stand in an earlier text too, found by the shingles that the scan kept.

A text is a duplicate if half of its shingles (all, of a short one) stood in texts before it, as those of another
edition do; a passage is one of six shingles or more, some 400 letters. What is known of all texts is bounded: beyond
16 million shingles the smaller half of hashes goes on. The order of the corpus decides, not which process read what.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from reformer_cli.data.file_index import Listing, Record
from reformer_cli.data.shingles import FEWEST, LEFT_OUT, LENGTH, LOWER, Hashes, hashes, shingle_starts
from reformer_cli.data.split import Rule
from reformer_cli.data.unwrap import blocks

SAME = 0.5  # share of its shingles that stood in others, of a duplicate
RUN = 6  # shingles of a passage; one that is new may stand between two that are not
MOST = 2**24  # shingles that are remembered
SKETCH = 2**18  # shingles by which a text is found in one that was trained on
NAMED = 100  # duplicates that are named
BLOCK = 2**16  # characters in which passages are looked for together
NEAR = 400  # bytes within which a passage goes on to its paragraph's end
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_IS_LETTER = np.array([byte not in LEFT_OUT for byte in range(256)])


@dataclass
class Duplicates:
    """What stands more than once. texts: whole ones; names: (text, one before with most of it); characters: about."""

    texts: int = 0
    names: list[tuple[str, str]] = field(default_factory=list)
    passages: int = 0
    characters: int = 0
    heads: dict[str, int] = field(default_factory=dict)  # lines of running heads, by one of them for each text

    def __str__(self) -> str:
        """In one line; "" where there are none."""
        parts = []
        if self.texts:
            such = f" ({self.names[0][0]} in {self.names[0][1]})"
            parts.append(f"{self.texts:,} {'text stands' if self.texts == 1 else 'texts stand'} in others{such}")
        if self.passages:
            what = "passage stands" if self.passages == 1 else "passages stand"
            parts.append(f"{self.passages:,} {what} in several (some {self.characters:,} characters)")
        if self.heads:
            parts.append(f"{sum(self.heads.values()):,} running heads, as {next(iter(self.heads))!r}")
        return ", ".join(parts)


class Seen:
    """The shingles of texts so far, and the text in which each stood first: sorted arrays, each at most half as long as
    the one before it."""

    def __init__(self, most: int = MOST) -> None:
        self.most, self.limit = most, 2**32
        self._levels: list[tuple[Hashes, Numbers]] = []

    def find(self, wanted: Hashes) -> Numbers:
        """The text in which each stood first; -1: in none."""
        found = np.full(len(wanted), -1, np.int64)
        for keys, texts in self._levels:
            at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            hit = keys[at] == wanted
            found[hit] = texts[at[hit]]
        return found

    def add(self, keys: Hashes, texts: Numbers) -> None:
        """New ones, sorted."""
        if len(keys):
            self._levels.append((keys, texts))
        while len(self._levels) > 1 and 2 * len(self._levels[-1][0]) > len(self._levels[-2][0]):
            (a, b), (c, d) = self._levels.pop(), self._levels.pop()
            keys, texts = np.concatenate([a, c]), np.concatenate([b, d])
            order = np.argsort(keys, kind="stable")
            self._levels.append((keys[order], texts[order]))
        while sum(len(keys) for keys, _ in self._levels) > self.most:
            self.limit //= 2
            cut = [int(np.searchsorted(keys, self.limit)) for keys, _ in self._levels]
            self._levels = [(k[:n], t[:n]) for (k, t), n in zip(self._levels, cut, strict=True) if n]


def find_duplicates(listing: Listing, leave_out: bool) -> Duplicates:
    """What of the listed files stands more than once. leave_out: note in their records what of later ones is to go."""
    found, seen, bases = Duplicates(), Seen(), array("q", [0])
    while (row := next(listing.rows(len(bases) - 1), None)) is not None:
        at, _, record = row
        for head, lines in record.heads.items():
            found.heads[head] = found.heads.get(head, 0) + lines
        texts, origins, passages = _repeated(record, seen, bases[at])
        found.texts += len(texts)
        for text, origin in zip(texts, origins[: NAMED - len(found.names)], strict=False):
            found.names.append((_name(listing, bases, bases[at] + int(text)), _name(listing, bases, int(origin))))
        found.passages += len(passages)
        for text, run in passages:
            found.characters += int(record.lengths[text] * len(run) / record.counts[text])
        if leave_out and (len(texts) or passages):
            gone = [np.zeros(0, np.int64), *(text << 32 | run.astype(np.int64) for text, run in passages)]
            listing.put(at, replace(record, left_out=texts, passages=np.concatenate(gone)))
        bases.append(bases[at] + len(record.lengths))
    return found


def _name(listing: Listing, bases: Sequence[int], text: int) -> str:
    """Of a text by its number in the corpus."""
    n = bisect_right(bases, text) - 1
    _, source, record = next(listing.rows(n))
    return source.name if len(record.lengths) == 1 else f"{source.name}, text {text - bases[n] + 1:,}"


def _repeated(record: Record, seen: Seen, base: int) -> tuple[Numbers, list[int], list[tuple[int, Hashes]]]:
    """(duplicates, for some the earlier text that has most of each, passages as text and shingles) of a file whose
    texts are numbered from base; its shingles are seen from now on."""
    n = len(record.counts)
    known = record.shingles < seen.limit
    shingles, text = record.shingles[known], np.repeat(np.arange(n), record.counts)[known]
    unique, first, back = np.unique(shingles, return_index=True, return_inverse=True)
    before, here = seen.find(unique), text[first]
    seen.add(unique[before < 0], base + here[before < 0])
    origin = np.where(before < 0, base + here, before)[back]
    origin[origin == base + text] = -1  # stands in this text first
    total, hits = np.bincount(text, minlength=n), np.bincount(text[origin >= 0], minlength=n)
    same = (hits > 0) & (hits >= np.where(total < FEWEST, total, SAME * total))
    begin = np.searchsorted(text, np.arange(n + 1))
    texts = np.flatnonzero(same)
    origins: list[int] = []
    passages: list[tuple[int, Hashes]] = []
    for t in texts[:NAMED]:
        values, times = np.unique(origin[begin[t] : begin[t + 1]], return_counts=True)
        origins.append(int(values[values >= 0][times[values >= 0].argmax()]))
    for t in np.flatnonzero(~same & (hits >= RUN)):
        run = np.concatenate([[False], origin[begin[t] : begin[t + 1]] >= 0, [False]])
        run[1:-1] |= run[:-2] & run[2:]
        edges = np.flatnonzero(run[1:] != run[:-1]) + begin[t]
        passages += [(int(t), shingles[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= RUN]
    return texts, origins, passages


def remaining(pieces: Iterable[str], record: Record, number: int) -> Iterable[str]:
    """What of a text of a file is not left out."""
    a, b = np.searchsorted(record.left_out, (number, number + 1))
    if a < b:
        return []
    a, b = np.searchsorted(record.passages, (number << 32, number + 1 << 32))  # in the order of documents
    gone = (record.passages[a:b] & 0xFFFFFFFF).astype(np.uint32)
    return _without(pieces, gone) if len(gone) else pieces


def _without(pieces: Iterable[str], gone: Hashes) -> Iterator[str]:
    """A text without the passages of these shingles, each to the end of its paragraph or line where that is near."""
    for block in blocks(pieces, BLOCK):
        data = block.encode("utf-8", "surrogatepass")
        letters = data.translate(LOWER, LEFT_OUT)
        starts = shingle_starts(letters)
        hit = np.isin(hashes(letters, starts), gone)
        if not hit.any():
            yield block
            continue
        place = np.append(np.flatnonzero(_IS_LETTER[np.frombuffer(data, np.uint8)]), len(data))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], hit, [0]]))).tolist()
        kept, done = [], 0
        for a, b in zip(edges[::2], edges[1::2], strict=True):
            least = int(place[starts[a - 1]]) if a else 0  # where the shingles on both sides begin and end, which stay
            most = int(place[starts[b] + LENGTH - 1]) if b < len(starts) else len(data)
            start, stop = int(place[starts[a]]), int(place[starts[b - 1] + LENGTH - 1]) + 1
            start, stop = _begin(data, max(least, start - NEAR), start), _end(data, stop, min(most, stop + NEAR))
            kept.append(data[done : max(done, start)])
            done = max(done, stop)
        yield b"".join([*kept, data[done:]]).decode("utf-8", "surrogatepass")


def _begin(data: bytes, least: int, start: int) -> int:
    """Where the paragraph, line or word begins that a passage begins in."""
    if least == 0:
        return 0
    for sign in (b"\n\n", b"\n", b" "):
        if (at := data.rfind(sign, least, start)) >= 0:
            return at + len(sign)
    return start


def _end(data: bytes, stop: int, most: int) -> int:
    if most == len(data):
        return most
    for sign in (b"\n\n", b"\n", b" "):
        if (at := data.find(sign, stop, most)) >= 0:
            return at + len(sign)
    return stop


def held_out_share(parts: Callable[[], Iterable[tuple[Listing, Rule]]]) -> float:
    """How much of what is held out stands in the training text too, of 1. parts: files, and a new rule for each corpus
    that says what of it is held out."""
    held, weights = [np.zeros(0, np.uint32)], [np.zeros(0)]
    for shingles, is_held, weight in _shingles_of(parts()):
        held.append(shingles[is_held])
        weights.append(weight[is_held])
    keys, each = np.concatenate(held), np.concatenate(weights)
    order = np.argsort(keys, kind="stable")
    keys, each, trained = keys[order], each[order], np.zeros(len(keys), bool)
    for shingles, is_held, _ in _shingles_of(parts()):
        wanted = np.unique(shingles[~is_held])
        at = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
        trained |= wanted[at] == keys if len(wanted) else False
    return float((each * trained).sum() / max(1.0, each.sum()))


def training_sketch(parts: Iterable[tuple[Listing, Rule]]) -> Hashes:
    """The shingles of all that is not held out, sorted, without repeats; of more than SKETCH the smallest ones."""
    found = np.zeros(0, np.uint32)
    for shingles, is_held, _ in _shingles_of(parts):
        found = np.unique(np.concatenate([found, shingles[~is_held]]))[:SKETCH]
    return found


def share_in(shingles: Hashes, sketch: Hashes) -> float:
    """How much of a text, of 1, stands in one of which `training_sketch` has kept this."""
    if len(sketch) == SKETCH:
        shingles = shingles[shingles <= sketch[-1]]
    return float(np.isin(shingles, sketch).mean()) if len(shingles) else 0.0


def _shingles_of(parts: Iterable[tuple[Listing, Rule]]) -> Iterator[tuple[Hashes, npt.NDArray[np.bool_], Floats]]:
    """Of each file its shingles, whether each is in a part that is held out, and the characters it then stands for."""
    for listing, rule in parts:
        for _, _, record in listing.rows():
            lengths, counts = np.maximum(record.lengths, 1), record.counts.astype(np.int64)
            tails = np.array([rule.tail(int(length)) if length > 0 else 0 for length in record.lengths], np.int64)
            held = np.where(counts < FEWEST, counts * (tails == lengths), np.rint(counts * tails / lengths))
            place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            weight = np.repeat(tails / np.maximum(held, 1), counts)
            yield record.shingles, place >= np.repeat(counts - held, counts), weight
