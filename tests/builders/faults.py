"""What tests of faults share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reformer_cli.runs.checkpoints import TENSORS
from reformer_cli.training import trainer


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setattr(trainer, "SAVE_EVERY_MINUTES", 1e-7)
    monkeypatch.setattr(trainer, "SHARE", float("inf"))  # however long the one before took


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


def tensors(run: Path) -> dict[str, torch.Tensor]:
    # Copies: what safetensors gives lies in the file itself, which tests cut short.
    return {name: t.clone() for name, t in load_file(newest(run) / TENSORS).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
