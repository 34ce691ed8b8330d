"""Archives: what they hold is read, safely; what of it cannot be read is named, and the rest is read."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from builders.formats import docx, paragraphs, tarred, zipped
from builders.reading import faults, read, silent

from reformer_cli.data.formats import packed
from reformer_cli.data.scan import scanned
from reformer_cli.data.text_decoding import Options

MEMBERS = {
    "b/two.docx": docx(paragraphs("Second text.")), "a/one.txt": b"First text.",
    "a/.hidden.txt": b"no",
    "__MACOSX/one.txt": b"no",
    "cover.jpg": b"no", "../../up.txt": b"Third text.", "rows.jsonl": b'{"text": "Row."}\nno',
    "bad.txt": b"\x00\x01", "settings.json": b'{"a": 1}',
}  # fmt: skip


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tgz"])
def test_what_an_archive_holds(tmp_path: Path, ending: str) -> None:
    """Its own formats are counted beside it; nothing is written to a path that it names."""
    data = zipped(MEMBERS) if ending == ".zip" else tarred(MEMBERS)
    path = tmp_path / "folder" / f"library{ending}"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(data) if "gz" in ending else data)
    with scanned([str(path)], Options(errors="skip"), 1, silent) as scan:
        read_by = ending.replace(".tgz", ".tar.gz")
        assert scan.formats == {read_by: 1, ".txt": 3, ".docx": 1,
                                ".jsonl": 1, ".json": 1}  # fmt: skip
        assert (scan.documents, scan.n_faults, scan.files_read) == (4, 2, 1)
        assert "bad.txt looks binary" in "".join(scan.faults)
        assert "rows.jsonl:2 is not JSON" in "".join(scan.faults)
        assert dict(scan.skipped) == {"in archives, of other kinds or hidden": 3, "JSON that holds no texts": 1}
    assert sorted(tmp_path.rglob("*")) == [path.parent, path]


def test_names_say_where_a_text_is(tmp_path: Path) -> None:
    inner = zipped({"deep.txt": b"Deep."})
    (tmp_path / "l.zip").write_bytes(zipped({"b.txt": b"B.", "a/inner.zip": inner}))
    assert read(tmp_path) == {f"{tmp_path}/l.zip: a/inner.zip: deep.txt": "Deep.", f"{tmp_path}/l.zip: b.txt": "B."}
    for _ in range(4):
        inner = zipped({"more.zip": inner})
    (tmp_path / "l.zip").write_bytes(inner)
    assert "more.zip is an archive in 3 others; unpack it" in faults(tmp_path)[0]


def test_bombs_do_not_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in one file, nor in many, nor one level down."""
    monkeypatch.setattr(packed, "BOMB_SIZE", 2**20)
    monkeypatch.setattr(packed, "BOMB_RATIO", 10)
    bomb = {f"{n}.txt": b" " * 2**19 for n in range(5)}
    for data in (
        zipped({"b.txt": b" " * 2**21}),
        zipped(bomb),
        zipped({"in.zip": zipped(bomb), "x.zip": zipped(bomb)}),
    ):
        (tmp_path / "b.zip").write_bytes(data)
        assert "unpacks to more than 10 times its size" in faults(tmp_path)[0]


def test_damaged_archives(tmp_path: Path) -> None:
    for name, data in (
        ("l.zip", zipped(MEMBERS)),
        ("l.tar", tarred(MEMBERS)),
        ("l.tar.gz", gzip.compress(tarred(MEMBERS))),
    ):
        path = tmp_path / name
        path.write_bytes(data[: len(data) // 2])
        assert "is not a whole " in "".join(faults(path))
        path.unlink()
    data = bytearray(zipped({"a.txt": b"First text, long enough.", "b.txt": b"Second."}))
    data[data.index(b"a.txt") + 7] ^= 0xFF  # in what was packed
    (tmp_path / "l.zip").write_bytes(data)
    (fault,) = faults(tmp_path)
    assert "l.zip: a.txt is damaged in the archive" in fault
    data = bytearray(zipped({"a.txt": b"Text."}))
    data[data.index(b"PK\1\2") + 8] |= 1
    data[6] |= 1
    (tmp_path / "l.zip").write_bytes(data)
    assert "l.zip: a.txt is encrypted" in faults(tmp_path)[0]


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "a.txt"), (tarfile.LNKTYPE, "b.txt"), (tarfile.CHRTYPE, "c.txt")):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, "/etc/passwd"
            archive.addfile(about)
        about = tarfile.TarInfo("d.txt")
        about.size = 5
        archive.addfile(about, io.BytesIO(b"Text."))
    (tmp_path / "l.tar").write_bytes(found.getvalue())
    assert read(tmp_path) == {f"{tmp_path}/l.tar: d.txt": "Text."}
