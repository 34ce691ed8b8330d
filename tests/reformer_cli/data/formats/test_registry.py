"""Files by their endings: packed ones, bombs, missing packages."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest
from builders.formats import samples, zipped
from builders.reading import faults, only, read, silent

from reformer_cli.data.formats import packed, registry
from reformer_cli.data.scan import scanned
from reformer_cli.data.text_decoding import Options
from reformer_cli.utils.errors import UserError

zstd = pytest.importorskip("backports.zstd") if sys.version_info < (3, 14) else pytest.importorskip("compression.zstd")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")


CONTAINERS = (".epub", ".docx", ".odt", ".rtf", ".pdf", ".parquet", ".zip", ".tar", ".gz", ".zst")


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_packed_files(tmp_path: Path, ending: str) -> None:
    compress = gzip.compress if ending == "gz" else zstd.compress
    whole = compress(b"text " * 100_000)
    for name, data in (("good.txt", whole), ("twice", whole + whole), ("cut", whole[:-20]), ("none", b"plain text")):
        (tmp_path / f"{name}.{ending}").write_bytes(data)
    assert only(tmp_path / f"good.txt.{ending}") == "text " * 100_000
    assert only(tmp_path / f"twice.{ending}") == "text " * 200_000
    for name in ("cut", "none"):
        (fault,) = faults(tmp_path / f"{name}.{ending}")
        assert "is not a whole " in fault
        assert "download it again" in fault
    (tmp_path / f"rows.jsonl.{ending}").write_bytes(compress(b'{"text": "a"}\n{"text": "b"}'))
    assert [*read(tmp_path / f"rows.jsonl.{ending}").values()] == ["a", "b"]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_bombs_do_not_go_off(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "BOMB_SIZE", 2**20)
    data = b" " * 2**24
    (tmp_path / f"b.{ending}").write_bytes(gzip.compress(data) if ending == "gz" else zstd.compress(data))
    assert "unpacks to more than 250 times its size" in faults(tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("p.html", "selectolax"),
        ("t.parquet", "pyarrow"),
        ("t.txt.zst", "backports.zstd"),
        ("d.pdf", "pypdfium2"),
        ("d.rtf", "striprtf"),
        ("d.srt", "pysubs2"),
        ("d.tex", "pylatexenc"),
    ],
)
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    (tmp_path / name).write_bytes(b"<p>text")
    inside = {"selectolax": "selectolax.lexbor", "pyarrow": "pyarrow.parquet", "backports.zstd": zstd.__name__}
    inside |= {"striprtf": "striprtf.striprtf"}
    hidden = inside.get(package, package)
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(UserError, match=rf"cannot be read without {package}; pip install 'reformer-cli\[formats\]'"):
        read(tmp_path)


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.txt").write_text("secret")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(registry, "open", refuse, raising=False)
    assert faults(tmp_path) == [f"cannot read {tmp_path / 't.txt'}: Permission denied"]


def test_every_format_by_its_ending_or_its_content(tmp_path: Path) -> None:
    """A book that was saved as .txt or without an ending was called undecodable, or its codes were read as text."""
    for ending, data in samples().items():
        path = tmp_path / f"a{ending}"
        path.write_bytes(data)
        found = read(path)
        assert all("a dark" in text for text in found.values()), ending
        container = ending.endswith(CONTAINERS)
        for name in ("b.txt", "noending", "b.unknown"):
            if container:
                (tmp_path / name).write_bytes(data)
                assert [*read(tmp_path / name).values()] == [*found.values()], ending


def test_what_reads_each_file_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(samples()[".docx"])
    (tmp_path / "b").write_bytes(b"words")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"words"))
    with scanned([str(tmp_path / name) for name in ("a.txt", "b", "c.txt.gz")], Options(), 1, silent) as scan:
        assert scan.formats == {".docx": 1, ".txt": 1, ".txt.gz": 1}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"x" * 60 + b"BOOKMOBI", "is a Kindle book; convert it with Calibre"),
        (
            b"\xd0\xcf\x11\xe0",
            "a Word or other Office file of the old kind, or encrypted; save it as .docx without a password",
        ),
        (zipped({"Index/Document.iwa": b"x"}), "book.xyz holds no file of a known format; unpack it"),
        (b"Rar!", "is a RAR archive; unpack it"),
        (b"\x89PNG\r\n", "is an image"),
        (b"words \x01\x02\x03\x04 words", "is no text: 4 of 16 characters are control characters"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "book.xyz").write_bytes(data)
    assert told in faults(tmp_path / "book.xyz")[0]


def test_a_file_that_never_came(tmp_path: Path) -> None:
    """What a folder in the cloud shows before it is fetched was "not a whole .docx document (BadZipFile ...)"."""
    for name in ("a.docx", "b.epub", "c.pdf", "d.rtf", "e.zip"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty.txt").write_bytes(b"")
    found = faults(tmp_path)
    assert len(found) == 5
    assert all("is empty: 0 bytes; get it again" in fault for fault in found)


def test_a_folder_says_what_to_do_with_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "a.azw3").write_bytes(b"x")
    (tmp_path / "a.pages").write_bytes(zipped({"Index/Document.iwa": b"x"}))
    (tmp_path / "~$b.docx").write_bytes(b"\x04Anna")  # while b.docx is open in Word
    (tmp_path / "n").write_text("Text.")
    (tmp_path / "b.txt").write_text("Text.")
    with scanned([str(tmp_path)], Options(), 1, silent) as scan:
        assert not scan.faults
        assert {*scan.skipped} == {
            "ending .azw3: convert it with Calibre: ebook-convert BOOK.mobi BOOK.epub",
            "ending .pages: export it as .docx", "hidden", "no ending: read where they are named",
        }  # fmt: skip
    assert "export it as .docx" in faults(tmp_path / "a.pages")[0]
