"""What of a text is new: its copies from a run's training text, beside those in text that the run never saw."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reformer_cli.config.schema import DataConfig
from reformer_cli.data.dataset import Documents, opened_text
from reformer_cli.novelty.copies import LEAST, LENGTHS, LONGEST, Copy, Matches, copies_of, find_matches
from reformer_cli.novelty.index import FOLDER, FORMAT, TextIndex, build_index
from reformer_cli.runs.run import Run
from reformer_cli.utils.console import say
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import cache_folder, key
from reformer_cli.utils.format import aligned
from reformer_cli.utils.progress_bar import shown
from reformer_cli.workflows.plot import plot_shares
from reformer_cli.workflows.result import Result

HELD_OUT = 150_000  # characters of held-out text that are measured, so that one knows what new text looks like
LISTED = 20  # copies that are shown to people


@dataclass(frozen=True)
class NoveltyResult(Result):
    """copies: of LEAST words and more, in order; held_out: words, longest_copy_words and shares of text that the run
    never saw; against: what the text was compared with."""

    name: str
    text: str
    found: Matches
    copies: list[Copy]
    against: str
    held_out: dict[str, Any] | None

    @property
    def longest_copy_words(self) -> int:
        """Also where it is shorter than what is listed."""
        return self.found.longest

    @property
    def shares(self) -> list[float]:
        """Of all words, those in copies of at least 1, 2, ... words."""
        return self.found.shares()

    def as_dict(self) -> dict[str, Any]:
        return {
            "text": self.name, "words": len(self.found.words), "against": self.against,
            "longest_copy_words": self.longest_copy_words, "shares": _at_lengths(self.shares),
            "new_ngrams": {str(n): self.found.novel(n) for n in range(1, 11)},
            "held_out": self.held_out and self.held_out | {"shares": _at_lengths(self.held_out["shares"])},
            "copies": [copy.as_dict() for copy in self.copies],
        }  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        """A row for each length of copies."""
        other = self.held_out["shares"] if self.held_out else [None] * LONGEST
        return [
            {
                "text": self.name, "words": len(self.found.words), "least_copy_words": n, "share": self.shares[n - 1],
                "share_held_out": other[n - 1], "copies": sum(copy.words >= n for copy in self.copies),
            }
            for n in LENGTHS
        ]  # fmt: skip

    def __str__(self) -> str:
        head = ["words in copies of", "this text", *(["held-out text"] if self.held_out else [])]
        rows = [head, *(self._shares_of(n) for n in LENGTHS)]
        longest = ["longest copy, words", str(self.longest_copy_words)]
        rows.append(longest + ([str(self.held_out["longest_copy_words"])] if self.held_out else []))
        title = f"{self.name}: {len(self.found.words):,} words, compared with {self.against}"
        words = f" ({self.held_out['words']:,} words)" if self.held_out else ""
        parts = [title, aligned(rows), f"Held-out text{words} is what new text looks like." if self.held_out else ""]
        each = sorted(self.copies, key=lambda copy: -copy.words)
        parts.append("\n".join(map(described, each[:LISTED])))
        parts.append(f"and {len(each) - LISTED:,} more (--json has all)" if len(each) > LISTED else "")
        return "\n\n".join(filter(None, parts))

    def _shares_of(self, n: int) -> list[str]:
        found = [self.shares, *([self.held_out["shares"]] if self.held_out else [])]
        return [f"{n} and more", *(f"{shares[n - 1]:.2%}" for shares in found)]

    def line(self) -> str:
        """The main figures."""
        longest = max(self.copies, key=lambda copy: copy.words, default=None)
        where = f" ({described(longest)})" if longest else ""
        shares = ", ".join(f"{self.shares[n - 1]:.1%} of {n}" for n in LENGTHS)
        new = f"; of held-out text {self.held_out['shares'][LEAST - 1]:.1%} of {LEAST}" if self.held_out else ""
        return f"novelty: longest copy {self.longest_copy_words} words{where}; words in copies: {shares}{new}"

    def _draw(self, path: Path) -> None:
        lines = {"this text": self.shares} | ({"held-out text": self.held_out["shares"]} if self.held_out else {})
        plot_shares(lines, self.name, path)


def described(copy: Copy) -> str:
    """A copy on one line."""
    place = copy.place
    said = " ".join(copy.text.split())
    said = said if len(said) < 120 else f"{said[:117]}..."
    return f"{copy.words} words: {said!r} in {Path(place.name).name}, line {place.line:,}"


def _at_lengths(shares: Sequence[float]) -> dict[str, float]:
    return {str(n): shares[n - 1] for n in LENGTHS}


def novelty(run: Run, text: str, name: str, against: Sequence[str] = ()) -> NoveltyResult:
    """Compare a text with what a run was trained on, or with other texts. Raises UserError where there is none."""
    found = compared(index_of(run, against), text, name)
    if not found.found.words:
        raise UserError(f"{name} has no words", "there is nothing to compare")
    return found


def compared(index: TextIndex, text: str, name: str) -> NoveltyResult:
    """A text against an open index."""
    found = find_matches(index, text)
    copies = copies_of(index, text, found)
    return NoveltyResult(name, text, found, copies, index.about["name"], index.about.get("held_out"))


def index_of(run: Run, against: Sequence[str] = ()) -> TextIndex:
    """The index of a run's training text, beside the run, or of other texts, in the cache; made where there is none.

    Raises UserError for a text that is not there or has changed, and for an index that is damaged or another run's.
    """
    if against:
        data = DataConfig(corpus=tuple(against), val_fraction=0.0, unwrap="keep")
        with opened_text(data, "", say) as (digest, documents):
            folder = cache_folder() / FOLDER / key(FORMAT, digest)
            if not (folder / "index.json").is_file():
                _build(folder, documents, digest, ", ".join(Path(name).name for name in against))
        return TextIndex(folder)
    digest, folder = run.config.corpus_digest, run.path / FOLDER
    if not folder.exists() and not os.access(run.path, os.W_OK):
        folder = cache_folder() / FOLDER / key(FORMAT, digest)
    if not folder.exists():
        with opened_text(run.config.data, digest, say) as (_, documents):
            _build(folder, documents, digest, f"what {run.path.name} was trained on")
    index = TextIndex(folder)
    if index.about.get("digest") != digest:
        raise UserError(f"the index {folder} is of another text than {run.path}'s", "remove it: it is made again")
    return index


def _build(folder: Path, documents: Documents, digest: str, name: str) -> None:
    held = list[str]()

    def describe(index: TextIndex) -> dict[str, Any]:
        words = f"{name} ({len(index) - len(index.names):,} words)"
        return {"digest": digest, "name": words, "held_out": _measured(index, held)}

    with shown("indexing", None, say, lambda n: f"{n:,.0f} characters") as advance:
        build_index(folder, _trained_on(documents, held, advance), describe)


def _trained_on(
    documents: Documents, held: list[str], advance: Callable[[int], None]
) -> Iterator[tuple[str, Iterable[str]]]:
    """Names and pieces of what was trained on; of what was held out, up to HELD_OUT characters, evenly of all texts."""
    most = HELD_OUT

    def pieces(all_of: Iterator[tuple[bool, str]]) -> Iterator[str]:
        for for_validation, piece in all_of:
            if not for_validation:
                yield piece
            elif len(held[-1]) < most:
                held[-1] = (held[-1] + piece)[:most]
            advance(len(piece))

    for name, all_of in documents:
        held.append("")
        yield name, pieces(all_of)
        while sum(map(len, held)) > HELD_OUT:
            most = most * 4 // 5
            held[:] = [text[:most] for text in held if text]


def _measured(index: TextIndex, held: Sequence[str]) -> dict[str, Any] | None:
    found = [one for one in (find_matches(index, text) for text in held) if one.words]
    words = sum(len(one.words) for one in found)
    if not words:
        return None
    shares = [sum(s * len(one.words) for s, one in zip(at, found, strict=True)) / words for at in zip(
        *(one.shares() for one in found), strict=True
    )]  # fmt: skip
    return {"words": words, "longest_copy_words": max(one.longest for one in found), "shares": shares}
