"""Hard-wrapped text as paragraphs: the line ends that a wrapping put in become spaces again, all others stay.

The text is looked at in blocks of some thousand lines, so memory is bounded. A block is wrapped if its longest lines
are 40 to 120 characters (15 to 120 where words have no spaces), if at least 0.4 of its lines with text below are full
(the first word below would not have fitted), and if those go on in lower case; of scripts without case, in the middle
of a sentence. So verse, lists, tables, code and texts of one paragraph a line are left as they are. In a wrapped block
a line is joined with the next one if it is full, or if that begins in lower case and it is at least 0.6 as long as the
longest, but not

- across a blank line, a line that is further indented than the one above it, or a fence of Markdown;
- where both lines have columns (three spaces in a row, a tab), or the first dotted leaders;
- before an item of a list, and after the end of a sentence before the speaker of a play, a dash, or an opening
  quotation mark that follows a closing one; where paragraphs have no blank lines between them, after any sentence
  that ends in a line that is not wholly full;
- in two or more indented lines, or four or more others, of which nearly all begin with a capital: verse of long lines;
  in fewer others, such as a couplet, if also each leaves room for the first word of the next one.

Joined lines have a space between them, save after a hyphen or dash that has none before it, before a dash, and between
characters of scripts without spaces. What is done depends on the text alone, not on how it comes in pieces.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

BLOCK = 2**16  # characters after which a block ends at the next blank line, at twice so many at any line
NARROWEST, NARROWEST_UNSPACED, WIDEST = 40, 15, 120  # characters of a block's long lines
LONG = 0.9  # share of the lines that are no longer than the width
SLACK, LEAST_FULL = 0.12, 0.4  # share of the width a full line may lack; share of lines that must be full
GOES_ON = 0.5  # share of full lines after which a sentence must go on
LEAST_LINES, FEW_LINES = 3, 20  # with text below: fewer say nothing, or less than the block before
SHORTEST = 0.6  # of the width, of a line that goes on in lower case
VERSE_LINES, VERSE_SHARE = 4, 0.75  # in one paragraph; beginning with a capital
DENSE = 0.02  # share of blank lines below which paragraphs have none between them
STRICT = 0.03  # of the width, that a full line may lack which ends a sentence in such a text
FEWEST_SPACES = 0.04  # share of the characters: a genome, base64 have none
DEEPEST = 12  # spaces: further in stand signatures and centred titles

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uff00-\uffef\U00020000-\U0003ffff"
_NO_SPACES = re.compile(f"[{UNSPACED}]")
_FENCES = ("```", "~~~")
_DASHES = ("--", "\u2014")
_QUOTES = "\"'\u201c\u2018\u201e\u00ab\u00bb"
_OPENING = "\"'\u201c\u2018\u201e\u00ab\u00bb([_*\u2014-"
_CLOSING = "_)]\"\u201d\u00bb'\u2019\u300d\u300f"
_ENDS = ".!?:\u2026\u3002\uff01\uff1f\uff1a"
_PAUSES = _ENDS + ";,\u2014-\uff0c\u3001\uff1b"
_COLUMNS, _LEADERS = ("   ", "\t"), (".....", ". . . . .")
_ITEM = re.compile(r"(?:[-*+\u2022]|\(?\d{1,3}[.)]|\(?[a-z]\))\s|\d{1,3}\s")
_SPEAKER = re.compile(r"_?[A-Z][A-Z .'\u2019-]+[.:](?:_|\s|$)")
_HYPHENS = "-\u00ad\u2010\u2013\u2014"
_GLUED = re.compile("(?<! )(?:-|--|[\u00ad\u2010\u2013\u2014])$")
_DASH = re.compile("(?:--|\u2014)\\w")


def unwrap(pieces: Iterable[str], tell: Callable[[int], None] = lambda _: None, join: bool = True) -> Iterator[str]:
    """A text with the lines of its paragraphs joined, where they are plainly wrapped; unless `join`, as it is, and only
    counted. tell: how many lines were joined with the next one, or would be, bit by bit."""
    width = 0
    for block in blocks(pieces, BLOCK):
        lines = [line.rstrip() for line in block.split("\n")]
        texts = [line.lstrip() for line in lines]
        found, n = _width(lines, texts)
        width = found if found or n >= FEW_LINES else width
        if width:
            text, joined = _joined(lines, texts, width)
            tell(joined)
            block = text if join else block
        yield block


def blocks(pieces: Iterable[str], size: int) -> Iterator[str]:
    """A text in blocks of `size` to 2 * size characters that end with a line, before a blank one if they can: the same
    ones however it comes in pieces."""
    waiting: list[str] = []
    length = 0
    for piece in pieces:
        waiting.append(piece)
        length += len(piece)
        if length < 2 * size:
            continue
        held, start = "".join(waiting), 0
        while (last := start + 2 * size) <= len(held):
            at = held.find("\n\n", start + size, last) + 1 or held.rfind("\n", start + size, last) + 1 or last
            yield held[start:at]
            start = at
        waiting, length = [held[start:]], len(held) - start
    if length:
        yield "".join(waiting)


def _width(lines: list[str], texts: list[str]) -> tuple[int, int]:
    """(characters of the lines of a block that is plainly wrapped, else 0; lines that have text below)."""
    above = [(a, b) for a, b in zip(lines, texts[1:], strict=False) if a and b]
    if len(above) < LEAST_LINES:
        return 0, len(above)
    width = sorted(len(a) for a, _ in above)[int((len(above) - 1) * LONG)]
    sample = "".join(b for _, b in above[:50])
    unspaced = 2 * len(_NO_SPACES.findall(sample)) > len(sample)
    if not (NARROWEST_UNSPACED if unspaced else NARROWEST) <= width <= WIDEST:
        return 0, len(above)
    if not unspaced and sample.count(" ") < FEWEST_SPACES * len(sample):
        return 0, len(above)
    full = [(a, b) for a, b in above if _is_full(a, b, width)]
    on = 0
    for a, b in full:
        letter = _first_letter(b)
        on += letter.islower() or (letter.isalpha() and not letter.isupper() and not _ended(a))
    return width if len(full) >= LEAST_FULL * len(above) and on >= GOES_ON * len(full) > 0 else 0, len(above)


def _ended(text: str, signs: str = _PAUSES) -> bool:
    """Whether a sentence does, or a part of one."""
    return text.rstrip(_CLOSING)[-1:] in signs


def _holds(marks: tuple[str, ...], text: str) -> bool:
    return any(mark in text for mark in marks)


def _first_letter(text: str) -> str:
    return text[0] if text[0].isalpha() else text.lstrip(_OPENING)[:1]


def _is_full(line: str, below: str, width: int, slack: float = SLACK) -> bool:
    """Whether the first word below would not have fitted."""
    left = width * (1 - slack) - len(line)
    return left < 2 or left < _first_word(below)


def _first_word(text: str) -> int:
    """Characters of it and the space before."""
    if text[0] >= UNSPACED[0] and _NO_SPACES.match(text):
        return 1
    end = text.find(" ")
    return 1 + (end if end > 0 else len(text))


def _joined(lines: list[str], texts: list[str], width: int) -> tuple[str, int]:
    """The lines of a block, without spaces at their ends, with those of each paragraph joined, and how many were."""
    dense = sum(not text for text in texts) < DENSE * len(texts)
    found: list[str] = []
    start, fenced = 0, False
    for n, text in enumerate(texts):
        fenced ^= text.startswith(_FENCES)
        last = n + 1 == len(texts) or fenced or not _goes_on(lines, texts, start, n, width, dense)
        if not last:
            continue
        if start < n and not _is_verse(lines, texts, range(start, n), width):
            found.append(_in_one(lines[start], texts[start + 1 : n + 1]))
        else:
            found += lines[start : n + 1]
        start = n + 1
    return "\n".join(found), len(lines) - len(found)


def _goes_on(lines: list[str], texts: list[str], start: int, n: int, width: int, dense: bool) -> bool:
    """Whether the line below number n belongs to the paragraph that begins at line start."""
    line, text, below = lines[n], texts[n], texts[n + 1]
    if not text or not below:
        return False
    lower = _first_letter(below).islower()
    if not (lower and len(line) >= SHORTEST * width) and not _is_full(line, below, width):
        return False
    if line[0] == " " or lines[n + 1][0] == " ":
        indent, next_indent, after = (len(lines[k]) - len(texts[k]) for k in (n, n + 1, min(n + 2, len(lines) - 1)))
        if max(indent, next_indent) > DEEPEST or next_indent > indent + lower:
            return False
        if (next_indent < indent - 1 and start < n) or (
            indent and after < next_indent - 1 and lines[n + 2 : n + 3] != [""]
        ):
            return False  # the line below is the first of an indented paragraph, or the first behind one
    if _holds(_LEADERS, text) or (_holds(_COLUMNS, text) and _holds(_COLUMNS, below)):
        return False
    if below[0].islower():
        return True
    ended = _ended(text, _ENDS + _HYPHENS)
    if below.startswith(_FENCES) or (_ITEM.match(below) and (_ended(text) or _ITEM.match(texts[start]))):
        return False
    if not ended or lower:
        return True
    if _SPEAKER.match(below) or below.startswith(_DASHES) or (below[0] in _QUOTES and text[-1] in _CLOSING):
        return False
    return not dense or _is_full(line, below, width, STRICT)


def _is_verse(lines: list[str], texts: list[str], above: range, width: int) -> bool:
    """Whether lines that could be joined with the ones below them are rather verse of long lines."""
    below = [texts[n + 1] for n in above]
    few, full = len(below) + 1 < VERSE_LINES, [_is_full(lines[n], texts[n + 1], width, 0) for n in above]
    if few and any(full) and len(lines[above.stop]) == len(texts[above.stop]):
        return False  # not indented, and broken where the width is used up: the capital is rather that of a name
    if not few and all(full):
        return False
    letters = [_first_letter(text) for text in below]
    capitals = sum(letter.isupper() for letter in letters)
    if not capitals and not any(letter.islower() for letter in letters):
        capitals = sum(_ended(texts[n]) for n in above)
    return capitals >= VERSE_SHARE * len(below)


def _in_one(first: str, others: list[str]) -> str:
    parts = [text := first]
    for line in others:
        glued = _GLUED.search(text) if text[-1] in _HYPHENS else _NO_SPACES.match(text[-1]) and _NO_SPACES.match(line)
        parts.append(line if glued or (_DASH.match(line) and text[-1] not in _ENDS) else " " + line)
        text = line
    return "".join(parts)
