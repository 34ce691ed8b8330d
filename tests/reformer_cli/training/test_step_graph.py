"""A step that is replayed computes what it computes as written (training/step_graph.py), as far as that needs no GPU.

Guards against a graph that goes on reading the batch it was captured with, that is replayed for batches of another
shape, or whose refusal ends a run or is told at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from builders.models import small
from torch import Tensor

from reformer_cli.config.schema import TrainConfig
from reformer_cli.data.batches import Batch
from reformer_cli.training import step_graph
from reformer_cli.training.distributed import World
from reformer_cli.training.gradients import Gradients, LoadedBatch
from reformer_cli.training.state import TrainState
from reformer_cli.training.step_graph import WARMUP, GraphedStep

CPU = torch.device("cpu")


class Recorder:
    """Captures as a GPU does, by the same addresses: a replay does the work once more and copies what it finds."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, work: Callable[[], Any], pool: Any) -> tuple[Any, Callable[[], None]]:
        self.captured += 1
        found = work()

        def replay() -> None:
            self.replayed += 1
            again = work()
            if found is not None:
                found.copy_(again)

        return found, replay


def test_a_replay_reads_the_batch_at_hand() -> None:
    record, left = Recorder(), [torch.zeros(1)]
    step = GraphedStep(lambda x, y: x.sum() + (0 if y is None else y.sum()), lambda: left, CPU, record)
    for n in range(WARMUP + 4):
        found, held = step(torch.full((3,), float(n)), None)
        assert float(found) == 3 * n
        assert held is left
    assert (record.captured, record.replayed) == (1, 3)


def test_each_kind_of_step_has_an_update_of_its_own() -> None:
    """An optimiser captured with the gradients of batches of one kind would go on using those where batches of the
    other kind take turns."""
    record, used = Recorder(), list[int]()
    step = GraphedStep(lambda x, y: x.sum(), list, CPU, record)
    for n in range(2 * WARMUP + 8):
        step(torch.ones(3), torch.ones(1) if n % 2 else None)
        step.then(lambda kind=n % 2: used.append(kind))  # which a replay does with the kind that it was captured with
        assert (len(used), used[-1]) == (n + 1, n % 2)
    assert (record.captured, record.replayed) == (4, 6 + 6)


def test_an_update_that_cannot_be_captured_is_done_as_written() -> None:
    record, used = Recorder(), list[int]()

    def capture(work: Callable[[], Any], pool: Any) -> Any:
        if record.captured:
            raise RuntimeError("operation not permitted when stream is capturing")
        return record(work, pool)

    step = GraphedStep(lambda x: x.sum(), list, CPU, capture)
    for n in range(WARMUP + 3):
        step(torch.ones(3))
        step.then(lambda n=n: used.append(n))
    assert used == list(range(WARMUP + 3))
    assert record.replayed == 2


def test_another_shape_is_captured_anew() -> None:
    record = Recorder()
    step = GraphedStep(lambda x: x.sum(), list, CPU, record)
    for length in (3, 5, 3):
        for _ in range(WARMUP + 2):
            assert float(step(torch.ones(length))[0]) == length
    assert record.captured == 3


def test_batches_with_and_without_documents_take_turns() -> None:
    """Each was taken for a new shape, ran as written and was captured anew: half of an H200's steps took three times as
    long, wherever some documents end within a context."""
    record = Recorder()
    step = GraphedStep(lambda x, y: x.sum() + (0 if y is None else y.sum()), list, CPU, record)
    for n in range(2 * WARMUP + 6):
        y = torch.full((2,), float(n)) if n % 2 else None
        assert float(step(torch.ones(3), y)[0]) == 3 + (2 * n if n % 2 else 0)
    assert (record.captured, record.replayed) == (2, 4)


def test_where_memory_is_short_what_was_captured_gives_way() -> None:
    """A large model's graph holds most of a card; a step of the other kind beside it would have ended the run."""
    step = GraphedStep(lambda x, y: x.sum(), list, CPU, Recorder())
    for _ in range(WARMUP + 2):
        step(torch.ones(3), None)

    def work(x: Tensor, y: Tensor | None) -> Tensor:
        if step.captured:
            raise torch.OutOfMemoryError("no room")
        return x.sum()

    step.work = work
    assert float(step(torch.ones(3), torch.ones(3))[0]) == 3
    assert not step.captured


def test_what_cannot_be_captured_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(step_graph, "warn", said.append)

    def refuses(work: Callable[[], Any], pool: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    step = GraphedStep(lambda x: x.sum(), list, CPU, refuses)
    for n in range(WARMUP + 5):
        assert float(step(torch.full((2,), float(n)))[0]) == 2 * n
    assert said == ["training goes on without a CUDA graph, slower: operation not permitted when stream is capturing"]


def gradients_of(in_one: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Tensor]]:
    monkeypatch.setattr(Gradients, "in_one", in_one)
    model = small(torch.float32).train()
    config = TrainConfig(steps=1, precision="float32")
    tokens = torch.randint(50, (2, 41), generator=torch.Generator().manual_seed(0))
    read = LoadedBatch(Batch(tokens[:, :-1], tokens[:, 1:], None), 80.0, 80)
    found = Gradients(model, config, World(0, 1, "cpu")).of(read, TrainState())
    return found, [p.grad for p in model.parameters() if p.grad is not None]


def test_a_step_in_one_piece_is_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    one, parts = (gradients_of(in_one, monkeypatch) for in_one in (True, False))
    assert one[0] == parts[0]
    assert all(torch.equal(a, b) for a, b in zip(one[1], parts[1], strict=True))
