"""A text as a file to keep: as it is, or as a document of word processors (ECMA-376, the least that they open)."""

from __future__ import annotations

import io
import re
import zipfile
from xml.sax.saxutils import escape

TYPES = {
    "txt": "text/plain; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}
NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
OFFICE = "http://schemas.openxmlformats.org"
WORD = f"{OFFICE}/wordprocessingml/2006/main"
PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{OFFICE}/package/2006/content-types"><Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" '
    f'ContentType="{TYPES["docx"]}.main+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{OFFICE}/package/2006/relationships"><Relationship Id="r1" '
    f'Type="{OFFICE}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>',
}


def exported(text: str, form: str, title: str = "") -> bytes:
    """form: txt, md or docx. Of md, characters that would mean something are escaped: a text is not formatted by
    accident."""
    if form == "docx":
        return _docx(text, title)
    if form == "md":
        text = re.sub(r"([\\`*_\[\]<>])", r"\\\1", text)
        text = re.sub(r"(?m)^(\s*)([#+-]|\d+(?=[.)]))", r"\1\\\2", text)
        text = re.sub(r"(?<!\n)\n(?!\n)", "  \n", text)  # a line's end stays one
    head = f"# {title}\n\n" if title and form == "md" else f"{title}\n\n" if title else ""
    return (head + text).encode()


def _docx(text: str, title: str) -> bytes:
    """A paragraph for each stretch between blank lines; line ends within one stay."""
    paragraphs = [part for part in re.split(r"\n\s*\n", text.strip("\n")) if part.strip()]
    bold = "<w:rPr><w:b/></w:rPr>"
    rows = [*([(title, bold)] if title else []), *((part, "") for part in paragraphs)]
    body = "".join(f"<w:p><w:r>{look}{_runs(part)}</w:r></w:p>" for part, look in rows)
    document = f'<w:document xmlns:w="{WORD}"><w:body>{body}<w:sectPr/></w:body></w:document>'
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {**PARTS, "word/document.xml": document}.items():
            file.writestr(name, '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n' + content)
    return out.getvalue()


def _runs(text: str) -> str:
    lines = NO_XML.sub("\ufffd", text).split("\n")
    return "<w:br/>".join(f'<w:t xml:space="preserve">{escape(line)}</w:t>' for line in lines)
