"""What each step reads: short contexts first where the schedule says so, and each batch made before it is needed."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from reformer_cli.config.schema import DataConfig, RunConfig, TrainConfig
from reformer_cli.data.batches import Batch, Batches, CopyTaskBatches
from reformer_cli.data.copy_task import find
from reformer_cli.data.dataset import Dataset

T = TypeVar("T")
Source = Batches | CopyTaskBatches  # pure functions of the step


@dataclass(frozen=True)
class Stage:
    """A part of the run with one context: from which share of the run, and with how many contexts a step."""

    start: float
    context: int
    batch: int


def stages_of(data: DataConfig, train: TrainConfig) -> list[Stage]:
    """In order; the last has the full context. Every step has the same number of tokens."""
    found, start = [], 0.0
    for context, share in train.context_schedule:
        found.append(Stage(start, context, train.batch_size * data.context // context))
        start = math.fsum((start, share))
    return [*found, Stage(start, data.context, train.batch_size)]


class DataLoader:
    """The batches of a run's stages, each made when it begins. make: (stage, its number) -> its batches."""

    def __init__(self, stages: Sequence[Stage], make: Callable[[Stage, int], Source]) -> None:
        self.stages, self._make = stages, make
        self._made: dict[int, Source] = {}

    def check(self) -> None:
        """Raises UserError for a text too short for a stage."""
        for n in range(len(self.stages)):
            self._batches(n)

    def advance(self, begun: list[int], step: int, share: float) -> bool:
        """Note in `begun`, the first step of each stage, what begins at this step; whether anything does."""
        before = len(begun)
        while len(begun) < len(self.stages) and self.stages[len(begun)].start <= share:
            begun.append(step)
        return len(begun) > before

    def stage(self, begun: Sequence[int]) -> Stage:
        """The one that the latest step is in."""
        return self.stages[len(begun) - 1]

    def batch_at(self, step: int, begun: Sequence[int]) -> Batch:
        """What a step of the latest stage reads."""
        return self._batches(len(begun) - 1).batch_at(step - begun[-1])

    def epochs(self, step: int, begun: Sequence[int]) -> float:
        """How often the text has been read before this step; none of it before the first stage has begun."""
        ends = [*begun[1:], step] if begun else []
        return sum(
            self._batches(n).epoch_of(end - start) for n, (start, end) in enumerate(zip(begun, ends, strict=True))
        )

    def _batches(self, n: int) -> Source:
        if n not in self._made:
            self._made[n] = self._make(self.stages[n], n)
        return self._made[n]


def _batches_of(config: RunConfig, dataset: Dataset) -> Source:
    """What the steps of a run read. Raises UserError for a text that is too short."""
    data, train = config.data, config.train
    if (source := find(data.corpus)) is not None:
        return CopyTaskBatches(source, data.context, train.batch_size, config.model.seed)
    return Batches(
        dataset.tokens, dataset.tokenizer.end, data.context, train.batch_size, config.model.seed,
        whole=data.image_size is not None,
    )  # fmt: skip


def data_loader(config: RunConfig, dataset: Dataset) -> DataLoader:
    """The batches of all contexts that the run goes through."""
    data, train = config.data, config.train
    stages = stages_of(data, train)

    def make(stage: Stage, n: int) -> Source:
        # Another order in each stage: with the same one a later stage would begin with what an earlier one began with.
        own: dict[str, Any] = {"batch_size": stage.batch, "context_schedule": ()}
        return _batches_of(
            dataclasses.replace(
                config,
                data=dataclasses.replace(data, context=stage.context),
                model=dataclasses.replace(config.model, seed=(config.model.seed + n) % 2**63),
                train=dataclasses.replace(train, **own),
            ),
            dataset,
        )

    return DataLoader(stages, make)


class Prefetcher(Generic[T]):
    """Makes what is needed next in a thread of its own. make: must give the same for the same key at any time."""

    def __init__(self, make: Callable[[int, tuple[int, ...]], T]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "batches")
        self._next: tuple[tuple[int, tuple[int, ...]], Future[T]] | None = None
        self.waited = 0.0  # seconds, for the latest

    def take(self, step: int, begun: Sequence[int]) -> T:
        """The batch of a step; that of the one after it is begun."""
        key, before = (step, tuple(begun)), time.perf_counter()
        if self._next is None or self._next[0] != key:
            self._next = key, self._thread.submit(self._make, *key)
        found = self._next[1].result()
        self.waited = time.perf_counter() - before
        following = (step + 1, key[1])
        self._next = following, self._thread.submit(self._make, *following)
        return found

    def close(self) -> None:
        """Forget what is under way."""
        self._thread.shutdown(wait=False, cancel_futures=True)
