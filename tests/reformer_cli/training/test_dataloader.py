"""What is read when: contexts that grow, batches made ahead."""

from __future__ import annotations

import threading

import pytest
import torch

from reformer_cli.config.schema import DataConfig, TrainConfig
from reformer_cli.training.dataloader import DataLoader, Prefetcher, Stage, stages_of


class Counted:
    """Batches that say where they come from."""

    def __init__(self, stage: Stage, n: int) -> None:
        self.stage, self.n = stage, n

    def batch_at(self, step: int):
        return (self.n, self.stage.context, step)

    def epoch_of(self, step: int) -> float:
        return step / 10


def test_contexts_grow_and_steps_keep_their_tokens() -> None:
    train = TrainConfig(batch_size=2, context_schedule=((64, 0.25), (128, 0.25)))
    stages = stages_of(DataConfig(context=512), train)
    assert [(s.start, s.context) for s in stages] == [(0.0, 64), (0.25, 128), (0.5, 512)]
    assert {s.context * s.batch for s in stages} == {1024}
    assert stages_of(DataConfig(context=512), TrainConfig(batch_size=2)) == [Stage(0.0, 512, 2)]


def test_each_stage_reads_from_its_own_beginning() -> None:
    loader = DataLoader([Stage(0, 64, 8), Stage(0.3, 128, 4), Stage(0.5, 512, 1)], Counted)
    begun: list[int] = []
    read = []
    for step in range(10):
        loader.advance(begun, step, step / 10)
        read.append(loader.batch_at(step, begun))
    assert begun == [0, 3, 5]
    assert read[:4] == [(0, 64, 0), (0, 64, 1), (0, 64, 2), (1, 128, 0)]
    assert read[-1] == (2, 512, 4)
    assert loader.epochs(10, begun) == pytest.approx(1.0)


def test_a_resumed_run_stays_in_its_stage() -> None:
    """Stages begin by the clock in a run by minutes: where they began is kept, not found again."""
    loader = DataLoader([Stage(0, 64, 8), Stage(0.5, 512, 1)], Counted)
    begun = [0, 7]
    assert not loader.advance(begun, 9, 0.4)  # the clock of a longer run says otherwise
    assert loader.batch_at(9, begun) == (1, 512, 2)


def test_ahead_gives_what_is_asked_for() -> None:
    made: list[tuple[int, tuple[int, ...]]] = []

    def make(step: int, begun: tuple[int, ...]):
        made.append((step, begun))
        return step, begun, threading.current_thread().name

    ahead = Prefetcher(make)
    assert ahead.take(0, [0])[:2] == (0, (0,))
    assert ahead.take(1, [0])[:2] == (1, (0,))
    assert ahead.take(2, [0, 2])[:2] == (2, (0, 2))  # another stage than was foreseen
    assert "batches" in ahead.take(3, [0, 2])[2]
    ahead.close()
    assert made[:2] == [(0, (0,)), (1, (0,))]
    assert made.count((1, (0,))) == 1  # what was made ahead was used


def test_what_goes_wrong_in_the_thread_is_raised() -> None:
    def make(step: int, begun: tuple[int, ...]) -> torch.Tensor:
        raise OSError("the shard is gone")

    with pytest.raises(OSError, match="shard is gone"):
        Prefetcher(make).take(0, [0])
