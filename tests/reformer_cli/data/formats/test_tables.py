"""Tables of text: the column that is asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from builders.reading import faults, only, read

from reformer_cli.data.formats import tables


@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t")])
def test_rows(tmp_path: Path, name: str, separator: str) -> None:
    text = 'id,story\n1,"One ""word"", and\nanother line"\n\n2\n3,"Three"'
    other = re.sub(r"(id|\d),", rf"\1{separator}", text)
    (tmp_path / name).write_text(other)
    found = read(tmp_path / name, text_field="story")
    assert [*found.values()] == ['One "word", and\nanother line', "Three"]
    assert [*found] == [f"{tmp_path / name}:2", f"{tmp_path / name}:5"]


def test_a_table_without_the_column(tmp_path: Path) -> None:
    """Named outright it is a fault; one that lies beside texts is left out."""
    (tmp_path / "t.csv").write_text("id,story\n1,x\n")
    (fault,) = faults(tmp_path / "t.csv")
    assert "t.csv has no column 'text', it has 'id', 'story'; say which: --set data.text_field=NAME" in fault
    (tmp_path / "a.txt").write_text("Text.")
    assert read(tmp_path) == {str(tmp_path / "a.txt"): "Text."}


def test_a_quotation_mark_that_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_ROW", 1000)
    (tmp_path / "t.csv").write_text('text\n"' + "words\n" * 1000)
    assert "is a quotation mark left open?" in faults(tmp_path / "t.csv")[0]
    (tmp_path / "t.csv").write_text("text\n" + "words " * 1000)
    assert "has a line of more than" in faults(tmp_path / "t.csv")[0]
    monkeypatch.undo()
    (tmp_path / "t.csv").write_text("text\n" + "words " * 100_000)
    assert only(tmp_path / "t.csv") == "words " * 100_000
