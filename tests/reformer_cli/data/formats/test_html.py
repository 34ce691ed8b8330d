"""Pages: the text that comes out, and what is said of hostile ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.reading import faults, only, read

from reformer_cli.data.formats import html


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
