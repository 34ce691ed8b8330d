"""What the steps of a run read, by its config: batches of text, or of the duplication task; contexts that grow."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reformer_cli.config.schema import RunConfig
    from reformer_cli.data.batches import Batches, CopyTaskBatches
    from reformer_cli.data.dataset import Dataset
    from reformer_cli.training.dataloader import Reading, Stage


def batches_of(config: RunConfig, dataset: Dataset) -> Batches | CopyTaskBatches:
    """What the steps of a run read. Raises UserError for a text that is too short."""
    from reformer_cli.data.batches import Batches, CopyTaskBatches
    from reformer_cli.data.copy_task import find

    data, train = config.data, config.train
    if (source := find(data.corpus)) is not None:
        return CopyTaskBatches(source, data.context, train.batch_size, config.model.seed)
    return Batches(
        dataset.tokens, dataset.tokenizer.end, data.context, train.batch_size, config.model.seed,
        whole=data.image_size is not None,
    )  # fmt: skip


def reading_for(config: RunConfig, dataset: Dataset) -> Reading:
    """The batches of all contexts that the run goes through."""
    from reformer_cli.training.dataloader import Reading, stages_of

    data, train = config.data, config.train
    stages = stages_of(data, train)

    def make(stage: Stage, n: int) -> Batches | CopyTaskBatches:
        # Another order in each stage: with the same one a later stage would begin with what an earlier one began with.
        own: dict[str, Any] = {"batch_size": stage.batch, "context_schedule": ()}
        return batches_of(
            dataclasses.replace(
                config,
                data=dataclasses.replace(data, context=stage.context),
                model=dataclasses.replace(config.model, seed=(config.model.seed + n) % 2**63),
                train=dataclasses.replace(train, **own),
            ),
            dataset,
        )

    return Reading(stages, make)
