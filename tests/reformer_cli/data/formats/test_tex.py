"""LaTeX: the words, without commands; the same every day."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.reading import only

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
