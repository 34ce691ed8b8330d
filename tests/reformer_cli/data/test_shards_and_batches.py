"""Tokens on disk, and which of them a step reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.reading import silent, tokens_of
from reformer import ReformerConfig, ReformerLM

from reformer_cli.config.schema import DataConfig
from reformer_cli.data import shards
from reformer_cli.data.batches import Batches, held_out_windows, shuffled
from reformer_cli.data.shards import HeldOutParts, TokenSet, load_or_prepare, open_tokens, prepared_before
from reformer_cli.tokenizers.base import ByteTokenizer
from reformer_cli.utils.errors import UserError

TOKENIZER = ByteTokenizer()
TEXTS = {"a": "one two\n" * 40, "b": "three\n" * 30, "c": "x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "texts"
    found.mkdir()
    for name, text in TEXTS.items():
        (found / f"{name}.txt").write_text(text)
    return found


@pytest.fixture
def tokens(folder: Path, tmp_path: Path) -> TokenSet:
    return tokens_of([folder], TOKENIZER, tmp_path / "t")


def made_of(documents: list[int]) -> TokenSet:
    """Documents of so many tokens; each but `end` occurs once."""
    train = np.arange(1, sum(documents) + 1, dtype=np.int64)
    train[np.cumsum([0, *documents[:-1]])] = 0
    empty = HeldOutParts(np.zeros(0, shards.WINDOW), np.zeros(0, np.uint8))
    return TokenSet(train, train[:0], 0, empty, len(documents), len(train))


def test_what_changed_or_broke_is_made_again(folder: Path, tokens: TokenSet, tmp_path: Path) -> None:
    made = tmp_path / "t"
    assert open_tokens(made, "other", TOKENIZER) is None
    (made / "train.bin").write_bytes((made / "train.bin").read_bytes()[:-2])
    assert open_tokens(made, "digest", TOKENIZER) is None
    tokens_of([folder], TOKENIZER, made)
    manifest = json.loads((made / "manifest.json").read_text())
    for damage in (json.dumps(manifest | {"version": 0}), "[]", json.dumps(manifest | {"dtype": "O"}), "{"):
        (made / "manifest.json").write_text(damage)
        assert open_tokens(made, "digest", TOKENIZER) is None
    assert len(tokens_of([folder], TOKENIZER, made).train) == len(tokens.train)


def test_held_out_text_trains_neither_model_nor_tokenizer(tmp_path: Path) -> None:
    text = "plain words here\n" * 6000 + "zzqqzzqq\n" * 300
    (tmp_path / "c.txt").write_text(text)
    found = load_or_prepare(DataConfig(corpus=(str(tmp_path / "c.txt"),), val_fraction=0.1), silent)
    assert found.tokenizer.kind == "bpe"
    pieces = {found.tokenizer.decode(np.array([n])) for n in range(found.tokenizer.vocab_size)}
    assert not any("zz" in piece for piece in pieces)
    assert "zz" not in found.tokenizer.decode(np.asarray(found.tokens.train, np.int32))


def test_texts_to_validate_on_are_held_out_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("validate on this\n")
    data = DataConfig(corpus=(str(folder),), validation=(str(tmp_path / "v.txt"),), tokenizer="bytes")
    found = load_or_prepare(data, silent)
    trained = found.tokenizer.decode(np.asarray(found.tokens.train, np.int32))
    assert trained == "".join(TEXTS.values())
    (window,) = held_out_windows(found.tokens, 16)
    assert window.name == str(tmp_path / "v.txt")
    assert window.prefix.tolist() == [TOKENIZER.end]
    assert found.tokenizer.decode(window.scored.numpy()) == "validate on this\n"
    assert found.tokens.documents == 3
    (tmp_path / "v.txt").write_text("other\n")
    assert load_or_prepare(data, silent).digest != found.digest


def test_the_other_processes_of_a_job_open_what_the_first_one_made(folder: Path) -> None:
    data = DataConfig(corpus=(str(folder),))
    made = load_or_prepare(data, silent)
    assert np.array_equal(prepared_before(data, made.tokenizer, made.digest).tokens.train, made.tokens.train)
    with pytest.raises(UserError, match="do all processes share it"):
        prepared_before(data, made.tokenizer, "other")


def test_batches_are_a_pure_function_of_seed_and_step(tokens: TokenSet) -> None:
    a, b = (Batches(tokens, TOKENIZER.end, 16, 3, seed=1) for _ in range(2))
    for step in (0, 5, 40):
        assert a.batch_at(step).tokens.equal(b.batch_at(step).tokens)
    assert not a.batch_at(0).tokens.equal(Batches(tokens, TOKENIZER.end, 16, 3, seed=2).batch_at(0).tokens)
    batch = a.batch_at(3)
    assert batch.tokens[:, 1:].equal(batch.targets[:, :-1])


def test_noise_replaces_what_is_read_and_not_what_is_predicted(tokens: TokenSet) -> None:
    plain, noisy = (Batches(tokens, TOKENIZER.end, 40, 50, seed=1, noise=share) for share in (0.0, 0.3))
    a, b, again = plain.batch_at(2), noisy.batch_at(2), noisy.batch_at(2)
    assert b.targets.equal(a.targets)
    assert b.tokens.equal(again.tokens)
    assert not b.tokens.equal(noisy.batch_at(3).tokens)
    ends = a.tokens == TOKENIZER.end
    assert b.tokens[ends].equal(a.tokens[ends])  # else documents would run into each other
    assert not (b.tokens[~ends] == TOKENIZER.end).any()
    share = (a.tokens != b.tokens).float().mean()  # some are replaced by their like
    assert 0.2 < share < 0.3
    assert set(b.tokens.unique().tolist()) <= set(np.unique(tokens.train).tolist())


def test_what_a_seed_reads_stays_the_same_for_ever() -> None:
    """A version of numpy or of this program that shuffles otherwise would resume runs elsewhere in the text."""
    batches = Batches(made_of([100]), 0, 10, 4, seed=7)
    assert batches.batch_at(0).tokens[:, 0].tolist() == FIRST
    assert batches.batch_at(3).tokens[:, 0].tolist() == LATER


FIRST = [38, 48, 18, 98]
LATER = [29, 89, 39, 19]


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000, 4097])
def test_the_shuffle_meets_every_place_once(size: int) -> None:
    keys = [3, 1, 4, 1, 5, 9]
    found = [shuffled(n, size, keys) for n in range(size)]
    assert sorted(found) == list(range(size))
    if size > 60:
        assert abs(np.corrcoef(found, range(size))[0, 1]) < 0.2
        assert found != [shuffled(n, size, [2, 7, 1, 8, 2, 8]) for n in range(size)]


def test_an_epoch_reads_everything_once_but_less_than_a_context() -> None:
    tokens = made_of([500, 3, 497, 7])
    batches = Batches(tokens, 0, 16, 1, seed=0)
    starts = set()
    for epoch in range(5):
        places = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        read = np.concatenate([batches.batch_at(n).tokens[0].numpy() for n in places])
        kinds, counts = np.unique(read[read > 0], return_counts=True)
        assert (counts == 1).all()
        assert len(tokens.train) - len(read) < 16
        assert len(kinds) >= len(tokens.train) - 4 - 16
        starts.add(int(read[1]) % 16)
    assert len(starts) > 2  # cut elsewhere in each epoch


def test_documents_are_told_apart(tokens: TokenSet) -> None:
    batch = Batches(tokens, TOKENIZER.end, 400, 1, seed=0).batch_at(0)
    assert batch.documents is not None
    changes = batch.documents[0, 1:] != batch.documents[0, :-1]
    assert changes.equal(batch.tokens[0, 1:] == TOKENIZER.end)
    assert Batches(made_of([900]), 0, 4, 1, seed=0).batch_at(1).documents is None


def test_packed_documents_never_see_each_other() -> None:
    """From the batches to the model: other text in one document changes nothing in the next one."""
    config = ReformerConfig(vocab_size=64, d_model=16, n_layers=2, n_heads=2, d_head=8, d_ff=16)
    torch.manual_seed(0)
    model = ReformerLM(config).eval()
    for parameter in model.parameters():  # as trained: at first, layers add nothing
        torch.nn.init.normal_(parameter, std=0.3)
    batch = Batches(made_of([20, 12, 20, 11]), 0, 62, 1, seed=3).batch_at(0)
    assert batch.documents is not None
    mine = batch.documents[0] == batch.documents[0].max() - 1
    other = torch.where(mine | (batch.tokens == 0), batch.tokens, 63 - batch.tokens)
    assert not other.equal(batch.tokens)
    with torch.no_grad():
        apart = [model(x, batch.documents)[0, mine] for x in (batch.tokens, other)]
        packed = [model(x)[0, mine] for x in (batch.tokens, other)]
    assert apart[0].equal(apart[1])
    assert not packed[0].allclose(packed[1])


def test_a_short_corpus_is_refused_with_numbers(tokens: TokenSet) -> None:
    with pytest.raises(UserError, match=r"has 4\d\d training tokens, shorter than one context of 5,000; .*context="):
        Batches(tokens, TOKENIZER.end, 5000, 1, seed=0)


def test_held_out_windows_follow_their_own_document(folder: Path, tokens: TokenSet) -> None:
    windows = list(held_out_windows(tokens, 24))
    assert [Path(w.name).stem for w in windows] == ["a", "b"]
    for window, text in zip(windows, TEXTS.values(), strict=False):
        found = TOKENIZER.decode(window.prefix.numpy()) + TOKENIZER.decode(window.scored.numpy())
        assert text.endswith(found)
        assert len(window.prefix) == 24


def test_a_validation_looks_at_some_windows_spread_evenly(tmp_path: Path) -> None:
    """Sixteen tokens of each of a thousand documents would say little; and all of them would take hours."""
    rows = [json.dumps({"text": f"{n:04} " * 100}) for n in range(3000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    windows = held_out_windows(tokens_of([tmp_path / "rows.jsonl"], TOKENIZER, tmp_path / "t"), 64)
    assert len(windows) == 300
    some = windows.some(16_384)
    assert 16 <= len(some) <= 32
    places = [int(w.name.rpartition(":")[2]) for w in some]
    assert np.diff(places).max() == np.diff(places).min()
    assert windows.some(10**9) is windows
    assert [w.name for w in windows[3:9:2][1:]] == [windows[5].name, windows[7].name]
