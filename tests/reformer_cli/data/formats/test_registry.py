"""Files by their endings: packed ones, bombs, missing packages."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest
from builders.reading import faults, only, read

from reformer_cli.data.formats import registry
from reformer_cli.utils.errors import UserError

zstd = pytest.importorskip("backports.zstd") if sys.version_info < (3, 14) else pytest.importorskip("compression.zstd")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_packed_files(tmp_path: Path, ending: str) -> None:
    compress = gzip.compress if ending == "gz" else zstd.compress
    whole = compress(b"text " * 100_000)
    for name, data in (("good.txt", whole), ("twice", whole + whole), ("cut", whole[:-20]), ("none", b"plain text")):
        (tmp_path / f"{name}.{ending}").write_bytes(data)
    assert only(tmp_path / f"good.txt.{ending}") == "text " * 100_000
    assert only(tmp_path / f"twice.{ending}") == "text " * 200_000
    for name in ("cut", "none"):
        (fault,) = faults(tmp_path / f"{name}.{ending}")
        assert "is not a whole " in fault
        assert "download it again" in fault
    (tmp_path / f"rows.jsonl.{ending}").write_bytes(compress(b'{"text": "a"}\n{"text": "b"}'))
    assert [*read(tmp_path / f"rows.jsonl.{ending}").values()] == ["a", "b"]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_bombs_do_not_go_off(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BOMB_SIZE", 2**20)
    data = b" " * 2**24
    (tmp_path / f"b.{ending}").write_bytes(gzip.compress(data) if ending == "gz" else zstd.compress(data))
    assert "unpacks to more than 250 times its size" in faults(tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "package"), [("p.html", "selectolax"), ("t.parquet", "pyarrow"), ("t.txt.zst", "backports.zstd")]
)
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    (tmp_path / name).write_bytes(b"<p>text")
    hidden = {"selectolax": "selectolax.lexbor", "pyarrow": "pyarrow.parquet"}.get(package, zstd.__name__)
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(UserError, match=rf"cannot be read without {package}; pip install 'reformer-cli\[formats\]'"):
        read(tmp_path)


def test_files_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.txt").write_text("secret")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(registry, "open", refuse, raising=False)
    assert faults(tmp_path) == [f"cannot read {tmp_path / 't.txt'}: Permission denied"]
