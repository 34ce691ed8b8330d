"""Pages: the text that comes out, and what is said of hostile ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.reading import faults, only, read, silent

from reformer_cli.data.formats import html
from reformer_cli.data.scan import scanned
from reformer_cli.data.text_decoding import Options


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
    for label in (b"klingon", b"punycode", b"idna", b"replacement"):  # which the standard does not know as encodings
        (tmp_path / "plain.html").write_bytes(b"<meta charset=" + label + b"><p>caf\xc3\xa9")
        assert only(tmp_path / "plain.html") == "caf\u00e9\n"


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("gb2312", "gb18030", "\u897f\u904a\u8a18 \u20ac\U00020000"),
        ("Shift_JIS", "cp932", "\u2460\u9ad9"),
        ("x-sjis", "cp932", "\u65e5\u672c"),
        ("iso-8859-8-i", "iso-8859-8", "\u05e9\u05dc\u05d5\u05dd"),
        ("iso-8859-9", "cp1254", "\u201cT\u00fcrk\u00e7e\u201d \u2013 \u0131\u015f\u0131k"),
        ("ks_c_5601-1987", "cp949", "\ub620"),
    ],
)
def test_labels_mean_what_browsers_take_them_for(tmp_path: Path, label: str, codec: str, text: str) -> None:
    (tmp_path / "p.html").write_bytes(f"<meta charset={label}><p>{text}".encode(codec))
    assert only(tmp_path / "p.html") == f"{text}\n"


def test_a_declaration_in_a_comment_is_none(tmp_path: Path) -> None:
    page = '<!-- <meta charset="shift_jis"> --><meta charset="utf-8"><p>Gr\u00f6\u00dfe'
    (tmp_path / "p.html").write_bytes(page.encode())
    assert only(tmp_path / "p.html") == "Gr\u00f6\u00dfe\n"


def test_xhtml_is_xml(tmp_path: Path) -> None:
    """Bug guarded against: a chapter was lost without a word, for <title/> swallowed all that came after it."""
    head = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/><script src="a>b"/></head>'
    body = """<body><!-- <p/> --><p id='x'/><p>One<br/>two <a id="y"/>x <![CDATA[1 < 2 & 3]]> y</p><textarea/>end"""
    (tmp_path / "p.xhtml").write_text(head + body)
    assert only(tmp_path / "p.xhtml") == "One\ntwo x 1 < 2 & 3 y\n\nend\n"
    for hostile in ("<a '", "<!--", "<![CDATA[", "<a x=''"):  # no mark makes the search begin anew
        html.xml_as_html(hostile * 300_000)


def test_what_is_no_text_of_a_page(tmp_path: Path) -> None:
    page = (
        '<nav epub:type="toc"><ol><li>Chapter One</ol></nav><nav role="doc-toc">Two</nav><nav>Home</nav>'
        '<section role="doc-toc">3</section>'
        '<div id="pg-header">licence</div><section class="pg-boilerplate pgfooter">licence</section>'
        "<p><ruby>\u6f22<rp>(</rp><rt>\u304b\u3093</rt><rp>)</rp></ruby>\u3092"
    )
    (tmp_path / "p.html").write_text(page, "utf-8")
    assert only(tmp_path / "p.html") == "\u6f22\u3092\n"
    with scanned([str(tmp_path)], Options(ruby="keep"), 1, silent) as found:
        assert found.characters == len("\u6f22(\u304b\u3093)\u3092\n")


def test_numbers_of_notes_and_soft_hyphens_stay_out_of_words(tmp_path: Path) -> None:
    page = (
        "<p>Long<sup><a href='#n1'>1</a></sup> syn&shy;onyms<a href='n.html#2'><sup>[2]</sup></a> and<a epub:type="
        "'noteref' href='#3'>3</a> x<sup>2</sup>, <a href='#4'>a link</a>, <sup><a href='#5'>raised words</a></sup>"
    )
    (tmp_path / "p.html").write_text(page, "utf-8")
    assert only(tmp_path / "p.html") == "Long synonyms and x2, a link, raised words\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("comment.html", "Gr\u00f6\u00dfe \u2014 \u0442\u0435\u0441\u0442\n"),
        ("iso88598i.html", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd\n"),
        ("iso88599.html", "\u201cT\u00fcrk\u00e7e\u201d \u2013 \u0131\u015f\u0131k\n"),
        ("punycode.html", "abc abc abc abc abc abc abc abc abc abc\n"),
        ("self_closed.xhtml", "All of this is lost.\n"),
        ("title_selfclosed.epub", "One\n\nFirst chapter text.\n\nSecond chapter text.\n\n"),
        ("script_selfclosed.epub", "First chapter text.\n\n"),
        ("cdata.epub", "x 1 < 2 & 3 y\n\n"),
        ("nav.epub", "Main\n\n"),
        ("ruby.epub", "\u6f22\u5b57\u3092\u8aad\u3080\n\n"),
        ("pg.epub", "Nothing\n\nText.\n\nLast line.\n\n"),
    ],
)
def test_cases_from_other_programs(cases: Path, name: str, text: str) -> None:
    assert only(cases / name).replace(" \n", "\n") == text


@pytest.mark.parametrize(("name", "codec"), [("gb2312", "gb18030"), ("sjis", "cp932"), ("xsjis", "cp932")])
def test_pages_in_old_chinese_and_japanese(cases: Path, name: str, codec: str) -> None:
    data = (cases / f"{name}.html").read_bytes()
    assert only(cases / f"{name}.html").strip() == data.decode(codec).partition("<p>")[2].partition("</p>")[0].strip()


def test_html_that_would_take_the_parser_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time grows with tags x depth: 200,000 nested divs took minutes."""
    (tmp_path / "deep.html").write_bytes(b"<div>" * 200_000)
    (tmp_path / "closed.html").write_bytes(b"<div>" * 200_000 + b"</div>" * 200_000)
    (tmp_path / "long.html").write_bytes(b"<p>line<br>" * 100_000)  # many, but not deep
    found = faults(tmp_path)
    assert len(found) == 2
    assert all("nests" in fault for fault in found)
    monkeypatch.setattr(html, "LARGEST", 2**19)
    assert "long.html has more than 512.0 KiB" in faults(tmp_path / "long.html")[0]
