"""The starter: a run folder that comes with the program, a small model that has read English novels."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

NAME = "starter"
PACKAGE = Path(str(files("reformer_cli")))
FOLDERS = (PACKAGE.parent / "models" / NAME, PACKAGE / NAME)  # of a checkout, of an installed program


def starter() -> Path | None:
    """Its folder; None where this copy of the program came without its weights."""
    return next((folder for folder in FOLDERS if (folder / "model.safetensors").is_file()), None)
