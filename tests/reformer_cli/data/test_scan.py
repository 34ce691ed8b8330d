"""Reading a corpus: what is counted, what is remembered, and that no change goes unnoticed."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from builders.reading import digest, silent
from hypothesis import given
from hypothesis import strategies as st

from reformer_cli.data import scan
from reformer_cli.data.meter import Meter, count_words
from reformer_cli.data.scan import reread, scanned
from reformer_cli.data.text_decoding import Options
from reformer_cli.utils.errors import UserError
from reformer_cli.utils.files import cache_folder

SPACES = " \n\t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000"


@given(st.lists(st.text(st.sampled_from(SPACES + "abé漢\u200b\u180e"))))
def test_words_are_those_of_python(pieces: list[str]) -> None:
    text = "".join(pieces)
    meter = Meter("a text", Options())
    for piece in pieces:
        meter.add(piece)
    assert meter.words == len(text.split())
    assert (meter.characters, meter.bytes) == (len(text), len(text.encode()))
    long = text + "x" * 3000 + text
    assert count_words(long) == len(long.split())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were really read; every corpus counts as large, and no time stamp as too new."""
    found: list[str] = []
    original = scan.read_file

    def read_file(source: scan.Source, options: Options) -> scan.Record:
        found.append(Path(source.name).name)
        return original(source, options)

    monkeypatch.setattr(scan, "read_file", read_file)
    monkeypatch.setattr(scan, "ALWAYS_READ", (0, 0))
    monkeypatch.setattr(scan, "RACY_SECONDS", -1e9)
    return found


def test_only_what_differs_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    first = digest(tmp_path)
    assert reads == ["a.txt", "b.txt", "c.txt"]
    assert digest(tmp_path) == first
    assert len(reads) == 3
    (tmp_path / "d.txt").write_text("text d")
    assert digest(tmp_path) != first
    assert reads[3:] == ["d.txt"]
    (tmp_path / "d.txt").unlink()
    os.utime(tmp_path / "a.txt")  # touched, not changed
    assert digest(tmp_path) == first
    assert reads[4:] == ["a.txt"]


def test_a_change_that_hides_its_time_is_noticed(tmp_path: Path, reads: list[str]) -> None:
    """Same size, and the time of the last change put back: the inode's own time tells."""
    path = tmp_path / "a.txt"
    path.write_text("text a")
    first, times = digest(path), path.stat()
    path.write_text("text b")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns
    assert digest(path) != first


def test_a_file_that_was_written_just_now_is_not_trusted(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the resolution of time stamps it could change once more without another one."""
    monkeypatch.setattr(scan, "RACY_SECONDS", 1e6)
    (tmp_path / "a.txt").write_text("text")
    for _ in range(2):
        digest(tmp_path)
    assert reads == ["a.txt", "a.txt"]


def test_a_small_corpus_is_always_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    digest(tmp_path)
    assert not [*cache_folder().glob("index*")]


@pytest.mark.parametrize("damage", [b"no database at all, but long enough to look at" * 50, b""])
def test_a_damaged_index_is_made_again(tmp_path: Path, reads: list[str], damage: bytes) -> None:
    (tmp_path / "a.txt").write_text("text")
    first = digest(tmp_path)
    (index,) = cache_folder().glob("index*")
    index.write_bytes(damage)
    assert digest(tmp_path) == first
    assert digest(tmp_path) == first
    assert len(reads) == 2
    assert sqlite3.connect(index).execute("SELECT count(*) FROM files").fetchone() == (1,)


def test_a_file_that_changes_between_reading_and_tokenising(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    for new in ("after!", "before and more", "", "caf\udce9", None):
        with scanned([str(path)], Options(), 1, silent) as found:
            path.unlink() if new is None else path.write_bytes(os.fsencode(new))
            for _, source, record in found.files():
                with pytest.raises(UserError, match=r"a.txt changed while it was read; run the same command"):
                    [*map(list, (pieces for _, _, _, pieces in reread(source, record, Options())))]
        path.write_text("before")


def test_several_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    for n in range(40):
        (tmp_path / f"{n}.txt").write_text(" ".join(map(str, draw.integers(0, 999, 50))))
    (tmp_path / "7.txt").write_bytes(b"caf\xe9")
    alone = digest(tmp_path)
    monkeypatch.setattr(scan, "ALONE", (0, 0))
    monkeypatch.setattr(scan, "JOB", (2**30, 7))
    with scanned([str(tmp_path)], Options(), 2, silent) as found:
        assert found.digest == alone
        assert found.n_faults == 1
        assert found.documents == 39


def empty_files(folder: Path, count: int) -> None:
    for n in range(count):
        if n % 1000 == 0:
            (folder / str(n)).mkdir()
        os.close(os.open(folder / str(n // 1000 * 1000) / f"{n}.txt", os.O_CREAT))


@pytest.mark.parametrize(("count", "processes"), [(3_000, 1), pytest.param(1_000_000, 2, marks=pytest.mark.slow)])
def test_a_million_empty_files(tmp_path: Path, count: int, processes: int) -> None:
    """Slow ones would be refused by an error at the millionth, or by memory."""
    empty_files(tmp_path, count)
    with scanned([str(tmp_path)], Options(), processes, silent) as found:
        assert found.empty == count
        with pytest.raises(UserError, match="is empty"):
            found.check("stop")
    (tmp_path / "last.txt").write_text("one text")
    with scanned([str(tmp_path)], Options(), processes, silent) as found:
        found.check("stop")
        assert found.documents == 1
