"""A text with its copies marked, where each comes from on hover: one page that fetches nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from reformer_cli.novelty.copies import LENGTHS, Copy
from reformer_cli.report.page import head

STYLE = """body { margin: 2rem auto; max-width: 44rem; padding: 0 1rem; font: 17px/1.6 Georgia, "DejaVu Serif", serif }
pre { font: 14px/1.4 "DejaVu Sans Mono", monospace; overflow-x: auto }
.text { white-space: pre-wrap; overflow-wrap: anywhere }
mark { color: #1c1d1f; border-radius: 3px; cursor: help } .c5 { background: #e8eef8 } .c8 { background: #ffe9a8 }
.c13 { background: #ffbf80 } .c20 { background: #ff8f80 }"""


def novelty_page(name: str, text: str, copies: Sequence[Copy], summary: str) -> str:
    """The whole page; summary: what is said above the text."""
    keys = " ".join(f"<mark class=c{n}>{n} words and more</mark>" for n in LENGTHS)
    body = (
        f"<h1>{escape(name)}</h1><pre>{escape(summary)}</pre><p>{keys}</p><div class=text>{marked(text, copies)}</div>"
    )
    return f"{head(name, STYLE)}<body>{body}</body></html>\n"


def marked(text: str, copies: Sequence[Copy]) -> str:
    """The text as HTML; where copies overlap, the longer one is shown."""
    owner: list[Copy | None] = [None] * len(text)
    for copy in sorted(copies, key=lambda copy: copy.words):
        owner[copy.start : copy.stop] = [copy] * (copy.stop - copy.start)
    parts, at = [], 0
    for of, run in groupby(owner):
        length = sum(1 for _ in run)
        piece, at = escape(text[at : at + length]), at + length
        parts.append(f'<mark class=c{_colour(of)} title="{escape(_source(of))}">{piece}</mark>' if of else piece)
    return "".join(parts)


def _colour(copy: Copy) -> int:
    return max((n for n in LENGTHS if n <= copy.words), default=LENGTHS[0])


def _source(copy: Copy) -> str:
    place = copy.place
    return f"{copy.words} words; {place.name}, line {place.line:,}: {place.before} [{place.copied}] {place.after}"
