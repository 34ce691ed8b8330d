"""`reformer novelty`: copies and their sources, beside held-out text; and what it says where there is no text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from builders.programs import WORDS, Program

from reformer_cli.novelty.copies import find_matches
from reformer_cli.novelty.words import words_of
from reformer_cli.runs.run import Run
from reformer_cli.workflows.novelty import index_of


@pytest.fixture
def copied(text: Path, tmp_path: Path) -> Path:
    """Three lines of the training text in capitals, and a sentence of its own."""
    path = tmp_path / "copy.txt"
    lines = text.read_text("utf-8").splitlines()[100:103]
    path.write_text("<b>Zebras</b> " + " -- ".join(lines).upper() + " & nothing else.\n", "utf-8")
    return path


def test_copies_and_their_sources(reformer: Program, run: Path, copied: Path, text: Path) -> None:
    found = json.loads(reformer("novelty", "--run", run, copied, "--json").out)
    assert found["longest_copy_words"] == 24
    (copy,) = [one for one in found["copies"] if one["words"] >= 13]
    assert (copy["words"], copy["place"]["line"], copy["place"]["name"]) == (24, 101, str(text))
    assert 0.8 < found["shares"]["13"] < 1
    assert found["held_out"]["shares"]["13"] == 0
    assert set(found["shares"]) == {"5", "8", "13", "20"}
    assert "held-out text" in reformer("novelty", "--run", run, copied).out
    assert reformer("novelty", "--run", run, copied, "--csv").out.count("\n") == 5


def test_page_and_picture(reformer: Program, run: Path, copied: Path, tmp_path: Path) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "picture.svg"
    assert reformer("novelty", "--run", run, copied, "--html", page, "--plot", picture).status == 0
    written = page.read_text("utf-8")
    assert "&lt;b&gt;Zebras&lt;/b&gt; <mark class=c20 title=" in written
    assert "</mark>. &amp; nothing" in written
    assert "<script" not in written
    assert "line 101: " in written
    assert picture.stat().st_size > 1000
    assert "--overwrite" in reformer("novelty", "--run", run, copied, "--html", page).error


def test_other_texts_in_place_of_the_runs(reformer: Program, starter: Path, text: Path, copied: Path) -> None:
    error = reformer("novelty", "--run", "starter", copied).error
    assert "without a text" in error
    assert "--against" in error
    found = json.loads(reformer("novelty", "--run", "starter", copied, "--against", text, "--json").out)
    assert found["longest_copy_words"] == 24
    assert found["held_out"] is None


def test_a_text_that_is_gone_or_changed(reformer: Program, run: Path, copied: Path, text: Path) -> None:
    whole = text.read_text("utf-8")
    text.write_text("Something else.\n" * 100, "utf-8")
    assert "has changed" in reformer("novelty", "--run", run, copied).error
    text.unlink()
    error = reformer("novelty", "--run", run, copied).error
    assert "is gone" in error
    assert "--against" in error
    text.write_text(whole, "utf-8")
    assert reformer("novelty", "--run", run, copied).status == 0
    text.unlink()
    assert reformer("novelty", "--run", run, copied).status == 0  # the index is enough


def test_anothers_index_and_no_words(reformer: Program, run: Path, copied: Path, text: Path, tmp_path: Path) -> None:
    assert "no words" in reformer("novelty", "--run", run, _written(tmp_path, "...")).error
    shutil.move(run / "novelty", tmp_path / "theirs")
    about = json.loads((tmp_path / "theirs" / "index.json").read_text())
    about["about"]["digest"] = "0"
    (tmp_path / "theirs" / "index.json").write_text(json.dumps(about))
    shutil.move(tmp_path / "theirs", run / "novelty")
    assert "is of another text" in reformer("novelty", "--run", run, copied).error


def test_of_what_is_generated(reformer: Program, run: Path) -> None:
    asked = ("generate", "--run", run, "--prompt", "The cat", "--max-tokens", 30, "--seed", 1, "--novelty")
    result = reformer(*asked, "--json")
    found = json.loads(result.out)["novelty"]
    assert f"longest copy {found['longest_copy_words']} words" in result.err
    assert "longest copy" in reformer(*asked).err
    assert "add one of them" in reformer(*asked[:-1], "--against", "text.txt").error


def test_generated_words_are_known_and_copies_short(reformer: Program, run: Path) -> None:
    asked = ("generate", "--run", run, "--prompt", "the cat sat ", "--max-tokens", 60, "--seed", 4, "--lexicon")
    known = (*asked, "known")
    result = reformer(*known, "--max-copy", 2)
    assert result.status == 0
    (run / "words.txt.gz").unlink()  # made for this text, made again for the next
    assert reformer(*known, "--max-copy", 2).out == result.out
    assert find_matches(index_of(Run.open(run)), result.out.removeprefix("the cat")).longest <= 2
    whole = words_of(result.out)
    assert {w.text for w in [*whole][:-1] if not w.text[0].isdigit()} <= set(WORDS)
    assert reformer(*asked, "any").out != reformer(*known).out


def test_what_words_cannot_be(reformer: Program, run: Path, text: Path) -> None:
    asked = ("generate", "--run", run, "--prompt", "the", "--max-tokens", 3)
    assert "--max-copy 0: should be greater than or equal to 1" in reformer(*asked, "--max-copy", 0).error
    error = reformer(*asked, "--num-beams", 2, "--max-copy", 3, "--top-k", 4).error
    assert "--top-k 4, --max-copy 3 would do nothing" in error
    (run / "words.txt.gz").write_bytes(b"no list")
    assert "is damaged" in reformer(*asked, "--lexicon", "known").error
    assert reformer(*asked).status == 0
    (run / "words.txt.gz").unlink()
    text.unlink()
    assert "is gone" in reformer(*asked, "--lexicon", "known").error
    assert "is gone" in reformer(*asked, "--max-copy", 3).error
    assert reformer(*asked).status == 0


def _written(folder: Path, text: str) -> Path:
    path = folder / "written.txt"
    path.write_text(text, "utf-8")
    return path
