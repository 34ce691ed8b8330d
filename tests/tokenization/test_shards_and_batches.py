"""Tokens on disk, and which of them a step reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reformer_cli.config import DataConfig
from reformer_cli.errors import UserError
from reformer_cli.tokenization.batches import Batches, held_out_windows
from reformer_cli.tokenization.corpus import Document
from reformer_cli.tokenization.shards import TokenSet, load_or_prepare, open_tokens, prepare, split
from reformer_cli.tokenization.tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()
DOCUMENTS = [Document("a", "one two\n" * 40), Document("b", "three\n" * 30), Document("c", "x")]


def prepared(folder: Path) -> TokenSet:
    prepare(DOCUMENTS, TOKENIZER, folder, 0.1, "digest")
    tokens = open_tokens(folder, "digest", TOKENIZER)
    assert tokens is not None
    return tokens


def test_every_character_is_in_one_part(tmp_path: Path) -> None:
    tokens = prepared(tmp_path / "t")
    for document, entry in zip(DOCUMENTS, tokens.documents, strict=True):
        train = np.asarray(tokens.train[entry.train.start : entry.train.stop], np.int32)
        held_out = np.asarray(tokens.held_out[entry.held_out.start : entry.held_out.stop], np.int32)
        assert train[0] == TOKENIZER.end
        assert TOKENIZER.decode(train) + TOKENIZER.decode(held_out) == document.text
        assert entry.train.bytes + entry.held_out.bytes == len(document.text.encode())


def test_the_cut_is_at_a_line_break() -> None:
    train, rest = split("aaa\nbbb\nccc\nddd\n", 0.3)
    assert (train, rest) == ("aaa\nbbb\nccc\n", "ddd\n")
    assert split("x" * 100, 0.1) == ("x" * 90, "x" * 10)
    assert split("abc", 0.0) == ("abc", "")


def test_what_changed_or_broke_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    prepared(folder)
    assert open_tokens(folder, "other", TOKENIZER) is None
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-2])
    assert open_tokens(folder, "digest", TOKENIZER) is None
    prepared(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"version": 0}))
    assert open_tokens(folder, "digest", TOKENIZER) is None
    (folder / "manifest.json").write_text("[]")
    assert open_tokens(folder, "digest", TOKENIZER) is None


def test_held_out_text_trains_neither_model_nor_tokenizer(tmp_path: Path) -> None:
    text = "plain words here\n" * 6000 + "zzqqzzqq\n" * 300
    (tmp_path / "c.txt").write_text(text)
    found = load_or_prepare(DataConfig(corpus=(str(tmp_path / "c.txt"),), held_out=0.1), lambda _: None)
    assert found.tokenizer.kind == "bpe"
    pieces = {found.tokenizer.decode(np.array([n])) for n in range(found.tokenizer.vocab_size)}
    assert not any("zz" in piece for piece in pieces)
    assert "zz" not in found.tokenizer.decode(np.asarray(found.tokens.train, np.int32))


def test_batches_are_a_pure_function_of_the_step(tmp_path: Path) -> None:
    tokens = prepared(tmp_path / "t")
    a, b = (Batches(tokens, TOKENIZER.end, 16, 3, seed=1) for _ in range(2))
    for step in (0, 5, 40):
        assert a.batch_at(step).tokens.equal(b.batch_at(step).tokens)
    assert not a.batch_at(0).tokens.equal(Batches(tokens, TOKENIZER.end, 16, 3, seed=2).batch_at(0).tokens)
    batch = a.batch_at(3)
    assert batch.tokens[:, 1:].equal(batch.targets[:, :-1])


def test_an_epoch_reads_everything_once(tmp_path: Path) -> None:
    tokens = prepared(tmp_path / "t")
    n = len(tokens.train)
    batches = Batches(tokens, TOKENIZER.end, 16, 1, seed=0)
    assert batches.per_epoch == n // 16
    read = np.concatenate([batches.batch_at(s).tokens[0].numpy() for s in range(batches.per_epoch)])
    counts, wanted = np.bincount(read, minlength=257), np.bincount(np.asarray(tokens.train), minlength=257)
    assert (counts <= wanted).all()
    assert wanted.sum() - counts.sum() < 16


def test_documents_are_told_apart(tmp_path: Path) -> None:
    tokens = prepared(tmp_path / "t")
    batch = Batches(tokens, TOKENIZER.end, 400, 1, seed=0).batch_at(0)
    assert batch.documents is not None
    changes = batch.documents[0, 1:] != batch.documents[0, :-1]
    assert changes.equal(batch.tokens[0, 1:] == TOKENIZER.end)
    assert Batches(tokens, TOKENIZER.end, 4, 1, seed=0).batch_at(1).documents is None


def test_a_short_corpus_is_refused_with_numbers(tmp_path: Path) -> None:
    tokens = prepared(tmp_path / "t")
    with pytest.raises(UserError, match=r"has 4\d\d training tokens, shorter than one context of 5,000; .*context="):
        Batches(tokens, TOKENIZER.end, 5000, 1, seed=0)


def test_held_out_windows_follow_their_own_document(tmp_path: Path) -> None:
    tokens = prepared(tmp_path / "t")
    windows = list(held_out_windows(tokens, 24))
    assert [w.name for w in windows] == ["a", "b"]
    for window, document in zip(windows, DOCUMENTS, strict=False):
        text = TOKENIZER.decode(window.prefix.numpy()) + TOKENIZER.decode(window.scored.numpy())
        assert document.text.endswith(text)
        assert len(window.prefix) == 24
