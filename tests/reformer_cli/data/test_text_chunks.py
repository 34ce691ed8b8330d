"""A text in pieces is the text: the same tokens, the same counts, the same complaints."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer_cli.data.text_chunks import read_pieces, size_of
from reformer_cli.data.text_decoding import plain_line_ends
from reformer_cli.evaluation.token_facts import facts_of
from reformer_cli.tokenizers.base import ByteTokenizer
from reformer_cli.tokenizers.train_subword import train_subwords
from reformer_cli.utils.errors import UserError

TOKENIZERS = [ByteTokenizer(), train_subwords(["the cat sat  on the mat.\n\tHélas, 漢字!\n" * 50], 100)]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab é漢\n \t\r😀.", max_size=200), st.sampled_from([1, 3, 16]))
def test_pieces_have_the_tokens_of_the_whole(tmp_path_factory: pytest.TempPathFactory, text: str, size: int) -> None:
    path = tmp_path_factory.mktemp("pieces") / "t.txt"
    path.write_bytes(text.encode())
    pieces = list(read_pieces(str(path), size))
    whole = plain_line_ends(text)
    assert "".join(pieces) == whole
    for tokenizer in TOKENIZERS:
        parts = [tokenizer.encode(piece) for piece in pieces]
        assert np.concatenate([np.zeros(0, np.int32), *parts]).tolist() == tokenizer.encode(whole).tolist()
        facts = [facts_of(p, ids, tokenizer.byte_lengths()) for p, ids in zip(pieces, parts, strict=True)]
        total = np.concatenate([np.zeros((0, 3)), *facts]).sum(0)
        assert total.tolist() == [len(whole.encode()), len(whole), len(whole.split())]


def test_a_line_longer_than_a_piece_is_cut_before_a_space(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("word " * 1000, "utf-8")
    pieces = list(read_pieces(str(path), 64))
    assert max(map(len, pieces)) < 200  # the whole line was once held
    assert all(piece.startswith(" ") for piece in pieces[1:])


def test_marks_line_ends_gzip_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = "\ufeffone\r\ntwo\n".encode()
    plain, packed = tmp_path / "a.txt", tmp_path / "a.txt.gz"
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    for name in (str(plain), str(packed), "-"):
        assert "".join(read_pieces(name, 4)) == "one\ntwo\n"
    assert not sys.stdin.buffer.closed
    assert (size_of(str(plain)), size_of(str(packed)), size_of("-")) == (len(data), None, None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"good\n" * 9 + b"b\xe9d\n", r"is not utf-8: byte 46 \(line 10\) is 0xe9"),
        (b"good\n" * 9 + b"b\0d\n", "looks binary: a zero byte at 46"),
        (b"\xff\xffx", r"is not utf-8: byte 0 \(line 1\)"),
    ],
)
def test_what_is_no_text_is_named_with_its_place_in_the_whole_file(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(read_pieces(str(path), 7))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"text" * 1000)[:-9])
    (tmp_path / "no.gz").write_bytes(b"text")
    for name, message in (("none", "no file"), (".", "cannot read"), ("cut.gz", "whole gzip"), ("no.gz", "whole gzip")):
        with pytest.raises(UserError, match=message):
            list(read_pieces(str(tmp_path / name)))
