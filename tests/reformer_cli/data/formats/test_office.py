"""Documents of word processors: paragraphs, tables and notes come out; what Word keeps beside the text does not."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from builders.formats import docx, odt, paragraphs, zipped
from builders.reading import faults, only

from reformer_cli.data.formats import office


def of(tmp_path: Path, name: str, data: bytes) -> str:
    (tmp_path / name).write_bytes(data)
    return only(tmp_path / name)


def test_docx_leaves_out_what_is_no_text(tmp_path: Path) -> None:
    """Tab stops are no tabs, what was deleted or moved away is gone, a text box is not told twice, nor the contents."""
    mc = "http://schemas.openxmlformats.org/markup-compatibility/2006"
    box = "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
    runs = [
        '<w:pPr><w:pStyle w:val="TOC1"/></w:pPr><w:r><w:t>One ... 3</w:t></w:r>',
        "<w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>First words here.</w:t></w:r>",
        "<w:r><w:t>a</w:t><w:tab/><w:t>b</w:t><w:br/><w:t>\xadc</w:t><w:noBreakHyphen/><w:t>d</w:t></w:r>",
        "",
        "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:r><w:instrText>PAGE</w:instrText><w:t>kept</w:t></w:r>",
        "<w:moveFrom><w:r><w:t>was here</w:t></w:r></w:moveFrom>",
        f'<w:r><w:t>Out</w:t><mc:AlternateContent xmlns:mc="{mc}"><mc:Choice>{box}</mc:Choice>'
        f"<mc:Fallback>{box}</mc:Fallback></mc:AlternateContent><w:t>side</w:t></w:r>",
    ]
    body = "".join(f"<w:p>{run}</w:p>" for run in runs)
    expected = "First words here.\n\na\tb\nc-d\n\nkept\n\nOutside\n\nboxed\n\nA note.\n\n"
    assert of(tmp_path, "d.docx", docx(body, footnotes=paragraphs("A note."))) == expected


def test_tables_are_a_row_a_line(tmp_path: Path) -> None:
    cell = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    row = "<w:tr>" + cell.format("a") + "<w:tc><w:p/><w:tbl><w:tr>" + cell.format("x") + "</w:tr></w:tbl></w:tc></w:tr>"
    body = f"<w:tbl>{row}<w:tr>{cell.format('b') * 2}</w:tr></w:tbl>" + paragraphs("After it.")
    assert of(tmp_path, "d.docx", docx(body)) == "a\tx\nb\tb\n\nAfter it.\n\n"


def test_docx_of_other_makers(tmp_path: Path) -> None:
    """SharePoint numbers the part, `Strict Open XML` has another namespace."""
    strict = "http://purl.oclc.org/ooxml/wordprocessingml/main"
    assert of(tmp_path, "d.docx", docx(paragraphs("Some words."), "word/document2.xml")) == "Some words.\n\n"
    assert of(tmp_path, "e.docx", docx(paragraphs("Some words."), space=strict)) == "Some words.\n\n"


def test_odt(tmp_path: Path) -> None:
    """Spaces, tabs and line ends are elements; notes come after their paragraph; comments and contents are no text."""
    p = "<text:p>{}</text:p>".format
    note = f"<text:note><text:note-citation>1</text:note-citation><text:note-body>{p('The note.')}</text:note-body>"
    cells = "".join(f"<table:table-cell>{p(x)}</table:table-cell>" for x in "xy")
    body = [
        f"<text:table-of-content>{p('One 3')}</text:table-of-content>",
        f"<text:tracked-changes>{p('gone')}</text:tracked-changes><text:h>One</text:h>",
        "<text:p>a<text:s text:c='3'/>b<text:tab/>c<text:line-break/>d\n  e",
        f"<office:annotation>{p('a comment')}</office:annotation>{note}</text:note>, f</text:p>",
        f"<table:table><table:table-row>{cells}</table:table-row></table:table>",
    ]
    assert of(tmp_path, "d.odt", odt("".join(body))) == "One\n\na   b\tc\nd e, f\n\nThe note.\n\nx\ty\n"


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    """Neither files from the disk nor a billion laughs."""
    (tmp_path / "secret").write_text("secret")
    laughs = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    for entity in ("&f;", "&a9;"):
        xml = (
            f'<!DOCTYPE d [<!ENTITY f SYSTEM "{tmp_path / "secret"}"><!ENTITY a0 "ha">{laughs}]><w:d xmlns:w="{space}">'
            f"<w:p><w:r><w:t>one {entity} two</w:t></w:r></w:p></w:d>"
        )
        (tmp_path / "d.docx").write_bytes(zipped({"word/document.xml": xml}))
        found = faults(tmp_path / "d.docx")
        text = found[0] if found else only(tmp_path / "d.docx")
        assert "secret" not in text.replace(str(tmp_path), "")
        assert "haha" not in text


def test_documents_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = docx(paragraphs("Some words here."))
    for data in (
        b"PK no zip",
        whole[: len(whole) // 2],
        zipped({"word/document.xml": "<w:p>"}),
        zipped({"a": "b"}),
    ):
        (tmp_path / "d.docx").write_bytes(data)
        (fault,) = faults(tmp_path / "d.docx")
        assert "d.docx is not a whole .docx document" in fault
        assert fault.endswith("; download it again")
    monkeypatch.setattr(office, "LONGEST", 2**18)
    (tmp_path / "d.docx").write_bytes(docx("<w:p>" + "<w:r/>" * 2**16 + "</w:p>"))
    assert "has a paragraph of more than" in faults(tmp_path / "d.docx")[0]
    (tmp_path / "d.docx").write_bytes(docx(paragraphs("Short.") * 2**12))
    assert only(tmp_path / "d.docx") == "Short.\n\n" * 2**12
    monkeypatch.setattr(office, "LARGEST", 2**19)
    assert "unpacks to more than 512.0 KiB" in faults(tmp_path / "d.docx")[0]


def test_a_book_of_gutenberg_is_cut_in_any_format(tmp_path: Path) -> None:
    book = ("*** START OF THE PROJECT GUTENBERG EBOOK A ***", "Text.", "*** END OF THE PROJECT GUTENBERG EBOOK A ***")
    assert of(tmp_path, "d.docx", docx(paragraphs("Licence", *book, "Licence"))) == "Text.\n"
    assert zipfile.is_zipfile(tmp_path / "d.docx")
