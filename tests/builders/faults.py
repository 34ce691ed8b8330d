"""What tests of faults share."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from reformer_cli.runs.checkpoints import TENSORS


def newest(run: Path) -> Path:
    return max((run / "checkpoints").glob("step-*"))


def tensors(run: Path) -> dict[str, torch.Tensor]:
    # Copies: what safetensors gives lies in the file itself, which tests cut short.
    return {name: t.clone() for name, t in load_file(newest(run) / TENSORS).items()}
