"""Rows of JSON: the text that comes out, and what is said of rows that hurt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.reading import faults, read

from reformer_cli.data.formats import jsonl


def test_jsonl(tmp_path: Path) -> None:
    rows = [{"text": "one\r\ntwo \0 \ud800", "id": 1}, {"id": 2, "text": None}, {"id": 3}, {"text": ["x"]}, "s"]
    lines = [json.dumps(row) for row in rows]
    data = "\ufeff" + "\n\n".join(lines) + "\n{broken\n" + '{"text": "' + "x" * 700_000 + '"}'
    (tmp_path / "a.jsonl").write_bytes(data.encode())
    name = tmp_path / "a.jsonl"
    assert faults(tmp_path) == [
        f"{name}:5 has no field 'text', it has 'id'; say which: --set data.text_field=NAME",
        f"{name}:7: field 'text' is no text but list; say which: --set data.text_field=NAME",
        f"{name}:9 is no JSON object; a .jsonl file has one object a line",
        f"{name}:10 is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        "a .jsonl file has one object a line",
    ]
    name.write_bytes(b'{"body": "other"}\n' + data.replace("text", "body").splitlines()[-1].encode())
    assert [len(x) for x in read(tmp_path, text_field="body").values()] == [5, 700_000]


def test_jsonl_rows_that_hurt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LONGEST_ROW", 300_000)
    (tmp_path / "a.jsonl").write_bytes(b'{"text":' * 90_000 + b"\n")  # deeper than Python's stack
    assert "is longer" in faults(tmp_path)[0] or "a line of more than" in faults(tmp_path)[0]
    (tmp_path / "a.jsonl").write_bytes(b"[" * 200_000 + b'\n{"text": "after"}\n{"text": "caf\xe9"}\n')
    found = faults(tmp_path)
    assert "a.jsonl:1 is not JSON" in found[0]
    assert "a.jsonl:3 is not utf-8: byte 13 of the line is 0xe9" in found[1]
    assert len(found) == 2
