"""How far a run has got, and the states of random generators: what a checkpoint holds beside its tensors."""

from __future__ import annotations

import base64
import dataclasses
import random
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from reformer_cli.training.mixed_precision import FIRST_SCALE

Count = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(config=ConfigDict(extra="forbid", strict=True))
class TrainState:
    """Checked when it is read back, since a run directory may come from anyone.

    best: lowest held-out bits/byte; best_step: where it was found; evals_without_best: validations since; looks: times
    that the run was looked at, looking: seconds of it, looked_at: share of the run then done, look_tokens: that a
    validation works on; bad_steps: skipped in a row, skipped: in all; stages: the first step of each context of the
    schedule; loss_mean: loss as the last steps had it, loss_var: its variance, watched: steps that went into both;
    scale: of the loss while products are float16, steady: steps since it moved.
    """

    step: Count = 0
    seconds: float = Field(default=0.0, ge=0)
    tokens: Count = 0
    best: float | None = None
    best_step: Count | None = None
    looks: Count = 0
    looking: float = Field(default=0.0, ge=0)
    looked_at: float = Field(default=0.0, ge=0, le=1)
    look_tokens: Count = 0
    evals_without_best: Count = 0
    bad_steps: Count = 0
    skipped: Count = 0
    spikes: Count = 0
    loss_mean: float = 0.0
    loss_var: float = Field(default=0.0, ge=0)
    watched: Count = 0
    scale: float = Field(default=FIRST_SCALE, ge=1)
    steady: Count = 0
    stages: list[Count] = Field(default_factory=list, max_length=64)


def train_state_of(values: dict[str, Any]) -> TrainState:
    """What `dataclasses.asdict` made plain. Raises ValueError for anything else."""
    try:
        return TrainState(**values)
    except TypeError as error:
        raise ValueError(str(error)) from None


def plain(progress: TrainState) -> dict[str, Any]:
    """As JSON can hold it."""
    return dataclasses.asdict(progress)


def random_states() -> dict[str, Any]:
    """Of every global generator of this process, as JSON can hold it.

    Training draws from none of them (text order, dropout and samples have seeds of their own); what else runs in the
    process may.
    """
    state: Any = np.random.get_state(legacy=True)
    _, keys, place, has_gauss, gauss = state
    found: dict[str, Any] = {"python": random.getstate(), "torch": _text(torch.get_rng_state())}
    found["numpy"] = [keys.tolist(), place, has_gauss, gauss]
    if torch.cuda.is_available():
        found["cuda"] = [_text(state) for state in torch.cuda.get_rng_state_all()]
    return found


def seed_generators(seed: int) -> None:
    """Where a run begins: what draws from the global generators is then the same in each."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def restore_random_states(states: dict[str, Any]) -> None:
    """Set them as `random_states` found them. Raises ValueError, TypeError, KeyError or RuntimeError for others."""
    version, values, gauss = states["python"]
    random.setstate((version, tuple(values), gauss))
    keys, place, has_gauss, cached = states["numpy"]
    np.random.set_state(("MT19937", np.array(keys, np.uint32), place, has_gauss, cached))
    torch.set_rng_state(_state(states["torch"]))
    saved = states.get("cuda", [])
    if torch.cuda.is_available() and len(saved) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_state(text) for text in saved])


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _state(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
