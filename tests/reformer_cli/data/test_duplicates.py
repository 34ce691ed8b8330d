"""What stands in a corpus twice is found, told of, and left out where that is asked for.

Guards against what copies do unseen: a book and its other edition learnt by heart, a licence in every file, running
heads in the middle of sentences, figures of "unseen" text that was trained on; and against other answers where several
processes read, where the file index remembers, or where another setting finds the tokens of the last one.
"""

from __future__ import annotations

import gzip
import json
import random
import textwrap
from pathlib import Path

import numpy as np
import pytest
from builders.programs import Program
from builders.reading import silent

from reformer_cli.config.schema import DataConfig
from reformer_cli.data import scan as scan_module
from reformer_cli.data.dataset import open_dataset
from reformer_cli.data.duplicates import Seen
from reformer_cli.data.running_heads import cut_heads
from reformer_cli.data.scan import Scan, reread, scanned
from reformer_cli.data.shingles import Shingles
from reformer_cli.data.text_decoding import Options

SYLLABLES = ["ka", "lo", "mi", "ren", "tus", "bel", "dor", "fin", "ga", "hu", "jen", "pol", "qua", "sir", "vo", "wex"]


def book(seed: int, paragraphs: int = 40, lines: str = "\n\n") -> str:
    draw = random.Random(seed)
    texts = [
        " ".join("".join(draw.choices(SYLLABLES, k=3)) for _ in range(draw.randint(30, 90))).capitalize() + "."
        for _ in range(paragraphs)
    ]
    return lines.join(map(textwrap.fill, texts)) + "\n"


LICENCE = textwrap.fill(book(99, 1).replace("\n", " ") + book(98, 2).replace("\n", " "))


def texts_of(scan: Scan) -> dict[str, str]:
    files = [(source, record) for _, source, record in scan.files()]
    return {
        Path(name).name: "".join(pieces)
        for source, record in files
        for _, name, _, pieces in reread(source, record, scan.options)
    }


def folder_of(path: Path, **texts: str) -> Path:
    path.mkdir()
    for name, text in texts.items():
        (path / f"{name}.txt").write_text(text, "utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    a, b, c = (book(n) for n in range(3))
    other = textwrap.fill(b.replace("ka", "KA").replace(".", "\u2026"), 50, replace_whitespace=False)  # an edition
    other = "\n".join(line.replace("tuslo", "tuslu") for line in other.split("\n"))
    found = folder_of(tmp_path / "texts", a=a + "\n" + LICENCE + "\n", b=b, c=c + "\n" + LICENCE + "\n", e=other)
    (found / "d.txt.gz").write_bytes(gzip.compress((a + "\n" + LICENCE + "\n").encode()))
    return found


@pytest.mark.parametrize("processes", [1, 2])
def test_copies_editions_and_licences(folder: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "ALONE", (0, 0))
    monkeypatch.setattr(scan_module, "JOB", (1, 1))
    with scanned([str(folder)], Options(), processes, silent) as found:
        whole, kept = texts_of(found), found.duplicates
        assert [(Path(a).name, Path(b).name) for a, b in kept.names] == [("d.txt.gz", "a.txt"), ("e.txt", "b.txt")]
        assert (kept.texts, kept.passages) == (2, 1)
        assert 0.6 < kept.characters / len(LICENCE) < 1.3
        assert "2 texts stand in others" in str(kept)
    with scanned([str(folder)], Options(duplicates="drop"), processes, silent) as found:
        left = texts_of(found)
        assert left == {"a.txt": whole["a.txt"], "b.txt": whole["b.txt"], "c.txt": book(2) + "\n"}
        assert (found.documents, found.empty) == (3, 0)
        assert found.characters == sum(map(len, left.values()))
        assert str(found.duplicates) == str(kept)


def test_a_passage_goes_and_the_paragraphs_around_it_stay(tmp_path: Path) -> None:
    a = book(5)
    for n, passage in enumerate([a[3000:6000], a[:2500], a[-2500:]]):
        before, after = book(6 + n, 9), book(16 + n, 9)
        folder = folder_of(tmp_path / str(n), a=a, b=f"{before}\n{passage}\n\n{after}")
        with scanned([str(folder)], Options(duplicates="drop"), 1, silent) as found:
            left = texts_of(found)["b.txt"]
            assert left.startswith(before)
            assert left.endswith(after)
            assert len(left) - len(before) - len(after) < 300


def test_short_texts_are_compared_whole(tmp_path: Path) -> None:
    rows = ["the same short text", "another", "the same short text", "The same short text", "7 8 9", "1 2 3", "another"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), "utf-8")
    with scanned([str(path)], Options(duplicates="drop"), 1, silent) as found:
        assert found.documents == 5
        assert found.duplicates.names[0] == (f"{path}, text 3", f"{path}, text 1")


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    texts = {f"t{n}": book(n) for n in range(9)} | {"r": "ab " * 50_000, "z": "0123456789\n" * 3000}
    with scanned([str(folder_of(tmp_path / "t", **texts))], Options(), 1, silent) as found:
        assert str(found.duplicates) == ""
        for _, _, record in found.files():  # what repeats itself without end has no shingle for each letter
            assert len(record.shingles) < 0.03 * record.lengths.sum() + 40


def test_what_the_index_remembers_gives_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "ALWAYS_READ", (0, 0))
    monkeypatch.setattr(scan_module, "RACY_SECONDS", -60.0)
    answers = set()
    for how in ("keep", "drop", "keep", "drop"):
        with scanned([str(folder)], Options(duplicates=how), 1, silent) as found:  # type: ignore[arg-type]
            answers.add((how, found.digest, found.documents, str(found.duplicates)))
    assert len(answers) == 2


def test_memory_is_bounded_by_keeping_the_smaller_hashes() -> None:
    seen, draw = Seen(most=1000), np.random.default_rng(0)
    keys = draw.integers(0, 2**32, 9000, np.uint32)
    for n in range(90):
        new = np.unique(keys[100 * n : 100 * n + 100])
        seen.add(new[(seen.find(new) < 0) & (new < seen.limit)], np.full(len(new), n)[: int((new < seen.limit).sum())])
    small = keys < seen.limit
    assert 400 < small.sum() <= 1000
    assert np.array_equal(seen.find(keys[small]), np.flatnonzero(small) // 100)


def test_shingles_are_those_of_the_letters_however_they_come() -> None:
    text = book(3, 300)
    plain = text.replace("\n", " ").upper().replace(" ", "  \u201d\u2014 1. ").encode()
    found = []
    for data, size in ((text.encode(), 2**30), (text.encode(), 777), (plain, 2**16), (plain, 100_001)):
        shingles = Shingles()
        for n in range(0, len(data), size):
            shingles.add(data[n : n + size])
        found.append(shingles.finish(b"\0" * 32).tolist())
    assert found[0] == found[1] == found[2] == found[3]
    assert 60 < len(text) / len(found[0]) < 120


def paged(text: str, head: str, lines: int = 36) -> str:
    rows = text.split("\n")
    pages = [rows[n : n + lines] for n in range(0, len(rows), lines)]
    return "\n".join("\n".join([*page, "", head.format(n), ""]) for n, page in enumerate(pages, 1))


@pytest.mark.parametrize("head", ["CRIME AND PUNISHMENT  {}", "{}   A Novel", "- {} -", "{}"])
def test_running_heads_go_and_sentences_go_on(head: str) -> None:
    text = "\n".join(book(1, 200, "\n").splitlines())  # no blank lines: what pages put between lines is gone again
    pages = paged(text, head)
    told: list[tuple[int, str]] = []
    for size in (10**7, 999):
        pieces = [pages[n : n + size] for n in range(0, len(pages), size)]
        found = "".join(cut_heads(pieces, True, lambda *what: told.append(what)))
        assert [line for line in found.split("\n") if line] == text.split("\n")
        assert found.count("\n\n") < 0.3 * pages.count(head.format(1)) + 9
        assert "".join(cut_heads(pieces, False, lambda *_: None)) == pages
    assert sum(n for n, _ in told) == 2 * -(-len(text.split("\n")) // 36)


def test_what_only_looks_like_a_running_head_stays() -> None:
    chapters = "\n\n".join(f"CHAPTER {n}\n\n{book(n, 6)}" for n in range(1, 40))
    refrain = "\n\n".join("\n".join([*book(n, 3).splitlines()[:4], "And so say all of us"]) for n in range(90))
    code = "\n".join(f"    x{n} = f(y{n % 7})\n    if x{n}:\n        return x{n}\n    else:" for n in range(900))
    spoken = "\n\n".join(f"{book(n, 2)}\n\u201cYes.\u201d" for n in range(90))
    for text in (chapters, refrain, code, spoken, "12\n" * 5000):
        assert "".join(cut_heads([text], True, lambda n, head: pytest.fail(head))) == text


def test_the_setting_changes_the_tokens_and_is_told_of_in_a_line(folder: Path) -> None:
    told: list[str] = []
    data = DataConfig(corpus=(str(folder),), tokenizer="bytes")
    kept = open_dataset(data, told.append)
    assert [line for line in told if "data.duplicates=drop leaves the later ones out" in line and "2 texts" in line]
    dropped = open_dataset(DataConfig(corpus=(str(folder),), tokenizer="bytes", duplicates="drop"), told.append)
    assert kept.digest != dropped.digest
    assert kept.tokens.documents == 5
    assert dropped.tokens.documents == 3
    told.clear()
    open_dataset(data, told.append, kept.tokenizer, kept.digest)  # of a run that goes on, it was said
    assert not [line for line in told if "duplicates:" in line]


def test_validation_text_that_is_trained_on_is_told_of(tmp_path: Path) -> None:
    whole, half = book(1), book(2)[:9000] + book(3)[:9000]
    folder = folder_of(tmp_path / "corpus", a=book(1), b=book(2))
    alone = folder_of(tmp_path / "alone", w=whole, h=half, n=book(4))

    def told(**settings: object) -> list[str]:
        lines: list[str] = []
        open_dataset(DataConfig(tokenizer="bytes", **settings), lines.append)  # type: ignore[arg-type]
        return [line for line in lines if "of the validation text" in line]

    corpus = (str(folder),)
    assert told(corpus=corpus, validation=(str(alone / "n.txt"),)) == []
    assert told(corpus=corpus) == []
    assert "100%" in told(corpus=corpus, validation=(str(alone / "w.txt"),))[0]
    (line,) = told(corpus=corpus, validation=(str(alone / "h.txt"),), duplicates="drop")
    assert 40 <= int(line.split("%")[0].split()[-1]) <= 60
    # Held-out ends stand in the training text where another file goes on after the same text.
    (folder / "c.txt").write_text(book(1) + book(7), "utf-8")
    assert told(corpus=corpus, val_fraction=0.2)
    assert told(corpus=corpus, val_fraction=0.2, duplicates="drop") == []


def test_corpus_tells_of_it(reformer: Program, folder: Path) -> None:
    (folder / "f.txt").write_text(paged(book(8, 200), "A BOOK  {}"), "utf-8")
    printed = reformer("corpus", folder).out
    assert "texts that stand in others, such as" in printed
    assert "page heads" in printed
    assert "such as 'A BOOK  1'; --set data.duplicates=drop leaves the later ones out" in printed
    found = json.loads(reformer("corpus", folder, "--set", "duplicates=drop", "--json").out)["duplicates"]
    assert found["dropped"]
    assert found["texts"] == 2
    assert found["heads"]["A BOOK  1"] > 20
