"""Where any stretch of words stands in a text: a suffix array over its words, in plain files, mapped to memory.

words.bin: a number per word, 0 between documents, high byte first, so that stretches compare as bytes; suffixes.bin:
the places of all words, sorted by what stands there, one block of the text after the other (by libdivsufsort, Mori);
lines.bin: at which word each line begins; documents.bin: first word and first line of each; vocabulary.txt, names.txt;
index.json: checksums. Blocks bound the memory that sorting takes: a sixteenth of the text, or 2^20 words.
"""

from __future__ import annotations

import json
import mmap
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from reformer_cli.novelty.words import WORD_OR_LINE, normalised
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import write_folder
from reformer_cli.utils.format import printable

FOLDER = "novelty"  # of a run: the index of its training text
FORMAT = "reformer word index 1"
BINARY = ("words.bin", "suffixes.bin", "lines.bin", "documents.bin")
TEXTS = ("vocabulary.txt", "names.txt")
CODE = np.dtype(">u4")  # of a word
LINE, UNKNOWN = 2**32 - 2, 2**32 - 1  # no words' numbers
BLOCK, BLOCKS = 2**20, 16  # words of a block at least, and blocks at most
OVERLAP = 1024  # words behind a block that its order knows, and to which stretches are told apart
DEPTH = 64  # words that are compared at first: few stretches are longer
AROUND = 8  # words that are shown before and after a place


class Place(NamedTuple):
    """Where a stretch stands: the name of the text, the line in it (from 1), and its words as they are compared, with
    those before and after it."""

    name: str
    line: int
    before: str
    copied: str
    after: str


class TextIndex:
    """An open index. vocabulary: words, of which the n-th has number n + 1; about: what its maker wrote into it.

    Raises UserError for one that is damaged, or none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            kept = json.loads((folder / "index.json").read_text("utf-8"))
            if kept["format"] != FORMAT:
                raise ValueError("another format")
            self._files = {name: _mapped(folder / name) for name in (*BINARY, *TEXTS)}
            if wrong := [name for name, data in self._files.items() if zlib.crc32(data) != kept["crc32"][name]]:
                raise ValueError(f"{wrong[0]} has another checksum")
            self.about: dict[str, Any] = dict(kept["about"])
            self.blocks = [(int(a), int(b)) for a, b in kept["blocks"]]
            self._check()
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = " ".join(str(error).split())[:100]
            raise UserError(f"the index {folder} is damaged ({why})", "remove it: it is made again") from None

    def __len__(self) -> int:
        """Words, and ends of documents."""
        return len(self.suffixes)

    @cached_property
    def vocabulary(self) -> list[str]:
        return self._files["vocabulary.txt"][:].decode("utf-8").split("\n")[:-1]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Word -> its number."""
        return {word: n for n, word in enumerate(self.vocabulary, 1)}

    @cached_property
    def names(self) -> list[str]:
        return self._files["names.txt"][:].decode("utf-8").split("\n")[:-1]

    @cached_property
    def suffixes(self) -> memoryview:
        return memoryview(self._files["suffixes.bin"]).cast("I")

    def codes(self, words: Iterable[str]) -> bytes:
        """Words as they are searched for; what the text lacks stands nowhere."""
        return np.array([self.numbers.get(word, UNKNOWN) for word in words], CODE).tobytes()

    def longest(self, words: bytes | memoryview, least: int = 0) -> tuple[int, int]:
        """(how many of the first of these codes stand together somewhere, where), if more than least; else (least, -1).
        Exact up to OVERLAP words; of longer stretches the longest that shares so many."""
        best, where, ids, suffixes = least, -1, self._files["words.bin"], self.suffixes
        for depth in (DEPTH, OVERLAP):
            wanted = bytes(words[: 4 * depth])
            key = partial(_stretch, ids, len(wanted))
            for low, high in self.blocks:
                found = bisect_left(suffixes, wanted, low, high, key=key)
                for n in range(max(low, found - 1), min(high, found + 1)):
                    at = suffixes[n]
                    if 4 * best < len(words) and ids[4 * at : 4 * (at + best + 1)] == words[: 4 * (best + 1)]:
                        best, where = _common(ids, at, words, best + 1), at
            if best < depth:
                break
        return best, where

    def following(self, words: bytes) -> set[str]:
        """Every word that comes after these codes somewhere."""
        key, found = partial(_stretch, self._files["words.bin"], len(words)), set[int]()
        after = np.frombuffer(self._files["words.bin"], CODE)
        for low, high in self.blocks:
            first = bisect_left(self.suffixes, words, low, high, key=key)
            last = bisect_right(self.suffixes, words, first, high, key=key)
            places = np.asarray(self.suffixes[first:last], np.int64) + len(words) // 4
            found.update(np.unique(after[np.minimum(places, len(after) - 1)]).tolist())
        return {self.vocabulary[n - 1] for n in found if n}

    def place(self, at: int, length: int) -> Place:
        """What stands at a word, and so many on."""
        documents = np.frombuffer(self._files["documents.bin"], "<u4").reshape(-1, 2)
        document = int(np.searchsorted(documents[:, 0], at, "right")) - 1
        first, first_line = map(int, documents[document])
        lines = memoryview(self._files["lines.bin"]).cast("I") if self._files["lines.bin"] else []
        line = 1 + bisect_right(lines, at) - first_line
        ids = np.frombuffer(self._files["words.bin"], CODE)
        after = ids[at + length : at + length + AROUND].tolist()
        after = after[: after.index(0)] if 0 in after else after
        parts = ids[max(first, at - AROUND) : at].tolist(), ids[at : at + length].tolist(), after
        said = (" ".join(self.vocabulary[n - 1] for n in part if n) for part in parts)
        return Place(self.names[document], line, *said)

    def _check(self) -> None:
        """What a stranger may have written must not lead out of the arrays."""
        n, words = len(self.suffixes), np.frombuffer(self._files["words.bin"], CODE)
        documents = np.frombuffer(self._files["documents.bin"], "<u4").reshape(-1, 2)
        lines = np.frombuffer(self._files["lines.bin"] or b"", "<u4")
        inside = len(words) == n > 0 and int(words.max()) <= len(self.vocabulary) and words[-1] == 0
        inside = inside and int(np.asarray(self.suffixes).max()) < n and len(documents) == len(self.names)
        inside = inside and documents[0, 0] == 0 and bool((documents <= [n, len(lines)]).all())
        if not inside or [self.blocks[0][0], self.blocks[-1][1]] != [0, n] or any(a >= b for a, b in self.blocks):
            raise ValueError("its parts do not fit together")


def _common(ids: mmap.mmap | bytes, at: int, words: bytes | memoryview, known: int) -> int:
    """How many words from a place on are the first of these, of which so many are known to be."""
    most, size = min(len(ids) // 4 - at, len(words) // 4), 16
    while known < most:
        stop = min(most, known + size)
        if ids[4 * (at + known) : 4 * (at + stop)] != words[4 * known : 4 * stop]:
            here = np.frombuffer(ids, CODE, stop - known, 4 * (at + known))
            return known + int(np.argmax(here != np.frombuffer(words, CODE, stop - known, 4 * known)))
        known, size = stop, 2 * size
    return known


def _stretch(ids: mmap.mmap | bytes, size: int, at: int) -> bytes:
    return ids[4 * at : 4 * at + size]


def _mapped(path: Path) -> mmap.mmap | bytes:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


class _Numbers(dict[str, int]):
    """What WORD_OR_LINE finds -> its number; new words get the next one."""

    def __init__(self) -> None:
        super().__init__({"\n": LINE})
        self.words: dict[str, int] = {}

    def __missing__(self, found: str) -> int:
        word = normalised(found)
        self[found] = number = self.words.setdefault(word, len(self.words) + 1)
        return number


def build_index(
    folder: Path, documents: Iterable[tuple[str, Iterable[str]]], describe: Callable[[TextIndex], dict[str, Any]]
) -> None:
    """Index documents, each a name and the pieces of its text, into a folder, which is there whole or not at all.
    describe: of the index, what is kept with it. Raises UserError where there are no words."""

    def fill(aside: Path) -> None:
        words = _write_words(aside, documents)
        if not words:
            raise UserError("the text has no words", "there is nothing to compare with")
        blocks = _sort(aside, words)
        sums = {name: zlib.crc32(_mapped(aside / name)) for name in (*BINARY, *TEXTS)}
        kept = {"format": FORMAT, "crc32": sums, "blocks": blocks, "about": {}}
        (aside / "index.json").write_text(json.dumps(kept), "utf-8")
        kept["about"] = describe(TextIndex(aside))
        (aside / "index.json").write_text(json.dumps(kept), "utf-8")

    write_folder(folder, fill)


def _write_words(aside: Path, documents: Iterable[tuple[str, Iterable[str]]]) -> int:
    """All files but suffixes.bin; how many words there are, ends of documents counted, 0 if none is a word."""
    numbers, names, starts, done, n_lines = _Numbers(), list[str](), array("I"), 0, 0
    with open(aside / "words.bin", "wb") as words, open(aside / "lines.bin", "wb") as lines:
        for name, pieces in documents:
            names.append(printable(name))
            starts.extend((done, n_lines))
            for text in whole_words(pieces):
                found = np.fromiter(map(numbers.__getitem__, WORD_OR_LINE.findall(text)), np.uint32)
                n_lines += _write_lines(lines, found, done)
                found = found[found != LINE]
                words.write(found.astype(CODE).tobytes())
                done += len(found)
            words.write(bytes(4))
            done += 1
    if done >= LINE:
        raise UserError(f"{done:,} words are more than an index can hold", "compare with fewer texts")
    (aside / "documents.bin").write_bytes(starts.tobytes())
    for file, texts in zip(TEXTS, (numbers.words, names), strict=True):
        (aside / file).write_text("".join(f"{text}\n" for text in texts), "utf-8")
    return done if numbers.words else 0


def _write_lines(file: BinaryIO, found: npt.NDArray[np.uint32], done: int) -> int:
    ends = np.flatnonzero(found == LINE)
    file.write((ends - np.arange(len(ends)) + done).astype("<u4").tobytes())
    return len(ends)


def whole_words(pieces: Iterable[str], most: int = 2**20) -> Iterator[str]:
    """The same text in pieces that end between words, at a line's end if there is one."""
    held = ""
    for piece in pieces:
        held += piece
        while len(held) >= most:
            cut = held.rfind("\n", 0, most) + 1 or held.rfind(" ", 0, most) + 1 or most
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def _sort(aside: Path, words: int) -> list[tuple[int, int]]:
    """suffixes.bin; where in it each block begins and ends."""
    from pydivsufsort import divsufsort

    size = max(BLOCK, -(-words // BLOCKS))
    blocks = [(start, min(words, start + size)) for start in range(0, words, size)]
    with open(aside / "suffixes.bin", "wb") as file:
        for start, stop in blocks:
            part = np.fromfile(aside / "words.bin", CODE, stop - start + OVERLAP, offset=4 * start).astype(np.uint32)
            order = divsufsort(part)
            file.write((order[order < stop - start].astype(np.uint32) + np.uint32(start)).tobytes())
    return blocks
