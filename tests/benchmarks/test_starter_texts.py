"""What the starter reads: books as a run would read them, and nothing of what is to stay unseen.

Guards against figures about "unseen" novels that were read under another name, or quoted at length in another book.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import starter_texts

    return starter_texts


def book(seed: int) -> str:
    draw = random.Random(seed)
    words = ["".join(draw.choice("abcdefgh") for _ in range(draw.randint(2, 9))) for _ in range(3000)]
    lines, line = [], ""
    for n, word in enumerate(words):
        if len(line) + len(word) > 64:
            lines.append(line)
            line = ""
        line += (" " if line else "") + word + (".\n\n" if n % 90 == 89 else "")
        if line.endswith("\n\n"):
            lines.append(line.rstrip() + "\n")
            line = ""
    return "\n".join(lines)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    (tmp_path / "shelf").mkdir()
    for n in range(6):
        head = "*** START OF THE PROJECT GUTENBERG EBOOK OF LETTERS ***\n\nProduced by Somebody Else\n\n\n"
        (tmp_path / "shelf" / f"book{n}.txt").write_text(head + book(n), "utf-8")
    return tmp_path / "shelf"


def run(texts: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["starter_texts.py", *map(str, arguments)])
    return texts.main()


def test_half_in_paragraphs_without_the_licence(texts, shelf: Path, tmp_path: Path, monkeypatch) -> None:
    assert run(texts, monkeypatch, tmp_path / "out", shelf) == 0
    written = {path.stem.removeprefix("shelf-"): path.read_text("utf-8") for path in (tmp_path / "out").iterdir()}
    assert len(written) == 6
    longest = {name: max(map(len, text.split("\n"))) for name, text in written.items()}
    joined = {name for name in written if texts.is_joined(name)}
    assert 0 < len(joined) < 6
    assert {name for name, length in longest.items() if length > 100} == joined
    assert not any("GUTENBERG" in text or "Produced" in text for text in written.values())
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert run(texts, monkeypatch, tmp_path / "out", shelf) == 0  # a run that goes on finds the same files
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


def test_what_is_unseen_stays_so(texts, shelf: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    unseen = shelf / "book3.txt"
    assert run(texts, monkeypatch, tmp_path / "out", shelf, "--unseen", unseen) == 0
    assert not (tmp_path / "out" / "shelf-book3.txt").exists()
    passage = " ".join(book(3).split()[500:560]).upper().replace(".", ";")  # other case, lines and signs
    quoting = shelf / "book5.txt"
    quoting.write_text(f"{book(5)}\n\nHe wrote: {passage}\n", "utf-8")
    assert run(texts, monkeypatch, tmp_path / "out", shelf, "--unseen", unseen) == 1
    said = capsys.readouterr().out
    assert f"{quoting}: 21 runs of 40 words" in said
    # A list of bare chapters stands in many books: it is left out, and no reason to refuse one.
    contents = "\n".join(f"CHAPTER {'I' * n}." for n in range(1, 25))
    unseen.write_text(f"{contents}\n\n{book(3)}", "utf-8")
    quoting.write_text(f"{contents}\n\n{book(5)}\n\nHe wrote: {' '.join(passage.split()[:39])}\n", "utf-8")
    assert run(texts, monkeypatch, tmp_path / "out", shelf, "--unseen", unseen) == 0
    assert "CHAPTER" not in (tmp_path / "out" / "shelf-book5.txt").read_text("utf-8")
