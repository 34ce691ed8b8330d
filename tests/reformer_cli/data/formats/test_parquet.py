"""Rows of tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.reading import faults, read

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")


def test_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"id": [1, 2, 3, 4], "text": ["one", None, "", "vier\r\n"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    assert read(tmp_path) == {f"{tmp_path / 't.parquet'}:1": "one", f"{tmp_path / 't.parquet'}:4": "vier\n"}
    assert "has no column 'body', it has 'id', 'text'; say which" in faults(tmp_path, text_field="body")[0]
    assert "field 'id' is no text but int" in faults(tmp_path, text_field="id")[0]
    whole = (tmp_path / "t.parquet").read_bytes()
    for data in (whole[:-9], b"PAR1" * 30):
        (tmp_path / "t.parquet").write_bytes(data)
        assert "is not a whole parquet file" in faults(tmp_path)[0]
