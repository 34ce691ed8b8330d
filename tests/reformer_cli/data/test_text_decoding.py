"""From bytes to text: what comes out, and what is said and done where there is none."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from builders.formats import epub
from builders.reading import faults, only, silent

from reformer_cli.data import scan, text_decoding
from reformer_cli.data.scan import reread, scanned
from reformer_cli.data.text_decoding import Options
from reformer_cli.utils.errors import UserError

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")


def test_line_ends_marks_and_encodings(tmp_path: Path) -> None:
    (tmp_path / "dos.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    (tmp_path / "wide.txt").write_bytes("größe\n".encode("utf-16"))
    (tmp_path / "old.txt").write_bytes("größe\n".encode("latin-1"))
    assert only(tmp_path / "dos.txt") == "one\ntwo\n"
    assert only(tmp_path / "wide.txt", encoding="utf-16") == "größe\n"
    assert only(tmp_path / "old.txt", encoding="latin-1") == "größe\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig", "shift-jis"])
def test_blocks_cut_neither_characters_nor_line_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(text_decoding, "BLOCK", 5)
    text = "あいう\r\nえ\r\n\r\r\nお\r" * 3
    (tmp_path / "t.txt").write_bytes(text.encode(encoding))
    assert only(tmp_path / "t.txt", encoding=encoding) == "あいう\nえ\n\nお\n" * 3


@pytest.mark.parametrize("place", [0, 4, 99, 2**18 - 1, 2**18, 700_000])
def test_invalid_bytes_are_found_where_they_are(tmp_path: Path, place: int) -> None:
    """File, byte and line, also when the bad byte is far behind what is read at once."""
    data = bytearray(b"caf\xc3\xa9\n" * 150_000)
    data[place] = 0xFF
    (tmp_path / "t.txt").write_bytes(data)
    (fault,) = faults(tmp_path)
    with pytest.raises(UnicodeDecodeError) as all_at_once:
        data.decode()
    first = all_at_once.value.start
    line = data.count(b"\n", 0, first) + 1
    assert f"{tmp_path / 't.txt'} is not utf-8: byte {first} (line {line}) is 0x{data[first]:02x}; give its" in fault


def test_a_character_that_is_cut_off_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"ab\ncaf\xc3")
    assert "byte 6 (line 2) is 0xc3" in faults(tmp_path)[0]


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "late.txt").write_bytes(b"x" * 300_000 + b"\0")
    (tmp_path / "picture.txt").write_bytes(b"\x89XYZ\0")
    assert "looks binary: a zero byte at 300000" in faults(tmp_path / "late.txt")[0]
    assert "looks binary: a zero byte at 4" in faults(tmp_path / "picture.txt")[0]


def replaced(path: Path, **options: str) -> tuple[dict[str, str], int, list[str]]:
    """(texts, places, notes) where invalid bytes are replaced."""
    how = Options(errors="replace", **options)
    with scanned([str(path)], how, 1, silent) as found:
        found.check("stop")
        files = [(source, record) for _, source, record in found.files()]
        texts = {name: "".join(pieces) for file in files for _, name, _, pieces in reread(*file, how)}
        return texts, found.replaced, found.notes


def test_invalid_bytes_are_replaced_where_the_config_says_so(tmp_path: Path) -> None:
    """All of them, in any block; the first one of each text is told with its byte and line."""
    data = bytearray("é\n".encode() * 400_000)
    for place in (6, 600_000, 900_001, len(data) - 1):
        data[place] = 0xFF
    data[700_000] = data[700_001] = 0
    (tmp_path / "t.txt").write_bytes(data)
    texts, places, notes = replaced(tmp_path)
    assert [*texts.values()] == [data.decode("utf-8", "replace").replace("\0", "\ufffd")]
    assert places == "".join(texts.values()).count("\ufffd")
    (note,) = notes
    assert note.startswith(f"{tmp_path / 't.txt'} is not utf-8: byte 6 (line 3) is 0xff")


def test_a_zero_byte_is_found_where_it_is(tmp_path: Path) -> None:
    """By bytes, not by characters, of which there are fewer before it."""
    (tmp_path / "a.txt").write_bytes("é".encode() * 200_000 + b"\0\0x")
    assert "a zero byte at 400000" in faults(tmp_path)[0]
    texts, places, _ = replaced(tmp_path)
    assert [*texts.values()] == ["é" * 200_000 + "\ufffd\ufffdx"]
    assert places == 2
    (tmp_path / "a.txt").write_bytes("aĀ\0b".encode("utf-16"))  # U+0100 holds a zero byte too
    assert "a zero byte at 6" in faults(tmp_path, encoding="utf-16")[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "shift-jis", "gb18030"])
def test_replacing_does_as_python_does_wherever_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    draw = random.Random(0)
    data = bytearray(("あいう\nえ" * 30).encode(encoding))
    for _ in range(20):
        data[draw.randrange(4, len(data))] = draw.randrange(128, 256)
    (tmp_path / "t.txt").write_bytes(data)
    wanted = data.decode(encoding, "replace").removeprefix("\ufeff")
    for block in (4, 6, 50, 10_000):
        monkeypatch.setattr(text_decoding, "BLOCK", block)
        texts, places, _ = replaced(tmp_path, encoding=encoding)
        assert [*texts.values()] == [wanted]
        assert places == wanted.count("\ufffd") > 0


def test_what_is_no_text_at_all_is_refused_even_then(tmp_path: Path) -> None:
    (tmp_path / "picture.txt").write_bytes(random.Random(0).randbytes(500_000))
    with pytest.raises(UserError, match=r"picture.txt (looks binary|is not utf-8)"):
        replaced(tmp_path)


def test_invalid_bytes_are_replaced_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n')
    (tmp_path / "b.html").write_bytes(b"<p>caf\xe9</p>")
    (tmp_path / "c.epub").write_bytes(epub({"one.html": b"<p>caf\xe9"}))
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"caf\xe9"))
    column = pyarrow.array([b"caf\xe9"], pyarrow.binary())
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "e.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": column.view(pyarrow.string())}), tmp_path / "f.parquet")
    assert len(faults(tmp_path)) == 6
    texts, places, notes = replaced(tmp_path)
    assert [text.strip() for text in texts.values()] == ["fine", *["caf\ufffd"] * 6]
    assert places == len(notes) == 6
    assert notes[0] == f"{tmp_path / 'a.jsonl'}:2 is not utf-8: byte 13 of the line is 0xe9"


def test_replacements_are_remembered_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "ALWAYS_READ", (0, 0))
    monkeypatch.setattr(scan, "RACY_SECONDS", -1e9)
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \xc3\xa9 " * 3 + "é".encode())
    first = replaced(tmp_path)
    assert faults(tmp_path)  # under other options it is read anew
    monkeypatch.setattr(scan, "read_file", None)
    assert replaced(tmp_path) == first
    assert first[1] == 3
