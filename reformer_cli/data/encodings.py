"""Which encoding bytes are in where nobody says: by their mark, as UTF-8, by zero bytes, else by what browsers guess.

chardetng, the guesser of Firefox, names legacy pages; of pages that no browser knows (DOS, Macintosh) it names another
that can be read as well. So what it names is believed as far as the characters then stand where they do in words.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass

from reformer_cli.utils.errors import UserError

AUTO = "auto"
SURE = 0.7  # confidence from which a text is read as guessed
MOST_LOOKED_AT = 2_000  # characters whose place is judged
LATIN = {"windows-1250", "windows-1254", "windows-1257", "windows-1258", "iso-8859-2", "iso-8859-4"}
FEW_LETTERS = 0.005  # share of the letters beyond ASCII, below which a text is in no language that needs one of LATIN
DOUBT = 30  # characters in their place that one out of place outweighs: measured on 24 languages
SINGLE = 1.0  # doubt that many characters dispel: three beyond ASCII in their places are enough, two are not
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be", codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
PRINTABLE, WIDE_SHARE = bytes(range(0x20, 0x80)), 0.25  # least share of the bytes of a wide text that are none of these
WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
ISO_2022_JP = re.compile(rb"\x1b\$[@B]|\x1b\(J")
AS_BROWSERS_DO = {  # Python's codecs of these names know fewer characters than browsers do, or have other names
    "gbk": "gb18030", "gb2312": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949", "big5": "big5hkscs",
    "iso-8859-8-i": "iso-8859-8", "macintosh": "mac_roman", "x-mac-cyrillic": "mac_cyrillic", "windows-874": "cp874",
    "x-user-defined": "cp1252",
}  # fmt: skip
NO_TEXT = {"punycode", "idna", "undefined", "unicode_escape", "raw_unicode_escape"}  # codecs of something else
IN_WORDS = set("’‘—–-·‧・\u200c\u200d\xad")  # beside letters and marks; what may stand between two letters
BEFORE_WORDS = set("‚„ƒ†‡ˆ‰‹")  # in windows-1252 where DOS pages have é, ä, ...; never behind a letter
SCRIPTS = {"LATIN", "GREEK", "CYRILLIC", "HEBREW", "ARABIC", "THAI"}
CONTROL = "windows-control"  # an error handler of codecs


def _control(error: UnicodeError) -> tuple[str, int]:
    """Of bytes that a Windows page leaves undefined, what the WHATWG Encoding Standard makes: C1 controls."""
    if isinstance(error, UnicodeDecodeError) and 0x80 <= error.object[error.start] < 0xA0:
        return chr(error.object[error.start]), error.start + 1
    raise error


codecs.register_error(CONTROL, _control)


@dataclass(frozen=True)
class Guess:
    """An encoding by its name for people, and how sure it is, from 0 to 1."""

    name: str
    confidence: float

    def __str__(self) -> str:
        return f"{self.name} ({self.confidence:.0%} sure)"


def codec_of(label: str) -> str:
    """The Python codec for what a user calls an encoding. Raises UserError where there is none of text."""
    try:
        name = codecs.lookup(AS_BROWSERS_DO.get(label.lower(), label)).name
        b"0000".decode(name, "ignore")
    except (LookupError, ValueError):  # a ValueError: UnicodeError too
        name = ""
    if not name or name.replace("-", "_") in NO_TEXT:
        raise UserError(f"unknown encoding {label!r}", "try utf-8, windows-1252, utf-16, or auto") from None
    return name


def marked(data: bytes) -> str | None:
    """The encoding whose byte order mark the data begins with."""
    return next((name for mark, name in MARKS.items() if data.startswith(mark)), None)


def guess(sample: bytes) -> Guess | None:
    """What the beginning of a text that is no UTF-8, or only ASCII and escapes, may be in; None: no text at all."""
    if b"\0" in sample:
        return _wide(sample)
    return Guess("utf-8", 0.0) if damaged(sample) else _legacy(sample)


def damaged(data: bytes) -> bool:
    """Whether it is UTF-8 but for some bytes, for few legacy texts hold sequences that are UTF-8."""
    text = data.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    return sum(char > "\x7f" for char in text) - wrong > wrong


def _wide(sample: bytes) -> Guess | None:
    """UTF-16 or UTF-32 without a mark: all is text, some of it ASCII, and byte by byte it is none."""
    found = []
    if len(sample.translate(None, PRINTABLE)) < WIDE_SHARE * len(sample):
        return None
    for name in WIDE:
        try:
            text = codecs.getincrementaldecoder(name)().decode(sample)[:MOST_LOOKED_AT]
        except UnicodeDecodeError:
            continue
        out = sum(unicodedata.category(char) in ("Cc", "Cn", "Co") and char not in "\t\n\r\f" for char in text)
        n = len(text) if min(text, default="~") < "~" else 0  # some of it is ASCII
        found.append(Guess(name, max(0.0, (n - DOUBT * (out + sum(map(_rare, text)))) / (n + SINGLE))))
    return max(found, key=lambda one: one.confidence, default=None)


def _rare(char: str) -> bool:
    """Whether hardly a text is made of such characters, which others become when their two bytes are swapped."""
    return "\u0250" <= char < "\u0300" or "\u0700" <= char < "\u0900" or "\u1200" <= char < "\u1e00"


def _legacy(sample: bytes) -> Guess | None:
    """As browsers guess, and how far the characters that it gives are in their places."""
    from chardetng_py import EncodingDetector

    detector = EncodingDetector()
    detector.feed(sample, last=False)
    name = detector.guess(tld=None, allow_utf8=False).lower()
    if name == "koi8-u" and sample.decode(name) == sample.decode("koi8-r"):
        name = "koi8-r"
    found = _judged(sample, name)
    if name in LATIN and found is not None:
        letters = [char for char in decoded_as(sample, name) if char.isalpha()]
        plain = _judged(sample, "windows-1252")
        if (
            sum(char > "\x7f" for char in letters) < FEW_LETTERS * len(letters)
            and plain
            and plain.confidence >= found.confidence
        ):
            return plain
    return found


def _judged(sample: bytes, name: str) -> Guess | None:
    try:
        out, n = out_of_place(decoded_as(sample, name))
    except UnicodeDecodeError:
        return None
    return Guess(name, max(0.0, (n - DOUBT * out) / (n + SINGLE))) if n else None


def decoded_as(sample: bytes, name: str) -> str:
    """The text of the beginning of a file, of which the last character may be cut."""
    return codecs.getincrementaldecoder(codec_of(name))(errors_of(name)).decode(sample)


def errors_of(name: str, otherwise: str = "strict") -> str:
    """What is done with bytes that an encoding leaves undefined."""
    return CONTROL if name.lower().startswith(("windows-125", "cp125")) and otherwise == "strict" else otherwise


def out_of_place(text: str) -> tuple[int, int]:
    """(characters that stand where none of their kind do, characters that were looked at), of those beyond ASCII."""
    out = n = 0
    for match in re.finditer(r"[^\x00-\x7f]", text):
        if n == MOST_LOOKED_AT:
            break
        at, n = match.start(), n + 1
        before, char, after = text[at - 1 : at] or " ", match.group(), text[at + 1 : at + 2] or " "
        out += _misplaced(text[max(0, at - 5) : at], before, char, after)
    return out, n


def _misplaced(five: str, before: str, char: str, after: str) -> bool:
    kind = unicodedata.category(char)
    if kind in ("Cc", "Cn", "Co"):
        return True
    if kind[0] == "L":
        if (before.islower() and char.isupper()) or len({*filter(None, map(_script, (before, char, after)))}) > 1:
            return True
        return _script(char) == "LATIN" and len(five) == 5 and five.isalpha() and min(five) > "\x7f"
    if kind[0] == "M" or _script(before) is None:
        return False
    return char in BEFORE_WORDS or (_script(after) is not None and char not in IN_WORDS)


def _script(char: str) -> str | None:
    """The script of a letter, of those that are not mixed within a word."""
    if not char.isalpha():
        return None
    script = unicodedata.name(char, "").partition(" ")[0]
    return script if script in SCRIPTS else None
