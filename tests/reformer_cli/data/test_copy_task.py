"""The copy task as a corpus."""

from __future__ import annotations

import pytest
import torch

from reformer_cli.config.schema import DataConfig
from reformer_cli.data import sources
from reformer_cli.data.batches import CopyTaskBatches, ValidationWindows
from reformer_cli.data.copy_task import MOST_SEQUENCES, UNSCORED, CopyTask, find
from reformer_cli.data.dataset import absolute, open_dataset
from reformer_cli.utils.errors import UserError

SOURCE = CopyTask(5, 9)


def test_a_batch_is_0w0w_and_only_the_second_w_is_scored() -> None:
    batch = CopyTaskBatches(SOURCE, 12, 3, seed=0).batch_at(0)
    assert batch.tokens.shape == batch.targets.shape == (3, 12)
    for row, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        assert row[0] == row[6] == 0
        assert row[1:6] == row[7:]
        assert all(1 <= symbol <= 9 for symbol in row[1:6])
        assert targets == [UNSCORED] * 6 + row[7:] + [UNSCORED]
    assert batch.documents is None


def test_steps_repeat_and_differ_and_rows_do_not_depend_on_the_batch() -> None:
    # A resumed run, or one on other processes, must read what it would have read.
    one, other = CopyTaskBatches(SOURCE, 12, 4, seed=0), CopyTaskBatches(SOURCE, 12, 2, seed=0)
    assert torch.equal(one.batch_at(3).tokens, one.batch_at(3).tokens)
    assert not torch.equal(one.batch_at(3).tokens, one.batch_at(4).tokens)
    assert torch.equal(one.batch_at(1).tokens, torch.cat([other.batch_at(n).tokens for n in (2, 3)]))
    assert not torch.equal(one.batch_at(0).tokens, CopyTaskBatches(SOURCE, 12, 4, seed=1).batch_at(0).tokens)


def test_held_out_windows_score_the_second_w() -> None:
    windows = list(ValidationWindows(SOURCE.token_files(), 12))
    assert len(windows) == MOST_SEQUENCES
    for n, window in enumerate(windows):
        row = SOURCE.validation(n).tolist()
        assert window.prefix.tolist() == row[:7]
        assert window.scored.tolist() == row[7:]
        assert window.text.bytes == 5
    training = CopyTaskBatches(SOURCE, 12, 64, seed=0).batch_at(0).tokens.tolist()
    assert [w.prefix.tolist()[:6] for w in windows] != [row[:6] for row in training]


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["copy:511"], "not copy:LENGTH:SYMBOLS"),
        (["copy:a:b"], "not copy:LENGTH:SYMBOLS"),
        (["copy:5:256"], "use 1 to 2\\^24 of 2 to 255"),
        (["copy:0:9"], "use 1 to 2\\^24"),
        (["a.txt", "copy:5:9"], "stands alone, not among 2"),
    ],
)
def test_mistakes(specs: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find(specs)
    with pytest.raises(UserError, match="sequences of 12 tokens"):
        CopyTaskBatches(SOURCE, 16, 1, 0)


def test_other_corpora_pass_through() -> None:
    assert find(["a.txt", "-"]) is None
    assert absolute(["-", "python-reference"]) == sources.absolute(["-", "python-reference"])
    assert absolute(["copy:5:9"]) == ("copy:5:9",)
    dataset = open_dataset(DataConfig(corpus=("copy:5:9",)), print)
    assert dataset.digest == "copy:5:9"
