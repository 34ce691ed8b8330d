"""Settings that are each good and do not go together, and what follows from which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LARGEST_BATCH = 2**20
LARGEST_SIDE = 4096  # pixels of an image
WSD_DECAY = 0.2  # share of a run, at its end, in which the step size falls
VALUES_PER_PIXEL = 3  # red, green, blue


def conflicts(parts: Mapping[str, Any]) -> list[str]:
    """Each as one sentence with its numbers. parts: the sections that are good by themselves."""
    faults: list[str] = []
    data, model, train = (parts.get(name) for name in ("data", "model", "train"))
    if data is not None and model is not None:
        try:
            model.check_length(data.context)
        except ValueError as error:
            shape = model.axial_shape
            larger = [-(-data.context // math.prod(shape[1:])), *shape[1:]]
            faults.append(
                f"data.context: {error}, model.axial_shape {list(shape)}; lower it, do without (model.positions: "
                f"none), or let the first axis grow (model.axial_shape: {larger})"
            )
    if train is not None:
        faults += _of_training(train)
    if data is not None and train is not None:
        faults += _of_contexts(train.context_schedule, data.context, train.batch_size)
    if data is not None and data.image_size is not None:
        measured = parts.get("eval")
        given = {
            "train.context_schedule": train and train.context_schedule,
            "eval.tests_every": measured and measured.tests_every,
        }
        faults += [f"{n} is for text, data.image_size for images; leave one out" for n, value in given.items() if value]
    return faults


def _of_training(train: Any) -> list[str]:
    faults = []
    if train.steps and train.minutes:
        faults.append(f"train.steps {train.steps} and train.minutes {train.minutes:g} exclude each other; give one")
    if train.batch_size % train.accumulation_steps:
        faults.append(
            f"train.batch_size {train.batch_size} cannot be cut into train.accumulation_steps "
            f"{train.accumulation_steps} parts of the same size"
        )
    if train.schedule == "wsd" and train.warmup + WSD_DECAY > 1:
        faults.append(f"train.warmup {train.warmup:g} leaves less than the {WSD_DECAY:g} in which schedule wsd falls")
    return faults


def _of_contexts(schedule: tuple[tuple[int, float], ...], context: int, batch: int) -> list[str]:
    faults = []
    contexts = [c for c, _ in schedule]
    if contexts != sorted(set(contexts)):
        faults.append(f"train.context_schedule: contexts {contexts} must grow")
    for shorter in contexts:
        if shorter >= context or context % shorter:
            faults.append(
                f"train.context_schedule: {shorter} must be below data.context {context} and divide it, "
                "so that a step keeps its tokens"
            )
        elif batch * context // shorter > LARGEST_BATCH:
            faults.append(
                f"train.context_schedule: {shorter} would make batches of {batch * context // shorter:,} contexts, "
                f"more than {LARGEST_BATCH:,}"
            )
    if (share := sum(s for _, s in schedule)) >= 1:
        faults.append(f"train.context_schedule: shares add up to {share:g}; leave some of the run to data.context")
    return faults


class Unchosen(int):
    """A context that every grid of positions has, where the user names none: one is chosen once the text is known."""


def complete_image_settings(data: dict[str, Any]) -> list[str]:
    """What is wrong with data.* where the corpus is images; fills in the context, which follows from their size."""
    size = data.get("image_size")
    if not isinstance(size, (list, tuple)) or not all(type(n) is int for n in size) or len(size) != 2:
        return []  # text, or of a wrong type, which is told elsewhere
    if min(size) < 1 or max(size) > LARGEST_SIDE:
        return [f"data.image_size {list(size)}: both from 1 to {LARGEST_SIDE:,}"]
    values = VALUES_PER_PIXEL * size[0] * size[1]
    faults = []
    if isinstance(data.get("context"), Unchosen):
        data["context"] = values
    if data.setdefault("context", values) != values:
        faults.append(
            f"data.context {data['context']} is not {values}, the values of an image of {list(size)}; leave it out"
        )
    if (kind := data.get("tokenizer", "auto")) in ("unigram", "bpe"):
        faults.append(f"data.tokenizer {kind} is for text; of an image each byte is a token")
    if data.get("vocab_size") is not None:
        faults.append(
            f"data.vocab_size {data['vocab_size']}: images have 256 bytes and a token that begins one; leave it out"
        )
    return faults
