"""From the bytes of a page to its text, by the labels of the WHATWG Encoding Standard."""

from __future__ import annotations

import codecs
import re

from reformer_cli.data.text_decoding import OpenFile, UnreadableText, decode_whole
from reformer_cli.utils.extras import missing_package

DECLARED = re.compile(rb"""<(?:meta[^>]{0,200}charset|\?xml[^>]{0,100}encoding)\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)
COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
HEAD = 4096  # bytes in which a page declares its encoding
AS_BROWSERS_DO = {  # Python's codecs of these names know fewer characters than browsers do
    "gbk": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949", "big5": "big5hkscs", "iso-8859-8-i": "iso-8859-8",
    "macintosh": "mac_roman", "x-mac-cyrillic": "mac_cyrillic", "windows-874": "cp874", "x-user-defined": "cp1252",
}  # fmt: skip


def decode_page(data: bytes, name: str, encoding: str, file: OpenFile) -> str:
    """By its byte order mark, else as it declares, else by `encoding`. Raises UnreadableText where it is none of it."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8"
    else:
        encoding = _declared(data, name) or encoding

    def fault(error: UnicodeDecodeError) -> UnreadableText:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte {error.start} (line {line}) is 0x{data[error.start]:02x}"
        hint = "give its encoding, such as --encoding latin-1, or --set data.errors=replace"
        return UnreadableText(f"{name} is not {encoding}: {what}", hint)

    try:
        return decode_whole(data, AS_BROWSERS_DO.get(encoding, encoding), file, fault).removeprefix("\ufeff")
    except LookupError:
        raise UnreadableText(f"{name} is read as the unknown encoding {encoding!r}", "try utf-8") from None


def _declared(data: bytes, name: str) -> str:
    """The name that the standard gives to the declared label; "" where none is, or one that it does not know."""
    found = DECLARED.search(COMMENT.sub(b"", data[:HEAD]))
    if found is None:
        return ""
    try:
        import webencodings
    except ImportError:
        raise missing_package("webencodings", name) from None
    label = found.group(1).decode("ascii", "replace")
    known = webencodings.lookup(label) or webencodings.lookup(label.replace("-", ""))  # XML may say latin-1
    if known is None or known.name == "replacement":
        return ""
    return "utf-8" if known.name.startswith("utf-16") else str(known.name)  # it could be read, so it is not UTF-16
