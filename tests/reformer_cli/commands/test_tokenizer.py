"""`reformer tokenizer` and `train --tokenizer`, as a user runs them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sentencepiece
from builders.programs import TINY, Program

TEXT = "One line,\n\n  two  spaces\tand a tab; é 中 😀"


@pytest.fixture
def spiece(text: Path, tmp_path: Path) -> Path:
    """A sentencepiece model as other programs train them."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.read_text().splitlines()), model_writer=out, vocab_size=60, model_type="bpe",
        minloglevel=2, num_threads=1,
    )  # fmt: skip
    path = tmp_path / "spiece.model"
    path.write_bytes(out.getvalue())
    return path


def test_text_to_ids_and_back_loses_nothing(reformer: Program, run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(TEXT, "utf-8")
    ids = reformer("tokenizer", "encode", "in.txt", "--run", run)
    assert ids.status == 0, ids.err
    (tmp_path / "ids.txt").write_text(ids.out)
    assert reformer("tokenizer", "decode", "ids.txt", "--run", run).out == TEXT


def test_pieces_say_what_each_token_stands_for(reformer: Program, run: Path) -> None:
    rows = [
        line.split("\t")
        for line in reformer("tokenizer", "encode", "--text", "the cat", "--pieces", "--run", run).out.splitlines()
    ]
    assert "".join(json.loads(piece) for _, piece in rows) == "the cat"
    assert (
        " ".join(n for n, _ in rows) == reformer("tokenizer", "encode", "--text", "the cat", "--run", run).out.strip()
    )


def test_a_tokenizer_is_trained_then_used(reformer: Program, text: Path, tmp_path: Path) -> None:
    made = reformer("tokenizer", "train", text, "--vocab-size", 100, "--output", "t.model")
    assert made.status == 0, made.err
    done = reformer("train", text, "--tokenizer", "t.model", *TINY, "--steps", 2, "--run", "used")
    assert done.status == 0, done.err
    assert Path("used/tokenizer.model").read_bytes() == Path("t.model").read_bytes()


def test_what_a_tokenizer_is(reformer: Program, run: Path, text: Path) -> None:
    facts = json.loads(reformer("tokenizer", "inspect", text, "--run", run, "--json").out)
    assert facts["kind"] == "bytes"
    assert facts["lossless"] is True
    assert facts["lost"] == "nothing"
    assert facts["text_bytes"] == text.stat().st_size
    assert facts["bytes_per_token"] == facts["text_bytes"] / facts["text_tokens"]
    plain = reformer("tokenizer", "inspect", "--run", run).out
    assert "lossless         yes" in plain
    assert "text" not in plain


def test_a_model_of_another_program_keeps_its_ids(reformer: Program, spiece: Path) -> None:
    done = reformer("tokenizer", "import", spiece, "--output", "t.model")
    assert done.status == 0
    assert "token 2 separates documents" in done.err
    assert "note: lost from the text: 1 line breaks" in done.err
    wanted = sentencepiece.SentencePieceProcessor(model_proto=spiece.read_bytes()).encode("the cat sat")
    for file in ("t.model", spiece):
        assert reformer("tokenizer", "encode", "--text", "the cat sat", "--tokenizer", file).out.split() == list(
            map(str, wanted)
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["encode"], "a text is needed, and one only"),
        (["encode", "x.txt", "--text", "y"], "a text is needed, and one only"),
        (["encode", "missing.txt"], "missing.txt"),
        (["encode", "--text", "a", "--tokenizer", "missing.model"], "no file 'missing.model'"),
        (["encode", "--text", "a", "--tokenizer", "."], "cannot read"),
        (["encode", "--text", "a", "--tokenizer", "bad.model"], "not a sentencepiece model"),
        (["encode", "latin.txt"], "byte 1 (line 1) is 0xe9; convert it: iconv"),
        (["decode", "bad.ids"], "word 2, 'x', is no token"),
        (["decode", "far.ids"], "word 1, '99999999', is no token"),
        (["train", "TEXT", "--output", "bad.model"], "bad.model exists"),
        (["train", "TEXT", "--output", "no/where"], "no folder 'no'"),
        (["train", "missing.txt", "--output", "t.model"], "missing.txt"),
        (["train", "TEXT", "--output", "t.model", "--vocab-size", "3"], "vocab-size"),
        (["import", "bad.model", "--output", "t.model"], "not a sentencepiece model"),
        (["import", "RUN/tokenizer.model", "--output", "t.model"], "a tokenizer of this program already (bytes)"),
        (["import", "SPIECE", "--output", "t.model", "--end", "20"], "gives token 20 to texts"),
    ],
)
def test_mistakes(arguments: list[str], said: str, reformer: Program, run: Path, text: Path, spiece: Path) -> None:
    Path("bad.model").write_bytes(b"nonsense")
    Path("bad.ids").write_text("1 x 3")
    Path("latin.txt").write_bytes(b"h\xe9")
    Path("far.ids").write_text("99999999")
    names = {"TEXT": str(text), "SPIECE": str(spiece), "RUN/tokenizer.model": str(run / "tokenizer.model")}
    given = [names.get(a, a) for a in arguments]
    if given[0] in ("encode", "decode") and "--tokenizer" not in given:
        given += ["--run", str(run)]
    assert said in reformer("tokenizer", *given).error
    assert not Path("t.model").exists()


def test_a_run_and_a_file_exclude_each_other(reformer: Program, run: Path, spiece: Path) -> None:
    assert (
        "exclude each other"
        in reformer("tokenizer", "encode", "--text", "a", "--run", run, "--tokenizer", spiece).error
    )
    result = reformer("train", "python-reference", "--from", run, "--tokenizer", spiece, "--run", "x")
    assert "brings its own tokenizer" in result.error
    result = reformer("train", "python-reference", "--tokenizer", spiece, "--set", "data.vocab_size=99", "--run", "x")
    assert "data.vocab_size exclude each other" in result.error
