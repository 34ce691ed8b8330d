"""Formats: the text that comes out, and what is said of files that are damaged, foreign or hostile."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
import zipfile
from pathlib import Path

import pytest
from builders.reading import faults, read, silent

from reformer_cli.data import scan, text_decoding
from reformer_cli.data.formats import html, registry
from reformer_cli.data.scan import reread, scanned
from reformer_cli.data.text_decoding import Options
from reformer_cli.utils.errors import UserError

zstd = pytest.importorskip("backports.zstd") if sys.version_info < (3, 14) else pytest.importorskip("compression.zstd")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")


def only(path: Path, **options: str) -> str:
    (text,) = read(path, **options).values()
    return text


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
    assert only(tmp_path / "t.txt", encoding=encoding) == text.replace("\r\n", "\n")


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
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\0")
    assert "looks binary: a zero byte at 300000" in faults(tmp_path / "late.txt")[0]
    assert "looks binary: a zero byte at 4" in faults(tmp_path / "picture.txt")[0]


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
    monkeypatch.setattr(registry, "BOMB_SIZE", 2**20)
    data = b" " * 2**24
    (tmp_path / f"b.{ending}").write_bytes(gzip.compress(data) if ending == "gz" else zstd.compress(data))
    assert "unpacks to more than 250 times its size" in faults(tmp_path)[0]


def test_jsonl(tmp_path: Path) -> None:
    rows = [{"text": "one\r\ntwo \0 \ud800", "id": 1}, {"id": 2, "text": None}, {"id": 3}, {"text": ["x"]}, "s"]
    lines = [json.dumps(row) for row in rows]
    data = "\ufeff" + "\n\n".join(lines) + "\n{broken\n" + '{"text": "' + "x" * 700_000 + '"}'
    (tmp_path / "a.jsonl").write_bytes(data.encode())
    name = tmp_path / "a.jsonl"
    assert faults(tmp_path) == [
        f"{name}:5 has no field 'text', it has 'id'; say which: --set data.text_field=NAME",
        f"{name}:7: field 'text' is no text but list; say which: --set data.text_field=NAME",
        f"{name}:9 is no JSON object; a .jsonl file has one object a line",
        f"{name}:10 is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        "a .jsonl file has one object a line",
    ]
    name.write_bytes(b'{"body": "other"}\n' + data.replace("text", "body").splitlines()[-1].encode())
    assert [len(x) for x in read(tmp_path, text_field="body").values()] == [5, 700_000]


def test_jsonl_rows_that_hurt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "LONGEST_ROW", 300_000)
    (tmp_path / "a.jsonl").write_bytes(b'{"text":' * 90_000 + b"\n")  # deeper than Python's stack
    assert "is longer" in faults(tmp_path)[0] or "a line of more than" in faults(tmp_path)[0]
    (tmp_path / "a.jsonl").write_bytes(b"[" * 200_000 + b'\n{"text": "after"}\n{"text": "caf\xe9"}\n')
    found = faults(tmp_path)
    assert "a.jsonl:1 is not JSON" in found[0]
    assert "a.jsonl:3 is not utf-8: byte 13 of the line is 0xe9" in found[1]
    assert len(found) == 2


def test_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"id": [1, 2, 3, 4], "text": ["one", None, "", "vier\r\n"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    assert read(tmp_path) == {f"{tmp_path / 't.parquet'}:1": "one", f"{tmp_path / 't.parquet'}:4": "vier\n"}
    assert "has no column 'body', it has 'id', 'text'; say which" in faults(tmp_path, text_field="body")[0]
    assert "field 'id' is no text but int" in faults(tmp_path, text_field="id")[0]
    whole = (tmp_path / "t.parquet").read_bytes()
    for data in (whole[:-9], b"PAR1" * 30, b""):
        (tmp_path / "t.parquet").write_bytes(data)
        assert "is not a whole parquet file" in faults(tmp_path)[0]


def test_html(tmp_path: Path) -> None:
    page = """<!doctype html><html><head><title>No</title><style>p {}</style></head><body>
      <h1>A  title</h1><p>One <b>bold</b>
      word&nbsp;&amp; &eacute;.</p><p>Two<br>lines<ul><li>first<li>second</ul>
      <pre>  kept
    as is</pre><table><tr><td>a<td>b<tr><td>c<td>d</table><script>var no = 1 < 2</script><!-- no -->
      <div>inner</div>after<svg><text>no</text></svg></body></html>"""
    (tmp_path / "p.html").write_text(page, "utf-8")
    assert only(tmp_path / "p.html") == (
        "A title\n\nOne bold word\xa0& é.\n\nTwo\nlines\n\nfirst\nsecond\n\n  kept\n    as is\n\n"
        "a\tb\nc\td\n\ninner\nafter\n"
    )


def test_html_encodings(tmp_path: Path) -> None:
    """As the page declares; its own word counts more than the setting."""
    for name, data in {
        "declared.html": b'<meta charset="iso-8859-1"><p>caf\xe9 \x80',  # which browsers read as cp1252
        "xml.xhtml": b'<?xml version="1.0" encoding="latin-1"?><p>caf\xe9 \xa4',
        "mark.htm": "\ufeff<p>café".encode("utf-16"),
        "plain.html": "<p>café".encode(),
    }.items():
        (tmp_path / name).write_bytes(data)
    assert [*read(tmp_path).values()] == ["café €\n", "café\n", "café\n", "café ¤\n"]
    (tmp_path / "plain.html").write_bytes(b"<p>one\n<p>caf\xe9")
    assert "is not utf-8: byte 13 (line 2) is 0xe9" in faults(tmp_path)[0]
    (tmp_path / "plain.html").write_bytes(b"<meta charset=klingon>")
    assert "declares the unknown encoding 'klingon'" in faults(tmp_path)[0]


def test_html_that_would_take_the_parser_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time grows with tags x depth: 200,000 nested divs took minutes."""
    (tmp_path / "deep.html").write_bytes(b"<div>" * 200_000)
    (tmp_path / "closed.html").write_bytes(b"<div>" * 200_000 + b"</div>" * 200_000)
    (tmp_path / "long.html").write_bytes(b"<p>line<br>" * 100_000)  # many, but not deep
    found = faults(tmp_path)
    assert len(found) == 2
    assert all("nests" in fault for fault in found)
    monkeypatch.setattr(html, "LARGEST", 2**19)
    assert "has more than 512.0 KiB of HTML" in faults(tmp_path / "long.html")[0]


def epub(path: Path, pages: dict[str, bytes], spine: list[str] | None = None, container: str = "OPS/book.opf") -> None:
    items = "".join(f'<item id="i{n}" href="{name}"/>' for n, name in enumerate(pages))
    order = "".join(f'<itemref idref="i{[*pages].index(name)}"/>' for name in spine or pages)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("META-INF/container.xml", f'<container><rootfile full-path="{container}"/></container>')
        book.writestr("OPS/book.opf", f"<opf:package><manifest>{items}</manifest><spine>{order}</spine></opf:package>")
        for name, data in pages.items():
            book.writestr(f"OPS/{name}", data)


def test_epub(tmp_path: Path) -> None:
    pages = {"two.xhtml": b"<p>Second.</p>", "cover.html": b"<img src='x'>", "one.html": "<h1>Erste</h1><p>é".encode()}
    epub(tmp_path / "b.epub", pages, ["cover.html", "one.html", "two.xhtml"])
    assert only(tmp_path / "b.epub") == "Erste\n\né\n\nSecond.\n\n"


def test_epubs_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = tmp_path / "b.epub"
    epub(book, {"one.html": b"<p>text"})
    whole = book.read_bytes()
    for data in (b"", b"PK no zip", whole[: len(whole) // 2]):
        book.write_bytes(data)
        assert "b.epub is not a whole EPUB book" in faults(book)[0]
    for container in ("nowhere.opf", "../../../etc/passwd"):  # looked up in the archive alone
        epub(book, {"one.html": b"<p>text"}, container=container)
        assert "is not a whole EPUB book" in faults(book)[0]
    epub(book, {"../../etc/passwd": b"<p>inside"})
    assert "is not a whole EPUB book" in faults(book)[0]
    monkeypatch.setattr(html, "LARGEST", 2**20)
    epub(book, {"bomb.html": b"<p>" + b" " * 2**24})
    assert "OPS/bomb.html unpacks to more than 1.0 MiB" in faults(book)[0]
    monkeypatch.setattr(html, "LARGEST_BOOK", 2**21)
    epub(book, {f"{n}.html": b"<p>" + b" " * 2**19 for n in range(9)})
    assert "unpacks to more than" in faults(book)[0]


def test_an_encrypted_book_is_told_from_a_broken_one(tmp_path: Path) -> None:
    data = io.BytesIO()
    epub(tmp_path / "b.epub", {"one.html": b"<p>text"})
    raw = bytearray((tmp_path / "b.epub").read_bytes())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of encryption in both headers
        start = 0
        while (start := raw.find(sign, start)) >= 0:
            raw[start + offset] |= 1
            start += 4
    (tmp_path / "b.epub").write_bytes(raw)
    assert "is encrypted" in faults(tmp_path)[0]
    assert not data.getvalue()


@pytest.mark.parametrize(
    ("name", "package"), [("p.html", "selectolax"), ("t.parquet", "pyarrow"), ("t.txt.zst", "backports.zstd")]
)
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    (tmp_path / name).write_bytes(b"<p>text")
    hidden = {"selectolax": "selectolax.lexbor", "pyarrow": "pyarrow.parquet"}.get(package, zstd.__name__)
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(UserError, match=rf"cannot be read without {package}; pip install 'reformer-cli\[formats\]'"):
        read(tmp_path)


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.txt").write_text("secret")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(registry, "open", refuse, raising=False)
    assert faults(tmp_path) == [f"cannot read {tmp_path / 't.txt'}: Permission denied"]


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
    epub(tmp_path / "c.epub", {"one.html": b"<p>caf\xe9"})
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
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 " * 3)
    first = replaced(tmp_path)
    assert faults(tmp_path)  # under other options it is read anew
    monkeypatch.setattr(scan, "read_file", None)
    assert replaced(tmp_path) == first
    assert first[1] == 3
