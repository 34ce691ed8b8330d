"""What is found is what is there: every planted copy, none that is not, and what a damaged index says."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from reformer_cli.novelty import index as made
from reformer_cli.novelty.copies import find_copies, find_matches
from reformer_cli.novelty.index import TextIndex, build_index
from reformer_cli.utils.errors import UserError


def indexed(folder: Path, *texts: str | Sequence[str]) -> TextIndex:
    """Of documents in pieces, named 0, 1, ..."""
    build_index(folder, ((str(n), text) for n, text in enumerate(texts)), lambda index: {})
    return TextIndex(folder)


@pytest.mark.parametrize("block", [7, 1000])
def test_longest_stretches_are_those_of_a_search(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Across the borders of blocks too, where a suffix is sorted by what lies behind them.
    monkeypatch.setattr(made, "BLOCK", block)
    monkeypatch.setattr(made, "BLOCKS", 10**6)
    draw = random.Random(0)
    texts = [" ".join(draw.choice("abc") for _ in range(200)) for _ in range(3)]
    index = indexed(tmp_path / "index", *texts)
    query = " ".join(draw.choice("abcd") for _ in range(80)) + " " + texts[1][30:90]
    words, found = query.split(), find_matches(index, query)
    for n, length in enumerate(found.lengths.tolist()):
        here = [" ".join(words[n : n + k]) for k in range(1, len(words) - n + 1)]
        assert length == sum(any(f" {stretch} " in f" {text} " for text in texts) for stretch in here)
    for copy in find_copies(index, query, 1):
        assert copy.text == copy.place.copied
        assert f" {copy.text} " in f" {texts[int(copy.place.name)]} "
    assert index.following(index.codes(["a", "b"])) == {
        text.split()[n + 2] for text in texts for n in range(198) if text.split()[n : n + 2] == ["a", "b"]
    }


def test_planted_copies_are_found_and_no_others(tmp_path: Path) -> None:
    draw = random.Random(1)
    books = [[f"w{draw.randrange(3000)}" for _ in range(5000)] for _ in range(4)]
    index = indexed(tmp_path / "index", *(" ".join(book) for book in books))
    text, planted = "", []
    for n in range(40):
        book, at, length = draw.randrange(4), draw.randrange(4900), draw.randrange(13, 40)
        copy = books[book][at : at + length]
        text += f"new{n} 'tis “" + draw.choice([" ", "--", ",\n", "” ‘"]).join(
            draw.choice([w, w.upper()]) for w in copy
        )
        planted.append((length, str(book)))
        text += "!”  _\n"
    found = find_copies(index, text + " done", 13)
    assert [(copy.words, copy.place.name) for copy in found] == planted


def test_place_has_the_line_and_the_words_around(tmp_path: Path) -> None:
    index = indexed(tmp_path / "index", "One.\n\nTwo three\n", ["Four five\nsi", "x seven, ei", "ght\nnine", "\nten"])
    (copy,) = find_copies(index, "so SIX-SEVEN eight!", 3)
    assert copy.place == ("1", 2, "four five", "six seven eight", "nine ten")
    assert (copy.words, copy.text) == (3, "SIX-SEVEN eight")
    (copy,) = find_copies(index, "three four", 1)[:1]
    assert copy.place == ("0", 3, "one two", "three", "")  # a copy does not go on into the next text
    assert find_copies(index, "three four", 2) == []


def test_a_long_copy_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made, "OVERLAP", 100)
    draw = random.Random(2)
    words = [f"w{draw.randrange(50)}" for _ in range(3000)]
    index = indexed(tmp_path / "index", " ".join(words))
    assert [copy.words for copy in find_copies(index, " ".join(words[100:2900]), 8)] == [2800]


def test_a_text_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no words"):
        indexed(tmp_path / "index", "... !")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("file", ["words.bin", "suffixes.bin", "documents.bin", "index.json", "names.txt"])
@pytest.mark.parametrize("forged", [False, True])
def test_a_damaged_index_is_told_in_one_line(tmp_path: Path, file: str, forged: bool) -> None:
    # With checksums that fit, as a stranger would make them, a place outside of the text must lead nowhere.
    indexed(tmp_path / "index", "one two three", "four five")
    path = tmp_path / "index" / file
    data = path.read_bytes()
    path.write_bytes(data[:-8] + b"\xff" * 7 if file != "documents.bin" else data[:-4] + b"\xff" * 4)
    if forged and file != "index.json":
        kept = json.loads((tmp_path / "index" / "index.json").read_text())
        kept["crc32"][file] = zlib.crc32(path.read_bytes())
        (tmp_path / "index" / "index.json").write_text(json.dumps(kept))
    with pytest.raises(UserError, match="damaged"):
        TextIndex(tmp_path / "index")
