"""LaTeX: the words, without commands; the same every day."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.reading import only

from reformer_cli.data.formats import tex

pytest.importorskip("pylatexenc")


def test_tex(tmp_path: Path) -> None:
    """\\maketitle wrote the date of today, so that the corpus changed at midnight; verbatim text was lost."""
    (tmp_path / "d.tex").write_text(
        "\\documentclass{book}\n\\title{T}\n\\begin{document}\n\\maketitle\n"
        "\\section*{A Heading}Some ``words'' --- caf\\'e, 50\\% $x^2+\\alpha$ "
        "\\cite{k}. % a comment\n\n\n\n\\begin{verse}\nline one\\\\\nline two\n\\end{verse}\n"
        "\\begin{verbatim}\n  {x} \\y\n\\end{verbatim}\n\\verb|a_b|\n\\input{/etc/passwd}\\end{document}\nno"
    )
    text = only(tmp_path / "d.tex")
    assert text.startswith("A Heading\n\nSome “words” — café, 50% x^2+α")
    assert "line one\nline two" in text
    assert "{x} \\y" in text
    assert "a_b" in text
    assert "\n\n\n" not in text
    assert not any(word in text for word in ("comment", "202", "root:", "book", "no\n"))


def test_a_chapter_by_itself(tmp_path: Path) -> None:
    (tmp_path / "c.tex").write_text("One \\emph{two} three.")
    assert only(tmp_path / "c.tex") == "One two three.\n"


def test_words_that_the_parser_does_not_see_come_out_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "\\chapter{The Chapter of the Long Road}\\label{some words of a label}\n"
        "It was a dark night, don't you see?` No one "
        "''said'' so --- well-known as it is.  Two spaces. % a comment of many words, as they come\n"
        "next line of the text \\emph and not so many {\\em words in braces that go on} and on [in square ones].\n\n"
        "\\begin{verbatim}\nwords  of a listing that goes on and on\n\\end{verbatim}\n\\unknown words after a macro\n"
        "\\\\ \n a b c d, e f: $x is any number of them$ caf\\'e of the town \\c cedille \\foot words follow here.\n"
    )
    (tmp_path / "d.tex").write_text(source * 3)
    found = only(tmp_path / "d.tex")
    assert "The Chapter of the Long Road" in found
    assert found.isprintable() or max(found) < "\U000f0000"
    monkeypatch.setattr(tex, "MOST_RUNS", 0)
    assert only(tmp_path / "d.tex") == found
