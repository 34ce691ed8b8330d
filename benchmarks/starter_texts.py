"""Texts for the starter: python benchmarks/starter_texts.py OUT FOLDER... [--unseen FILE...]

Each .txt of the folders becomes OUT/FOLDER-NAME.txt as `reformer train` would read it, without Project Gutenberg's
licence and credits; half of the books, told by their names, with the lines of paragraphs joined, so that the model
goes on as a prompt does. unseen: texts, named by path, of which nothing may be trained on: they are left out by name,
and then no run of 40 words of them may stand in any other book. Exit status 1 where one does, naming the books. The
same folders give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reformer_cli.data.text_chunks import read_text

RUN = 40  # words
BARE_CONTENTS = re.compile(r"(?:^\W*chapter [ivxlc\d]+\W*\n+){10,}", re.IGNORECASE | re.MULTILINE)
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Runs:
    """Hashes of the runs of RUN words of texts: letters alone, lower case; 64-bit polynomials that go round."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._numbers: dict[str, int] = {}
        self._known = np.unique(np.concatenate([np.zeros(0, np.uint64), *(self._hashes(text)[1] for text in texts)]))

    def of(self, text: str) -> list[str]:
        """The runs of a text that stand in those."""
        words, hashes = self._hashes(text)
        if not len(self._known) or not len(hashes):
            return []
        at = np.searchsorted(self._known, hashes).clip(max=len(self._known) - 1)
        return [" ".join(words[n : n + RUN]) for n in np.flatnonzero(self._known[at] == hashes)]

    def _hashes(self, text: str) -> tuple[list[str], npt.NDArray[np.uint64]]:
        words = re.findall(r"[^\W\d_]+", text.lower())
        numbers = np.array([self._numbers.setdefault(w, len(self._numbers) + 1) for w in words], np.uint64)
        n = max(0, len(words) - RUN + 1)
        found = np.zeros(n, np.uint64)
        for k in range(RUN):
            found = found * _BASE + numbers[k : k + n] * _BASE
        return words, found


def is_joined(name: str) -> bool:
    """Whether a book is one of the half that is read in paragraphs."""
    return bool(hashlib.sha256(name.encode()).digest()[0] % 2)


def prepare(out: Path, folders: Sequence[Path], unseen: Sequence[Path]) -> list[str]:
    """Write the books; what of them stands in the unseen texts, a line a book."""
    out.mkdir(parents=True, exist_ok=True)
    known, names = Runs(read_text(str(path)) for path in unseen), {path.stem for path in unseen}
    faults = []
    for folder in folders:
        for path in sorted(folder.glob("*.txt")):
            if path.stem in names:
                print(f"{path.stem}: left out, to stay unseen")
                continue
            # A list of chapters without titles is like any other, so that it would stand in unseen texts too.
            text = BARE_CONTENTS.sub("", read_text(str(path), join=is_joined(path.stem)))
            if runs := known.of(text):
                faults.append(f"{path}: {len(runs)} runs of {RUN} words of an unseen text; the first: {runs[0]}")
            target = out / f"{folder.name}-{path.stem}.txt"
            if not target.is_file() or target.read_text("utf-8") != text:  # a run that goes on asks for the same files
                target.write_text(text, "utf-8", newline="\n")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--unseen", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    faults = prepare(given.out, given.folders, given.unseen)
    print("\n".join([*faults, f"{len(list(given.out.glob('*.txt')))} books, {len(faults)} with unseen text"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
