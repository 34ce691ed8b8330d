"""A run's model as plain named tensors, with the config they go with: what docs/convert.md names one by one."""

from __future__ import annotations

from pathlib import Path

import torch
from reformer import ReformerLM
from reformer.checkpoint import write_config

from reformer_cli.runs.run import TOKENIZER
from reformer_cli.tokenizers.base import Tokenizer
from reformer_cli.utils.files import write_file

STATE_DICT = "state_dict.pt"


def write_safetensors(model: ReformerLM, tokenizer: Tokenizer, folder: Path, int8: bool = False) -> None:
    """model.safetensors, config.yaml, tokenizer.model: what ReformerLM.from_pretrained reads, and `--run`."""
    model.save_pretrained(folder, int8)
    write_file(folder / TOKENIZER, tokenizer.serialise())


def write_state_dict(model: ReformerLM, tokenizer: Tokenizer, folder: Path) -> None:
    """state_dict.pt, for programs that know torch alone: torch.load(..., weights_only=True) reads it."""
    torch.save({name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}, folder / STATE_DICT)
    write_config(model.config, folder)
    write_file(folder / TOKENIZER, tokenizer.serialise())
