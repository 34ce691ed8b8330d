"""Text of LaTeX sources, by pylatexenc, which makes readable signs of formulas."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from reformer_cli.data.formats.base import Document, not_whole, whole_text
from reformer_cli.data.text_decoding import OpenFile
from reformer_cli.utils.extras import missing_package

BODY = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.DOTALL)
LINE_END = re.compile(r"(\\\\\*?(?:\[[^\]\n]{0,40}\])?)[ \t]*\n(?![ \t]*\n)")  # \\, which breaks the line by itself
BLANK = re.compile(r"\n(?:[ \t]*\n){2,}")
# What the parser, which goes character by character, need not see: words of a line after one that is not the name of a
# command. To it they are one character for private use.
_PLAIN = r"[^\\{}\[\]$%&#_^~`'\"\n!?<>*|@=+/-]+"
WORDS = re.compile(rf"(?<![\\a-zA-Z])([a-zA-Z]+[,.;:]? )({_PLAIN}(?:[-'](?=[a-z]){_PLAIN})*)")
PRIVATE, MOST_RUNS = 0xF0000, 2**16 - 2
HEADINGS = {"part", "chapter", "section", "subsection", "subsubsection", "paragraph"}  # not in capitals
SILENT = {  # \today would be another every day
    "maketitle", "today", "label", "ref", "eqref", "pageref", "cite", "citep", "citet", "tableofcontents", "index",
}  # fmt: skip


def read_tex(file: OpenFile) -> Iterator[Document]:
    """The text between \\begin{document} and \\end{document}; of a chapter in a file of its own, all."""
    yield Document(file.name, _text(file))


def _text(file: OpenFile) -> Iterator[str]:
    source = whole_text(file)
    body = match.group(1) if (match := BODY.search(source)) else source
    try:
        from pylatexenc import latex2text
    except ImportError:
        raise missing_package("pylatexenc", file.name) from None
    known = latex2text.get_default_latex_context_db()
    macros = [latex2text.MacroTextSpec(name, discard=True) for name in SILENT]
    macros += [latex2text.MacroTextSpec(name, _heading) for name in HEADINGS]
    macros.append(latex2text.MacroTextSpec("verb", _verbatim))
    environments = [latex2text.EnvironmentTextSpec(name, _verbatim) for name in ("verbatim", "lstlisting")]
    known.add_context_category("of a book", prepend=True, macros=macros, environments=environments)
    try:
        found = _by_way_of(latex2text.LatexNodes2Text(known).latex_to_text, LINE_END.sub(r"\1 ", body))
    except Exception as error:  # of many kinds, where it does not know the source's ways
        raise not_whole(file, "LaTeX source", error) from None
    yield BLANK.sub("\n\n", found.replace("\n ", "\n")).strip("\n") + "\n"


def _by_way_of(parse: Callable[[str], str], source: str) -> str:
    """What `parse` makes of a source; it sees most words as one character."""
    runs: list[str] = []
    if max(source, default="") >= chr(PRIVATE):
        return parse(source)

    def short(match: re.Match[str]) -> str:
        if len(runs) == MOST_RUNS:
            return match.group()
        runs.append(match.group(2))
        return match.group(1) + chr(PRIVATE + len(runs) - 1)

    shortened = WORDS.sub(short, source)
    return re.sub("[\U000f0000-\U000fffff]", lambda match: runs[ord(match.group()) - PRIVATE], parse(shortened))


def _heading(node: Any, l2tobj: Any) -> str:
    return f"\n\n{l2tobj.node_arg_to_text(node, 2)}\n\n"


def _verbatim(node: Any, l2tobj: Any = None) -> str:
    return getattr(node.nodeargd, "verbatim_text", None) or ""
