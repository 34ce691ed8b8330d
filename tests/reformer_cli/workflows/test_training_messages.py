"""What a run tells of its time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reformer import ReformerConfig

from reformer_cli.config.schema import DataConfig, RunConfig, TrainConfig
from reformer_cli.data.shards import TokenFiles
from reformer_cli.training.state import TrainState
from reformer_cli.workflows.training_messages import nothing_left, of_other_times, off_forecast


def test_a_speed_that_is_off_is_told_with_what_comes_of_it() -> None:
    """The bug it guards against: "this CPU trains on about 10,000 tokens a second"; it trained on 1,250."""
    told = off_forecast(1250.0, 10_000.0, 40.0)
    assert told.startswith("88% slower than forecast: 1,200 tokens/s, not 10,000; in 40 minutes about 3,000,000 tokens")
    assert "faster" in off_forecast(1300.0, 1000.0, 1.0)
    assert off_forecast(1100.0, 1000.0, 1.0) == ""


def test_more_time_gives_more_and_less_less() -> None:
    empty = np.zeros(0, np.int64)
    tokens = TokenFiles(np.zeros(400_000, np.int64), empty, 0, [], 1, 1_100_000)
    model = ReformerConfig(vocab_size=1024, d_model=192, n_layers=4, n_heads=4, d_head=48)
    config = RunConfig(model=model, data=DataConfig(corpus=("novel.txt",)))
    told = of_other_times(1.6, TrainState(tokens=2_000_000), config, tokens)
    less, more = (float(part.strip(",").rstrip(",")) for part in told.replace(",", "").split() if part[0] == "1")
    assert more < 1.6 < less
    # The starter has read others: it gains less (of its runs nothing was told).
    told = of_other_times(1.6, TrainState(tokens=200_000), config, tokens, begun=True)
    assert told == "  half of the time would have given about 1.62, twice as much 1.58"
    ended = RunConfig(model=model, data=config.data, train=TrainConfig(max_epochs=5.0))  # as it has read the text
    assert of_other_times(1.6, TrainState(tokens=2_000_000), ended, tokens).endswith("twice as much 1.60")


@pytest.mark.parametrize(
    ("train", "told"),
    [
        (TrainConfig(minutes=5.0), "--minutes 7.2"),
        (TrainConfig(steps=20), "--steps 40"),
        (TrainConfig(minutes=5.0, max_epochs=3), "max_epochs=null"),
    ],
)
def test_a_run_that_has_had_its_time_gives_the_line_for_more(train: TrainConfig, told: str) -> None:
    progress = TrainState(step=20, seconds=312.0)
    assert told in nothing_left(Path("runs/novel"), progress, train, 3.0)
