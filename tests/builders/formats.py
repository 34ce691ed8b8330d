"""A small valid file of each format that is read, and what it holds."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from html import escape

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OPEN = "urn:oasis:names:tc:opendocument:xmlns"
WORDS = "It was a dark night in the café. "
CHAT = [{"role": "user", "content": WORDS}, {"role": "assistant", "content": [{"type": "text", "text": "Was it?"}]}]


def zipped(members: Mapping[str, bytes | str]) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return found.getvalue()


def tarred(members: Mapping[str, bytes]) -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return found.getvalue()


def epub(
    pages: Mapping[str, str | bytes], spine: Sequence[str] = (), container: str = "OPS/book.opf", guide: str = "",
    prefix: str = "",
) -> bytes:  # fmt: skip
    """Pages by href, read in the order of spine, or as they come. container: where the package is said to be; guide:
    more of it; prefix: of its elements' names."""
    items = "".join(f'<item id="i{n}" href="{name}"/>' for n, name in enumerate(pages))
    order = "".join(f'<itemref idref="i{[*pages].index(name)}"/>' for name in spine or pages)
    package = f"{prefix}package><manifest>{items}</manifest><spine>{order}</spine>{guide}</{prefix}package>"
    found = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": f'<container><rootfile full-path="{container}"/></container>',
        "OPS/book.opf": f"<{package}",
    }
    return zipped(found | {f"OPS/{name}": data for name, data in pages.items()})


def docx(body: str, main: str = "word/document.xml", space: str = WORD, **parts: str) -> bytes:
    """body and parts (footnotes, endnotes): the XML inside the root, with the prefix w."""
    found = {main: f'<w:document xmlns:w="{space}"><w:body>{body}</w:body></w:document>'}
    found |= {f"word/{name}.xml": f'<w:notes xmlns:w="{space}">{xml}</w:notes>' for name, xml in parts.items()}
    return zipped({"[Content_Types].xml": "<Types/>"} | found)


def paragraphs(*texts: str) -> str:
    """Of WordprocessingML, each in two runs, with the marks that Word leaves."""
    runs = '<w:r w:rsidR="1"><w:rPr><w:b/></w:rPr><w:t xml:space="preserve">{}</w:t></w:r><w:proofErr w:type="x"/>'
    parts = ((escape(text[:9]), escape(text[9:])) for text in texts)
    stops = "<w:pPr><w:tabs><w:tab/></w:tabs></w:pPr>"
    return "".join(f"<w:p>{stops}{runs.format(first)}{runs.format(rest)}</w:p>" for first, rest in parts)


def odt(body: str) -> bytes:
    """body: the XML inside office:text, with the prefixes text, table and office."""
    spaces = " ".join(f'xmlns:{name}="{OPEN}:{name}:1.0"' for name in ("office", "text", "table"))
    content = f"<office:document-content {spaces}><office:body><office:text>{body}</office:text></office:body>"
    styles = f"<office:document-styles {spaces}/>"
    kind = "application/vnd.oasis.opendocument.text"
    return zipped({"mimetype": kind, "content.xml": content + "</office:document-content>", "styles.xml": styles})


def pdf(*pages: list[str]) -> bytes:
    """Pages of lines; a page without lines has none of text."""
    objects = ["<</Type/Catalog/Pages 2 0 R>>", "", "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    for lines in pages:
        shown = " ".join(f"({line}) Tj T*" for line in lines)
        content = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET" if lines else "1 0 0 1 10 10 cm"
        about = f"/Resources<</Font<</F1 3 0 R>>>>/Contents {len(objects) + 2} 0 R"
        objects.append(f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]{about}>>")
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects[1] = f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>"
    found, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(found))
        found += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size, start = len(objects) + 1, len(found)
    end = f"trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF"
    return found + f"xref\n0 {size}\n0000000000 65535 f \n{table}{end}".encode()


def chatgpt(messages: list[tuple[str, str]]) -> list[object]:
    """conversations.json with one conversation, whose first answer was asked for twice."""
    nodes: dict[str, object] = {"root": {"message": None, "parent": None}, "other": {
        "message": {"author": {"role": "assistant"}, "content": {"parts": ["not this"]}}, "parent": "1"}}  # fmt: skip
    for n, (role, text) in enumerate(messages, 1):
        message = {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}}
        nodes[str(n)] = {"message": message, "parent": str(n - 1) if n > 1 else "root"}
    return [{"title": "A talk", "mapping": nodes, "current_node": str(len(messages))}]


def parquet(texts: list[str]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    found = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), found)
    return found.getvalue()


def zstd(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd as library
    else:
        from backports import zstd as library
    return library.compress(data)


def samples() -> dict[str, bytes]:
    """Ending -> a file that holds WORDS, the accent apart where its format is written here in ASCII."""
    plain = WORDS.encode()
    page = f"<html><head><meta charset=utf-8><title>No</title></head><body><p>{WORDS}</p></body></html>"
    telegram = {"name": "A chat", "messages": [{"type": "message", "from": "Ann", "text": [WORDS, {"text": "So."}]}]}
    found = {
        ".txt": plain, ".md": b"# Title\n\n" + plain, ".html": page.encode(), ".xhtml": page.encode(),
        ".epub": epub({"one.xhtml": page, "two.xhtml": "<p>Two</p>"}),
        ".docx": docx(paragraphs(WORDS, "The end.") + "<w:tbl><w:tr><w:tc><w:p/></w:tc></w:tr></w:tbl>"),
        ".odt": odt(f"<text:h>One</text:h><text:p>{WORDS}<text:s text:c='2'/>end</text:p>"),
        ".rtf": rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Times;}}\f0 It was a \b dark\b0  night in the caf\'e9. \par}",
        ".pdf": pdf(["It was a dark", "night in the cafe."], ["The end."]),
        ".tex": rb"\begin{document}\section{One} It was a \emph{dark} night in the caf\'e. $x^2$ \end{document}",
        ".srt": f"1\n00:00:01,000 --> 00:00:02,000\n<i>{WORDS}</i>\n\n".encode(),
        ".vtt": f"WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>{WORDS}\n".encode(),
        ".jsonl": json.dumps({"text": WORDS}).encode() + b"\n", ".json": json.dumps(CHAT).encode(),
        ".parquet": parquet([WORDS]), ".csv": f'id,text\n1,"{WORDS}"\n'.encode(),
        ".tsv": f"text\tid\n{WORDS}\t1\n".encode(), ".txt.gz": gzip.compress(plain, mtime=0), ".txt.zst": zstd(plain),
    }  # fmt: skip
    found |= {f".{name}.json": json.dumps(data).encode() for name, data in {
        "chatgpt": chatgpt([("user", WORDS), ("assistant", "Yes.")]), "telegram": telegram}.items()}  # fmt: skip
    members = {f"a folder/book{ending}": found[ending] for ending in (".txt", ".docx", ".jsonl", ".txt.gz")}
    return found | {
        ".zip": zipped(members),
        ".tar": tarred(members),
        ".tar.gz": gzip.compress(tarred(members), mtime=0),
    }
