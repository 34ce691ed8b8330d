"""Which tokens a step reads, and a validation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.reading import tokens_of
from reformer import ReformerConfig, ReformerLM

from reformer_cli.data.batches import Batches, ValidationWindows, shuffled
from reformer_cli.data.shards import TokenFiles, ValidationSpans
from reformer_cli.data.tokenize import SPAN_ROW
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
def tokens(folder: Path, tmp_path: Path) -> TokenFiles:
    return tokens_of([folder], TOKENIZER, tmp_path / "t")


def made_of(documents: list[int]) -> TokenFiles:
    """Documents of so many tokens; each but `end` occurs once."""
    train = np.arange(1, sum(documents) + 1, dtype=np.int64)
    train[np.cumsum([0, *documents[:-1]])] = 0
    empty = ValidationSpans(np.zeros(0, SPAN_ROW), np.zeros(0, np.uint8))
    return TokenFiles(train, train[:0], 0, empty, len(documents), len(train))


def test_batches_are_a_pure_function_of_seed_and_step(tokens: TokenFiles) -> None:
    a, b = (Batches(tokens, TOKENIZER.end, 16, 3, seed=1) for _ in range(2))
    for step in (0, 5, 40):
        assert a.batch_at(step).tokens.equal(b.batch_at(step).tokens)
    assert not a.batch_at(0).tokens.equal(Batches(tokens, TOKENIZER.end, 16, 3, seed=2).batch_at(0).tokens)
    batch = a.batch_at(3)
    assert batch.tokens[:, 1:].equal(batch.targets[:, :-1])


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


def test_documents_are_told_apart(tokens: TokenFiles) -> None:
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


def test_a_short_corpus_is_refused_with_numbers(tokens: TokenFiles) -> None:
    with pytest.raises(UserError, match=r"has 4\d\d training tokens, shorter than one context of 5,000; .*context="):
        Batches(tokens, TOKENIZER.end, 5000, 1, seed=0)


def test_held_out_windows_follow_their_own_document(folder: Path, tokens: TokenFiles) -> None:
    windows = list(ValidationWindows(tokens, 24))
    assert [Path(w.name).stem for w in windows] == ["a", "b"]
    for window, text in zip(windows, TEXTS.values(), strict=False):
        found = TOKENIZER.decode(window.prefix.numpy()) + TOKENIZER.decode(window.scored.numpy())
        assert text.endswith(found)
        assert len(window.prefix) == 24


def test_a_validation_looks_at_some_windows_spread_evenly(tmp_path: Path) -> None:
    """Sixteen tokens of each of a thousand documents would say little; and all of them would take hours."""
    rows = [json.dumps({"text": f"{n:04} " * 100}) for n in range(3000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    windows = ValidationWindows(tokens_of([tmp_path / "rows.jsonl"], TOKENIZER, tmp_path / "t"), 64)
    assert len(windows) == 300
    some = windows.some(16_384)
    assert 16 <= len(some) <= 32
    places = [int(w.name.rpartition(":")[2]) for w in some]
    assert np.diff(places).max() == np.diff(places).min()
    assert windows.some(10**9) is windows
    assert [w.name for w in windows[3:9:2][1:]] == [windows[5].name, windows[7].name]
